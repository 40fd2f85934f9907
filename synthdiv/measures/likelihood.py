"""Perplexity 2: how improbable the human test answers are to a model, and how much more than to the untouched student.

Takes log-likelihoods that were computed with the template applied, at temperature 1, with nothing removed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.measures.intervals import linearised, mean_interval, median_interval
from synthdiv.types import DataError, Score

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np


class AnswerNLL(NamedTuple):
    """One human answer under one model.

    `nll` is -ln q in nats, summed over the answer's tokens and one EOS; `tokens` >= 1 counts them, EOS included;
    `bytes` >= 0 is the length of the answer in UTF-8.
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
    - `nll_2-vanilla` and `nll_2_byte-vanilla`: student minus vanilla, on the prompts that both have.

    Undefined is NaN with a note: no answers, an NLL that is NaN, no bytes, or answers whose token or byte counts differ
    between student and vanilla (then template or tokenizer differ). An infinite NLL gives infinite means, without an
    interval. Raises DataError for an answer with no token.
    """
    scores = _levels(student)
    return scores if vanilla is None else scores + _differences(student, vanilla)


def _levels(student: Mapping[str, AnswerNLL]) -> list[Score]:
    import numpy as np

    names = ("nll_2", "perplexity_2", "perplexity_2_pooled", "perplexity_2_median", "nll_2_byte")
    n = len(student)
    problem = _problem(student, student)
    if problem:
        return [_score(name, math.nan, n, note=problem) for name in names]
    nll, tokens, size = _columns(student.values())
    per_token = nll / tokens
    mean, interval = float(per_token.mean()), mean_interval(per_token)
    note = "" if math.isfinite(mean) else f"{int(np.isinf(nll).sum())} of {n} answers have probability 0"
    return [
        _score("nll_2", mean, n, interval, note),
        _score("perplexity_2", _exp(mean), n, map(_exp, interval), note),
        _score("perplexity_2_pooled", _exp(nll.sum() / tokens.sum()), n, map(_exp, _ratio_interval(nll, tokens)), note),
        _score("perplexity_2_median", _exp(np.median(per_token)), n, map(_exp, median_interval(per_token)), note),
        _per_byte(nll, size, n, note),
    ]


def _per_byte(nll: np.ndarray, size: np.ndarray, n: int, note: str) -> Score:
    if not size.sum():
        return _score("nll_2_byte", math.nan, n, note="all answers are empty")
    return _score("nll_2_byte", nll.sum() / size.sum(), n, _ratio_interval(nll, size), note)


def _differences(student: Mapping[str, AnswerNLL], vanilla: Mapping[str, AnswerNLL]) -> list[Score]:
    common = [prompt for prompt in student if prompt in vanilla]
    n = len(common)
    mine, theirs = ({prompt: arm[prompt] for prompt in common} for arm in (student, vanilla))
    problem = _problem(mine, theirs)
    if problem:
        return [_score(f"{name}-vanilla", math.nan, n, note=problem) for name in ("nll_2", "nll_2_byte")]
    unpaired = len(student) + len(vanilla) - 2 * n
    note = f"{unpaired} answers of one arm alone left out" if unpaired else ""
    (a, tokens, size), (b, _, _) = _columns(mine.values()), _columns(theirs.values())
    return [
        _difference("nll_2-vanilla", a / tokens, b / tokens, note),
        _difference("nll_2_byte-vanilla", linearised(a, size), linearised(b, size), note),
    ]


def _difference(name: str, student: np.ndarray, vanilla: np.ndarray, note: str) -> Score:
    import numpy as np

    if not (np.isfinite(student).all() and np.isfinite(vanilla).all()):
        return _score(name, math.nan, len(student), note="an answer has probability 0, or all are empty")
    gap = student - vanilla
    return _score(name, gap.mean(), len(gap), mean_interval(gap), note)


def _problem(student: Mapping[str, AnswerNLL], vanilla: Mapping[str, AnswerNLL]) -> str:
    """Why nothing can be said about these answers, both arms having the same prompts; empty when something can."""
    for arm in (student, vanilla):
        for prompt, answer in arm.items():
            if answer.tokens < 1 or answer.bytes < 0:
                raise DataError(f"answer to prompt {prompt!r}: {answer}; tokens include EOS, so there is at least one")
    if not student:
        return "no answers" if student is vanilla else "no prompt in both arms"
    unknown = [p for p in student if math.isnan(student[p].nll) or math.isnan(vanilla[p].nll)]
    if unknown:
        return f"{len(unknown)} of {len(student)} answers have no likelihood, the first to prompt {unknown[0]!r}"
    unlike = [p for p in student if student[p][1:] != vanilla[p][1:]]
    if unlike:
        return f"{len(unlike)} answers differ in tokens or bytes between the arms, the first to prompt {unlike[0]!r}"
    return ""


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
    unit = "perplexity" if name.startswith("perplexity") else "nats/byte" if "byte" in name else "nats/token"
    return Score(name, float(value), n, low, high, unit, False, note)
