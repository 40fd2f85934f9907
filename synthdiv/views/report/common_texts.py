"""Differences of `@texts` measures: on the first prompts where both arms have a long answer, and again at half the
length where arms pass over different shares of the prompts: what remains is then a selection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from synthdiv.evaluate.collapse import grouped, responses
from synthdiv.generate.generate import read_samples
from synthdiv.measures.budgets import SELECTED, TextBudget, texts_gaps
from synthdiv.measures.estimates import join_notes
from synthdiv.measures.replicates import Effect
from synthdiv.measures.word_arm import WordArm
from synthdiv.views.layout import number
from synthdiv.views.report.collect import CellRow, finished, manifest, read_or

if TYPE_CHECKING:
    import numpy as np

TEXTS, WITHIN = "@texts", "_within@texts"
SELECTION = "selected: the shares of prompts passed over differ by"
Rows = Sequence[Sequence[CellRow]]
Texts = dict[str, list[str]]


def texts_differences(
    root: Path, rows: Rows, measure: str, weights: np.ndarray, half: bool = False
) -> tuple[np.ndarray, int] | None:
    """The differences (1, replicates) of the first arm and the weighted others, and the fewest texts that two arms
    share; NaN where these are too few. None where answers are absent or another suite measured them."""
    import numpy as np

    values, fewest, (decoding, _, name) = np.zeros((1, len(rows))), [], measure.rpartition("/")
    for at, each in enumerate(rows):
        suites = [finished(root, row.origin.get(measure, "")) for row in each]
        for place in np.flatnonzero(weights[1:, at]) + 1:
            gaps = all(suites) and texts_gaps_of(suites[0], suites[place], decoding, name.endswith(WITHIN), half)
            if not gaps or name not in gaps:
                return None
            values[0, at] -= weights[place, at] * gaps[name][0]
            fewest.append(gaps[name][1])
    return values, min(fewest)


@lru_cache(maxsize=4096)
def texts_gaps_of(one: Path, other: Path, decoding: str, within: bool, half: bool) -> dict[str, tuple[float, int]]:
    """By measure the difference of two suites and its texts; empty where one has no answers."""
    answers, others = answers_of(one, decoding), answers_of(other, decoding)
    if not (shared := [key for key in answers if key in others]):
        return {}
    budget = TextBudget(**{field.name: manifest(one)["fields"][field.name] for field in fields(TextBudget)})
    most, budget = None if within else 1, replace(budget, length=max(budget.length // (1 + half), 1))
    first, second = (WordArm([texts[key][:most] for key in shared], intervals=False) for texts in (answers, others))
    return {gap.measure.name: (gap.value, gap.n) for gap in texts_gaps(first, second, budget)}


@lru_cache(maxsize=32)
def answers_of(suite: Path, decoding: str) -> Texts:
    """The answers that a suite measured, by prompt in its order; none where they are absent or damaged."""
    taken = manifest(suite).get("inputs", {}).get(f"{decoding}/answers", {}).get("key", "-")
    return read_or(Texts(), finished(suite.parents[2], taken), lambda path: responses(grouped(read_samples(path))))


def checked_at_half(root: Path, rows: Rows, measure: str, weights: np.ndarray, made: Effect) -> Effect:
    """The effect, marked where the shares of prompts passed over differ. Its error is infinite, so that nothing is
    shown, where the sign is another one at half the length."""
    import numpy as np

    passed = f"{measure.rpartition('/')[0]}/passed_over{WITHIN if measure.endswith(WITHIN) else TEXTS}"
    scores = ((row.scores.get(passed) for row in each) for each in rows)
    shares = np.array([[score.value if score else math.nan for score in each] for each in scores])
    apart = abs(float((weights * shares.T).sum(axis=0).mean()))
    if not (measure.endswith(TEXTS) and apart > SELECTED):
        return made
    again = texts_differences(root, rows, measure, weights, half=True)
    value, shown = float(again[0].mean()) if again else math.nan, "the same sign at half the length"
    if not made.value * value > 0:
        made = replace(made, error=made.error + math.inf, parts=())
        shown = f"not shown: {number(made.value)}, but {number(value)} at half the length"
    return replace(made, note=join_notes(f"{SELECTION} {apart:.2f}; {shown}", made.note))
