"""Cells × scores and arms × scores, as CSV for programs (long) and as Markdown for people (wide)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from synthdiv.core.ledger import EARLY, LEFT_OUT
from synthdiv.core.types import Score
from synthdiv.views.report.arms import DESCRIPTIVE, ENOUGH, Arm, Contrast, Mean
from synthdiv.views.report.collect import UNTOUCHED, Row
from synthdiv.views.report.labels import Labels, arrow, number

SCORE = ("measure", "value", "low", "high", "n", "unit", "higher_is_better", "note")
SCOPE = "95 % over prompts: this model, not this method"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """NaN stays `nan` and infinity `inf`, both of which readers know; an undefined value never becomes 0 or empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return text.getvalue()


def names_of(records: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def cells_csv(rows: Sequence[Row]) -> str:
    """One line per score of a cell. Cells without a score are not in it: they are listed in `report.md`."""
    axes, seeds = names_of(row.axes for row in rows), names_of(row.seeds for row in rows)
    lines = (
        [row.key, row.arm, row.state]
        + [row.axes.get(name) for name in axes]
        + [row.seeds.get(name) for name in seeds]
        + [score.name, score.value, score.low, score.high, score.n, score.unit, score.higher_is_better, score.note]
        for row in rows
        for score in row.scores.values()
    )
    return csv_text(["cell", "arm", "state", *axes, *seeds, *SCORE], lines)


def arms_csv(arms: Sequence[Arm], labels: Labels) -> str:
    """One line per measure of an arm; `spread` says what low and high are."""
    axes = names_of(arm.axes for arm in arms)
    lines = (
        [arm.key, labels.full(arm)]
        + [arm.axes.get(axis) for axis in axes]
        + [name, mean.value, mean.low, mean.high, mean.replicates, mean.spread]
        + [mean.like.unit, mean.like.higher_is_better, mean.note]
        for arm in arms
        for name, mean in arm.means.items()
    )
    measured = ["measure", "mean", "low", "high", "replicates", "spread", "unit", "higher_is_better", "note"]
    return csv_text(["arm", "name", *axes, *measured], lines)


class Footnotes:
    """Reasons, each numbered once."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def mark(self, reason: str) -> str:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return f" [{self.reasons.index(reason) + 1}]"

    def text(self) -> str:
        return "".join(f"\n[{place}] {reason}  " for place, reason in enumerate(self.reasons, 1)) + "\n"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    clean = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    clean.insert(1, ["---"] * len(header))
    return "".join("| " + " | ".join(row) + " |\n" for row in clean)


def head(name: str, scores: Iterable[Score]) -> str:
    """A measure's name with its direction and unit."""
    score = next(iter(scores))
    return f"{name}{arrow(score)}" + (f" ({score.unit})" if score.unit else "")


def cells_md(rows: Sequence[Row], measures: Sequence[str], labels: Labels, arms: Sequence[Arm]) -> str:
    """One line per cell that has scores, in the order of the arms."""
    notes, place = Footnotes(), {row.key: arm for arm in arms for row in arm.rows}
    told = sorted((row for row in rows if row.scores), key=lambda row: (labels.order(place[row.key]), seeds_text(row)))
    heads = [head(name, (row.scores[name] for row in told if name in row.scores)) for name in measures]
    lines = [
        [row.key[:8], labels.full(place[row.key]), seeds_text(row), row.state]
        + [cell_text(row.scores.get(name), notes) for name in measures]
        for row in told
    ]
    return f"Intervals: {SCOPE}.\n\n" + markdown(["cell", "arm", "seeds", "state", *heads], lines) + notes.text()


def seeds_text(row: Row) -> str:
    return " ".join(f"{name.removesuffix('.seed')}={value}" for name, value in row.seeds.items() if value != "n/a")


def cell_text(score: Score | None, notes: Footnotes) -> str:
    if score is None:
        return "—" + notes.mark("not measured: the suite is not finished, or has no such measure here")
    if math.isnan(score.value):
        return "—" + notes.mark(score.note)
    if math.isinf(score.value):
        return number(score.value) + notes.mark(score.note or "infinite")
    return number(score.value) + interval(score.low, score.high) + (notes.mark(score.note) if score.note else "")


def interval(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f" [{number(low)}, {number(high)}]"


def unmatched_md(arms: Sequence[Arm], labels: Labels) -> str:
    """A line for above the tables where arms train differently much: they were launched so, or stop early."""
    budgets: dict[str, dict[str, None]] = {}
    for arm in sorted(arms, key=labels.order):
        for row in arm.rows:
            if row.axes.get("mix") != UNTOUCHED:
                budgets.setdefault(row.unmatched, {})[labels.full(arm)] = None
    if len(budgets) < 2 and not any(word in budget for budget in budgets for word in (EARLY, LEFT_OUT)):
        return ""  # none was declared, or all train equally much
    told = (f"{', '.join(names)} ({budget or 'launched as matched'})" for budget, names in budgets.items())
    return f"**arms are not matched: {'; '.join(told)}**\n\n"


def arms_md(arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> str:
    """One line per arm: means over trained models, with what may be said of their spread."""
    notes = Footnotes()
    heads = [head(name, (arm.means[name].like for arm in arms if name in arm.means)) for name in measures]
    lines = [
        [labels.full(arm), str(arm.replicates), "descriptive" if arm.replicates < ENOUGH else "95 % t interval"]
        + [mean_text(arm.means.get(name), notes) for name in measures]
        for arm in sorted(arms, key=labels.order)
    ]
    scope = (
        "Means over replicates (trained models: generation seed × rotation × train seed). With three or more: mean "
        "[95 % t interval over replicates]. With fewer it is descriptive: mean (min – max), from which nothing follows "
        "about the method.\n\n"
    )
    return scope + markdown(["arm", "replicates", "spread", *heads], lines) + notes.text()


def mean_text(mean: Mean | None, notes: Footnotes) -> str:
    if mean is None:
        return "—" + notes.mark("not measured: the suite is not finished, or has no such measure here")
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
    """Several sources less the mean of their singles, one line per measure and arm."""
    notes = Footnotes()
    lines = []
    for found in contrasts:
        values = [number(value) if not math.isnan(value) else "—" for value in (found.several, found.singles)]
        known = math.isfinite(found.difference)
        why = "" if known else notes.mark("undefined or infinite in one of the arms")
        difference = f"{found.difference:+.4g}" if known else "—" + why
        spread = "descriptive" if found.replicates < ENOUGH else "not tested"
        told = [", ".join(found.sources), f"{found.replicates} ({spread})"]
        lines.append([found.measure, labels.full(found.arm), *values, difference, *told])
    header = ["measure", "several sources", "several", "mean of singles", "difference", "singles", "replicates"]
    return markdown(header, lines) + notes.text()


def unfinished_md(rows: Sequence[Row]) -> str:
    """Every cell that is not done, with its state."""
    lines = [
        [row.key[:8], cell_name(row), seeds_text(row), row.state, row.reason] for row in rows if row.state != "done"
    ]
    return markdown(["cell", "axes", "seeds", "state", "why"], lines) if lines else "Every cell is finished.\n"


def cell_name(row: Row) -> str:
    return " ".join(f"{name}={value}" for name, value in row.axes.items() if value not in ("n/a", ""))
