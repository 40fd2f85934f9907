"""Tails of perplexity 2 and 1: quantiles over tokens, and the least probable 1 % of tokens under the vanilla student.

Collapse begins in the tokens that were improbable before fine-tuning; a mean over tokens hides them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from synthdiv.core.lazy import np
from synthdiv.core.types import DataError, Score
from synthdiv.measures.estimates import Estimate, Measure, join_notes, set_estimates, undefined
from synthdiv.measures.pairing import compared, shuffled_prompts, unknown_reason, unpaired_note

QUANTILES = {"q50": 0.5, "q90": 0.9, "q99": 0.99}
TAIL_SHARE = 0.01  # share of the vanilla student's tokens that are its tail
MIN_TOKENS = 500  # so that the tail has at least five tokens
MIN_ABOVE = 30  # tokens above a quantile that has an interval: with fewer, the interval covered 80 to 88 %

INFINITE_VANILLA = "infinite in the vanilla student"
LEVELS = [Measure(f"nll_2_token_{name}", "nats/token", False, INFINITE_VANILLA, 0) for name in QUANTILES]
OWN = [m._replace(name=m.name.replace("_2_", "_1_"), higher_is_better=None) for m in LEVELS]
TAILS = [
    Measure("tail_share", "share of tokens", False, INFINITE_VANILLA, 0, 1),
    Measure("nll_2_tail", "nats/token", False, INFINITE_VANILLA, 0),
]

Tokens = Mapping[str, Sequence[float]]
OwnTokens = Mapping[str, Sequence[Sequence[float]]]  # one sequence per answer to the prompt


def tail_scores(student: Tokens, vanilla: Tokens | None = None, seed: int = 0) -> list[Score]:
    """Return the tail scores over the tokens of human answers: by prompt id, -ln q in nats of each token, EOS included.

    - `nll_2_token_q50`, `_q90`, `_q99`, nats/token: quantiles over all tokens; lower is better.
    - `tail_share`: the share of the student's tokens above the 99 % quantile of the vanilla student; exactly 1 % for
      the vanilla student, more if the tail was lost.
    - `nll_2_tail`, nats/token: mean over the tokens that are the least probable 1 % under the vanilla student.
    - `-vanilla` of the quantiles and of `nll_2_tail`: minus the value of the vanilla student, on the common prompts.

    Without `vanilla`, `student` is the vanilla student. `nll_2_tail` selects tokens by the vanilla student's values, so
    an equally good model has lower values on them: compare `nll_2_tail-vanilla` between two students and do not read
    its sign. `tail_share` selects no tokens and has a null value, 1 %.

    A quantile q is the smallest value with no more than 1 - q of the tokens above it. Tokens that tie with the 99 %
    quantile have the weight that makes the vanilla student's tail exactly 1 % of its tokens, in both arms. Intervals
    leave out groups of prompts and estimate threshold and tail again on the rest; `_q99` has one from 3,000 tokens on.
    NaN with a note for fewer than 500 tokens, a token without a likelihood, or arms with different tokens (template or
    tokenizer differ). An infinite value has no interval. Raises DataError for an answer without a token.
    """

    def levels_of(arm: Tokens) -> list[Estimate]:
        return _quantiles(LEVELS, {prompt: [tokens] for prompt, tokens in arm.items()}, seed)

    quantiles = compared(levels_of, student, vanilla, len)
    base = student if vanilla is None else vanilla
    pairs = {prompt: (student[prompt], base[prompt]) for prompt in student if prompt in base}
    unlike = any(len(one) != len(other) for one, other in pairs.values())
    null = {prompt: (other, other) for prompt, (_, other) in pairs.items()}
    unpaired = unpaired_note(student, base)
    tails = compared(lambda arm: _tails(arm, seed), null if unlike else pairs, None if vanilla is None else null)
    tails = [replace(score, note=join_notes(score.note, unpaired)) for score in tails]
    if unlike or not pairs:  # no token to compare with
        reason = quantiles[-1].note
        tails = [Score(s.name, math.nan, s.n, unit=s.unit, higher_is_better=False, note=reason) for s in tails]
    levels, tail_levels = quantiles[: len(LEVELS)], tails[: len(TAILS)]
    return [*levels, *tail_levels, *quantiles[len(LEVELS) :], *tails[len(TAILS) + 1 :]]


def own_answer_tail_scores(student: OwnTokens, vanilla: OwnTokens | None = None, seed: int = 0) -> list[Score]:
    """Return quantiles over the tokens of the student's own answers under the *vanilla* student.

    Arms map prompt ids to answers, an answer being -ln q in nats of each token.

    - `nll_1_token_q50`, `_q90`, `_q99`, nats/token; no direction is better. The weight of a token is 1 / the number of
      answers to its prompt, so every prompt counts once, as in `own_answer_scores`; otherwise as in `tail_scores`.
    - each `-vanilla`: minus the value of the vanilla student's own answers, on the common prompts. Only the prompts are
      paired, because the answers differ; intervals leave out the same prompts in both arms.

    NaN with a note for fewer than 500 tokens in an arm or a token without a likelihood. An infinite value has no
    interval. Raises DataError for a prompt without an answer or an answer without a token.
    """
    return compared(lambda arm: _quantiles(OWN, arm, seed), student, vanilla)


def quantile(values: np.ndarray, q: float) -> float:
    """Return the smallest of `values` (n,) with at most 1 - q of them above it (Hyndman and Fan 1996, definition 1)."""
    rank = len(values) - 1 - int((1 - q) * len(values) + 1e-9)  # tolerance: 1 % of 500 is 5, despite rounding
    return float(np.partition(values, rank)[rank])


def tail_weights(vanilla: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the weight (m,) of each of `values` in the tail of `vanilla` (n,): 1 above its 99 % quantile, 0 below. A
    value equal to the quantile has the weight that makes the weights of `vanilla` sum to 1 % of n."""
    threshold = quantile(vanilla, 1 - TAIL_SHARE)
    tie_weight = (TAIL_SHARE * len(vanilla) - (vanilla > threshold).sum()) / (vanilla == threshold).sum()
    return np.where(values == threshold, min(max(tie_weight, 0.0), 1.0), values > threshold)


