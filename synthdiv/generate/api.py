"""Answers from a server of others. What was paid for is kept, whatever happens to this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from synthdiv.core.types import SynthdivError
from synthdiv.generate.answer import LOG, ROWS, Answer, Answers, Request, Shard, append, lines
from synthdiv.generate.client import Ask, Client, Reply
from synthdiv.generate.endpoint import server_of
from synthdiv.generate.protocol import finish_of, usage_of
from synthdiv.generate.spend import Account, Spending, summed


def answers(shard: Shard) -> Answers:
    """Lists of what arrived, in any order. A resume keeps all whole rows and asks for the others."""
    prompts, hosted = shard.inputs["prompts"].stage, shard.inputs["model"].stage
    runtime = shard.run.runtime
    server = server_of(hosted.server, runtime)
    shard.facts["system_folded"] = 0
    kept = kept_rows(shard)
    budgets = (runtime.budget_usd, runtime.budget_tokens)
    with Spending(Path(runtime.outputs), *budgets, hosted.price_in, hosted.price_out) as spending:
        client = Client(server, hosted.id, "chat", spending)
        asks = (
            asked(request, hosted.id, prompts.system, shard.stage)
            for request in shard.requests
            if (request.id, request.sample) not in kept
        )
        yield from arrived(shard, client, asks, answer)


def kept_rows(shard: Shard) -> set[tuple[str, int]]:
    """Prompt and sample of each row that an earlier builder left whole. They count in the facts."""
    kept = {(row["id"], row["sample"]) for row in lines(shard.out / ROWS)}
    logs = {(line["id"], line["sample"]): line for line in lines(shard.out / LOG)}
    shard.kept = len(kept)
    for name in kept & logs.keys():
        count(shard.facts, logs[name])
    return kept


def arrived(shard: Shard, client: Client, asks: Iterable[Ask], answer: Callable[[Reply], Answer]) -> Answers:
    """Lists of what `client` was answered to `asks`, each about a `Request`. What it took goes to the log of each row,
    beside what it took in earlier sessions, and to the facts. A row asked in vain has a line in the log too."""
    earlier = {(line["id"], line["sample"]): took(line) for line in lines(shard.out / LOG)}

    def settled(one: Request, account: Account) -> dict[str, Any]:
        return summed(earlier.get((one.id, one.sample), {}), account.told(client.spending))

    def keep_account() -> None:
        said = [
            {"id": ask.about.id, "sample": ask.about.sample} | settled(ask.about, account)
            for ask, account in client.unanswered
        ]
        if said:
            with (shard.out / LOG).open("a", encoding="utf-8") as log:
                append(log, said)

    try:
        with contextlib.closing(client.ask(asks, lambda: shard.stopping)) as chunks:
            for chunk in chunks:
                found = [(ask.about, answer(reply)) for ask, reply in chunk]
                for (request, one), (_, reply) in zip(found, chunk, strict=True):
                    one.log.update(settled(request, reply.account))
                    count(shard.facts, one.log)
                yield found
    except SynthdivError:
        keep_account()
        raise
    keep_account()
    shard.facts |= {f"{name}_refused": True for name in sorted(client.endpoint.refused)}


def took(line: dict[str, Any]) -> dict[str, Any]:
    """What the attempts at a row took, of its line in the log."""
    return {name: line[name] for name in ("attempts", "retries", "usage", "usd", "unsure") if name in line}


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


def answer(reply: Reply) -> Answer:
    """The text and how it ended; a refusal has no text, and its words are in the log."""
    data = reply.data
    prompt, completion = usage_of(data) or (-1, -1)
    log: dict[str, Any] = {
        "at": reply.at,
        "seconds": reply.seconds,
        "model": data.get("model"),
        "fingerprint": data.get("system_fingerprint"),
        "response_id": data.get("id"),
    }
    if reply.folded:
        log["folded"] = True
    if reply.refusal:
        return Answer("", "refusal", prompt, completion, log | {"refusal": reply.refusal})
    choice = data["choices"][0]
    message = choice.get("message") or {}
    text, refusal = message.get("content") or "", message.get("refusal")
    if choice.get("logprobs"):
        log["logprobs"] = choice["logprobs"].get("content")
    finish = finish_of(choice)
    if refusal or finish == "refusal":
        return Answer("", "refusal", prompt, completion, log | {"refusal": refusal or text or choice["finish_reason"]})
    return Answer(text, finish, prompt, completion, log)


def count(facts: dict[str, Any], log: dict[str, Any]) -> None:
    """Add a row to the totals of the shard, by its log."""
    row: dict[str, Any] = {"requests": log["attempts"], "retries": log.get("retries", {})}
    usage = log.get("usage")
    row |= {f"{name}_tokens": tokens for name, tokens in usage.items()} if usage else {"without_usage": 1}
    row |= {name: log[name] for name in ("usd", "unsure") if name in log}
    row |= {"system_folded": 1} if log.get("folded") else {}
    row |= {f"{name}s": {str(log[name]): 1} for name in ("model", "fingerprint") if log.get(name)}
    facts.update(summed(facts, row))
