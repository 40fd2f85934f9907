"""Perplexity 2: how improbable human test answers are to a model. Perplexity 1: its own answers to the untouched model.

Takes log-likelihoods that were computed with the template applied, at temperature 1, with nothing removed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.core.types import DataError, Score
from synthdiv.measures.intervals import linearised, mean_interval, median_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np


NAMES = ("nll_{}", "perplexity_{}", "perplexity_{}_median", "nll_{}_byte")  # of perplexity 1 and 2 alike
GAPS = ("nll_2-vanilla", "nll_2_pooled-vanilla", "nll_2_median-vanilla", "nll_2_byte-vanilla")
OWN_GAPS = ("nll_1-vanilla", "nll_1_median-vanilla", "nll_1_byte-vanilla")
MEDIAN_LEAST = 6  # prompts: fewer do not bound a median, nor one a mean


class AnswerNLL(NamedTuple):
    """One answer under one model.

    `nll` is -ln q in nats, summed over the answer's tokens and one EOS (none after an answer that was cut); `tokens`
    >= 1 counts them, EOS included; `bytes` >= 0 is the length of the answer in UTF-8.
    """

    nll: float
    tokens: int
    bytes: int


def likelihood_scores(student: Mapping[str, AnswerNLL], vanilla: Mapping[str, AnswerNLL] | None = None) -> list[Score]:
    """The perplexity-2 scores of `student`, and its paired differences to `vanilla`, by prompt id; lower is better.

    - `nll_2`, nats/token: mean over answers of NLL per token (S1); t interval over prompts.
    - `perplexity_2`: exp of it, ends of the interval too.
    - `perplexity_2_pooled`: exp of all NLL / all tokens; t interval of the linearised ratio.
    - `perplexity_2_median`: median over answers of exp(NLL per token); interval from order statistics.
    - `nll_2_byte`, nats/byte: all NLL / all bytes, comparable across tokenizers; linearised.
    - `nll_2-vanilla`, `nll_2_pooled-vanilla` (all NLL / all tokens) and `nll_2_byte-vanilla`: student minus vanilla, on
      the prompts that both have.
    - `nll_2_median-vanilla`, nats/token: median over these prompts of that gap of NLL per token; from order statistics.

    Undefined is NaN with a note: no answers, an NLL that is NaN, no bytes, or answers whose token or byte counts differ
    between student and vanilla (then template or tokenizer differ). An infinite NLL gives infinite means, without an
    interval. Raises DataError for an answer with no token.
    """
    scores = _levels(student)
    return scores if vanilla is None else scores + _differences(student, vanilla)


def own_scores(
    student: Mapping[str, Sequence[AnswerNLL]], vanilla: Mapping[str, Sequence[AnswerNLL]] | None = None
) -> list[Score]:
    """The perplexity-1 scores: by prompt id, the student's own answers under the *untouched* student.

    Low means close to the mode of the untouched model; no direction is better. A prompt with several answers counts
    once, by their averages, so the units are prompts.

    - `nll_1`, nats/token: mean over prompts of the mean over its answers of NLL per token; t interval over prompts.
    - `perplexity_1`: exp of it, ends of the interval too.
    - `perplexity_1_median`: median over prompts of exp(mean over its answers of NLL per token); from order statistics.
      With one answer to each prompt it is S1's median over answers.
    - `nll_1_byte`, nats/byte: mean NLL / mean bytes of an answer, each prompt weighing the same; linearised.
    - `nll_1-vanilla`, `nll_1_byte-vanilla`: less that of the untouched student's own answers under itself (`vanilla`),
      on the prompts that both have. The answers are others, so their lengths may differ.
    - `nll_1_median-vanilla`, nats/token: median over these prompts of the gap of mean NLL per token.

    NaN with a note and DataError as in `likelihood_scores`; a prompt without an answer raises DataError too.
    """
    scores = _own_levels(student)
    return scores if vanilla is None else scores + _own_differences(student, vanilla)


def _own_levels(student: Mapping[str, Sequence[AnswerNLL]]) -> list[Score]:
    n = len(student)
    problem = _own_problem(student) if student else "no answers"
    if problem:
        return [_score(name.format(1), math.nan, n, note=problem) for name in NAMES]
    per_token, nll, size = _averages(student.values())
    return _averaged(1, per_token, nll, size, "prompts have an answer of probability 0")


def _own_differences(
    student: Mapping[str, Sequence[AnswerNLL]], vanilla: Mapping[str, Sequence[AnswerNLL]]
) -> list[Score]:
    common, note = in_both(student, vanilla)
    arms = [{prompt: arm[prompt] for prompt in common} for arm in (student, vanilla)]
    problem = next(filter(None, map(_own_problem, arms)), "") if common else "no prompt in both arms"
    if problem:
        return [_score(name, math.nan, len(common), note=problem) for name in OWN_GAPS]
    (mine, a, a_size), (theirs, b, b_size) = (_averages(arm.values()) for arm in arms)
    return [
        _difference("nll_1-vanilla", mine, theirs, note),
        _difference("nll_1_median-vanilla", mine, theirs, note, median=True),
        _difference("nll_1_byte-vanilla", linearised(a, a_size), linearised(b, b_size), note),
    ]


def _own_problem(arm: Mapping[str, Sequence[AnswerNLL]]) -> str:
    for prompt, answers in arm.items():
        if not answers:
            raise DataError(f"prompt {prompt!r} has no answer; leave it out, or give its answers")
        for answer in answers:
            _checked(prompt, answer)
    unknown = [prompt for prompt, answers in arm.items() if any(math.isnan(answer.nll) for answer in answers)]
    if unknown:
        return f"{len(unknown)} of {len(arm)} prompts have answers without likelihood, the first {unknown[0]!r}"
    return ""


def _averages(prompts: Iterable[Sequence[AnswerNLL]]) -> np.ndarray:
    """Means over the answers of each prompt of NLL per token, NLL and bytes: (3, prompts)."""
    import numpy as np

    rows = []
    for answers in prompts:
        nll, tokens, size = _columns(answers)
        rows.append([(nll / tokens).mean(), nll.mean(), size.mean()])
    return np.array(rows, dtype=float).T


def in_both(student: Mapping[str, object], vanilla: Mapping[str, object]) -> tuple[list[str], str]:
    """The prompts of both arms in the student's order, and a note on those of one alone."""
    common = [prompt for prompt in student if prompt in vanilla]
    unpaired = len(student) + len(vanilla) - 2 * len(common)
    return common, f"{unpaired} prompts of one arm alone left out" if unpaired else ""


