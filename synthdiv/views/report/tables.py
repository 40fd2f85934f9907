"""The tables of a report as rows: for CSV with every digit (`docs/outputs.md` has the columns), and as text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from synthdiv.core.ledger import EARLY, LEFT_OUT, NOT_APPLICABLE
from synthdiv.core.types import Score
from synthdiv.views.layout import Row, arrow, interval, markdown, number
from synthdiv.views.report.arms import DESCRIPTIVE, ENOUGH, Arm, Mean, contrasts
from synthdiv.views.report.collect import VANILLA, CellRow
from synthdiv.views.report.labels import Labels

HIDDEN = ("name", "role", "note", "least", "most")  # the last two are in scores.json
MISSING = "not measured: the suite is not finished, or does not have this measure"


def cell_rows(rows: Sequence[CellRow]) -> list[Row]:
    """A row for each score of a cell. Cells without a score have none; the page lists them."""
    blank = {name: "" for row in rows for name in (*row.axes, *row.seeds)}
    return [
        {"cell": row.key, "arm": row.arm, "state": row.state, **blank, **row.axes, **row.seeds, "measure": score.name}
        | {name: value for name, value in dataclasses.asdict(score).items() if name not in HIDDEN}
        | {"note": score.note, "role": score.role}
        for row in rows
        for score in row.scores.values()
    ]


def arm_rows(arms: Sequence[Arm], labels: Labels) -> list[Row]:
    """A row for each measure of an arm."""
    blank = {name: "" for arm in arms for name in arm.axes}
    return [
        {"arm": arm.key, "name": labels.name(arm), **blank, **arm.axes, "measure": measure, "mean": mean.value}
        | {"low": mean.low, "high": mean.high, "replicates": mean.replicates, "n": mean.n, "spread": mean.spread}
        | {"seeds": " ".join(arm.seeds), "unit": mean.like.unit, "higher_is_better": mean.like.higher_is_better}
        | {"note": mean.note}
        for arm in arms
        for measure, mean in arm.means.items()
    ]


def heading(score: Score) -> str:
    """A measure's name with its direction and unit."""
    return score.name + arrow(score.higher_is_better) + (f" ({score.unit})" if score.unit else "")


def cells_md(rows: Sequence[CellRow], measures: Sequence[str], labels: Labels, arms: Sequence[Arm]) -> str:
    """A table for each measure, a line for each cell that has scores, in the order of the arms."""
    ordered = [(arm, row) for arm in sorted(arms, key=labels.order) for row in sorted(arm.rows, key=seeds_text)]
    parts = []
    for name in measures:
        lines = [
            {"cell": row.key[:8], "arm": labels.name(arm), "seeds": seeds_text(row), "state": row.state}
            | score_text(row.scores.get(name))
            for arm, row in ordered
        ]
        like = next(row.scores[name] for _, row in ordered if name in row.scores)
        parts.append(f"## {heading(like)}\n\n{markdown(lines)}")
    return "Intervals: 95 % over prompts: this model, not this method.\n\n" + "\n".join(parts)


def seeds_text(row: CellRow) -> str:
    named = (f"{name.removesuffix('.seed')}={value}" for name, value in row.seeds.items() if value != NOT_APPLICABLE)
    return " ".join(named)


def score_text(score: Score | None) -> dict[str, Any]:
    if score is None:
        return {"value": math.nan, "note": MISSING}
    note = score.note or ("infinite" if math.isinf(score.value) else "")
    return {"value": score.value, "95 %": interval(score.low, score.high), "n": score.n, "note": note}


def arms_md(arms: Sequence[Arm], name: str, labels: Labels, level: str = "##") -> str:
    """One measure: a line for each arm with its mean over trained models, and their interval or range."""
    like = next(arm.means[name].like for arm in arms if name in arm.means)
    lines = [{"arm": labels.name(arm)} | mean_text(arm.means.get(name), arm) for arm in sorted(arms, key=labels.order)]
    return f"{level} {heading(like)}\n\n{markdown(lines)}"


def mean_text(mean: Mean | None, arm: Arm) -> dict[str, Any]:
    if mean is None:
        return {"mean": math.nan, "models": 0, "note": MISSING}
    spread = ""
    if mean.spread == DESCRIPTIVE:
        spread = f"{number(mean.low)} – {number(mean.high)} (range)" if mean.replicates > 1 else "one model"
    elif mean.spread:
        spread = interval(mean.low, mean.high)
    facts = {"models": mean.replicates, "seeds that vary": ", ".join(arm.seeds), "n": mean.n, "note": mean.note}
    return {"mean": mean.value, "spread": spread, **facts}


def contrasts_md(arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> str:
    """Several sources minus the mean of their singles, one line per measure and arm; empty without such arms."""
    lines = []
    for arm, row in contrasts(sorted(arms, key=labels.order), measures):
        difference, test = row["difference"], "descriptive" if row["models"] < ENOUGH else "not tested"
        note = "" if math.isfinite(difference) else "undefined or infinite in one of the arms"
        lines.append(
            {"measure": row.pop("measure"), "several sources": labels.name(arm), **row, "note": note or test}
            | {"difference": f"{difference:+.4g}" if math.isfinite(difference) else "—"}
        )
    return markdown(lines) if lines else ""


def unfinished_md(rows: Sequence[CellRow]) -> str:
    """Every cell that is not done, with its state and the reason."""
    lines = [
        {"cell": row.key[:8], "axes": axes_text(row.axes), "seeds": seeds_text(row), "state": row.state}
        | {"why": row.reason}
        for row in rows
        if row.state != "done"
    ]
    return markdown(lines) if lines else "Every cell is finished.\n"


def axes_text(axes: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in axes.items() if value not in (NOT_APPLICABLE, ""))


def unmatched_md(arms: Iterable[Arm], labels: Labels) -> str:
    """The warning above the tables if arms train different amounts, by `report.unmatched` or by stopping early."""
    budgets: dict[str, dict[str, None]] = {}
    for arm in sorted(arms, key=labels.order):
        for row in arm.rows:
            if row.axes.get("mix") != VANILLA:
                budgets.setdefault(row.unmatched, {})[labels.name(arm)] = None
    if len(budgets) < 2 and not any(word in budget for budget in budgets for word in (EARLY, LEFT_OUT)):
        return ""  # all arms train the same amount
    groups = (f"{', '.join(names)} ({budget or 'launched as matched'})" for budget, names in budgets.items())
    return f"**arms are not matched: {'; '.join(groups)}**\n\n"