def _quantiles(measures: Sequence[Measure], arm: OwnTokens, seed: int) -> list[Estimate]:
    """Return QUANTILES over tokens, every prompt with the same weight for each of its answers."""
    prompts = shuffled_prompts(arm, seed)
    reason = _undefined_reason(arm)
    if reason:
        return [undefined(measure, reason, len(prompts)) for measure in measures]
    answers = [arm[prompt] for prompt in prompts]
    tokens = np.concatenate([np.asarray(answer, dtype=float) for each in answers for answer in each])
    order, sizes = np.argsort(tokens, kind="stable"), [sum(map(len, each)) for each in answers]
    ascending, prompt_of = tokens[order], np.repeat(np.arange(len(prompts)), sizes)[order]
    weights = np.repeat([1 / len(each) for each in answers], sizes)[order]

    def statistic(mask: np.ndarray) -> np.ndarray:
        cumulative = np.cumsum(weights * mask[prompt_of])
        thresholds = (np.array([*QUANTILES.values()]) - 1e-9) * cumulative[-1]  # the same tolerance as in `quantile`
        return ascending[np.searchsorted(cumulative, thresholds)]

    results, count = set_estimates(measures, statistic, None, len(prompts), seed), len(tokens)
    least = [round(MIN_ABOVE / (1 - q)) for q in QUANTILES.values()]
    few = [f"no interval: fewer than {needed:,} tokens" if count < needed else "" for needed in least]
    results = [replace(each, units=each.units[:0], no_interval=why) if why else each
            for each, why in zip(results, few, strict=True)]  # fmt: skip
    return [each.with_note(impossible_note(tokens)) for each in results]


def _tails(arm: Mapping[str, tuple[Sequence[float], Sequence[float]]], seed: int) -> list[Estimate]:
    """Return TAILS of one model, from its tokens and those of the vanilla student by prompt."""
    prompts = shuffled_prompts(arm, seed)
    reason = _undefined_reason({prompt: pair[:1] for prompt, pair in arm.items()})
    reason = reason or unknown_reason({prompt: other for prompt, (_, other) in arm.items()})
    if reason:
        return [undefined(measure, reason, len(prompts)) for measure in TAILS]
    student_nll, vanilla = (
        np.concatenate([np.asarray(arm[prompt][part], float) for prompt in prompts]) for part in (0, 1)
    )
    prompt_of = np.repeat(np.arange(len(prompts)), [len(arm[prompt][0]) for prompt in prompts])

    def statistic(mask: np.ndarray) -> list[float]:
        student, base = student_nll[mask[prompt_of]], vanilla[mask[prompt_of]]
        weights = tail_weights(base, base)
        in_tail = weights > 0  # infinity times 0 is not 0
        tail = float(weights[in_tail] @ student[in_tail] / weights.sum())
        return [float(tail_weights(base, student).mean()), tail]

    results = set_estimates(TAILS, statistic, None, len(prompts), seed)
    return [each.with_note(impossible_note(student_nll)) for each in results]


def impossible_note(tokens: np.ndarray) -> str:
    impossible = int(np.isinf(tokens).sum())
    return f"{impossible} tokens have probability 0" if impossible else ""


def _undefined_reason(arm: OwnTokens) -> str:
    """Return why the scores of an arm are undefined, or an empty string."""
    from itertools import chain

    empty = next((prompt for prompt, answers in arm.items() if not len(answers) or not all(map(len, answers))), None)
    if empty is not None:
        raise DataError(f"prompt {empty!r}: no answer, or an answer without a token; EOS counts as a token")
    count = sum(len(answer) for answers in arm.values() for answer in answers)
    if count < MIN_TOKENS:
        return f"{count} tokens: at least {MIN_TOKENS} are needed for a tail of 1 %"
    return unknown_reason({prompt: chain(*answers) for prompt, answers in arm.items()})
