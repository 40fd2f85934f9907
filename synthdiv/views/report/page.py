"""`synthdiv report`: one page that answers, and beside it tables and figures, in `<outputs>/reports/<sweep>/`."""

from __future__ import annotations

import difflib
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from synthdiv.core.ledger import NOT_APPLICABLE, Ledger
from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import CAVEAT, HEADLINE, declared, readings
from synthdiv.measures.replicates import ENOUGH
from synthdiv.views.layout import Row, csv_text, plural
from synthdiv.views.report.arms import Arm, arms_of, measures_of, value_of
from synthdiv.views.report.collect import CellRow, collect, of_role
from synthdiv.views.report.contrasts import Contrast, contrasts
from synthdiv.views.report.cross_checks import cross_checks
from synthdiv.views.report.figures import draw
from synthdiv.views.report.findings import ClaimResult, answer_lines, claim_results
from synthdiv.views.report.heat import counts, design, grid_of, heat, shown_headlines
from synthdiv.views.report.judges import judge_rows
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.plots import against, along, losses
from synthdiv.views.report.populations import populations
from synthdiv.views.report.render import render
from synthdiv.views.report.samples import Samples, samples_of
from synthdiv.views.report.sessions import Provenance, provenance
from synthdiv.views.report.tables import (
    arm_rows,
    cell_rows,
    claim_rows,
    comparison_rows,
    contrast_rows,
    heading,
    latex,
    measure_rows,
    unfinished_rows,
    unmatched,
)
from synthdiv.views.report.unanswered import unanswered_rows

HEADLINES = 12  # measures that are drawn; all others are behind the search
ALONG = 4  # measures that are drawn along an axis of numbers
PAPER = 6  # measures of the figure for papers


