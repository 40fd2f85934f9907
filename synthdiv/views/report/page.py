"""`synthdiv report`: tables, figures and the page that contains them, in `<outputs>/reports/<sweep>/`."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from synthdiv.core.types import ConfigError
from synthdiv.views.report.arms import ENOUGH, Arm, Contrast, arms_of, contrasts, measures_of
from synthdiv.views.report.collect import CellRow, collect
from synthdiv.views.report.figures import draw_measure, draw_overview
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.tables import (
    arms_csv,
    arms_md,
    cells_csv,
    cells_md,
    contrasts_md,
    unfinished_md,
    unmatched_md,
)

OVERVIEW = 6  # measures in the overview


def write_report(root: Path, name: str, measures: list[str]) -> Path:
    """Write the report of a sweep and return the path of its page. `measures` are the columns of the tables and the
    figures; an empty list selects the headline scores of the suites."""
    rows = collect(root, name)
    arms = arms_of(rows)
    if not arms:
        states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(row.state for row in rows).items()))
        raise ConfigError(f"sweep {name!r} has no finished cell yet ({states}); see `synthdiv status {name}`")
    available = measures_of(rows)
    selected = checked(measures, available) or of_role(rows, "headline") or available[:OVERVIEW]
    final, draft = root / "reports" / name, root / "reports" / f".{name}.{os.getpid()}.draft"
    try:
        labels = Labels(arms)
        warning = unmatched_md(arms, labels)
        write_figures(draft / "figures", arms, selected, labels)
        for file, text in {
            "cells.csv": cells_csv(rows),
            "cells.md": warning + cells_md(rows, selected, labels, arms),
            "arms.csv": arms_csv(arms, labels),
            "arms.md": warning + arms_md(arms, selected, labels),
            "report.md": page(name, rows, arms, selected, labels),
        }.items():
            (draft / file).write_text(text, encoding="utf-8")
        replace(draft, final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final / "report.md"


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


def write_figures(folder: Path, arms: Sequence[Arm], selected: Sequence[str], labels: Labels) -> None:
    draw_overview(arms, selected[:OVERVIEW], labels, folder / "overview.png")
    for name in selected:
        draw_measure(arms, name, labels, folder / file_name(name))


def replace(draft: Path, final: Path) -> None:
    """Replace each file, the page last, and remove figures that the new report does not have."""
    fresh = sorted(path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
    for path in sorted(fresh, key=lambda path: path.name == "report.md"):
        (final / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft / path, final / path)
    for path in (final / "figures").glob("*.png"):
        if path.relative_to(final) not in fresh:
            path.unlink()


def page(name: str, rows: Sequence[CellRow], arms: Sequence[Arm], selected: Sequence[str], labels: Labels) -> str:
    """The report itself."""
    states = Counter(row.state for row in rows)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    replicates = [arm.replicates for arm in arms]
    differences = sorted(
        contrasts(arms, selected), key=lambda one: (selected.index(one.measure), labels.order(one.arm))
    )
    parts = [
        f"# {name}\n",
        f"{len(rows)} unique cells, vanilla students included ({counts}), in {len(arms)} arms with "
        f"{span(replicates)} each. Launched cells with the same key are one cell and count once.\n",
        unmatched_md(arms, labels).removesuffix("\n"),
        "![overview](figures/overview.png)\n",
        f"## Arms\n\n{arms_md(arms, selected, labels)}",
    ]
    if caveats := of_role(rows, "caveat"):
        parts.append(f"## How far the scores can be trusted\n\n{arms_md(arms, caveats, labels)}")
    if differences:
        parts.append(f"## Several sources minus the mean of their singles\n\n{null_note(labels, differences)}\n\n")
        parts[-1] += contrasts_md(differences, labels)
    parts += [
        "## Figures\n\n" + "".join(f"![{measure}](figures/{file_name(measure)})\n\n" for measure in selected),
        "Every score is in the tables; `report.measures=NAME,…` draws any of them.\n",
        f"## Not finished\n\n{unfinished_md(rows)}",
        f"## How to read this\n\n{notes(arms)}",
        "Files: `cells.csv` (one line per score), `cells.md`, `arms.csv`, `arms.md`, `figures/`.\n",
    ]
    return "\n".join(part for part in parts if part)


def span(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    several = "" if most == 1 else "s"
    return f"{most} replicate{several}" if least == most else f"{least} to {most} replicates"


def null_note(labels: Labels, differences: Sequence[Contrast]) -> str:
    """How to read the contrasts: a difference in a toy world is evidence only beside the null world."""
    if not any(one.measure.startswith("truth/") for one in differences):
        return "The mean is over the singles that were launched, named in the table."
    note = "With the toy world's defaults the ordering human < multi < single nearly follows from its construction. "
    if "generators.overlap" in labels.panels:
        return note + (
            "With `generators.overlap=1` all families share one distribution, so differences there come only from the "
            "generators' training, the selection of singles and chance: compare each difference with the one there."
        )
    return note + "This sweep has no null world: launch it again with `generators.overlap=0,1`."


def notes(arms: Sequence[Arm]) -> str:
    few = sum(arm.replicates < ENOUGH for arm in arms)
    return "".join(
        f"- {note}\n"
        for note in (
            "The replicate is a trained model (generation seed × rotation × train seed), not a prompt. Intervals of "
            "single cells are over prompts: this model, not this method.",
            f"{few} of {len(arms)} arms have fewer than three replicates: they are descriptive and show a range.",
            "Sources are fixed effects: the results do not extend to sources that were not used.",
            "Whether a source shares the student's family is not separated from the number of sources.",
            "There are no tests, and nothing is corrected for multiplicity.",
            "Undefined is shown as — with its reason, never as 0.",
        )
    )