def shuffled(prompts: Iterable[str], seed: int) -> list[str]:
    """The prompts in an order by chance, a function of their set and `seed` alone: ids can begin with a stratum."""
    import numpy as np

    order = sorted(prompts)
    return [order[place] for place in np.random.default_rng(seed).permutation(len(order))]


def _levels(student: Mapping[str, AnswerNLL]) -> list[Score]:
    n, pooled = len(student), "perplexity_2_pooled"
    problem = _problem(student, student)
    if problem:
        return [_score(name, math.nan, n, note=problem) for name in (*(name.format(2) for name in NAMES), pooled)]
    nll, tokens, size = _columns(student.values())
    scores = _averaged(2, nll / tokens, nll, size, "answers have probability 0")
    interval = map(_exp, _ratio_interval(nll, tokens))
    return [*scores, _score(pooled, _exp(nll.sum() / tokens.sum()), n, interval, scores[0].note)]


def _averaged(kind: int, per_token: np.ndarray, nll: np.ndarray, size: np.ndarray, zero: str) -> list[Score]:
    """The scores of `NAMES` from one value a prompt: NLL per token, NLL and bytes, each (n,)."""
    import numpy as np

    n, mean, interval = len(nll), float(per_token.mean()), mean_interval(per_token)
    note = "" if math.isfinite(mean) else f"{int(np.isinf(nll).sum())} of {n} {zero}"
    average, perplexity, median, byte = (name.format(kind) for name in NAMES)
    return [
        _score(average, mean, n, interval, note),
        _score(perplexity, _exp(mean), n, map(_exp, interval), note),
        _score(median, _exp(np.median(per_token)), n, map(_exp, median_interval(per_token)), note),
        _per_byte(byte, nll, size, n, note),
    ]


