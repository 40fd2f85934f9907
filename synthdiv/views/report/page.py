"""`synthdiv report`: one page that answers, and beside it tables and figures, in `<outputs>/reports/<sweep>/`."""

from __future__ import annotations

import difflib
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from synthdiv.core.files import write_rows
from synthdiv.core.ledger import Ledger
from synthdiv.core.types import ConfigError
from synthdiv.study.claims import EXCESS, SYNTHETIC
from synthdiv.views.layout import Row, csv_text
from synthdiv.views.report.arms import LINEAGE, MEMBER, Arm, measures_of, value_of
from synthdiv.views.report.cards import cards
from synthdiv.views.report.collect import LARGE, collect, noted
from synthdiv.views.report.comparisons import OF_SOURCES, comparisons, without_share
from synthdiv.views.report.contrasts import Contrast, contrasts
from synthdiv.views.report.cross_checks import across, cross_checks
from synthdiv.views.report.figures import draw, draw_heat
from synthdiv.views.report.findings import LINES, answer_lines, claim_results
from synthdiv.views.report.heat import column_title, columns_of, values_of, within
from synthdiv.views.report.judges import judge_rows
from synthdiv.views.report.plots import is_number
from synthdiv.views.report.pools import SweepArms
from synthdiv.views.report.render import render
from synthdiv.views.report.samples import samples_of
from synthdiv.views.report.sections import Content, sections, states, top
from synthdiv.views.report.sessions import provenance
from synthdiv.views.report.shared_replicates import forget
from synthdiv.views.report.tables import arm_rows, cell_rows, contrast_rows, heading, latex, measure_rows
from synthdiv.views.report.unanswered import unanswered_rows

PAPER = 6  # measures of the figure for papers
INDEX = "index"


