"""The grid of a sweep, the shape of the picture of the design and of the heat maps: a row for each mix, a column for
each combination of the other axes that differ. An arm to which the axes of the columns do not apply (human, vanilla) is
one wide box: it is one result, not one for each column."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.core.types import Score
from synthdiv.evaluate.suite import HEADLINE
from synthdiv.views.layout import number
from synthdiv.views.report.arms import INTERVAL, Arm, Mean, measures_of, value_of
from synthdiv.views.report.collect import VANILLA, CellRow, of_role
from synthdiv.views.report.labels import Labels, axis_words, natural

WIDEST = 8  # columns; an axis that gives more becomes rows
SHADES = 7  # of a heat map
HEADLINES = 12  # measures that are drawn; all others are behind the search


@dataclass(frozen=True)
class Box:
    """One arm in the grid, `wide` columns. `text` and `small` are its lines, `shade` its colour, `hint` a tooltip."""

    arm: Arm | None
    wide: int = 1
    text: str = ""
    small: str = ""
    shade: str = ""
    hint: str = ""
    states: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ArmGrid:
    """Arms by row and column. `axes` are those of the columns."""

    axes: list[str]
    columns: list[tuple[str, ...]]
    rows: dict[str, list[Arm | None]]

    @property
    def headings(self) -> list[str]:
        """The name of each column: what the launch set."""
        pairs = ([*zip(self.axes, values, strict=True)] for values in self.columns)
        named = ([axis_words(axis, value) for axis, value in column if value != "default"] for column in pairs)
        return [" · ".join(words).replace("→ ", "") or ("default" if self.axes else "all") for words in named]

    def boxes(self, row: Sequence[Arm | None]) -> Iterator[tuple[Arm | None, int]]:
        """Each arm of a row once, with the number of columns it covers."""
        start = 0
        for at in range(1, len(row) + 1):
            if at == len(row) or row[at] is not row[start] or row[at] is None:
                yield row[start], at - start
                start = at


def grid_of(arms: Sequence[Arm], labels: Labels) -> ArmGrid:
    """Axes that apply to every arm come first: so the columns of an arm with fewer axes are neighbours."""
    arms = sorted(arms, key=labels.order)
    axes = sorted(
        (axis for axis in labels.varying if axis != "source"),
        key=lambda axis: any(value_of(arm, axis) == NOT_APPLICABLE for arm in arms),
    )
    column_axes, row_axes = list[str](), list[str]()
    for axis in axes:
        few = len(columns_of(arms, [*column_axes, axis])) <= WIDEST or not column_axes
        (column_axes if few else row_axes).append(axis)
    columns, axes = columns_of(arms, column_axes), column_axes
    rows: dict[str, list[Arm | None]] = {}
    for arm in arms:
        row = rows.setdefault(row_label(arm, row_axes, labels), [None] * len(columns))
        for at, column in enumerate(columns):
            if row[at] is None and within(values_of(arm, axes), column):
                row[at] = arm
    return ArmGrid(axes, columns, rows)


def columns_of(arms: Sequence[Arm], axes: Sequence[str]) -> list[tuple[str, ...]]:
    """The combinations of the arms to which most axes apply, and of those that none of them covers."""
    values = dict.fromkeys(values_of(arm, axes) for arm in arms)
    combinations = [each for each in values if not any(other != each and within(each, other) for other in values)]
    return sorted(combinations, key=lambda column: [natural(value) for value in column])


def values_of(arm: Arm, axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(value_of(arm, axis) for axis in axes)


def within(column: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two combinations are equal on all axes that apply to the first."""
    return all(value in (NOT_APPLICABLE, other_value) for value, other_value in zip(column, other, strict=True))


def column_title(axes: Sequence[str], column: Sequence[str]) -> str:
    return " · ".join(map(axis_words, axes, column)).replace("→ ", "")


def row_label(arm: Arm, below: Sequence[str], labels: Labels) -> str:
    values = {axis: value_of(arm, axis) for axis in below}
    named = (axis_words(axis, value) for axis, value in values.items() if value not in (NOT_APPLICABLE, "default"))
    return " · ".join([labels.mix(arm), *named])


