"""transformers, in the process of the worker.

Needs: `checkpoint`, `pretrain` or `gguf`.

Tested on: CPU, in every test.
"""

from __future__ import annotations

import bisect
import gc
import itertools
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthdiv.core.local_run import out_of_memory
from synthdiv.core.types import DataError
from synthdiv.generate.answer import LOG, ROWS, Answer, Answers, Request, Shard, lines
from synthdiv.generate.decode import decode, left_padded, row_cache
from synthdiv.generate.spec import LongPrompt, Sampling
from synthdiv.generate.stream import RowSampler
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel
from synthdiv.models.score import batches
from synthdiv.prompts.prompt_set import Prompts

TokenizedRequest = tuple[Request, list[int]]  # a request and the token ids of its prompt


def tokenize_shard(shard: Shard, chat: Chat, context: int) -> tuple[list[TokenizedRequest], dict[str, str]]:
    """Return the requests of a shard that fit the context, and the others' prompts with the reason: a mix can leave
    these out, and a judge has no verdict on them, even where none fits."""
    prompts, failed = shard.inputs["prompts"].stage, dict[str, str]()
    leaves_out = shard.stage.split.value == "train" or not isinstance(prompts, Prompts)
    tokenized, shard.facts["truncated"] = tokenize_requests(
        chat, context, shard.requests, shard.stage.sampling, failed if leaves_out else None, prompts.quotes_models
    )
    return tokenized, failed


def tokenize_requests(
    chat: Chat, context: int, requests: list[Request], sampling: Sampling, failed: dict[str, str] | None = None,
    none_may_fit: bool = False,
) -> tuple[list[TokenizedRequest], int]:  # fmt: skip
    """Return requests with their token ids, and the number of truncated prompts. Each text is rendered once.

    A prompt that does not fit the context together with the new tokens goes into `failed`, with the reason, and its
    requests are left out. Raises DataError if there is no `failed`, if no prompt fits (unless `none_may_fit`), or for
    a prompt without a token.
    """
    room, ids = context - sampling.max_new_tokens, dict[str, list[int]]()
    overlong = dict[str, str]()  # the reasons, by prompt
    for request in requests:
        text = request.prompt
        if text in ids:
            continue
        ids[text] = chat.prompt(text)
        if not ids[text]:
            raise DataError(f"prompt {request.id} has no token, so nothing predicts the first token of its answer")
        problem = f"tokens and {sampling.max_new_tokens} new ones do not fit the model's context of {context}"
        if len(ids[text]) <= room:
            continue
        overlong[text] = f"{len(ids[text])} {problem}"
        if sampling.overlong is LongPrompt.truncate:
            ids[text] = truncate_start(chat, text, ids[text], room)
            if len(ids[text]) > room:
                raise DataError(
                    f"prompt {request.id}: even without its text the template's {len(ids[text])} {problem}; lower "
                    "sampling.max_new_tokens"
                )
    if sampling.overlong is LongPrompt.error and overlong:
        if failed is None or (len(overlong) == len(ids) and not none_may_fit):
            first = next(request for request in requests if request.prompt in overlong)
            others = f" (nor do {len(overlong) - 1} other prompts)" if len(overlong) > 1 else ""
            raise DataError(
                f"prompt {first.id} of {overlong[first.prompt]}{others}; lower sampling.max_new_tokens, "
                "leave out such prompts, or cut their start with sampling.overlong=truncate "
                "(in generators.models.N, or in evaluate.respond.decodings.N)"
            )
        failed |= overlong
        requests = [request for request in requests if request.prompt not in overlong]
    return [(request, ids[request.prompt]) for request in requests], sum(item.prompt in overlong for item in requests)


def failed_answers(shard: Shard, failed: dict[str, str]) -> list[tuple[Request, Answer]]:
    """Return the outcomes of requests whose prompts are in `failed`."""
    return [
        (request, Answer("", "failed", -1, -1, {"failed": failed[request.prompt]}))
        for request in shard.requests
        if request.prompt in failed
    ]


def truncate_start(chat: Chat, text: str, ids: list[int], max_tokens: int) -> list[int]:
    """Return the ids of the end of `text` in its template, at most `max_tokens` unless the template has more."""
    if chat.tokenizer.is_fast:
        spans = chat.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        starts = [start for start, _ in spans]
    else:
        starts = list(range(len(text)))
    length = len(starts)
    while len(ids) > max_tokens and length:  # again if the truncated text has more tokens than it had in the whole
        length = max(0, length - (len(ids) - max_tokens))
        ids = chat.prompt(text[starts[-length] :] if length else "")
    return ids


def base_model(opened: OpenModel) -> Any:
    """Return the language model without the adapter wrapper; adapter weights stay in it."""
    return opened.model.get_base_model() if hasattr(opened.model, "get_base_model") else opened.model


def answer_batch(opened: OpenModel, chat: Chat, requests: list[TokenizedRequest], sampling: Sampling) -> list[Answer]:
    """Return the answers to one batch of requests, in their order."""
    import torch

    ids = [prompt for _, prompt in requests]
    stop_ids = chat.stop_ids
    streams = [request.stream for request, _ in requests]
    draws = RowSampler(streams, sampling.max_new_tokens, opened.device, sampling, ids)
    with torch.inference_mode():
        model = base_model(opened)
        cache = row_cache(model)
        if cache is None:
            tokens = generate(opened, ids, stop_ids, sampling.max_new_tokens, draws)
        else:
            tokens = decode(model, cache, ids, stop_ids, sampling.max_new_tokens, draws, opened.device)
    answers = []
    for prompt, row in zip(ids, tokens, strict=True):
        stop = next((position for position, token in enumerate(row) if token in stop_ids), None)
        body = row if stop is None else row[:stop]
        text, length = cut_at_stop(opened.tokenizer, body, sampling.stop)
        ended = stop is not None or length < len(body)
        answers.append(Answer(chat.text(text, body), "stop" if ended else "length", len(prompt), length))
    return answers


