"""Log-likelihoods of answers under a model, token by token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from synthdiv.models.load import OpenModel
from synthdiv.types import DataError

if TYPE_CHECKING:
    import numpy as np


def batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Row numbers sorted by length, cut so that rows × longest ≤ `budget` tokens (always at least one row)."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    result: list[list[int]] = []
    for index in order:
        if result and (len(result[-1]) + 1) * lengths[index] <= budget:
            result[-1].append(index)
        else:
            result.append([index])
    return result


def answer_log_likelihoods(
    opened: OpenModel,
    pairs: list[tuple[list[int], list[int]]],
    budget: int,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> list[np.ndarray]:
    """For each (prompt ids, answer ids): natural log-probabilities of the answer tokens, float32, T = 1, none removed.

    Logits of leading prompt positions are not computed: the vocabulary-sized work is the largest part of it. They come
    from the model's own forward, because some models scale or cap them after the output layer (Cohere, Gemma 2).
    """
    import numpy as np
    import torch

    model, device = opened.model, opened.device
    result: list[np.ndarray] = [np.empty(0, np.float32)] * len(pairs)
    done, lengths = 0, [len(prompt) + len(answer) for prompt, answer in pairs]
    if not all(prompt for prompt, _ in pairs):
        raise DataError("a prompt has no token, so nothing predicts the first one of its answer")
    if max(lengths, default=0) > opened.context:
        raise DataError(
            f"a prompt and its answer take {max(lengths)} tokens and the model's context is {opened.context}; leave "
            "such prompts out of the set, or choose a model with a longer context"
        )
    for rows in batches(lengths, budget):
        longest = max(lengths[row] for row in rows)
        skip = min(len(pairs[row][0]) for row in rows) - 1
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        at_row: list[int] = []
        at_place: list[int] = []
        targets: list[int] = []
        for line, row in enumerate(rows):
            prompt, answer = pairs[row]
            ids[line, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            mask[line, : len(prompt) + len(answer)] = 1
            at_row += [line] * len(answer)
            at_place += range(len(prompt) - 1 - skip, len(prompt) + len(answer) - 1 - skip)
            targets += answer
        with torch.inference_mode():
            logits = (
                model(
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    logits_to_keep=longest - skip,
                    use_cache=False,
                )
                .logits[at_row, at_place]
                .float()
            )
            values = logits.gather(1, torch.tensor(targets, device=device)[:, None])[:, 0] - logits.logsumexp(1)
        values = values.cpu().numpy()
        start = 0
        for row in rows:
            count = len(pairs[row][1])
            result[row] = values[start : start + count]
            start += count
        done += len(rows)
        progress(done, len(pairs), "answers scored")
    return result