def write_report(root: Path, name: str, measures: list[str]) -> Path:
    """Write the report of a sweep and return the path of its page. `measures` are those that are drawn; an empty list
    selects the headline scores of the suites."""
    rows = collect(root, name)
    arms = arms_of(rows)
    if not arms:
        lines = "".join(f"\n{row.key[:8]} {row.state}: {row.reason}" for row in rows if row.reason)
        raise ConfigError(
            f"sweep {name!r} has no finished cell yet ({states(rows)}); see `synthdiv status {name}`{lines}"
        )
    selected = checked(measures, measures_of(rows))
    ledger = Ledger(root, name)
    facts = provenance(root, ledger.nodes())
    labels = Labels(arms_of(rows, scored=False))
    headlines, minor, undefined = shown_headlines(rows, of_role(rows, HEADLINE) or measures_of(rows), HEADLINES)
    drawn = selected or headlines
    samples = samples_of(root, name, arms, labels)
    made = contrasts(root, sorted(arms, key=labels.order), drawn)
    claims, checks = claim_results(root, name, arms), cross_checks(root, arms, made, drawn, labels)
    final, draft = root / "reports" / name, root / "reports" / f".{name}.{os.getpid()}.draft"
    try:
        write_answers(draft, samples)
        draw(arms, drawn[:PAPER], labels, draft / "figures" / "overview")
        files = {
            "cells.csv": csv_text(cell_rows(rows)),
            "arms.csv": csv_text(arm_rows(arms, labels)),
            "contrasts.csv": csv_text(contrast_rows(made, labels)),
            **{f"{file_name(title.lower())}.csv": csv_text(lines) for title, lines in checks.items()},
            "answer.txt": "".join(f"{line}\n" for line in answer_lines(claims, made, labels)),
            **swarm_files(rows, labels, arms, facts, drawn),
            **{f"tables/{file_name(measure)}.tex": tex(arms, measure, labels) for measure in drawn},
        }
        files["index.html"] = render(
            page(root, name, rows, arms, labels, drawn, facts)
            | {
                "answer": answers(claims, made, labels),
                "compared": {"All comparisons": comparison_rows(made, labels)} | checks,
            }
            | {"minor": minor, "undefined": undefined, "samples": samples.page(), "files": beside(draft, files)}
        )
        for file, text in files.items():
            (draft / file).parent.mkdir(parents=True, exist_ok=True)
            (draft / file).write_text(text, encoding="utf-8")
        replace(draft, final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final / "index.html"


def page(
    root: Path, name: str, rows: list[CellRow], arms: list[Arm], labels: Labels, drawn: list[str], facts: Provenance
) -> dict[str, Any]:
    """What the template shows, section by section."""
    everyone = arms_of(rows, scored=False)
    grid = grid_of(everyone, labels)
    suites = list(dict.fromkeys(suite for row in rows for suite in row.suites.values()))
    scores = {name: next(arm.means[name].like for arm in arms if name in arm.means) for name in measures_of(rows)}
    judges, relations = judge_rows(root, name)
    unanswered, left_out = unanswered_rows(root, name)
    together = populations(arms)
    in_populations = Labels(together)
    plots = {
        "quality": [plot for x in chain(*declared(suites, "diversity")) for y in chain(*declared(suites, "quality"))
                    if (plot := against(x, y, arms, labels))],
        "drift": [plot for axis in in_populations.varying for measure in drawn[:ALONG]
                  if (plot := along(axis, measure, together, in_populations))],
        "loss": [plot for plot in (losses(root, arms, labels),) if plot],
    }  # fmt: skip
    caveats = of_role(rows, CAVEAT)
    return {
        "name": name,
        "states": states(rows),
        "partial": sum(row.state != "done" for row in rows),
        "cells": len(rows),
        "question": question(everyone, labels),
        "grid": grid,
        "design": design(grid, rows),
        "unmatched": unmatched(arms, labels),
        "heats": [
            (heading(scores[measure]), counts([arm.means[measure] for arm in arms if measure in arm.means]),
             heat(grid, measure), measure_rows(arms, measure, labels))
            for measure in drawn
        ],
        "plots": plots,
        "caveats": [(heading(scores[measure]), measure_rows(arms, measure, labels)) for measure in caveats],
        "facts": facts,
        "unfinished": unfinished_rows(rows),
        "unanswered": unanswered,
        "left_out": left_out,
        "judges": judges,
        "relations": relations,
        "notes": notes(arms, suites, facts),
        "every": every(arms, labels, scores),
    }  # fmt: skip


def question(arms: Sequence[Arm], labels: Labels) -> str:
    """What the sweep varies, as a question."""
    mixes = dict.fromkeys(labels.mix(arm) for arm in sorted(arms, key=labels.order))
    others = [
        f"{axis} ({', '.join(dict.fromkeys(v for arm in arms if (v := value_of(arm, axis)) != NOT_APPLICABLE))})"
        for axis in labels.varying
        if axis != "source"
    ]
    text = f"What does the source of the training answers ({', '.join(mixes)}) do to the student"
    return text + (f", and does it depend on {', '.join(others)}?" if others else "?")


def answers(claims: Sequence[ClaimResult], made: Sequence[Contrast], labels: Labels) -> dict[str, list[Row]]:
    """The claims, then the primary comparisons, one table each."""
    tables = {"Claims": claim_rows(claims, labels)} if claims else {}
    for each in made:
        if each.primary:
            title = f"{each.name}: {labels.name(each.arm)}"
            tables.setdefault(title, []).extend(comparison_rows([each], labels, titled=False))
    return tables


def every(arms: Sequence[Arm], labels: Labels, scores: dict[str, Any]) -> dict[str, Any]:
    """All scores of all arms for the search: names once, then `[arm, measure, mean, low, high, models, n, note]`."""
    places, notes_seen = {name: at for at, name in enumerate(scores)}, dict[str, int]()
    lines = [
        (
            at,
            places[name],
            mean.value,
            mean.low,
            mean.high,
            mean.replicates,
            mean.n,
            notes_seen.setdefault(mean.note, len(notes_seen)),
        )
        for at, arm in enumerate(sorted(arms, key=labels.order))
        for name, mean in arm.means.items()
    ]
    names = [labels.name(arm) for arm in sorted(arms, key=labels.order)]
    return {"arms": names, "measures": [heading(score) for score in scores.values()], "lines": lines,
            "notes": list(notes_seen)}  # fmt: skip


def write_answers(folder: Path, samples: Samples) -> None:
    """The first answers of one cell of each arm to every prompt, those of the page among them."""
    folder.mkdir(parents=True)
    if samples.every:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.Table.from_pylist(samples.every)
        pyarrow.parquet.write_table(table, folder / "answers.parquet", compression="zstd")


def beside(folder: Path, files: Iterable[str]) -> list[str]:
    """The files of a report, by name."""
    written = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted({*written, *files})


def swarm_files(
    rows: Sequence[CellRow], labels: Labels, arms: Sequence[Arm], facts: Provenance, measures: Sequence[str]
) -> dict[str, str]:
    """`ratios.csv` and `metrics.csv`, as `olmix fit` reads them: the share of each source and the measures of each
    finished trained cell, joined by `run_id`."""
    ratios, metrics = list[Row](), list[Row]()
    sources = list(dict.fromkeys(source for mix in facts.mixes.values() for source in mix.get("sources", ())))
    for arm in sorted(arms, key=labels.order):
        for row in arm.rows:
            counts = facts.mixes.get(row.model, {}).get("sources", {})
            if total := sum(counts.values()):
                run = {"run_id": row.key, "name": labels.name(arm)}
                ratios.append(run | {source: counts.get(source, 0) / total for source in sources})
                values = {name: row.scores[name].value if name in row.scores else math.nan for name in measures}
                metrics.append(run | {name: value if math.isfinite(value) else "" for name, value in values.items()})
    return {"ratios.csv": csv_text(ratios), "metrics.csv": csv_text(metrics)} if ratios else {}


def tex(arms: Sequence[Arm], measure: str, labels: Labels) -> str:
    like = next(arm.means[measure].like for arm in arms if measure in arm.means)
    return latex(measure_rows(arms, measure, labels), f"{heading(like)}; the replicate is a trained model.")


def states(rows: Iterable[CellRow]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(Counter(row.state for row in rows).items()))


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
    return re.sub(r"[^\w.-]+", "_", measure)


def replace(draft: Path, final: Path) -> None:
    """Replace each file, the page last, and remove figures and tables that the new report does not have."""
    fresh = sorted(path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
    for path in sorted(fresh, key=lambda path: path.name == "index.html"):
        (final / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft / path, final / path)
    for path in (*final.glob("figures/*"), *final.glob("tables/*")):
        if path.relative_to(final) not in fresh:
            path.unlink()


def seeds_note(arms: Sequence[Arm]) -> str:
    """Which seeds an interval is over, and which stand still and are therefore not in it."""
    names = dict.fromkeys(name for arm in arms for row in arm.rows for name in row.seeds)
    varied = [name for name in names if any(name in arm.seeds for arm in arms)]
    used = [name for name in names if any(row.seeds.get(name, NOT_APPLICABLE) != NOT_APPLICABLE
                                          for arm in arms for row in arm.rows)]  # fmt: skip
    fixed = [name for name in used if name not in varied]
    over = f"Intervals and ranges are over {', '.join(varied)}" if varied else "No seed varies within an arm"
    return over + (f"; {', '.join(fixed)} did not vary, and no interval covers what they do." if fixed else ".")


def notes(arms: Sequence[Arm], suites: Sequence[str], facts: Provenance) -> list[str]:
    few = sum(arm.replicates < ENOUGH for arm in arms)
    seen = ", ".join(facts.seen())
    return [
        note
        for note in (
            few
            and f"{few} of {plural(len(arms), 'arm')} have fewer than three replicates: they are descriptive and "
            "show a range, which supports no conclusion about the method.",
            facts.differing and f"Not the same in all sessions: {', '.join(facts.differing)}.",
            seen and f"Fine-tuning sets have answers that are equal to human test answers: up to {seen}.",
            "The replicate is a trained model, not a prompt. n counts prompts, of the cell that has the fewest.",
            seeds_note(arms),
            "Sources are fixed effects: the results do not extend to sources that were not used.",
            "Whether a source shares the student's family is not separated from the number of sources, and generator "
            "size not from family.",
            "Comparisons that no claim declared are exploratory: p is corrected (Benjamini and Yekutieli) over the "
            "measures of one comparison. Several sources below the *mean* of their singles are convexity.",
            "Undefined is shown as — with its reason, never as 0. ↑ ↓: better, or more diverse.",
            *readings(suites),
        )
        if note
    ]
