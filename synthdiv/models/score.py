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
    """Return row indices sorted by length, in batches with rows × longest ≤ `budget` tokens, at least one row each."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    row_batches: list[list[int]] = []
    for index in order:
        if row_batches and (len(row_batches[-1]) + 1) * lengths[index] <= budget:
            row_batches[-1].append(index)
        else:
            row_batches.append([index])
    return row_batches


def answer_log_likelihoods(
    opened: OpenModel, pairs: list[tuple[list[int], list[int]]], budget: int, progress: Progress = lambda *_: None
) -> list[np.ndarray]:
    """Return the natural log-probabilities of the answer tokens of each pair (prompt ids, answer ids): float32, T = 1.

    `budget` is the number of tokens in a batch. Raises DataError for a prompt without a token or a pair longer than the
    model's context.
    """
    return [values[:, 0] for values in _score_pairs(opened, pairs, budget, progress, log_probabilities)]


def answer_curves(
    opened: OpenModel, pairs: list[tuple[list[int], list[int]]], budget: int, progress: Progress = lambda *_: None
) -> list[np.ndarray]:
    """Return these log-probabilities at each of `TEMPERATURES`: float32 (tokens, temperatures), by one forward pass.
    The column of temperature 1 is bit-equal to `answer_log_likelihoods`."""
    return _score_pairs(opened, pairs, budget, progress, log_probability_curves)


def log_probabilities(logits: Any, targets: Any) -> Any:
    """Return ln softmax(logits)[target] (n, 1) for logits (n, vocabulary) and targets (n,)."""
    return logits.gather(1, targets[:, None]) - logits.logsumexp(1, keepdim=True)


def log_probability_curves(logits: Any, targets: Any) -> Any:
    """Return ln softmax(logits / T)[target] for each T of `TEMPERATURES`: (n, temperatures).

    Halving T squares exp(logit / T), so one exponential serves all octaves of the grid, in less than half the time of
    one per temperature. The relative error is 1e-6, from four squarings in float32.
    """
    shifted = logits - logits.amax(1, keepdim=True)  # weights ≤ 1: their squares cannot overflow
    target_logits = shifted.gather(1, targets[:, None])[:, 0]
    curves = logits.new_empty((len(logits), len(TEMPERATURES)))
    for hottest in range(len(TEMPERATURES) - PER_OCTAVE, len(TEMPERATURES)):
        weights = (shifted / TEMPERATURES[hottest]).exp_()
        for column in range(hottest, -1, -PER_OCTAVE):
            if column != hottest:
                weights.mul_(weights)
            curves[:, column] = target_logits / TEMPERATURES[column] - weights.sum(1).log()
    curves[:, TEMPERATURES.index(1.0)] = log_probabilities(logits, targets)[:, 0]
    return curves


def _score_pairs(
    opened: OpenModel,
    pairs: list[tuple[list[int], list[int]]],
    budget: int,
    progress: Progress,
    measure: Callable[[Any, Any], Any],
) -> list[np.ndarray]:
    """Return `measure` of the logits that predict each answer token: (tokens, columns) for each pair.

    Logits of leading prompt positions are not computed, because work in the vocabulary size dominates. Logits come from
    the model's `forward`, because some models scale or cap them after the output layer (Cohere, Gemma 2).
    """
    import torch

    model, device = opened.model, opened.device
    result: list[Any] = [None] * len(pairs)
    done, lengths = 0, [len(prompt) + len(answer) for prompt, answer in pairs]
    if not all(prompt for prompt, _ in pairs):
        raise DataError(
            "a prompt has no token, so nothing predicts the first token of its answer; leave it out of the set"
        )
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
        row_index: list[int] = []
        position_index: list[int] = []
        targets: list[int] = []
        for batch_row, row in enumerate(rows):
            prompt, answer = pairs[row]
            ids[batch_row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            mask[batch_row, : len(prompt) + len(answer)] = 1
            row_index += [batch_row] * len(answer)
            position_index += range(len(prompt) - 1 - skip, len(prompt) + len(answer) - 1 - skip)
            targets += answer
        with torch.no_grad():  # not inference mode: gathered weights are trained later
            logits = model(
                input_ids=ids.to(device), attention_mask=mask.to(device), logits_to_keep=longest - skip, use_cache=False
            ).logits
            indices = torch.tensor([row_index, position_index, targets], device=logits.device)
            values = torch.cat(
                [
                    measure(logits[block[0], block[1]].float(), block[2])
                    for block in indices.split(_tokens_per_step(logits), 1)
                ]
            )
        counts = [len(pairs[row][1]) for row in rows]
        for row, row_values in zip(rows, values.cpu().split(counts), strict=True):
            result[row] = row_values.numpy()
        done += len(rows)
        progress(done, len(pairs), "answers scored")
    return result


def _tokens_per_step(logits: Any) -> int:
    """Return the number of tokens measured at once: what fits a CPU cache, or 256 MiB of accelerator memory."""
    return max(1, (2**17 if logits.device.type == "cpu" else 2**26) // int(logits.shape[-1]))