def cut_at_stop(tokenizer: Any, ids: list[int], stops: list[str]) -> tuple[str, int]:
    """Return the text of token ids before the first of `stops`, and the number of tokens that are needed for it."""

    def text(count: int) -> str:
        return str(tokenizer.decode(ids[:count], skip_special_tokens=True))

    whole = text(len(ids))
    places = [place for stop in stops if (place := whole.find(stop)) >= 0]
    if not places:
        return whole, len(ids)
    needed = bisect.bisect_left(range(len(ids) + 1), True, key=lambda count: any(stop in text(count) for stop in stops))
    return whole[: min(places)], needed


def generate(
    opened: OpenModel, ids: list[list[int]], ends: list[int], limit: int, draws: RowSampler
) -> list[list[int]]:
    """Return the tokens of `decode` by the loop of transformers, which supports any model but keeps finished rows."""
    import torch
    import transformers

    padded, mask, _ = left_padded(ids, 0, opened.device)
    rows, steps = torch.arange(len(ids), device=opened.device), iter(range(limit))

    def draw(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens = draws(scores, rows, next(steps))
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)

    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=limit, eos_token_id=ends, pad_token_id=ends[0]
    )
    out = opened.model.generate(
        input_ids=padded,
        attention_mask=mask,
        generation_config=settings,
        logits_processor=transformers.LogitsProcessorList([draw]),
    )
    return out[:, padded.shape[1] :].tolist()


@dataclass
class BatchSplitter:
    """Answers batches, split into halves if one does not fit into memory; `split_batches` holds their numbers."""

    opened: OpenModel
    chat: Chat
    sampling: Sampling
    max_tokens: float = math.inf  # largest rows x longest to try: after a failure, half of what failed
    split_batches: set[int] = field(default_factory=set)

    def answers(self, requests: list[TokenizedRequest], number: int) -> list[Answer]:
        import torch

        longest = max(len(prompt) for _, prompt in requests) + self.sampling.max_new_tokens
        half = (len(requests) + 1) // 2
        if len(requests) == 1 or len(requests) * longest <= self.max_tokens:
            try:
                return answer_batch(self.opened, self.chat, requests, self.sampling)
            except Exception as error:
                if len(requests) == 1 or not out_of_memory(error):
                    raise
            self.max_tokens = half * longest
            gc.collect()  # only after the `except` block: the error holds frames with tensors
            torch.cuda.empty_cache()
        self.split_batches.add(number)
        return self.answers(requests[:half], number) + self.answers(requests[half:], number)


def answers(shard: Shard) -> Answers:
    """Yield the answers of one batch at a time. A resumed shard keeps complete batches and repeats the incomplete one,
    so a crash does not change any byte."""
    prompts, model = shard.inputs["prompts"], shard.inputs["model"]
    sampling, facts = shard.stage.sampling, shard.facts
    opened = shard.run.model(model, shard.stage.precision.value)
    if shard.run.runtime.compile and base_model(opened)._compiled_call_impl is None:
        base_model(opened).compile(dynamic=True)
    chat = Chat.for_prompts(opened.tokenizer, prompts, opened.ends)
    requests, failed = tokenize_shard(shard, chat, opened.context)
    plan = batches([len(ids) + sampling.max_new_tokens for _, ids in requests], shard.stage.batch_tokens)
    facts["batches"] = len(plan)
    facts["system_folded"] = len(requests) if chat.folded else 0
    complete_batches = keep_whole_batches(shard.out / ROWS, [len(batch) for batch in plan])
    shard.resumed_rows = sum(len(batch) for batch in plan[:complete_batches])
    split_before = len(
        {line["batch"] for line in lines(shard.out / LOG) if line.get("parted") and line["batch"] < complete_batches}
    )
    facts["halved_batches"], splitter = split_before, BatchSplitter(opened, chat, sampling)
    for number in range(complete_batches, len(plan)):
        if shard.stopping:
            return
        batch, start = [requests[index] for index in plan[number]], time.monotonic()
        batch_answers = splitter.answers(batch, number)
        if splitter.split_batches and facts["halved_batches"] == split_before:
            shard.run.log(
                f"generate {shard.stage.source}: a batch of {len(batch)} rows does not fit into memory; it and "
                "batches as large are split (lower generators.batch_tokens to avoid this)"
            )
        facts["halved_batches"] = split_before + len(splitter.split_batches)
        log = {"at": round(time.time(), 3), "seconds": round(time.monotonic() - start, 3)}
        log |= {"batch": number, "batch_rows": len(batch), "parted": number in splitter.split_batches}
        yield [(request, replace(answer, log=log)) for (request, _), answer in zip(batch, batch_answers, strict=True)]
    if failed:
        yield failed_answers(shard, failed)


def keep_whole_batches(file: Path, sizes: list[int]) -> int:
    """Truncate a partial `rows.jsonl` after its last complete batch; return the number of batches kept."""
    if not file.exists():
        return 0
    lines = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    ends = [0, *itertools.accumulate(sizes)]
    whole = bisect.bisect_right(ends, len(lines)) - 1
    file.write_bytes(b"".join(lines[: ends[whole]]))
    return whole
