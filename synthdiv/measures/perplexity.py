"""Perplexity 2 (human test answers under the student) and 1 (the student's own answers under the vanilla student).

The log-likelihoods are computed with the chat template, at temperature 1, without truncation of the distribution.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.core.types import DataError, Score
from synthdiv.measures.intervals import mean_interval, median_interval, pseudo_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np


NAMES = ("nll_{}", "perplexity_{}", "perplexity_{}_median", "nll_{}_byte")  # {}: perplexity 1 or 2
DIFFERENCES = ("nll_2-vanilla", "nll_2_pooled-vanilla", "nll_2_median-vanilla", "nll_2_byte-vanilla")
OWN_DIFFERENCES = ("nll_1-vanilla", "nll_1_median-vanilla", "nll_1_byte-vanilla")
MIN_PROMPTS = 6  # for the interval of a median


class AnswerNLL(NamedTuple):
    """One answer under one model. `nll` is -ln q in nats, summed over the answer's tokens and one EOS (none after a
    truncated answer); `tokens` >= 1 counts them, EOS included; `bytes` >= 0 is the length of the answer in UTF-8."""

    nll: float
    tokens: int
    bytes: int


def likelihood_scores(student: Mapping[str, AnswerNLL], vanilla: Mapping[str, AnswerNLL] | None = None) -> list[Score]:
    """Return the perplexity-2 scores of `student` and its paired differences from `vanilla`; lower is better.

    Both map prompt ids to answers.

    - `nll_2`, nats/token: mean over answers of NLL per token (S1); t interval over prompts.
    - `perplexity_2`: exp of `nll_2` and of its interval.
    - `perplexity_2_pooled`: exp of all NLL / all tokens; t interval of the linearised ratio.
    - `perplexity_2_median`: median over answers of exp(NLL per token); interval from order statistics.
    - `nll_2_byte`, nats/byte: all NLL / all bytes, comparable across tokenizers; linearised.
    - `nll_2-vanilla`, `nll_2_pooled-vanilla` (all NLL / all tokens) and `nll_2_byte-vanilla`: student minus vanilla, on
      the common prompts.
    - `nll_2_median-vanilla`, nats/token: median over these prompts of the difference of NLL per token; interval from
      order statistics.

    NaN with a note if there are no answers, an NLL is NaN, there are no bytes, or the token or byte counts of an answer
    differ between student and vanilla (different template or tokenizer). An infinite NLL gives infinite means without
    an interval. Raises DataError for an answer without a token.
    """
    scores = _levels(student)
    return scores if vanilla is None else scores + _differences(student, vanilla)


def own_answer_scores(
    student: Mapping[str, Sequence[AnswerNLL]], vanilla: Mapping[str, Sequence[AnswerNLL]] | None = None
) -> list[Score]:
    """Return the perplexity-1 scores of the student's own answers, by prompt id, under the *vanilla* student.

    A low value is close to the mode of the vanilla student; no direction is better. The answers to one prompt are
    averaged first, so the units are prompts.

    - `nll_1`, nats/token: mean over prompts of the mean over its answers of NLL per token; t interval over prompts.
    - `perplexity_1`: exp of `nll_1` and of its interval.
    - `perplexity_1_median`: median over prompts of exp(mean over its answers of NLL per token); interval from order
      statistics. With one answer to each prompt it is the median over answers of S1.
    - `nll_1_byte`, nats/byte: mean NLL / mean bytes of an answer, every prompt with the same weight; linearised.
    - `nll_1-vanilla`, `nll_1_byte-vanilla`: minus the value of the vanilla student's own answers (`vanilla`), on the
      common prompts. The two students give different answers, so their lengths may differ.
    - `nll_1_median-vanilla`, nats/token: median over these prompts of the difference of mean NLL per token.

    NaN with a note and DataError as in `likelihood_scores`; a prompt without an answer also raises DataError.
    """
    scores = _own_levels(student)
    return scores if vanilla is None else scores + _own_differences(student, vanilla)


def _own_levels(student: Mapping[str, Sequence[AnswerNLL]]) -> list[Score]:
    n = len(student)
    reason = _own_undefined_reason(student) if student else "no answers"
    if reason:
        return [_score(name.format(1), math.nan, n, note=reason) for name in NAMES]
    per_token, nll, size = _averages(student.values())
    return _level_scores(1, per_token, nll, size, "prompts have an answer of probability 0")


def _own_differences(
    student: Mapping[str, Sequence[AnswerNLL]], vanilla: Mapping[str, Sequence[AnswerNLL]]
) -> list[Score]:
    common, note = common_prompts(student, vanilla)
    arms = [{prompt: arm[prompt] for prompt in common} for arm in (student, vanilla)]
    reason = next(filter(None, map(_own_undefined_reason, arms)), "") if common else "no prompt in both arms"
    if reason:
        return [_score(name, math.nan, len(common), note=reason) for name in OWN_DIFFERENCES]
    (student_mean, student_nll, student_bytes), (vanilla_mean, vanilla_nll, vanilla_bytes) = (
        _averages(arm.values()) for arm in arms
    )
    return [
        _difference("nll_1-vanilla", student_mean, vanilla_mean, note),
        _difference("nll_1_median-vanilla", student_mean, vanilla_mean, note, median=True),
        _difference(
            "nll_1_byte-vanilla",
            pseudo_values(student_nll, student_bytes),
            pseudo_values(vanilla_nll, vanilla_bytes),
            note,
        ),
    ]


def _own_undefined_reason(arm: Mapping[str, Sequence[AnswerNLL]]) -> str:
    for prompt, answers in arm.items():
        if not answers:
            raise DataError(f"prompt {prompt!r} has no answer: leave the prompt out, or give its answers")
        for answer in answers:
            _check_answer(prompt, answer)
    unknown = [prompt for prompt, answers in arm.items() if any(math.isnan(answer.nll) for answer in answers)]
    if unknown:
        return f"{len(unknown)} of {len(arm)} prompts have answers without likelihood, the first {unknown[0]!r}"
    return ""


def _averages(prompts: Iterable[Sequence[AnswerNLL]]) -> np.ndarray:
    """Return the means over each prompt's answers of NLL per token, NLL and bytes: (3, prompts)."""
    import numpy as np

    rows = []
    for answers in prompts:
        nll, tokens, size = _columns(answers)
        rows.append([(nll / tokens).mean(), nll.mean(), size.mean()])
    return np.array(rows, dtype=float).T