def design(grid: ArmGrid) -> dict[str, list[Box]]:
    """The design as a picture: a mark for each trained model, with its state."""

    def box(arm: Arm | None, wide: int) -> Box:
        states = [row.state for row in arm.rows] if arm else []
        return Box(arm, wide, states=states, hint=", ".join(states))

    return {name: [box(*pair) for pair in grid.boxes(row)] for name, row in grid.rows.items()}


def heat(grid: ArmGrid, measure: str) -> dict[str, list[Box]]:
    """The grid of one measure. Shades are of the range of the trained arms: the vanilla student would squeeze them."""
    arms = [arm for row in grid.rows.values() for arm in row if arm]
    trained = [arm.means[measure].value for arm in arms if measure in arm.means and arm.axes.get("mix") != VANILLA]
    finite = [value for value in trained if math.isfinite(value)]
    low, high = min(finite, default=math.nan), max(finite, default=math.nan)

    def box(arm: Arm | None, wide: int) -> Box:
        mean = arm.means.get(measure) if arm else None
        if mean is None:
            return Box(arm, wide, "", "not measured" if arm else "")
        ends = f"{number(mean.low)} – {number(mean.high)}" if mean.spread and mean.replicates > 1 else ""
        hint = f"{counts([mean])}. {mean.note}"
        return Box(arm, wide, number(mean.value), ends, shade_of(mean.value, low, high), hint)

    return {name: [box(*pair) for pair in grid.boxes(row)] for name, row in grid.rows.items()}


def same(arms: Sequence[Arm], measure: str) -> str:
    """The value of a measure, as text, where all arms that have it have the same; else, and where undefined, empty."""
    values = {number(arm.means[measure].value) for arm in arms if measure in arm.means}
    return "".join(values - {number(math.nan)}) if len(values) == 1 else ""


def shade_of(value: float, low: float, high: float) -> str:
    """The name of a colour: by place within the range, `outside` it, or `undefined`."""
    if not math.isfinite(value) or math.isnan(low):
        return "undefined" if math.isnan(value) else "outside"
    if not low <= value <= high:
        return "outside"
    return f"shade{int((value - low) / (high - low) * (SHADES - 0.001)) if high > low else SHADES // 2}"


def counts(means: Sequence[Mean]) -> str:
    """How many trained models and prompts are behind these means, and what the numbers below them are."""
    means = [mean for mean in means if mean.replicates]
    if not means:
        return "no value"
    models, n = spread_of([mean.replicates for mean in means]), spread_of([mean.n for mean in means])
    kinds = dict.fromkeys("interval" if mean.spread == INTERVAL else "range" for mean in means if mean.replicates > 1)
    below = f"; below a mean its {' or '.join(kinds)}" * bool(kinds)
    return f"{models} model{'s' * (models != '1')}, n {n}{below}"


def spread_of(counts: Sequence[int]) -> str:
    return " – ".join(f"{count:,}" for count in dict.fromkeys((min(counts), max(counts))))


def shown_headlines(rows: Sequence[CellRow], most: int = HEADLINES) -> tuple[list[str], list[str], Mapping[str, str]]:
    """Of the headline scores of all suites: at most `most` that are drawn and compared, those that are only in the
    search, and by name why no arm has a value. Each suite has its first before another has its second; the difference
    to the vanilla student is not drawn beside its level. Vanilla students count where there are no others."""
    names = of_role(rows, HEADLINE) or measures_of(rows)
    tuned = [row for row in rows if row.axes.get("mix") != VANILLA] or rows
    scores: dict[str, list[Score]] = {name: [row.scores[name] for row in tuned if name in row.scores] for name in names}
    undefined = {
        name: each[0].note for name, each in scores.items() if each and all(math.isnan(score.value) for score in each)
    }
    suites: dict[str, list[str]] = {}
    for name in names:
        if scores[name] and name not in undefined and name.removesuffix("-vanilla") not in {*names} - {name}:
            suite = next(row.suites.get(name, "") for row in rows if name in row.scores)
            suites.setdefault(suite, []).append(name)
    turns = [(place, name) for members in suites.values() for place, name in enumerate(members)]
    first = {name for _, name in sorted(turns, key=lambda turn: turn[0])[:most]}
    drawn = [name for name in names if name in first]
    return drawn, [name for name in names if name not in first and name not in undefined], undefined
