"""`synthdiv report`: tables, figures and the page that contains them, in `<outputs>/reports/<sweep>/`."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from synthdiv.core.ledger import NOT_APPLICABLE, Ledger
from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import readings
from synthdiv.views.layout import csv_text, plural
from synthdiv.views.report.arms import ENOUGH, Arm, arms_of, measures_of
from synthdiv.views.report.collect import CellRow, collect
from synthdiv.views.report.figures import draw
from synthdiv.views.report.judges import judges_md
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.tables import (
    arm_rows,
    arms_md,
    cell_rows,
    cells_md,
    contrasts_md,
    unfinished_md,
    unmatched_md,
)
from synthdiv.views.report.unanswered import unanswered_md

OVERVIEW = 6  # measures in the overview


def write_report(root: Path, name: str, measures: list[str]) -> Path:
    """Write the report of a sweep and return the path of its page. `measures` are those of the tables and the figures;
    an empty list selects the headline scores of the suites."""
    rows = collect(root, name)
    arms = arms_of(rows)
    if not arms:
        lines = "".join(f"\n{row.key[:8]} {row.state}: {row.reason}" for row in rows if row.reason)
        raise ConfigError(
            f"sweep {name!r} has no finished cell yet ({states(rows)}); see `synthdiv status {name}`{lines}"
        )
    available = measures_of(rows)
    selected = checked(measures, available) or of_role(rows, "headline") or available[:OVERVIEW]
    labels = Labels(arms)
    suites = dict.fromkeys(suite for cell in Ledger(root, name).cells() for suite in cell.suites)
    final, draft = root / "reports" / name, root / "reports" / f".{name}.{os.getpid()}.draft"
    try:
        draw(arms, selected[:OVERVIEW], labels, draft / "figures" / "overview.png")
        for measure in selected:
            draw(arms, [measure], labels, draft / "figures" / file_name(measure))
        for file, text in {
            "cells.csv": csv_text(cell_rows(rows)),
            "cells.md": unmatched_md(arms, labels) + cells_md(rows, selected, labels, arms),
            "arms.csv": csv_text(arm_rows(arms, labels)),
            "report.md": page(
                name, rows, arms, selected, labels, list(suites), unanswered_md(root, name), judges_md(root, name)
            ),
        }.items():
            (draft / file).write_text(text, encoding="utf-8")
        replace(draft, final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final / "report.md"


def states(rows: Sequence[CellRow]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(Counter(row.state for row in rows).items()))


def of_role(rows: Sequence[CellRow], role: str) -> list[str]:
    """The names of the scores that their suites call a headline or a caveat."""
    return list(dict.fromkeys(name for row in rows for name, score in row.scores.items() if score.role == role))


def checked(measures: Sequence[str], available: Sequence[str]) -> list[str]:
    """The measures; refuses one that no cell has and lists the nearest names."""
    problems = []
    for name in measures:
        if name not in available:
            near = difflib.get_close_matches(name, available, 3, 0.4) or available
            problems.append(f"report.measures={name}: no such score in this sweep; choose from {', '.join(near)}")
    if problems:
        raise ConfigError(problems)
    return list(measures)


def file_name(measure: str) -> str:
    return re.sub(r"[^\w.-]+", "_", measure) + ".png"


def replace(draft: Path, final: Path) -> None:
    """Replace each file, the page last, and remove figures that the new report does not have."""
    fresh = sorted(path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
    (final / "figures").mkdir(parents=True, exist_ok=True)
    for path in sorted(fresh, key=lambda path: path.name == "report.md"):
        os.replace(draft / path, final / path)
    for path in (final / "figures").glob("*.png"):
        if path.relative_to(final) not in fresh:
            path.unlink()


def page(
    name: str,
    rows: Sequence[CellRow],
    arms: Sequence[Arm],
    selected: Sequence[str],
    labels: Labels,
    suites: Sequence[str],
    unanswered: str = "",
    judges: str = "",
) -> str:
    """The report itself."""
    models = sorted({arm.replicates for arm in arms})
    parts = [
        f"# {name}\n",
        f"{len(rows)} unique cells, vanilla students included ({states(rows)}), in {plural(len(arms), 'arm')} with "
        f"{' to '.join(map(str, dict.fromkeys((models[0], models[-1]))))} trained models each. Launched cells with the "
        "same key count once.\n",
        unmatched_md(arms, labels).removesuffix("\n"),
        "![overview](figures/overview.png)\n",
    ]
    for measure in selected:
        parts += [arms_md(arms, measure, labels), f"![{measure}](figures/{file_name(measure)})\n"]
    if differences := contrasts_md(arms, selected, labels):
        parts.append(
            "## Several sources minus the mean of their singles\n\nThe mean is over the singles that were launched, "
            f"named in the table.\n\n{differences}"
        )
    if caveats := of_role(rows, "caveat"):
        parts.append("## How far the scores can be trusted\n")
        parts += [arms_md(arms, measure, labels, "###") for measure in caveats]
    parts += [
        "Every score is in the CSV files; `report.measures=NAME,…` shows any of them here.\n",
        judges and f"## Judges and relatives\n\n{judges}",
        unanswered and f"## Prompts without an answer\n\n{unanswered}",
        f"## Not finished\n\n{unfinished_md(rows)}",
        f"## How to read this\n\n{notes(arms, suites)}",
        "Files: `cells.csv` (one line per score), `cells.md`, `arms.csv`, `figures/`.\n",
    ]
    return "\n".join(part for part in parts if part)


def seeds_note(arms: Sequence[Arm]) -> str:
    """Which seeds an interval is over, and which stand still and are therefore not in it."""
    names = dict.fromkeys(name for arm in arms for row in arm.rows for name in row.seeds)
    varied = [name for name in names if any(name in arm.seeds for arm in arms)]
    used = [name for name in names if any(row.seeds.get(name, NOT_APPLICABLE) != NOT_APPLICABLE
                                          for arm in arms for row in arm.rows)]  # fmt: skip
    fixed = [name for name in used if name not in varied]
    over = f"Intervals and ranges are over {', '.join(varied)}" if varied else "No seed varies within an arm"
    return over + (f"; {', '.join(fixed)} did not vary, and no interval covers what they do." if fixed else ".")


def notes(arms: Sequence[Arm], suites: Sequence[str]) -> str:
    few = sum(arm.replicates < ENOUGH for arm in arms)
    return "".join(
        f"- {note}\n"
        for note in (
            "The replicate is a trained model, not a prompt. Intervals of single cells are over prompts: this model, "
            "not this method. n counts prompts, of the cell that has the fewest.",
            seeds_note(arms),
            f"{few} of {len(arms)} arms have fewer than three replicates: they are descriptive and show a range, which "
            "supports no conclusion about the method.",
            "Sources are fixed effects: the results do not extend to sources that were not used.",
            "Whether a source shares the student's family is not separated from the number of sources.",
            "There are no tests, and nothing is corrected for multiplicity.",
            "Undefined is shown as — with its reason, never as 0. ↑ ↓: better, or more diverse.",
            *readings(suites),
        )
    )