def _per_byte(name: str, nll: np.ndarray, size: np.ndarray, n: int, note: str) -> Score:
    if not size.sum():
        return _score(name, math.nan, n, note="all answers are empty")
    return _score(name, nll.sum() / size.sum(), n, _ratio_interval(nll, size), note)


def _differences(student: Mapping[str, AnswerNLL], vanilla: Mapping[str, AnswerNLL]) -> list[Score]:
    common, note = in_both(student, vanilla)
    n = len(common)
    mine, theirs = ({prompt: arm[prompt] for prompt in common} for arm in (student, vanilla))
    problem = _problem(mine, theirs)
    if problem:
        return [_score(name, math.nan, n, note=problem) for name in GAPS]
    (a, tokens, size), (b, _, _) = _columns(mine.values()), _columns(theirs.values())
    return [
        _difference("nll_2-vanilla", a / tokens, b / tokens, note),
        _difference("nll_2_pooled-vanilla", linearised(a, tokens), linearised(b, tokens), note),
        _difference("nll_2_median-vanilla", a / tokens, b / tokens, note, median=True),
        _difference("nll_2_byte-vanilla", linearised(a, size), linearised(b, size), note),
    ]


def _difference(name: str, student: np.ndarray, vanilla: np.ndarray, note: str, median: bool = False) -> Score:
    """The mean, or the median, of the gaps between two arms over the same prompts (n,)."""
    import numpy as np

    if not (np.isfinite(student).all() and np.isfinite(vanilla).all()):
        return _score(name, math.nan, len(student), note="an answer has probability 0, or all are empty")
    gap = student - vanilla
    value, interval = (np.median(gap), median_interval(gap)) if median else (gap.mean(), mean_interval(gap))
    return _score(name, value, len(gap), interval, note)


def _problem(student: Mapping[str, AnswerNLL], vanilla: Mapping[str, AnswerNLL]) -> str:
    """Why nothing can be said about these answers, both arms having the same prompts; empty when something can."""
    for arm in (student, vanilla):
        for prompt, answer in arm.items():
            _checked(prompt, answer)
    if not student:
        return "no answers" if student is vanilla else "no prompt in both arms"
    unknown = [p for p in student if math.isnan(student[p].nll) or math.isnan(vanilla[p].nll)]
    if unknown:
        return f"{len(unknown)} of {len(student)} answers have no likelihood, the first to prompt {unknown[0]!r}"
    unlike = [p for p in student if student[p][1:] != vanilla[p][1:]]
    if unlike:
        return f"{len(unlike)} answers differ in tokens or bytes between the arms, the first to prompt {unlike[0]!r}"
    return ""


def _checked(prompt: str, answer: AnswerNLL) -> None:
    if answer.tokens < 1 or answer.bytes < 0:
        raise DataError(f"answer to prompt {prompt!r}: {answer}; tokens include EOS, so there is at least one")


def _columns(answers: Iterable[AnswerNLL]) -> np.ndarray:
    """NLL, tokens and bytes: (3, n)."""
    import numpy as np

    return np.array(list(answers), dtype=float).T


def _ratio_interval(numerators: np.ndarray, denominators: np.ndarray) -> tuple[float, float]:
    return mean_interval(linearised(numerators, denominators))


def _exp(x: float) -> float:
    return math.exp(x) if x < 709 or math.isnan(x) else math.inf


def _score(name: str, value: float, n: int, interval: Iterable[float] = (math.nan, math.nan), note: str = "") -> Score:
    low, high = interval
    if math.isfinite(value) and math.isnan(low) and n < MEDIAN_LEAST:
        note = "; ".join(filter(None, [f"no interval: too few prompts ({n})", note]))
    unit = "perplexity" if name.startswith("perplexity") else "nats/byte" if "byte" in name else "nats/token"
    better = None if "_1" in name else False  # own answers have no better direction
    return Score(name, float(value), n, low, high, unit, better, note)
