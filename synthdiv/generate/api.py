"""A server with OpenAI's chat completions; paid answers are kept even if this process is killed.

Needs: `hosted.server` (one of `runtime.servers`) and `hosted.id`.

Tested on: `transformers serve` 5.23 on loopback, and a server that fails on purpose. Not tested: any hosted provider.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from synthdiv.core.runtime import Runtime
from synthdiv.generate.answer import LOG, ROWS, Answer, Answers, Request, Shard, append, lines
from synthdiv.generate.client import Client
from synthdiv.generate.endpoint import server_of
from synthdiv.generate.limits import shared_limits
from synthdiv.generate.protocol import NEUTRAL, finish_reason, text_of, token_usage
from synthdiv.generate.replies import ApiRequest, Reply
from synthdiv.generate.spec import Sampling
from synthdiv.generate.spend import COSTS, Spending, add_counts
from synthdiv.models.chat import quoted

_clients: dict[str, Client] = {}
_mutex = threading.Lock()


def client_of(hosted: Any, runtime: Runtime) -> Client:
    """Return the client of a hosted model, which all its shards in this process share."""
    server, budgets = server_of(hosted.server, runtime), (runtime.budget_usd, runtime.budget_tokens)
    name, outputs = repr((server, hosted, budgets, runtime.outputs)), Path(runtime.outputs)
    with _mutex:
        if name not in _clients:
            spending = Spending(outputs, *budgets, hosted.price_in, hosted.price_out, server.timeout_seconds)
            limits = shared_limits(server, outputs)
            _clients[name] = Client(server, hosted.id, "chat", spending, limits, hosted.reports)
        return _clients[name]


def answers(shard: Shard) -> Answers:
    """Yield lists of answers as they arrive. A resumed shard keeps all complete rows and requests the others."""
    prompts, hosted = shard.inputs["prompts"].stage, shard.inputs["model"].stage
    shard.facts["system_folded"] = 0
    client, row_ids = client_of(hosted, shard.run.runtime), kept_rows(shard)
    requests = (
        chat_request(request, hosted, prompts, shard.stage)
        for request in shard.requests
        if (request.id, request.sample) not in row_ids
    )
    yield from collect_answers(shard, client, requests, answer)


def kept_rows(shard: Shard) -> set[tuple[str, int]]:
    """Return prompt id and sample of each complete row of an earlier session."""
    row_ids = {(row["id"], row["sample"]) for row in lines(shard.out / ROWS)}
    shard.resumed_rows = len(row_ids)
    return row_ids


def collect_answers(
    shard: Shard, client: Client, requests: Iterable[ApiRequest], answer: Callable[[Reply], Answer]
) -> Answers:
    """Yield lists of answers from `client`; the context of each of `requests` is a `Request`. Costs, with those of
    earlier sessions, go to the log of each row. A row without an answer gets a line in the log too."""
    earlier = {(line["id"], line["sample"]): line for line in lines(shard.out / LOG)}
    with contextlib.closing(client.replies(requests, lambda: shard.stopping)) as chunks:
        for chunk in chunks:
            rows: list[tuple[Request, Answer]] = []
            for sent, reply in chunk:
                request, costs = sent.context, reply.account.log_entry(client.spending)
                before = earlier.get((request.id, request.sample), {})
                costs = add_counts({name: before[name] for name in COSTS if name in before}, costs)
                if reply.data is None and not reply.outcome:
                    with (shard.out / LOG).open("a", encoding="utf-8") as log:
                        append(log, [{"id": request.id, "sample": request.sample} | costs])
                    continue
                unanswered = Answer("", reply.outcome, -1, -1, {reply.outcome: reply.message})
                outcome = answer(reply) if reply.data is not None else unanswered
                outcome.log.update(facts_of(reply) | {"url": client.server.url} | costs)
                rows.append((request, outcome))
            yield rows
    shard.facts |= {f"{name}_refused": True for name in sorted(client.endpoint.refused)}


def facts_of(reply: Reply) -> dict[str, Any]:
    """Return what the log has of every reply."""
    names = {"model": "model", "fingerprint": "system_fingerprint", "response_id": "id", "provider": "provider"}
    data = reply.data or {}
    log = {name: data[field] for name, field in names.items() if data.get(field) is not None}
    return {"at": reply.at, "seconds": reply.seconds} | log | ({"folded": True} if reply.folded else {})


def chat_request(request: Request, hosted: Any, prompts: Any, stage: Any) -> ApiRequest:
    """Return a chat request of one turn. The seed has 31 bits, because some servers accept no more. Servers of open
    models read special tokens in what a judge is shown."""
    messages = [{"role": "system", "content": prompts.system}] if prompts.system is not None else []
    content = quoted(request.prompt) if prompts.quotes_models else request.prompt
    messages.append({"role": "user", "content": content})
    payload = {
        "model": hosted.id,
        "messages": messages,
        **sampling_fields(stage.sampling),
        "seed": int(request.stream, 16) % 2**31,
    }
    if stage.top_logprobs:
        payload |= {"logprobs": True, "top_logprobs": stage.top_logprobs}
    payload |= json.loads(hosted.extra or "{}")
    payload = {name: value for name, value in payload.items() if value is not None}
    size = sum(len(message["content"].encode(errors="replace")) for message in messages)
    limits = [payload.get(name) for name in ("max_tokens", "max_completion_tokens")]
    most = max([stage.sampling.max_new_tokens, *(limit for limit in limits if isinstance(limit, int))])
    return ApiRequest(request, request.id, payload, size, most)


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """Return the settings under the names of the protocol."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or NEUTRAL["top_k"],
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "max_tokens": sampling.max_new_tokens,
    } | ({"stop": sampling.stop} if sampling.stop else {})


def answer(reply: Reply) -> Answer:
    """Return the answer in a reply; a refusal has an empty text, and its message is in the log."""
    data = reply.data or {}
    prompt, completion = token_usage(data) or (-1, -1)
    choice, log = data["choices"][0], dict[str, Any]()
    message = choice.get("message") or {}
    text, refusal, finish = text_of(message.get("content")) or "", message.get("refusal"), finish_reason(choice)
    if choice.get("logprobs"):
        log["logprobs"] = choice["logprobs"].get("content")
    if thinking := text_of(message.get("reasoning_content") or message.get("reasoning")):  # parted by the server
        log["thinking"] = thinking
    if refusal or finish == "refusal":
        return Answer("", "refusal", prompt, completion, log | {"refusal": refusal or text or choice["finish_reason"]})
    return Answer(text, finish, prompt, completion, log)
