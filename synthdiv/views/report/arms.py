"""Statistics of arms: the mean over trained models, and the contrast of several sources with each of them alone.

The replicate is a trained model. With fewer than three of them the range is shown and labelled descriptive.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.core.types import Score
from synthdiv.measures.intervals import mean_interval
from synthdiv.views.report.collect import VANILLA, CellRow

ENOUGH = 3  # trained models; with fewer the spread is only described
DESCRIPTIVE = "range, descriptive: fewer than three replicates"
INTERVAL = "95 % t interval over trained models"
SEVERAL = ("multi", "multi_decoding")


@dataclass(frozen=True)
class Mean:
    """A measure of an arm: its mean over trained models."""

    value: float
    low: float
    high: float
    replicates: int
    """Trained models with a defined value."""
    spread: str
    """What `low` and `high` are: `INTERVAL`, `DESCRIPTIVE`, or empty without a replicate."""
    note: str
    like: Score
    """A score of one cell, for the unit and the direction."""


@dataclass(frozen=True)
class Arm:
    """Cells that differ in seeds only. `axes` are those of its first cell."""

    key: str
    axes: dict[str, Any]
    rows: list[CellRow]
    means: dict[str, Mean]

    @property
    def replicates(self) -> int:
        return len({row.model for row in self.rows if row.scores})


def arms_of(rows: Sequence[CellRow]) -> list[Arm]:
    """The arms of all cells that have scores."""
    groups: dict[str, list[CellRow]] = defaultdict(list)
    for row in rows:
        if row.scores:
            groups[row.arm].append(row)
    return [
        Arm(key, members[0].axes, members, {name: mean(members, name) for name in measures_of(members)})
        for key, members in groups.items()
    ]


def measures_of(rows: Sequence[CellRow]) -> list[str]:
    """The names of all scores, in the order of the suites."""
    return list(dict.fromkeys(name for row in rows for name in row.scores))


def mean(rows: Sequence[CellRow], name: str) -> Mean:
    """The mean of the measure `name`. Cells of one trained model are averaged first: they are one replicate."""
    models: dict[str, list[float]] = defaultdict(list)
    scores = {row.key: row.scores[name] for row in rows if name in row.scores}
    for row in rows:
        if row.key in scores and not math.isnan(scores[row.key].value):
            models[row.model].append(scores[row.key].value)
    values = [math.fsum(each) / len(each) for each in models.values()]
    undefined = [score.note for score in scores.values() if math.isnan(score.value)]
    like = next(iter(scores.values()))
    reasons = "; ".join(dict.fromkeys(undefined))
    note = f"undefined in {len(undefined)} of {len(scores)} cells: {reasons}" if undefined else ""
    if not values:
        return Mean(math.nan, math.nan, math.nan, 0, "", note, like)
    centre = math.fsum(values) / len(values)
    if len(values) < ENOUGH:
        return Mean(centre, min(values), max(values), len(values), DESCRIPTIVE, note, like)
    low, high = mean_interval(values)
    return Mean(centre, low, high, len(values), INTERVAL, note, like)


@dataclass(frozen=True)
class Contrast:
    """A measure of an arm with several sources minus the mean of the single-source arms that are otherwise equal."""

    arm: Arm
    measure: str
    several: float
    singles: float
    """The mean over the single-source arms."""
    sources: list[str]
    """The sources of these arms."""
    replicates: int
    """The smallest number of replicates among all these arms."""

    @property
    def difference(self) -> float:
        return self.several - self.singles


def contrasts(arms: Sequence[Arm], measures: Sequence[str]) -> list[Contrast]:
    """The contrasts of all arms with several sources. Each single source has the same weight."""
    result = []
    for arm in arms:
        singles = [other for other in arms if other.axes.get("mix") == "single" and context(other) == context(arm)]
        if arm.axes.get("mix") not in SEVERAL or not singles:
            continue
        sources = [str(other.axes.get("source")) for other in singles]
        for name in measures:
            parts = [other.means.get(name) for other in singles]
            if name in arm.means and all(parts):
                values = [part.value for part in parts if part]
                replicates = min([arm.means[name].replicates, *(part.replicates for part in parts if part)])
                average = math.fsum(values) / len(values)
                result.append(Contrast(arm, name, arm.means[name].value, average, sources, replicates))
    return result


def context(arm: Arm) -> dict[str, str]:
    """The axes that must be equal in a contrast: all but the sources of the answers and their shares."""
    return {name: shown(value) for name, value in arm.axes.items() if name not in ("mix", "source", "mix.weights")}


def varying(arms: Sequence[Arm]) -> list[str]:
    """The axes other than the mix in which arms differ. Human and vanilla arms are compared among themselves: their
    real share and missing generators follow from the mix."""
    groups: dict[str, list[Arm]] = defaultdict(list)
    for arm in arms:
        mix = str(arm.axes.get("mix"))
        groups[mix if mix in (VANILLA, "human") else "synthetic"].append(arm)
    axes: dict[str, None] = {}
    for members in groups.values():
        for axis in dict.fromkeys(axis for arm in members for axis in arm.axes if axis != "mix"):
            if len({value_of(arm, axis) for arm in members} - {NOT_APPLICABLE}) > 1:
                axes[axis] = None
    return list(axes)


def value_of(arm: Arm, axis: str) -> str:
    """The value of an axis as text. An axis below a group that does not apply does not apply either."""
    if axis not in arm.axes and arm.axes.get(axis.split(".")[0]) == NOT_APPLICABLE:
        return NOT_APPLICABLE
    return shown(arm.axes.get(axis))


def shown(value: Any) -> str:
    """The value of an axis as text: equal numbers give equal text; an axis that the launch did not set is `default`."""
    if value is None or value == "":
        return "default"
    try:
        return f"{float(value):g}"
    except (TypeError, ValueError):
        return str(value)
