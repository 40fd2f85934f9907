"""Answers from transformers in this process: sorted batches that finished rows leave, a random stream per row."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthdiv.core.local_run import out_of_memory
from synthdiv.core.types import DataError
from synthdiv.generate.answer import LOG, ROWS, Answer, Answers, Request, Shard, lines
from synthdiv.generate.decode import decode, roomy_cache
from synthdiv.generate.spec import Overlong, Sampling
from synthdiv.generate.stream import Draws
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel
from synthdiv.models.score import batches

Asked = tuple[Request, list[int]]  # and the ids of all that precedes its answer


def ask(chat: Chat, context: int, requests: list[Request], sampling: Sampling) -> tuple[list[Asked], int]:
    """Requests with their token ids, and how many of them lost the start of their prompt. Each text is rendered once.

    DataError for a prompt that does not fit the context beside the new tokens, or has no token at all.
    """
    room = context - sampling.max_new_tokens
    ids, overlong = {}, {}
    for request in requests:
        if request.prompt not in ids:
            ids[request.prompt] = chat.prompt(request.prompt)
            if not ids[request.prompt]:
                raise DataError(f"prompt {request.id} has no token, so nothing predicts the first one of its answer")
            if len(ids[request.prompt]) > room:
                overlong[request.prompt] = request.id
    for text, first in overlong.items():
        told = f"tokens and {sampling.max_new_tokens} new ones do not fit the model's context of {context}"
        if sampling.overlong is Overlong.error:
            more = f" (nor do {len(overlong) - 1} other prompts)" if len(overlong) > 1 else ""
            raise DataError(
                f"prompt {first} of {len(ids[text])} {told}{more}; lower sampling.max_new_tokens, leave out such "
                "prompts, or cut their start with sampling.overlong=truncate (in generators.models.N, or in "
                "evaluate.respond.decodings.N)"
            )
        ids[text] = shortened(chat, text, ids[text], room)
        if len(ids[text]) > room:
            raise DataError(
                f"prompt {first}: even without its text the template's {len(ids[text])} {told}; lower "
                "sampling.max_new_tokens"
            )
    return [(request, ids[request.prompt]) for request in requests], sum(item.prompt in overlong for item in requests)


def shortened(chat: Chat, text: str, ids: list[int], room: int) -> list[int]:
    """Ids of the end of `text` in its template, at most `room` of them unless the template takes more by itself."""
    if chat.tokenizer.is_fast:
        spans = chat.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        starts = [start for start, _ in spans]
    else:
        starts = list(range(len(text)))
    keep = len(starts)
    while len(ids) > room and keep:  # again where the cut text has more tokens than the same text had in the whole
        keep = max(0, keep - (len(ids) - room))
        ids = chat.prompt(text[starts[-keep] :] if keep else "")
    return ids


def causal(opened: OpenModel) -> Any:
    """The language model itself; of an adapter the model that holds it."""
    return opened.model.get_base_model() if hasattr(opened.model, "get_base_model") else opened.model


def answer_batch(opened: OpenModel, chat: Chat, asked: list[Asked], sampling: Sampling) -> list[Answer]:
    """Answers to one batch of requests, in their order."""
    import torch

    ids = [prompt for _, prompt in asked]
    ends = chat.ends
    streams = [request.stream for request, _ in asked]
    draws = Draws(streams, sampling.max_new_tokens, opened.device, sampling.temperature, sampling.top_p)
    with torch.inference_mode():
        model = causal(opened)
        cache = roomy_cache(model)
        if cache is None:
            said = generate(opened, ids, ends, sampling.max_new_tokens, draws)
        else:
            said = decode(model, cache, ids, ends, sampling.max_new_tokens, draws, opened.device)
    answers = []
    for prompt, row in zip(ids, said, strict=True):
        stop = next((place for place, token in enumerate(row) if token in ends), None)
        body = row if stop is None else row[:stop]
        text = opened.tokenizer.decode(body, skip_special_tokens=True)
        answers.append(Answer(text, "length" if stop is None else "stop", len(prompt), len(body)))
    return answers


def generate(opened: OpenModel, ids: list[list[int]], ends: list[int], limit: int, draws: Draws) -> list[list[int]]:
    """What `decode` gives, by transformers' own loop: for any model, and rows stay to the end of their batch."""
    import torch
    import transformers

    width, rows, steps = max(map(len, ids)), torch.arange(len(ids), device=opened.device), iter(range(limit))

    def draw(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = draws(scores, rows, next(steps))
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=limit, eos_token_id=ends, pad_token_id=ends[0]
    )
    out = opened.model.generate(
        input_ids=torch.tensor([[0] * (width - len(row)) + row for row in ids], device=opened.device),
        attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=opened.device),
        generation_config=settings,
        logits_processor=transformers.LogitsProcessorList([draw]),
    )
    return out[:, width:].tolist()


