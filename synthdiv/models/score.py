"""Log-likelihoods of answers under a model, token by token, at temperature 1 or on a grid of temperatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import DataError
from synthdiv.measures.temperature import PER_OCTAVE, TEMPERATURES
from synthdiv.models.load import OpenModel

if TYPE_CHECKING:
    import numpy as np

Progress = Callable[[int, int, str], None]


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
    opened: OpenModel, pairs: list[tuple[list[int], list[int]]], budget: int, progress: Progress = lambda *_: None
) -> list[np.ndarray]:
    """For each (prompt ids, answer ids): natural log-probabilities of the answer tokens, float32, T = 1, none removed.

    DataError for a prompt without a token, and for a pair that the model's context does not hold.
    """
    return [values[:, 0] for values in _scored(opened, pairs, budget, progress, at_one)]


def answer_curves(
    opened: OpenModel, pairs: list[tuple[list[int], list[int]]], budget: int, progress: Progress = lambda *_: None
) -> list[np.ndarray]:
    """The same at each of `TEMPERATURES`: float32 (tokens, temperatures) for each pair, by one forward pass.

    The column of temperature 1 is what `answer_log_likelihoods` gives, to the last bit.
    """
    return _scored(opened, pairs, budget, progress, at_temperatures)


def at_one(logits: Any, targets: Any) -> Any:
    """ln softmax(logits)[target]: (n, 1) of logits (n, vocabulary) and targets (n,)."""
    return logits.gather(1, targets[:, None]) - logits.logsumexp(1, keepdim=True)


def at_temperatures(logits: Any, targets: Any) -> Any:
    """ln softmax(logits / T)[target] for each T of `TEMPERATURES`: (n, temperatures).

    Halving T squares every exp(logit / T), so one exponential serves all octaves of the grid: less than half the time
    of one for each temperature. Relative error 1e-6, four squarings of float32.
    """
    shifted = logits - logits.amax(1, keepdim=True)  # all weights ≤ 1: their squares cannot overflow
    chosen = shifted.gather(1, targets[:, None])[:, 0]
    found = logits.new_empty((len(logits), len(TEMPERATURES)))
    for hottest in range(len(TEMPERATURES) - PER_OCTAVE, len(TEMPERATURES)):
        weights = (shifted / TEMPERATURES[hottest]).exp_()
        for place in range(hottest, -1, -PER_OCTAVE):
            if place != hottest:
                weights.mul_(weights)
            found[:, place] = chosen / TEMPERATURES[place] - weights.sum(1).log()
    found[:, TEMPERATURES.index(1.0)] = at_one(logits, targets)[:, 0]
    return found


def _scored(
    opened: OpenModel,
    pairs: list[tuple[list[int], list[int]]],
    budget: int,
    progress: Progress,
    measure: Callable[[Any, Any], Any],
) -> list[np.ndarray]:
    """`measure` of the logits that predict each answer token: (tokens, columns) for each pair.

    Logits of leading prompt positions are not computed: the vocabulary-sized work is the largest part of it. They come
    from the model's own forward, because some models scale or cap them after the output layer (Cohere, Gemma 2).
    """
    import torch

    model, device = opened.model, opened.device
    result: list[Any] = [None] * len(pairs)
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
        with torch.no_grad():  # weights that are gathered for it are trained later
            logits = model(
                input_ids=ids.to(device), attention_mask=mask.to(device), logits_to_keep=longest - skip, use_cache=False
            ).logits
            places = torch.tensor([at_row, at_place, targets], device=logits.device)
            values = torch.cat(
                [measure(logits[chosen[0], chosen[1]].float(), chosen[2]) for chosen in places.split(_step(logits), 1)]
            )
        counts = [len(pairs[row][1]) for row in rows]
        for row, part in zip(rows, values.cpu().split(counts), strict=True):
            result[row] = part.numpy()
        done += len(rows)
        progress(done, len(pairs), "answers scored")
    return result


def _step(logits: Any) -> int:
    """Tokens measured at once: as many as fit a processor's cache, or 256 MiB of an accelerator's memory."""
    return max(1, (2**17 if logits.device.type == "cpu" else 2**26) // int(logits.shape[-1]))
