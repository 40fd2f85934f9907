"""Answers from a hosted model. Paid answers are kept even if this process is killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from synthdiv.core.types import SynthdivError
from synthdiv.generate.answer import LOG, ROWS, Answer, Answers, Request, Shard, append, lines
from synthdiv.generate.client import ApiRequest, Client, Reply
from synthdiv.generate.endpoint import server_of
from synthdiv.generate.protocol import finish_reason, token_usage
from synthdiv.generate.spend import Account, Spending, add_counts


def answers(shard: Shard) -> Answers:
    """Yield lists of answers as they arrive. A resumed shard keeps all complete rows and requests the others."""
    prompts, hosted = shard.inputs["prompts"].stage, shard.inputs["model"].stage
    runtime = shard.run.runtime
    server = server_of(hosted.server, runtime)
    shard.facts["system_folded"] = 0
    kept = kept_rows(shard)
    budgets = (runtime.budget_usd, runtime.budget_tokens)
    with Spending(Path(runtime.outputs), *budgets, hosted.price_in, hosted.price_out) as spending:
        client = Client(server, hosted.id, "chat", spending)
        requests = (
            chat_request(request, hosted.id, prompts.system, shard.stage)
            for request in shard.requests
            if (request.id, request.sample) not in kept
        )
        yield from collect_answers(shard, client, requests, answer)


def kept_rows(shard: Shard) -> set[tuple[str, int]]:
    """Return prompt id and sample of each complete row of an earlier session, and add them to the facts."""
    kept = {(row["id"], row["sample"]) for row in lines(shard.out / ROWS)}
    logs = {(line["id"], line["sample"]): line for line in lines(shard.out / LOG)}
    shard.kept = len(kept)
    for name in kept & logs.keys():
        add_to_totals(shard.facts, logs[name])
    return kept


def collect_answers(
    shard: Shard, client: Client, requests: Iterable[ApiRequest], answer: Callable[[Reply], Answer]
) -> Answers:
    """Yield lists of answers from `client`; the context of each of `requests` is a `Request`. Costs, with those of
    earlier sessions, go to the log of each row and to the facts. A row without an answer gets a line in the log too."""
    earlier = {(line["id"], line["sample"]): costs_of(line) for line in lines(shard.out / LOG)}

    def total_costs(request: Request, account: Account) -> dict[str, Any]:
        return add_counts(earlier.get((request.id, request.sample), {}), account.log_entry(client.spending))

    def log_unanswered() -> None:
        entries = [
            {"id": sent.context.id, "sample": sent.context.sample} | total_costs(sent.context, account)
            for sent, account in client.unanswered
        ]
        if entries:
            with (shard.out / LOG).open("a", encoding="utf-8") as log:
                append(log, entries)

    try:
        with contextlib.closing(client.replies(requests, lambda: shard.stopping)) as chunks:
            for chunk in chunks:
                rows = [(sent.context, answer(reply)) for sent, reply in chunk]
                for (request, row), (_, reply) in zip(rows, chunk, strict=True):
                    row.log.update(total_costs(request, reply.account))
                    add_to_totals(shard.facts, row.log)
                yield rows
    except SynthdivError:
        log_unanswered()
        raise
    log_unanswered()
    shard.facts |= {f"{name}_refused": True for name in sorted(client.endpoint.refused)}


def costs_of(line: dict[str, Any]) -> dict[str, Any]:
    """Return the costs of the attempts at a row, from its line in the log."""
    return {name: line[name] for name in ("attempts", "retries", "usage", "usd", "unsure") if name in line}


def chat_request(request: Request, model: str, system: str | None, stage: Any) -> ApiRequest:
    """Return a chat request of one turn. The seed has 31 bits, because some servers accept no more."""
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
    return ApiRequest(request, request.id, payload, size, sampling.max_new_tokens)


def answer(reply: Reply) -> Answer:
    """Return the answer in a reply; a refusal has an empty text, and its message is in the log."""
    data = reply.data
    prompt, completion = token_usage(data) or (-1, -1)
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
    finish = finish_reason(choice)
    if refusal or finish == "refusal":
        return Answer("", "refusal", prompt, completion, log | {"refusal": refusal or text or choice["finish_reason"]})
    return Answer(text, finish, prompt, completion, log)


def add_to_totals(facts: dict[str, Any], log: dict[str, Any]) -> None:
    """Add the log entry of a row to the totals of the shard."""
    row: dict[str, Any] = {"requests": log["attempts"], "retries": log.get("retries", {})}
    usage = log.get("usage")
    row |= {f"{name}_tokens": tokens for name, tokens in usage.items()} if usage else {"without_usage": 1}
    row |= {name: log[name] for name in ("usd", "unsure") if name in log}
    row |= {"system_folded": 1} if log.get("folded") else {}
    row |= {f"{name}s": {str(log[name]): 1} for name in ("model", "fingerprint") if log.get(name)}
    facts.update(add_counts(facts, row))