@dataclass
class Memory:
    """Answers planned batches, in parts where one does not fit. `parted` are the batches that took more than one."""

    opened: OpenModel
    chat: Chat
    sampling: Sampling
    tokens: float = math.inf  # rows x longest that may be tried: once something did not fit, half of that
    parted: set[int] = field(default_factory=set)

    def answers(self, asked: list[Asked], number: int) -> list[Answer]:
        longest = max(len(prompt) for _, prompt in asked) + self.sampling.max_new_tokens
        half = (len(asked) + 1) // 2
        if len(asked) == 1 or len(asked) * longest <= self.tokens:
            try:
                return answer_batch(self.opened, self.chat, asked, self.sampling)
            except Exception as error:
                if len(asked) == 1 or not out_of_memory(error):
                    raise
            self.tokens = half * longest
            release()  # only here, behind the error, are the tensors gone that its frames held
        self.parted.add(number)
        return self.answers(asked[:half], number) + self.answers(asked[half:], number)


def release() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def answers(shard: Shard) -> Answers:
    """A list per batch. A resume keeps whole batches and redoes the unfinished one, so a crash changes no byte."""
    prompts, model = shard.inputs["prompts"], shard.inputs["model"]
    sampling, facts = shard.stage.sampling, shard.facts
    opened = shard.run.model(model, shard.stage.precision.value)
    if shard.run.runtime.compile and causal(opened)._compiled_call_impl is None:
        causal(opened).compile(dynamic=True)
    chat = Chat.of(opened.tokenizer, prompts)
    asked, facts["truncated"] = ask(chat, opened.context, shard.requests, sampling)
    plan = batches([len(ids) + sampling.max_new_tokens for _, ids in asked], shard.stage.batch_tokens)
    facts["batches"] = len(plan)
    facts["system_folded"] = len(asked) if chat.folded else 0
    kept = keep_whole_batches(shard.out / ROWS, [len(batch) for batch in plan])
    shard.kept = sum(len(batch) for batch in plan[:kept])
    parted = len({line["batch"] for line in lines(shard.out / LOG) if line.get("parted") and line["batch"] < kept})
    facts["halved_batches"], memory = parted, Memory(opened, chat, sampling)
    for number in range(kept, len(plan)):
        if shard.stopping:
            return
        chosen, begun = [asked[index] for index in plan[number]], time.monotonic()
        found = memory.answers(chosen, number)
        if memory.parted and facts["halved_batches"] == parted:
            shard.run.log(
                f"generate {shard.stage.source}: a batch of {len(chosen)} rows is more than the memory holds; it and "
                "others as large are answered in parts (generators.batch_tokens is their size)"
            )
        facts["halved_batches"] = parted + len(memory.parted)
        log = {"at": round(time.time(), 3), "seconds": round(time.monotonic() - begun, 3)}
        log |= {"batch": number, "batch_rows": len(chosen), "parted": number in memory.parted}
        yield [(request, replace(answer, log=log)) for (request, _), answer in zip(chosen, found, strict=True)]


def keep_whole_batches(file: Path, sizes: list[int]) -> int:
    """Cut a partial `rows.jsonl` after its last whole batch; return how many batches it holds."""
    if not file.exists():
        return 0
    lines = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    whole, rows = 0, 0
    for size in sizes:
        if rows + size > len(lines):
            break
        whole, rows = whole + 1, rows + size
    file.write_bytes(b"".join(lines[:rows]))
    return whole
