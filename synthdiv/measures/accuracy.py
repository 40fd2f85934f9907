"""Right and wrong answers to questions: exact match, choices by log-likelihood, and whether a task can be measured."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from synthdiv.core.types import Score
from synthdiv.measures.estimates import SHARE, Estimate, Measure, join_notes, mean_of, undefined

MARKS = " \t\n.,;:!?\"'`*_()[]{}“”‘’«»$"  # around a word: punctuation, Markdown and dollars, but not signs or percent


def normal_form(text: str, pattern: str = "") -> str:
    """Return what is compared of an answer: NFKC in lower case, words without the marks around them, numbers without
    commas between thousands. With a `pattern`, of its last match alone (its first group, if it has one); empty if there
    is none."""
    if pattern:
        matches = list(re.finditer(pattern, text))
        text = (matches[-1][1] if matches[-1].re.groups else matches[-1][0]) or "" if matches else ""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(filter(None, (word.strip(MARKS) for word in text.split())))


def exact_match(answer: str, right: Sequence[str], pattern: str = "") -> float:
    """Return 1 if the answer has the normal form of one of the right answers, else 0."""
    form = normal_form(answer, pattern)
    return float(bool(form) and form in [normal_form(each, pattern) for each in right])


def choice_is_right(nll: Sequence[float], lengths: Sequence[int], right: Sequence[int]) -> float:
    """Return 1 if the choice with the least negative log-likelihood per length is right, else 0; the first of equals.
    `lengths` of 1 compare sums (`acc` of lm-evaluation-harness), bytes give `acc_bytes`, characters `acc_norm`."""
    values = [value / length for value, length in zip(nll, lengths, strict=True)]
    return float(values.index(min(values)) in right)


def guess_share(right: Sequence[Sequence[str]], pattern: str = "") -> float:
    """Return the share of questions that the one best constant answer gets right, in 0 to 1; 0 without questions.
    Answers are compared as by `exact_match`, of which an empty one is never right."""
    counts = Counter(each for answers in right for each in {normal_form(answer, pattern) for answer in answers} - {""})
    return max(counts.values(), default=0) / max(len(right), 1)


def task_scores(
    measure: Measure, values: Mapping[str, float], vanilla: Mapping[str, float] | None, chance: float | None
) -> list[Score]:
    """Return the mean of `values`, one for each question, and its paired difference from the `vanilla` student.

    Both are NaN where the vanilla student (None: this is it) is not above `chance`: its 95 % interval reaches down to
    it. Then a difference would say how students guess. `chance` is None where no level is known.
    """
    level = estimate(measure, list(values.values()))
    base = estimate(measure, [vanilla[key] for key in values]) if vanilla is not None else None
    estimates = [level] if base is None else [level, level.minus(base)]
    before = (base or level).score()
    if chance is not None and not before.low > chance:
        reason = (
            f"not measurable: the vanilla student is not above chance ({before.value:.3f}, 95 % interval "
            f"{before.low:.3f} to {before.high:.3f}; chance {chance:.3f})"
        )
        estimates = [replace(undefined(measure, reason, each.n), difference=each.difference) for each in estimates]
    note = "" if chance is None else f"chance {chance:.3f}"
    return [replace(score, note=join_notes(score.note, note)) for score in (each.score() for each in estimates)]


def estimate(measure: Measure, values: Any) -> Estimate:
    return mean_of(measure, values, len(values) if measure.unit == SHARE else 0)


def share_measure(name: str) -> Measure:
    """A share of questions that are answered right."""
    return Measure(name, SHARE, True, "no question", 0, 1)
