"""Answers from a server of others. What was paid for is kept, whatever happens to this process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from synthdiv.generate.answer import LOG, ROWS, Answer, Answers, Request, Shard
from synthdiv.generate.client import Ask, Client, Reply
from synthdiv.generate.endpoint import server_of
from synthdiv.generate.protocol import usage_of
from synthdiv.generate.spend import Spending


def answers(shard: Shard) -> Answers:
    """Lists of what arrived, in any order. A resume keeps all whole rows and asks for the others."""
    prompts, hosted = shard.inputs[0].stage, shard.inputs[1].stage
    runtime = shard.run.runtime
    server = server_of(hosted.server, runtime)
    kept = kept_rows(shard)
    budgets = (runtime.budget_usd, runtime.budget_tokens)
    with Spending(Path(runtime.outputs), *budgets, hosted.price_in, hosted.price_out) as spending:
        client = Client(server, hosted.id, "chat", spending)
        asks = (
            asked(request, hosted.id, prompts.system, shard.stage)
            for request in shard.requests
            if (request.id, request.sample) not in kept
        )
        yield from arrived(shard, client, asks, partial(answer, spending=spending))


def kept_rows(shard: Shard) -> set[tuple[str, int]]:
    """Prompt and sample of each row that an earlier builder left whole. They count in the facts."""
    kept = {(row["id"], row["sample"]) for row in whole_lines(shard.out / ROWS)}
    logs = {(line["id"], line["sample"]): line for line in whole_lines(shard.out / LOG)}
    shard.kept = len(kept)
    for name in kept & logs.keys():
        count(shard.facts, logs[name])
    return kept


def arrived(shard: Shard, client: Client, asks: Iterable[Ask], answer: Callable[[Reply], Answer]) -> Answers:
    """Lists of what `client` was answered to `asks`, each about a `Request`; what it took goes to the facts."""
    with contextlib.closing(client.ask(asks, lambda: shard.stopping)) as chunks:
        for chunk in chunks:
            found = [(ask.about, answer(reply)) for ask, reply in chunk]
            for _, one in found:
                count(shard.facts, one.log)
            yield found
    shard.facts |= {"requests": client.requests, "retries": dict(client.retries)}
    shard.facts |= {f"{name}_refused": True for name in sorted(client.endpoint.refused)}


def asked(request: Request, model: str, system: str | None, stage: Any) -> Ask:
    """A chat of one turn. The seed is the row's own, 31 bits because some servers take no more."""
    sampling = stage.sampling
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": request.prompt})
    payload = {
        "model": model,
        "messages": messages,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": int(request.stream, 16) % 2**31,
    }
    if stage.top_logprobs:
        payload |= {"logprobs": True, "top_logprobs": stage.top_logprobs}
    size = sum(len(message["content"].encode()) for message in messages)
    return Ask(request, request.id, payload, size, sampling.max_new_tokens)


def answer(reply: Reply, spending: Spending) -> Answer:
    """The text and how it ended; a refusal has no text, and its words are in the log."""
    data = reply.data
    prompt, completion = usage_of(data) or (-1, -1)
    log: dict[str, Any] = {
        "at": reply.at,
        "seconds": reply.seconds,
        "attempts": reply.attempts,
        "model": data.get("model"),
        "fingerprint": data.get("system_fingerprint"),
        "response_id": data.get("id"),
        "usage": {"prompt": prompt, "completion": completion},
    }
    usd = spending.usd(max(prompt, 0), max(completion, 0))
    if usd is not None:
        log["usd"] = usd
    if reply.refusal:
        return Answer("", "refusal", prompt, completion, log | {"refusal": reply.refusal})
    choice = data["choices"][0]
    text, refusal = choice["message"].get("content") or "", choice["message"].get("refusal")
    if choice.get("logprobs"):
        log["logprobs"] = choice["logprobs"].get("content")
    if refusal or choice["finish_reason"] == "content_filter":
        return Answer("", "refusal", prompt, completion, log | {"refusal": refusal or text or "content_filter"})
    return Answer(text, choice["finish_reason"], prompt, completion, log)


def count(facts: dict[str, Any], log: dict[str, Any]) -> None:
    """Add one answer to the totals of the shard, as far as its log has them."""
    for name, tokens in log.get("usage", {}).items():
        facts[f"{name}_tokens"] = facts.get(f"{name}_tokens", 0) + max(tokens, 0)
    if "usd" in log:
        facts["usd"] = facts.get("usd", 0.0) + log["usd"]
    for name, value in (("models", log.get("model")), ("fingerprints", log.get("fingerprint"))):
        if value:
            seen = facts.setdefault(name, {})
            seen[value] = seen.get(value, 0) + 1


def whole_lines(file: Path) -> list[dict[str, Any]]:
    """What an earlier builder left; a last line that was cut goes from the file."""
    data = file.read_bytes() if file.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(file, len(whole))
    return [json.loads(line) for line in whole.splitlines()]
