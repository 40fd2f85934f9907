"""Log-likelihoods of answers under a model, token by token, at temperature 1 or on a grid of temperatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import DataError
from synthdiv.measures.temperature import PER_OCTAVE, TEMPERATURES
from synthdiv.models.load import OpenModel

Progress = Callable[[int, int, str], None]
Pair = tuple[list[int], list[int]]  # token ids of a prompt and of its answer
AT_ONCE = 2**27  # numbers of whole gradients in memory


def batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Return row indices sorted by length, in batches with rows × longest ≤ `budget` tokens, at least one row each."""
    row_batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if row_batches and (len(row_batches[-1]) + 1) * lengths[index] <= budget:
            row_batches[-1].append(index)
        else:
            row_batches.append([index])
    return row_batches


def checked_lengths(opened: OpenModel, pairs: list[Pair]) -> list[int]:
    """Return the tokens of each pair. Raises DataError for a prompt without a token or a pair beyond the context."""
    lengths = [len(prompt) + len(answer) for prompt, answer in pairs]
    if not all(prompt for prompt, _ in pairs):
        raise DataError(
            "a prompt has no token, so nothing predicts the first token of its answer; leave it out of the set"
        )
    if max(lengths, default=0) > opened.context:
        raise DataError(
            f"a prompt and its answer take {max(lengths)} tokens and the model's context is {opened.context}; leave "
            "such prompts out of the set, or choose a model with a longer context"
        )
    return lengths


def answer_log_likelihoods(
    opened: OpenModel, pairs: list[Pair], budget: int, progress: Progress = lambda *_: None
) -> list[np.ndarray]:
    """Return the natural log-probabilities of the answer tokens of each pair (prompt ids, answer ids): float32, T = 1.

    `budget` is the number of tokens in a batch. Raises DataError for a prompt without a token or a pair longer than the
    model's context.
    """
    return [values[:, 0] for values in _score_pairs(opened, pairs, budget, progress, log_probabilities)]


def answer_curves(
    opened: OpenModel, pairs: list[Pair], budget: int, progress: Progress = lambda *_: None
) -> list[np.ndarray]:
    """Return these log-probabilities at each of `TEMPERATURES`: float32 (tokens, temperatures), by one forward pass.
    The column of temperature 1 is bit-equal to `answer_log_likelihoods`."""
    return _score_pairs(opened, pairs, budget, progress, log_probability_curves)


