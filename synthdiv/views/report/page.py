"""`synthdiv report`: tables, figures and the page that ties them together, in `<outputs>/reports/<sweep>/`."""

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
from synthdiv.views.report.collect import Row, collect
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

# What a reader looks at first, as far as a sweep has it; the other scores are in the CSV files, and `report.measures=`
# shows any of them.
KEY = (
    "nll_2",
    "nll_2_support-vanilla",
    "truth/excess_nll",
    "truth/coverage",
    "truth/coverage_tail",
    "published/self_bleu_3@words",
    "plain/self_bleu_3@texts",
    "plain/distinct_2_within@texts",
    "plain/distinct_2_between@texts",
    "plain/vendi_1",
    "plain/recall",
)
# What makes the others hard to read where it is not small: answers cut at the token limit, and without a word.
RATES = ("published/truncated", "published/empty", "plain/truncated", "plain/empty")
OVERVIEW = 6  # measures in the overview


def write_report(root: Path, name: str, measures: list[str]) -> Path:
    """Write the report of a sweep and return its page. `measures` are the columns of the tables and the figures
    drawn; without any, the key measures."""
    rows = collect(root, name)
    arms = arms_of(rows)
    if not arms:
        states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(row.state for row in rows).items()))
        raise ConfigError(f"sweep {name!r} has no finished cell yet ({states}); see `synthdiv status {name}`")
    there = measures_of(rows)
    chosen = checked(measures, there) or [name for name in KEY if name in there] or there[:OVERVIEW]
    final, draft = root / "reports" / name, root / "reports" / f".{name}.{os.getpid()}.draft"
    try:
        labels = Labels(arms)
        warning = unmatched_md(arms, labels)
        write_figures(draft / "figures", arms, chosen, labels)
        for file, text in {
            "cells.csv": cells_csv(rows),
            "cells.md": warning + cells_md(rows, chosen, labels, arms),
            "arms.csv": arms_csv(arms, labels),
            "arms.md": warning + arms_md(arms, chosen, labels),
            "report.md": page(name, rows, arms, chosen, labels),
        }.items():
            (draft / file).write_text(text, encoding="utf-8")
        replace(draft, final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final / "report.md"


def checked(measures: Sequence[str], there: Sequence[str]) -> list[str]:
    """Refuse a measure that no cell has, with the nearest names."""
    problems = []
    for name in measures:
        if name not in there:
            near = difflib.get_close_matches(name, there, 3, 0.4) or there
            problems.append(f"report.measures={name}: no such score in this sweep; there are {', '.join(near)}")
    if problems:
        raise ConfigError(problems)
    return list(measures)


def file_name(measure: str) -> str:
    return re.sub(r"[^\w.-]+", "_", measure) + ".png"


def write_figures(folder: Path, arms: Sequence[Arm], chosen: Sequence[str], labels: Labels) -> None:
    draw_overview(arms, chosen[:OVERVIEW], labels, folder / "overview.png")
    for name in chosen:
        draw_measure(arms, name, labels, folder / file_name(name))


def replace(draft: Path, final: Path) -> None:
    """Put each new file in place of the old one, the page last, and drop figures of measures that are gone."""
    fresh = sorted(path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
    for path in sorted(fresh, key=lambda path: path.name == "report.md"):
        (final / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft / path, final / path)
    for path in (final / "figures").glob("*.png"):
        if path.relative_to(final) not in fresh:
            path.unlink()


def page(name: str, rows: Sequence[Row], arms: Sequence[Arm], chosen: Sequence[str], labels: Labels) -> str:
    """The report itself."""
    states = Counter(row.state for row in rows)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    replicates = [arm.replicates for arm in arms]
    found = sorted(contrasts(arms, chosen), key=lambda one: (chosen.index(one.measure), labels.order(one.arm)))
    parts = [
        f"# {name}\n",
        f"{len(rows)} unique cells, untouched students among them ({counts}), in {len(arms)} arms with "
        f"{span(replicates)} each. Cells that mean the same are one cell and enter once.\n",
        unmatched_md(arms, labels).removesuffix("\n"),
        "![overview](figures/overview.png)\n",
        f"## Arms\n\n{arms_md(arms, chosen, labels)}",
    ]
    rates = [name for name in RATES if any(name in arm.means for arm in arms)]
    if rates:
        parts.append(f"## Truncated and empty answers\n\n{arms_md(arms, rates, labels)}")
    if found:
        parts.append(f"## Several sources less the mean of their singles\n\n{null_note(labels, found)}\n\n")
        parts[-1] += contrasts_md(found, labels)
    parts += [
        "## Figures\n\n" + "".join(f"![{measure}](figures/{file_name(measure)})\n\n" for measure in chosen),
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


def null_note(labels: Labels, found: Sequence[Contrast]) -> str:
    """A toy world is no evidence by itself: its null stands beside it, or is asked for."""
    if not any(one.measure.startswith("truth/") for one in found):
        return "The mean is over the singles that were launched, named in the table."
    told = "In the toy world's default the ordering human < multi < single is nearly built in. "
    if "generators.overlap" in labels.panels:
        return told + (
            "With `generators.overlap=1` all families share one law, so several sources can differ from their singles "
            "by no more than the generators' training, the choice of singles and chance leave: compare each difference "
            "with the one there."
        )
    return told + "No null world stands beside it: launch the sweep again with `generators.overlap=0,1`."


def notes(arms: Sequence[Arm]) -> str:
    few = sum(arm.replicates < ENOUGH for arm in arms)
    return "".join(
        f"- {note}\n"
        for note in (
            "The replicate is a trained model (generation seed × rotation × train seed), not a prompt. Intervals of "
            "single cells are over prompts: this model, not this method.",
            f"{few} of {len(arms)} arms have fewer than three replicates: they are descriptive, and show a range.",
            "Sources are fixed effects: nothing here speaks of sources that were not used.",
            "Whether a source shares the student's family is not yet set apart from how many sources there are.",
            "Nothing is tested or corrected for multiplicity here.",
            "Undefined is shown as — with its reason, never as 0.",
        )
    )