def common_prompts(student: Mapping[str, object], vanilla: Mapping[str, object]) -> tuple[list[str], str]:
    """Return the common prompts in the student's order, and a note that counts the others."""
    common = [prompt for prompt in student if prompt in vanilla]
    unpaired = len(student) + len(vanilla) - 2 * len(common)
    return common, f"{unpaired} prompts of one arm alone left out" if unpaired else ""


def shuffled_prompts(prompts: Iterable[str], seed: int) -> list[str]:
    """Return the prompts in a random order that depends only on their set and `seed`, not on the order of strata."""
    import numpy as np

    ids = sorted(prompts)
    return [ids[index] for index in np.random.default_rng(seed).permutation(len(ids))]


def _levels(student: Mapping[str, AnswerNLL]) -> list[Score]:
    n, pooled = len(student), "perplexity_2_pooled"
    reason = _undefined_reason(student, student)
    if reason:
        return [_score(name, math.nan, n, note=reason) for name in (*(name.format(2) for name in NAMES), pooled)]
    nll, tokens, size = _columns(student.values())
    scores = _level_scores(2, nll / tokens, nll, size, "answers have probability 0")
    interval = map(_exp, _ratio_interval(nll, tokens))
    return [*scores, _score(pooled, _exp(nll.sum() / tokens.sum()), n, interval, scores[0].note)]


def _level_scores(
    kind: int, per_token: np.ndarray, nll: np.ndarray, byte_counts: np.ndarray, zero_note: str
) -> list[Score]:
    """Return the scores of `NAMES` from the NLL per token, NLL and bytes of each prompt, each (n,)."""
    import numpy as np

    n, mean, interval = len(nll), float(per_token.mean()), mean_interval(per_token)
    note = "" if math.isfinite(mean) else f"{int(np.isinf(nll).sum())} of {n} {zero_note}"
    average, perplexity, median, byte = (name.format(kind) for name in NAMES)
    return [
        _score(average, mean, n, interval, note),
        _score(perplexity, _exp(mean), n, map(_exp, interval), note),
        _score(median, _exp(np.median(per_token)), n, map(_exp, median_interval(per_token)), note),
        _per_byte(byte, nll, byte_counts, n, note),
    ]