def write_report(root: Path, name: str, measures: list[str]) -> Path:
    """Write the report of a sweep and return the path of its page. `measures` are those that are drawn; an empty list
    selects the headline scores of the suites."""
    rows = collect(root, name, measures)
    if not any(row.scores for row in rows):
        lines = "".join(f"\n{row.key[:8]} {row.state}: {row.reason}" for row in rows if row.reason)
        raise ConfigError(
            f"sweep {name!r} has no finished cell yet ({states(rows) or 'none'}); see `synthdiv status {name}`{lines}"
        )
    ledger = Ledger(root, name)
    facts = provenance(root, ledger.nodes())
    whole = Content(ledger, rows, facts, selected=checked(measures, measures_of(rows)))
    final, draft = root / "reports" / name, root / "reports" / f".{name}.{os.getpid()}.draft"
    try:
        with noted() as facts.damaged:
            write_files(root, whole, draft)
        move(draft, final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return final / f"{INDEX}.html"


def write_files(root: Path, whole: Content, draft: Path) -> None:
    """Every file of the report of a sweep. What is damaged is in the answer and in the index, which are made last."""
    ledger, facts = whole.ledger, whole.facts
    names = {row.key: whole.labels.name(arm) for arm in whole.everyone for row in arm.rows}
    facts.cards, of_mixes = cards(root, ledger, {row.key: row.scores for row in whole.rows}, names)
    facts.judges, facts.relations = judge_rows(ledger)
    facts.unanswered, facts.left_out = unanswered_rows(ledger)
    slices, links, sweep = sliced(whole), list[Row](), SweepArms(whole.arms)
    for at, part in enumerate(slices, 1):
        page = f"slice{at}" if slices[1:] else INDEX
        family = dict.fromkeys([*part.headlines, *part.drawn])  # what a reader selects makes nothing more certain
        outcomes, named = contrasts(root, sweep, [*family], comparisons(part.arms)), (*part.drawn, EXCESS)
        part.contrasts = [of_slice(each, part.title) for each in outcomes if each.measure in named]
        part.checks = cross_checks(root, part.arms, part.contrasts, part.drawn, part.labels)
        part.samples = samples_of(ledger, part.arms, part.labels)
        link = {"page": f"{page}.html", "slice": part.title, "cells": len(part.rows), "states": states(part.rows)}
        links.append(link)
        write_slice(draft, page, part)
        forget()
    known = {(each.name, each.arm.key, each.measure, each.keys): each for part in slices for each in part.contrasts}
    whole.contrasts, whole.claims = list(known.values()), claim_results(root, ledger.name, whole.arms)
    if slices[1:]:
        whole.checks = across(whole.arms, whole.drawn, whole.labels)
        write_checks(draft, "", whole)
    context = top(whole) | {"slices": links, "compared": whole.checks} if slices[1:] else sections(whole)
    answer = [*answer_lines(whole.claims, whole.contrasts, whole.labels), *islice(facts.damaged, LINES)]
    for file, text in (
        ("cells.csv", csv_text(cell_rows(whole.rows))),
        ("arms.csv", csv_text(arm_rows(whole.arms, whole.labels))),
        ("contrasts.csv", csv_text(contrast_rows(whole.contrasts, whole.labels))),
        ("answer.txt", "".join(f"{line}\n" for line in answer)),
        *swarm_files(whole),
        *of_mixes.items(),
    ):
        (draft / file).parent.mkdir(parents=True, exist_ok=True)
        (draft / file).write_text(text, encoding="utf-8")
    files = (path.relative_to(draft) for path in draft.rglob("*") if path.is_file() and path.suffix != ".html")
    (draft / f"{INDEX}.html").write_text(render(context | {"files": sorted(map(str, files))}), encoding="utf-8")


def of_slice(outcome: Contrast, title: str) -> Contrast:
    """A mean over all synthetic arms is of those of its slice, and has another name there."""
    return replace(outcome, name=f"{outcome.name} ({title})") if title and outcome.name.endswith(SYNTHETIC) else outcome


def sliced(whole: Content) -> list[Content]:
    """The sweep itself, or above `LARGE` cells a slice for each value of so many axes as it takes: the student first,
    axes of numbers last, because a slice has no line along them. No axis is of who writes the answers, or of
    populations and members, so that what is compared is in one slice; an arm to which an axis does not apply is in
    each, as human arms for the real share."""
    arms = [without_share(arm) for arm in whole.everyone]
    axes, values = list[str](), [tuple[str, ...]()]
    numeric = {axis: any(is_number(value_of(arm, axis)) for arm in arms) for axis in whole.labels.varying}
    for axis in sorted(numeric, key=lambda axis: (axis != "student", numeric[axis])):
        sizes = [sum(len(arm.rows) for arm in part(arms, axes, value)) for value in values]
        if max(sizes) > LARGE and axis not in (*OF_SOURCES, LINEAGE, MEMBER):
            axes.append(axis)
            values = columns_of(arms, axes)
    if not axes:
        return [whole]
    slices = [
        Content(whole.ledger, [row for arm in part(arms, axes, value) for row in arm.rows], whole.facts,
                column_title(axes, value))
        for value in values
    ]  # fmt: skip
    for each in slices:  # one family of measures in all slices, so that no verdict depends on the slice
        each.headlines = [name for name in whole.headlines if name in each.scores]
        each.drawn = [name for name in whole.drawn if name in each.scores]
    return slices


def part(arms: Sequence[Arm], axes: Sequence[str], value: tuple[str, ...]) -> list[Arm]:
    return [arm for arm in arms if within(values_of(arm, axes), value)]


def write_slice(folder: Path, name: str, content: Content) -> None:
    """Figure, tables and answers of a page, and the page itself unless it is the index."""
    prefix = "" if name == INDEX else f"{name}_"
    if content.drawn:
        draw(content.arms, content.drawn[:PAPER], content.labels, folder / "figures" / f"{prefix}overview")
    if content.drawn and name == INDEX:
        draw_heat(content.arms, content.drawn[:PAPER], content.labels, folder / "figures" / "heat")
    (folder / "tables").mkdir(exist_ok=True)
    for measure in content.drawn:
        rows = measure_rows(content.arms, measure, content.labels)
        text = latex(rows, f"{heading(content.scores[measure])}; the replicate is a trained model.")
        (folder / "tables" / f"{prefix}{file_name(measure)}.tex").write_text(text, encoding="utf-8")
    if content.samples.answer_rows:
        write_rows(content.samples.answer_rows, folder / f"{prefix}answers.parquet", compression="zstd")
        content.samples.answer_rows.clear()
    write_checks(folder, prefix, content)
    if name != INDEX:
        (folder / f"{name}.html").write_text(render(sections(content) | {"files": []}), encoding="utf-8")


def write_checks(folder: Path, prefix: str, content: Content) -> None:
    for title, lines in content.checks.items():
        (folder / f"{prefix}{file_name(title.lower())}.csv").write_text(csv_text(lines), encoding="utf-8")


def swarm_files(whole: Content) -> Iterator[tuple[str, str]]:
    """`ratios.csv` and `metrics.csv`, as `olmix fit` reads them: the share of each source and the measures of each
    finished trained cell, joined by `run_id`."""
    ratios, metrics, mixes = list[Row](), list[Row](), whole.facts.mixes
    sources = list(dict.fromkeys(source for mix in mixes.values() for source in mix.get("sources", ())))
    for arm in whole.arms:
        for row in arm.rows:
            counts = mixes.get(row.model, {}).get("sources", {})
            if total := sum(counts.values()):
                run = {"run_id": row.key, "name": whole.labels.name(arm)}
                ratios.append(run | {source: counts.get(source, 0) / total for source in sources})
                values = {name: row.scores[name].value if name in row.scores else math.nan for name in whole.drawn}
                metrics.append(run | {name: value if math.isfinite(value) else "" for name, value in values.items()})
    if ratios:
        yield from (("ratios.csv", csv_text(ratios)), ("metrics.csv", csv_text(metrics)))


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


def move(draft: Path, final: Path) -> None:
    """Replace each file, the page last, and remove figures, tables, cards and slices that the report no longer has."""
    fresh = sorted(path.relative_to(draft) for path in draft.rglob("*") if path.is_file())
    for path in sorted(fresh, key=lambda path: path.stem == INDEX):
        (final / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft / path, final / path)
    for path in (*final.glob("figures/*"), *final.glob("tables/*"), *final.glob("cards/*"), *final.glob("slice*")):
        if path.relative_to(final) not in fresh:
            path.unlink()
