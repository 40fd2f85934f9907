"""Tables of a report: CSV files for programs (one line per score) and Markdown for readers (one line per cell or arm).

`cells.csv` has one line per score of a cell:

    cell                    key of the cell
    arm                     key of its arm: cells of one arm differ in seeds only
    state                   done, running, queued, failed, blocked or stopped; finished suites count in every state
    mix, source, ...        one column per axis of the sweep; `n/a` where the axis made no difference, else empty
                            where the launch did not set it
    train.seed, ...         one column per seed
    measure                 name of the score
    value                   `nan` if undefined, `inf` if infinite
    low, high               95 % interval over prompts: of this trained model, not of the method; `nan` without one
    n                       independent units in the value, usually prompts
    unit                    unit of value, low and high
    higher_is_better        True, False, or empty where no direction is better
    note                    why the value is undefined, or what limits it
    role                    headline, caveat or empty, as the suite says

`arms.csv` has one line per measure of an arm:

    arm, name               key and label of the arm
    mix, source, ...        the axes, as above
    measure                 name of the score
    mean                    mean over replicates, which are trained models
    low, high               as `spread` says: 95 % t interval over trained models, with fewer than three the range
    replicates              trained models with a defined value
    spread                  meaning of low and high
    unit, higher_is_better  as above
    note                    how many cells are undefined, and why
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from synthdiv.core.ledger import EARLY, LEFT_OUT
from synthdiv.core.types import Score
from synthdiv.views.report.arms import DESCRIPTIVE, ENOUGH, Arm, Contrast, Mean
from synthdiv.views.report.collect import VANILLA, CellRow
from synthdiv.views.report.labels import Labels, arrow, number

SCORE = ("measure", "value", "low", "high", "n", "unit", "higher_is_better", "note", "role")
MEAN = ("measure", "mean", "low", "high", "replicates", "spread", "unit", "higher_is_better", "note")
SCOPE = "95 % over prompts: this model, not this method"
MISSING = "not measured: the suite is not finished, or does not have this measure"


def csv_text(columns: Iterable[str], lines: Iterable[dict[str, Any]]) -> str:
    """CSV with each of `columns` once. NaN is written as `nan` and infinity as `inf`; None and a missing value are
    empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(columns)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def cells_csv(rows: Sequence[CellRow]) -> str:
    """The text of `cells.csv`. Cells without a score are not in it; `report.md` lists them."""
    axes = [name for row in rows for name in row.axes]
    seeds = [name for row in rows for name in row.seeds]
    lines = (
        {"cell": row.key, "arm": row.arm, "state": row.state, **row.axes, **row.seeds, "measure": values.pop("name")}
        | values
        for row in rows
        for values in map(dataclasses.asdict, row.scores.values())
    )
    return csv_text(["cell", "arm", "state", *axes, *seeds, *SCORE], lines)


def arms_csv(arms: Sequence[Arm], labels: Labels) -> str:
    """The text of `arms.csv`."""
    axes = [name for arm in arms for name in arm.axes]
    lines = (
        {"arm": arm.key, "name": labels.full(arm), **arm.axes, "measure": measure, "mean": mean.value, "low": mean.low}
        | {"high": mean.high, "replicates": mean.replicates, "spread": mean.spread, "note": mean.note}
        | {"unit": mean.like.unit, "higher_is_better": mean.like.higher_is_better}
        for arm in arms
        for measure, mean in arm.means.items()
    )
    return csv_text(["arm", "name", *axes, *MEAN], lines)


class Footnotes:
    """Numbered notes below a table; equal notes share a number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, note: str) -> str:
        return f" [{self.numbers.setdefault(note, len(self.numbers) + 1)}]"

    def text(self) -> str:
        return "".join(f"\n[{number}] {note}  " for note, number in self.numbers.items()) + "\n"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    clean.insert(1, ["---"] * len(header))
    return "".join("| " + " | ".join(row) + " |\n" for row in clean)


def head(name: str, scores: Iterable[Score]) -> str:
    """A measure's name with its direction and unit."""
    score = next(iter(scores))
    return f"{name}{arrow(score)}" + (f" ({score.unit})" if score.unit else "")