def _per_byte(name: str, nll: np.ndarray, size: np.ndarray, n: int, note: str) -> Score:
    if not size.sum():
        return _score(name, math.nan, n, note="all answers are empty")
    return _score(name, nll.sum() / size.sum(), n, _ratio_interval(nll, size), note)


def _differences(student: Mapping[str, AnswerNLL], vanilla: Mapping[str, AnswerNLL]) -> list[Score]:
    common, note = common_prompts(student, vanilla)
    n = len(common)
    student_answers, vanilla_answers = ({prompt: arm[prompt] for prompt in common} for arm in (student, vanilla))
    reason = _undefined_reason(student_answers, vanilla_answers)
    if reason:
        return [_score(name, math.nan, n, note=reason) for name in DIFFERENCES]
    (student_nll, tokens, size), (vanilla_nll, _, _) = (
        _columns(student_answers.values()),
        _columns(vanilla_answers.values()),
    )
    return [
        _difference("nll_2-vanilla", student_nll / tokens, vanilla_nll / tokens, note),
        _difference(
            "nll_2_pooled-vanilla", pseudo_values(student_nll, tokens), pseudo_values(vanilla_nll, tokens), note
        ),
        _difference("nll_2_median-vanilla", student_nll / tokens, vanilla_nll / tokens, note, median=True),
        _difference("nll_2_byte-vanilla", pseudo_values(student_nll, size), pseudo_values(vanilla_nll, size), note),
    ]


def _difference(name: str, student: np.ndarray, vanilla: np.ndarray, note: str, median: bool = False) -> Score:
    """Return the mean, or the median, of the paired differences of two arms (n,)."""
    import numpy as np

    if not (np.isfinite(student).all() and np.isfinite(vanilla).all()):
        return _score(name, math.nan, len(student), note="an answer has probability 0, or all are empty")
    gap = student - vanilla
    value, interval = (np.median(gap), median_interval(gap)) if median else (gap.mean(), mean_interval(gap))
    return _score(name, value, len(gap), interval, note)


def _undefined_reason(student: Mapping[str, AnswerNLL], vanilla: Mapping[str, AnswerNLL]) -> str:
    """Return why the scores are undefined, or an empty string; both arms have the same prompts."""
    for arm in (student, vanilla):
        for prompt, answer in arm.items():
            _check_answer(prompt, answer)
    if not student:
        return "no answers" if student is vanilla else "no prompt in both arms"
    unknown = [p for p in student if math.isnan(student[p].nll) or math.isnan(vanilla[p].nll)]
    if unknown:
        return f"{len(unknown)} of {len(student)} answers have no likelihood, the first to prompt {unknown[0]!r}"
    unlike = [p for p in student if student[p][1:] != vanilla[p][1:]]
    if unlike:
        return f"{len(unlike)} answers differ in tokens or bytes between the arms, the first to prompt {unlike[0]!r}"
    return ""


def _check_answer(prompt: str, answer: AnswerNLL) -> None:
    if answer.tokens < 1 or answer.bytes < 0:
        raise DataError(
            f"answer to prompt {prompt!r}: {answer}; needs at least 1 token, because EOS counts, and at least 0 bytes"
        )


def _columns(answers: Iterable[AnswerNLL]) -> np.ndarray:
    """Return NLL, tokens and bytes of each answer: (3, n)."""
    import numpy as np

    return np.array(list(answers), dtype=float).T


def _ratio_interval(numerators: np.ndarray, denominators: np.ndarray) -> tuple[float, float]:
    return mean_interval(pseudo_values(numerators, denominators))


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 or math.isnan(x) else math.inf


def _score(name: str, value: float, n: int, interval: Iterable[float] = (math.nan, math.nan), note: str = "") -> Score:
    low, high = interval
    if math.isfinite(value) and math.isnan(low) and n < MIN_PROMPTS:
        note = "; ".join(filter(None, [f"no interval: too few prompts ({n})", note]))
    unit = "perplexity" if name.startswith("perplexity") else "nats/byte" if "byte" in name else "nats/token"
    better = None if "_1" in name else False  # perplexity 1 has no better direction
    return Score(name, float(value), n, low, high, unit, better, note)