def answer_gradients(
    opened: OpenModel, pairs: list[Pair], dimensions: int, seed: int, progress: Progress = lambda *_: None
) -> np.ndarray:
    """Return the gradient, by all weights, of the mean NLL of the answer tokens of each pair: float32 (n, dimensions).

    A count sketch projects it: each weight is added to one of `dimensions` sums, place and sign at random (`seed`), so
    that products are those of whole gradients in expectation (Charikar et al. 2002). 0 dimensions: no projection.
    """
    import torch
    from torch.func import functional_call, grad, vmap
    from torch.nn.attention import SDPBackend, sdpa_kernel

    lengths, model = checked_lengths(opened, pairs), opened.model
    count = sum(weight.numel() for weight in model.parameters())
    size = min(max(AT_ONCE // count, 1), 32)
    weights = {name: weight.detach().requires_grad_(size == 1) for name, weight in model.named_parameters()}
    places = torch.randint(2 * dimensions or 1, (count,), generator=torch.Generator().manual_seed(seed))
    places = places.to(opened.device)

    def nll(weights: Any, ids: Any, answer: Any) -> Any:
        logits = functional_call(model, weights, (), {"input_ids": ids[None], "use_cache": False}).logits[0, :-1]
        return -(log_probabilities(logits.float(), ids[1:])[:, 0] * answer[1:]).sum() / answer[1:].sum()

    def of_one(weights: Any, ids: Any, answer: Any) -> dict[str, Any]:
        slopes = torch.autograd.grad(nll(weights, ids[0], answer[0]), [*weights.values()], materialize_grads=True)
        return {name: each[None] for name, each in zip(weights, slopes, strict=True)}

    gradients = np.empty((len(pairs), dimensions or count), np.float32)
    order = sorted(range(len(pairs)), key=lengths.__getitem__)
    of_rows = vmap(grad(nll), in_dims=(None, 0, 0)) if size > 1 else of_one  # alone a row is faster without vmap
    pad, model.config.pad_token_id = model.config.pad_token_id, None  # a check for padding cannot be batched
    try:
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            texts = [torch.tensor([*pairs[row][0], *pairs[row][1]]) for row in rows]
            ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True).to(opened.device)  # none attends to the pads
            ends = torch.tensor([(len(pairs[row][0]), lengths[row]) for row in rows]).T[:, :, None]
            answer = (torch.arange(ids.shape[1]) >= ends[0]) & (torch.arange(ids.shape[1]) < ends[1])
            with sdpa_kernel(SDPBackend.MATH):  # the only one that can be batched
                parts = [part.flatten(1).float() for part in of_rows(weights, ids, answer.to(opened.device)).values()]
            if dimensions:
                sums = parts[0].new_zeros(len(rows), 2 * dimensions)
                for part, where in zip(parts, places.split([part.shape[1] for part in parts]), strict=True):
                    sums.index_add_(1, where, part)
                parts = [sums[:, :dimensions] - sums[:, dimensions:]]
            gradients[rows] = torch.cat(parts, 1).cpu().numpy()
            progress(start + len(rows), len(order), "gradients taken")
    finally:
        model.config.pad_token_id = pad
    return gradients


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
    opened: OpenModel, pairs: list[Pair], budget: int, progress: Progress, measure: Callable[[Any, Any], Any]
) -> list[np.ndarray]:
    """Return `measure` of the logits that predict each answer token: (tokens, columns) for each pair.

    Logits of leading prompt positions are not computed, because work in the vocabulary size dominates. Logits come from
    the model's `forward`, because some models scale or cap them after the output layer (Cohere, Gemma 2).
    """
    import torch

    result: list[Any] = [None] * len(pairs)
    done, lengths = 0, checked_lengths(opened, pairs)
    for rows in batches(lengths, budget):
        batch = [pairs[row] for row in rows]
        with torch.no_grad():  # not inference mode: gathered weights are trained later
            logits, indices = _answer_logits(opened, batch)
            parts = indices.split(_tokens_per_step(logits), 1)
            values = torch.cat([measure(logits[part[0], part[1]].float(), part[2]) for part in parts])
        counts = [len(answer) for _, answer in batch]
        for row, row_values in zip(rows, values.cpu().split(counts), strict=True):
            result[row] = row_values.numpy()
        done += len(rows)
        progress(done, len(pairs), "answers scored")
    return result


def _answer_logits(opened: OpenModel, pairs: list[Pair]) -> tuple[Any, Any]:
    """Return logits (pairs, positions, vocabulary), and of each answer token its pair, the position that predicts it,
    and its id: (3, tokens)."""
    import torch

    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(prompt + answer) for prompt, answer in pairs], batch_first=True)
    starts, lengths = torch.tensor([(len(prompt), len(prompt) + len(answer)) for prompt, answer in pairs]).T[:, :, None]
    places = torch.arange(ids.shape[1])
    mask = places < lengths
    row_index, position_index = (mask & (places >= starts)).nonzero(as_tuple=True)
    skip = int(starts.min()) - 1
    indices = torch.stack([row_index, position_index - 1 - skip, ids[row_index, position_index]])
    logits = opened.model(
        input_ids=ids.to(opened.device), attention_mask=mask.long().to(opened.device),
        logits_to_keep=ids.shape[1] - skip, use_cache=False,
    ).logits  # fmt: skip
    return logits, indices.to(logits.device)


def _tokens_per_step(logits: Any) -> int:
    """Return the number of tokens measured at once: what fits a CPU cache, or 256 MiB of accelerator memory."""
    return max(1, (2**17 if logits.device.type == "cpu" else 2**26) // int(logits.shape[-1]))