def cells_md(rows: Sequence[CellRow], measures: Sequence[str], labels: Labels, arms: Sequence[Arm]) -> str:
    """One line per cell that has scores, in the order of the arms."""
    notes, arm_of = Footnotes(), {row.key: arm for arm in arms for row in arm.rows}
    scored = [row for row in rows if row.scores]
    scored.sort(key=lambda row: (labels.order(arm_of[row.key]), seeds_text(row)))
    heads = [head(name, (row.scores[name] for row in scored if name in row.scores)) for name in measures]
    lines = [
        [row.key[:8], labels.full(arm_of[row.key]), seeds_text(row), row.state]
        + [cell_text(row.scores.get(name), notes) for name in measures]
        for row in scored
    ]
    return f"Intervals: {SCOPE}.\n\n" + markdown(["cell", "arm", "seeds", "state", *heads], lines) + notes.text()


def seeds_text(row: CellRow) -> str:
    return " ".join(f"{name.removesuffix('.seed')}={value}" for name, value in row.seeds.items() if value != "n/a")


def cell_text(score: Score | None, notes: Footnotes) -> str:
    if score is None:
        return "—" + notes.mark(MISSING)
    if math.isnan(score.value):
        return "—" + notes.mark(score.note)
    if math.isinf(score.value):
        return number(score.value) + notes.mark(score.note or "infinite")
    return number(score.value) + interval(score.low, score.high) + (notes.mark(score.note) if score.note else "")


def interval(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f" [{number(low)}, {number(high)}]"


def unmatched_md(arms: Sequence[Arm], labels: Labels) -> str:
    """The warning above the tables if arms train different amounts, by `report.unmatched` or by stopping early."""
    budgets: dict[str, dict[str, None]] = {}
    for arm in sorted(arms, key=labels.order):
        for row in arm.rows:
            if row.axes.get("mix") != VANILLA:
                budgets.setdefault(row.unmatched, {})[labels.full(arm)] = None
    if len(budgets) < 2 and not any(word in budget for budget in budgets for word in (EARLY, LEFT_OUT)):
        return ""  # all arms train the same amount
    groups = (f"{', '.join(names)} ({budget or 'launched as matched'})" for budget, names in budgets.items())
    return f"**arms are not matched: {'; '.join(groups)}**\n\n"


def arms_md(arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> str:
    """One line per arm: means over trained models, with their interval or range."""
    notes = Footnotes()
    heads = [head(name, (arm.means[name].like for arm in arms if name in arm.means)) for name in measures]
    lines = [
        [labels.full(arm), str(arm.replicates), "descriptive" if arm.replicates < ENOUGH else "95 % t interval"]
        + [mean_text(arm.means.get(name), notes) for name in measures]
        for arm in sorted(arms, key=labels.order)
    ]
    scope = (
        "Means over replicates (trained models: generation seed × rotation × train seed). With three or more: mean "
        "[95 % t interval over replicates]. With fewer the row is descriptive: mean (min – max), which supports no "
        "conclusion about the method.\n\n"
    )
    return scope + markdown(["arm", "replicates", "spread", *heads], lines) + notes.text()


def mean_text(mean: Mean | None, notes: Footnotes) -> str:
    if mean is None:
        return "—" + notes.mark(MISSING)
    mark = notes.mark(mean.note) if mean.note else ""
    if math.isnan(mean.value):
        return "—" + mark
    text = number(mean.value)
    if mean.spread == DESCRIPTIVE:
        text += f" ({number(mean.low)} – {number(mean.high)})" if mean.replicates > 1 else ""
    else:
        text += interval(mean.low, mean.high)
    return text + mark


def contrasts_md(contrasts: Sequence[Contrast], labels: Labels) -> str:
    """Several sources minus the mean of their singles, one line per measure and arm."""
    notes = Footnotes()
    lines = []
    for item in contrasts:
        values = [number(value) if not math.isnan(value) else "—" for value in (item.several, item.singles)]
        difference = f"{item.difference:+.4g}" if math.isfinite(item.difference) else "—"
        if difference == "—":
            difference += notes.mark("undefined or infinite in one of the arms")
        spread = "descriptive" if item.replicates < ENOUGH else "not tested"
        singles = [", ".join(item.sources), f"{item.replicates} ({spread})"]
        lines.append([item.measure, labels.full(item.arm), *values, difference, *singles])
    header = ["measure", "several sources", "several", "mean of singles", "difference", "singles", "replicates"]
    return markdown(header, lines) + notes.text()


def unfinished_md(rows: Sequence[CellRow]) -> str:
    """Every cell that is not done, with its state."""
    lines = [
        [row.key[:8], cell_name(row), seeds_text(row), row.state, row.reason] for row in rows if row.state != "done"
    ]
    return markdown(["cell", "axes", "seeds", "state", "why"], lines) if lines else "Every cell is finished.\n"


def cell_name(row: CellRow) -> str:
    return " ".join(f"{name}={value}" for name, value in row.axes.items() if value not in ("n/a", ""))
