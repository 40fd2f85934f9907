"""Answers from transformers in this process: sorted batches, the library's own `generate`, a random stream per row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthdiv.generate.answer import ROWS, Answer, Answers, Request, Shard
from synthdiv.generate.spec import Sampling
from synthdiv.generate.stream import uniforms
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel
from synthdiv.models.score import batches
from synthdiv.types import DataError


def plan(chat: Chat, context: int, requests: list[Request], sampling: Sampling, budget: int) -> list[list[int]]:
    """Request numbers in batches: a function of the requests and the token budget alone."""
    lengths = [len(chat.prompt(request.prompt)) + sampling.max_new_tokens for request in requests]
    if max(lengths) > context:
        raise DataError(
            f"a prompt of {max(lengths) - sampling.max_new_tokens} tokens and {sampling.max_new_tokens} new ones do "
            f"not fit the model's context of {context}; lower sampling.max_new_tokens or choose shorter prompts"
        )
    return batches(lengths, budget)


def draw(streams: list[str], steps: int, device: str) -> Any:
    """A last logits processor that leaves one token per row: inverse CDF of the row's own uniform for this step."""
    import numpy as np
    import torch

    table = torch.from_numpy(np.stack([uniforms(stream, steps) for stream in streams]))
    table = table.to(device, torch.float32 if device == "mps" else torch.float64)  # Apple GPUs have no doubles
    step = 0

    def process(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        nonlocal step
        mass = scores.to(table.dtype).softmax(-1).cumsum(-1)
        target = table[:, step : step + 1] * mass[:, -1:]
        step += 1
        # right=True: the first token whose cumulative mass exceeds the uniform, so a token without mass is never drawn;
        # a uniform that rounds to 1 draws the last token with mass
        last = torch.searchsorted(mass, mass[:, -1:].contiguous())
        chosen = torch.searchsorted(mass, target, right=True).minimum(last)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)

    return process


def processors(streams: list[str], sampling: Sampling, device: str) -> Any:
    import transformers

    chain = transformers.LogitsProcessorList()
    if sampling.temperature > 0:
        if sampling.temperature != 1:
            chain.append(transformers.TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_p < 1:
            chain.append(transformers.TopPLogitsWarper(sampling.top_p))
        chain.append(draw(streams, sampling.max_new_tokens, device))
    return chain


def answer_batch(opened: OpenModel, chat: Chat, requests: list[Request], sampling: Sampling) -> list[Answer]:
    """Answers to one batch of requests, in their order."""
    import torch
    import transformers

    ids = [chat.prompt(request.prompt) for request in requests]
    width = max(map(len, ids))
    pad = opened.tokenizer.pad_token_id if opened.tokenizer.pad_token_id is not None else chat.end
    tokens = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=opened.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=opened.device)
    eos = opened.tokenizer.eos_token_id
    ends = sorted({chat.end} | ({eos} if eos is not None else set()))
    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=sampling.max_new_tokens, eos_token_id=ends, pad_token_id=pad
    )
    with torch.inference_mode():
        out = opened.model.generate(
            input_ids=tokens,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=processors([request.stream for request in requests], sampling, opened.device),
        )
    answers = []
    for prompt, row in zip(ids, out[:, width:].tolist(), strict=True):
        stop = next((place for place, token in enumerate(row) if token in ends), None)
        body = row if stop is None else row[:stop]
        text = opened.tokenizer.decode(body, skip_special_tokens=True)
        answers.append(Answer(text, "length" if stop is None else "stop", len(prompt), len(body)))
    return answers


def answers(shard: Shard) -> Answers:
    """A list per batch. A resume keeps whole batches and redoes the unfinished one, so a crash changes no byte."""
    prompts, model = shard.inputs[:2]
    stage = shard.stage
    opened = shard.run.model(model, stage.precision.value)
    chat = Chat.of(opened.tokenizer, prompts)
    batches = plan(chat, opened.context, shard.requests, stage.sampling, stage.batch_tokens)
    shard.facts["batches"], shard.facts["system_folded"] = len(batches), chat.folded
    kept = keep_whole_batches(shard.out / ROWS, [len(batch) for batch in batches])
    shard.kept = sum(len(batch) for batch in batches[:kept])
    for batch in batches[kept:]:
        if shard.stopping:
            return
        chosen = [shard.requests[index] for index in batch]
        yield list(zip(chosen, answer_batch(opened, chat, chosen, stage.sampling), strict=True))


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
