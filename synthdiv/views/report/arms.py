"""Statistics of arms: the mean over replicates, with fewer than three of them their range, labelled descriptive. The
replicate is a trained model, in rounds a population, whose members are averaged before anything is drawn."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.ledger import NOT_APPLICABLE, CellRecord
from synthdiv.core.types import Score
from synthdiv.measures.estimates import VANILLA, join_notes
from synthdiv.measures.intervals import NONE, bounded_interval, half_width
from synthdiv.measures.replicates import ENOUGH
from synthdiv.study.records import BY_SOURCES
from synthdiv.views.report.collect import CellRow

MEMBER, ROUND, LINEAGE = "rounds.member", "rounds.round", "rounds.lineage"
DESCRIPTIVE, INTERVAL = "range, descriptive", "95 % t interval"
NO_INTERVAL = "no interval: all trained models have the same value, or one is infinite"


@dataclass(frozen=True)
class Mean:
    """A measure of an arm: its mean over trained models."""

    value: float
    low: float
    high: float
    replicates: int
    """Independent trained models with a defined value."""
    n: int
    """Units, usually prompts, of the cell that has the fewest."""
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
        return len(independent(self.rows))

    @property
    def launch(self) -> str:
        """The first launch with a cell of this arm."""
        return min(row.launch.split("-", 1)[-1] for row in self.rows)  # the time, without the engine

    @property
    def sources(self) -> tuple[str, ...]:
        return self.rows[0].sources

    @property
    def seeds(self) -> list[str]:
        """The seeds that differ between its cells: the variation that an interval covers."""
        return list(varying(self.rows))


def arms_of(rows: Sequence[CellRow], scored: bool = True) -> list[Arm]:
    """The arms of all cells that have scores, or of all cells."""
    groups: dict[str, list[CellRow]] = defaultdict(list)
    for row in rows:
        if row.scores or not scored:
            groups[row.arm].append(row)
    return [
        Arm(key, members[0].axes, members, {name: mean(members, name) for name in measures_of(members)})
        for key, members in groups.items()
    ]


def measures_of(rows: Sequence[CellRow]) -> list[str]:
    """The names of all scores, in the order of the suites."""
    return list(dict.fromkeys(name for row in rows for name in row.scores))


def mean(rows: Sequence[CellRow], name: str) -> Mean:
    """The mean of the measure `name` over models that share no seed that varies, as in comparisons. Cells of one
    trained model are averaged first: they are one replicate."""
    models: dict[str, list[float]] = defaultdict(list)
    scored = [row for row in rows if name in row.scores]
    defined = [row for row in scored if not math.isnan(row.scores[name].value)]
    for row in defined:
        models[row.model].append(row.scores[name].value)
    values = [math.fsum(models[row.model]) / len(models[row.model]) for row in independent(defined)]
    undefined = [row.scores[name].note for row in scored if math.isnan(row.scores[name].value)]
    reasons = "; ".join(dict.fromkeys(undefined))
    note = f"undefined in {len(undefined)} of {len(scored)} cells: {reasons}" if undefined else ""
    if len(values) < len(models):
        note = join_notes(note, f"{len(values)} of {len(models)} models: the others share a seed with these")
    like, n = scored[0].scores[name], min((row.scores[name].n for row in defined), default=0)
    if not values:
        return Mean(math.nan, math.nan, math.nan, 0, n, "", note, like)
    centre, enough = math.fsum(values) / len(values), len(values) >= ENOUGH
    if not enough:
        return Mean(centre, min(values), max(values), len(values), n, DESCRIPTIVE, note, like)
    low, high = replicate_interval(values, centre, like)
    if math.isnan(low):
        return Mean(centre, low, high, len(values), n, "", join_notes(note, NO_INTERVAL), like)
    return Mean(centre, low, high, len(values), n, INTERVAL, note, like)


def replicate_interval(values: Sequence[float], centre: float, like: Score) -> tuple[float, float]:
    """The t interval over trained models, of a level on a scale without bounds, of a difference cut at its bounds;
    (NaN, NaN) where they do not differ, which says nothing of others."""
    half = half_width(np.array(values)) if all(map(math.isfinite, values)) else math.nan
    if not half > max(1e-12 * abs(centre), 1e-15):  # rounding
        return NONE
    if not like.name.endswith(VANILLA) and like.least < centre < like.most:
        return bounded_interval(centre, half, like.least, like.most)
    return max(centre - half, like.least), min(centre + half, like.most)


def varying(rows: Sequence[CellRow]) -> tuple[str, ...]:
    """The seeds that differ between rows."""
    names = dict.fromkeys(name for row in rows for name in row.seeds)
    return tuple(name for name in names if len({str(row.seeds.get(name)) for row in rows}) > 1)


def independent(rows: Sequence[CellRow]) -> list[CellRow]:
    """Models that share no seed that varies: those that share one are no independent replicates."""
    names, independent_rows = varying(rows), list[CellRow]()
    ordered = sorted(rows, key=lambda row: [str(row.seeds.get(name)).zfill(20) for name in names])
    models = [*{row.model: row for row in reversed(ordered)}.values()][::-1]  # the first cell of each
    names = varying(models)
    for row in models:
        if not any(row.seeds[n] == one.seeds[n] != NOT_APPLICABLE for n in names for one in independent_rows):
            independent_rows.append(row)
    return independent_rows


def value_of(arm: Arm | CellRecord, axis: str) -> str:
    """The value of an axis as text. An axis below a group that does not apply does not apply either, and to human
    answers none that says how sources write."""
    applies = arm.axes.get(axis.split(".")[0]) != NOT_APPLICABLE
    if axis not in arm.axes and not (applies and (arm.axes.get("mix") != "human" or not axis.startswith(BY_SOURCES))):
        return NOT_APPLICABLE
    return text_of(arm.axes.get(axis))


def text_of(value: Any) -> str:
    """The value of an axis as text: equal numbers give equal text; an axis that the launch did not set is `default`."""
    if value is None or value == "":
        return "default"
    try:
        return f"{float(value):.15g}"
    except (TypeError, ValueError):
        return str(value)


def populations(arms: Sequence[Arm]) -> list[Arm]:
    """Arms that differ in the member alone as one arm, whose axis names the members. Round 0, which arms share, is
    there for each set of members of later rounds too, so that no arm depends on the members of another. A member
    without a score is a member too; arms in which nobody has one are left out."""
    groups: dict[str, dict[str, Arm]] = defaultdict(dict)
    for arm in arms:
        if MEMBER in arm.axes:
            rest = {axis: value for axis, value in arm.axes.items() if axis != MEMBER}
            value = value_of(arm, MEMBER)
            groups[json.dumps(rest, sort_keys=True)][value if value.isdecimal() else "0"] = arm
    starts = [group for group in groups.values() if next(iter(group.values())).axes.get(ROUND) == "0"]
    later = {tuple(sorted(group)) for group in groups.values() if group not in starts}
    begun = [models(group.values()) for group in starts]  # a start without a population is that of one member too
    result = [arm for arm in arms if MEMBER not in arm.axes]
    for group in groups.values():
        result.append(population([group[member] for member in sorted(group)]))
        parts = [[group[each] for each in members] for members in sorted(later) if {*members} < {*group}]
        result += [population(part) for part in parts if group in starts and models(part) not in begun]
    return [arm for arm in result if arm.means]


def models(arms: Iterable[Arm]) -> set[str]:
    return {row.model for arm in arms for row in arm.rows}


def population(members: Sequence[Arm]) -> Arm:
    """One arm. A model of it is a replicate: the cells with the same seeds."""
    rows = [replace(row, model=json.dumps(row.seeds, sort_keys=True)) for arm in members for row in arm.rows]
    names = [value if (value := value_of(arm, MEMBER)).isdecimal() else "0" for arm in members]
    means = {name: population_mean(rows, name, len(members)) for name in measures_of(rows)}
    return Arm(members[0].key, members[0].axes | {MEMBER: "+".join(names)}, rows, means)


def population_mean(rows: Sequence[CellRow], name: str, members: int) -> Mean:
    """The mean over the replicates in which every member has this measure: that of fewer is of another population."""
    defined = Counter(row.model for row in rows if name in row.scores and not math.isnan(row.scores[name].value))
    whole = [row for row in rows if defined[row.model] == members]
    total, n_full = len({row.model for row in rows}), len({row.model for row in whole})
    result = mean(whole or rows, name)
    if not whole:
        result = replace(result, value=math.nan, low=math.nan, high=math.nan, replicates=0, spread="")
    note = f"{total - n_full} of {total} replicates lack one of {members} members and are left out" * (n_full < total)
    return replace(result, note=join_notes(note, result.note))
