"""What the page shows, section by section."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from synthdiv.core.ledger import NOT_APPLICABLE, Ledger
from synthdiv.core.types import Score
from synthdiv.evaluate.suite import CAVEAT, declared
from synthdiv.measures.replicates import ENOUGH
from synthdiv.views.layout import Row, plural
from synthdiv.views.report.arms import ROUND, Arm, measures_of, populations, value_of
from synthdiv.views.report.collect import VANILLA, CellRow, of_role
from synthdiv.views.report.contrasts import Contrast
from synthdiv.views.report.findings import ClaimResult, no_comparison
from synthdiv.views.report.heat import counts, design, grid_of, heat, same, shown_headlines
from synthdiv.views.report.labels import Labels, labelled, natural
from synthdiv.views.report.plots import against, along, forest, losses
from synthdiv.views.report.samples import Samples
from synthdiv.views.report.sessions import Provenance
from synthdiv.views.report.tables import (
    claim_rows,
    comparison_name,
    comparison_rows,
    heading,
    measure_rows,
    unfinished_rows,
    unmatched,
)

ALONG = 4  # measures that are drawn along an axis of numbers; along the rounds all headlines are
LISTED = 300  # cells that are not finished


@dataclass
class Content:
    """A sweep, or a slice of it, as its page needs it. `selected` are the measures that are drawn, empty for the
    headlines."""

    ledger: Ledger
    rows: list[CellRow]
    facts: Provenance
    title: str = ""
    """What is in this slice; empty for a whole sweep."""
    selected: list[str] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)
    claims: list[ClaimResult] = field(default_factory=list)
    checks: dict[str, list[Row]] = field(default_factory=dict)
    """Tables about the comparisons, by title."""
    samples: Samples = field(default_factory=Samples)

    def __post_init__(self) -> None:
        self.everyone, self.labels = labelled(self.rows)
        self.arms = [arm for arm in self.everyone if arm.means]
        self.headlines, self.minor, self.undefined = shown_headlines(self.rows)
        self.drawn = self.selected or self.headlines

    @property
    def scores(self) -> dict[str, Score]:
        """A score of each measure, for unit and direction."""
        return {
            name: next(arm.means[name].like for arm in self.arms if name in arm.means)
            for name in measures_of(self.rows)
        }


def top(content: Content) -> dict[str, Any]:
    """What a reader sees first, and what to distrust: as much of it as a summary of many cells has."""
    missing = unfinished_rows(content.rows)
    return {
        "name": content.ledger.name,
        "title": content.title,
        "states": states(content.rows),
        "partial": len(missing),
        "cells": len(content.rows),
        "question": question(content.everyone, content.labels),
        "answer": answers(content.claims, content.contrasts, content.labels),
        "unmatched": unmatched(content.arms, content.labels),
        "facts": content.facts,
        "unfinished": missing[:LISTED],
        "unlisted": max(0, len(missing) - LISTED),
        "notes": notes(content.arms, suites_of(content.rows), content.facts),
        "grid": None, "rounds": False, "design": {}, "heats": [], "same": [], "plots": {}, "compared": {},
        "caveats": [], "minor": [], "undefined": {}, "samples": Samples().page(), "every": {}, "slices": [],
    }  # fmt: skip


def declared_scores(suites: Iterable[str], attribute: str, drawn: Sequence[str]) -> list[str]:
    """The scores that suites declare as diversity or quality; `NAME/` are all of NAME that are drawn."""
    names = chain(*declared(suites, attribute))
    return [
        score
        for name in names
        for score in ([each for each in drawn if each.startswith(name)] if name.endswith("/") else [name])
    ]


def sections(content: Content) -> dict[str, Any]:
    labels, arms, drawn = content.labels, content.arms, content.drawn
    grid, scores, suites = grid_of(content.everyone, labels), content.scores, suites_of(content.rows)
    diverse, good = (declared_scores(suites, attribute, drawn) for attribute in ("diversity", "quality"))
    pairs = [(x, y) for x in diverse for y in good]
    together = populations(content.everyone)
    in_populations = Labels(together)
    leading = sorted(drawn, key=lambda measure: measure not in good)
    axes = sorted(in_populations.varying, key=lambda axis: axis != ROUND)
    numbers = [(axis, measure) for axis in axes for measure in leading[: None if axis == ROUND else ALONG]]
    measured = dict.fromkeys(each.measure for each in content.contrasts)
    alike = {measure: value for measure in drawn if (value := same(arms, measure))}
    plots = {
        "effects": [forest(measure, content.contrasts, labels) for measure in measured],
        "quality": [against(x, y, together, in_populations) for x, y in pairs],
        "drift": [along(axis, measure, together, in_populations) for axis, measure in numbers],
        "loss": [losses(content.ledger.root, arms, labels)],
    }
    return top(content) | {
        "grid": grid,
        "rounds": ROUND in in_populations.varying,
        "design": design(grid),
        "heats": [
            (heading(scores[measure]), counts([arm.means[measure] for arm in arms if measure in arm.means]),
             heat(grid, measure), measure_rows(arms, measure, labels))
            for measure in drawn
            if measure not in alike
        ],
        "same": [f"{heading(scores[measure])}: {value}" for measure, value in alike.items()],
        "plots": {name: [plot for plot in each if plot] for name, each in plots.items()},
        "compared": {"All comparisons": comparison_rows(content.contrasts, labels)} | content.checks,
        "caveats": [
            (heading(scores[measure]), measure_rows(arms, measure, labels)) for measure in of_role(content.rows, CAVEAT)
        ],
        "minor": content.minor,
        "undefined": content.undefined,
        "samples": content.samples.page(),
        "every": score_index(arms, labels, scores),
    }  # fmt: skip


def suites_of(rows: Sequence[CellRow]) -> list[str]:
    return list(dict.fromkeys(suite for row in rows for suite in row.suites.values()))


def states(rows: Iterable[CellRow]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(Counter(row.state for row in rows).items()))


def question(arms: Sequence[Arm], labels: Labels) -> str:
    """What the sweep varies, as a question."""
    mixes = [labels.mix(arm) for arm in sorted(arms, key=labels.order) if arm.axes.get("mix") != VANILLA]
    others = [
        f"{axis} ({listed([v for arm in arms if (v := value_of(arm, axis)) != NOT_APPLICABLE])})"
        for axis in labels.varying
        if axis != "source"
    ]
    text = "What does the source of the training answers do to the student"
    text += f" ({', '.join(dict.fromkeys(mixes))}; vanilla is without training)" if mixes else ""
    return text + (f", and does it depend on {', '.join(others)}?" if others else "?")


def listed(values: Iterable[str]) -> str:
    """Different values as a list, of many the first and the last."""
    unique = sorted(dict.fromkeys(values), key=natural)
    return ", ".join(unique if len(unique) <= 8 else [*unique[:3], "…", unique[-1]])


def answers(claims: Sequence[ClaimResult], outcomes: Sequence[Contrast], labels: Labels) -> dict[str, Any]:
    """In a sentence how many claims, or without them primary comparisons, have which verdict; the claims; the primary
    comparisons, a table each."""
    leading, tables = [each for each in outcomes if each.rank < 2], defaultdict[str, list[Row]](list)
    for each in leading:
        tables[comparison_name(each, labels)] += comparison_rows([each], labels, titled=False)
    judged: Sequence[ClaimResult | Contrast] = claims or leading
    counts = Counter(each.verdict for each in judged)
    primary = all(each.rank == 0 for each in leading)
    noun = "claim" if claims else "primary comparison" if primary else "comparison"
    late = sum(each.exploratory for each in claims) if claims else len(judged)
    exploratory = f", {late} of them exploratory" if late < len(judged) else ", exploratory"
    text = f"{plural(len(judged), noun)}{exploratory * (late > 0)}: "
    text += ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    compared = [each.contrast for each in claims] or leading
    few = any(0 < each.effect.replicates < ENOUGH for each in compared)
    text += f" (fewer than {ENOUGH} trained models support no conclusion)" * few
    return {
        "text": f"{text}." if judged else f"{no_comparison(outcomes).capitalize()}.",
        "claims": claim_rows(claims, labels),
        "tables": tables,
    }


def score_index(arms: Sequence[Arm], labels: Labels, scores: Mapping[str, Score]) -> dict[str, Any]:
    """All scores of all arms for the search: names once, then `[arm, measure, mean, low, high, models, n, note]`."""
    places, texts = {name: at for at, name in enumerate(scores)}, dict[str, int]()
    lines = []
    for at, arm in enumerate(arms):
        for name, mean in arm.means.items():
            ends = (mean.low, mean.high) if mean.replicates > 1 else (math.nan, math.nan)
            values = (mean.value, *ends, mean.replicates, mean.n)
            lines.append([at, places[name], *values, texts.setdefault(mean.note, len(texts))])
    names = {"arms": [labels.name(arm) for arm in arms], "measures": [heading(score) for score in scores.values()]}
    return names | {"lines": lines, "notes": list(texts)}


def seeds_note(arms: Sequence[Arm]) -> str:
    """Which seeds an interval is over, and which stand still and are therefore not in it."""
    names = dict.fromkeys(name for arm in arms for row in arm.rows for name in row.seeds)
    varied = [name for name in names if any(name in arm.seeds for arm in arms)]
    used = {name for arm in arms for row in arm.rows for name, seed in row.seeds.items() if seed != NOT_APPLICABLE}
    fixed = [name for name in names if name in used and name not in varied]
    varying = f"Intervals and ranges are over {', '.join(varied)}" if varied else "No seed varies within an arm"
    return varying + (f"; {', '.join(fixed)} did not vary, and no interval covers what they do." if fixed else ".")


def notes(arms: Sequence[Arm], suites: Sequence[str], facts: Provenance) -> list[str]:
    few = sum(arm.replicates < ENOUGH for arm in arms)
    overlaps = ", ".join(facts.overlaps())
    return [
        note
        for note in (
            few
            and f"{few} of {plural(len(arms), 'arm')} have fewer than three replicates: they are descriptive and "
            "show a range, which supports no conclusion about the method.",
            facts.differing and f"Not the same in all sessions: {', '.join(facts.differing)}.",
            overlaps and f"Fine-tuning sets overlap with what evaluates them; the most of one mix: {overlaps}.",
            "The replicate is a trained model, not a prompt. n counts prompts, of the cell that has the fewest.",
            seeds_note(arms),
            "Sources are fixed effects: the results do not extend to sources that were not used.",
            "Whether a source shares the student's family is not separated from the number of sources, and generator "
            "size not from family.",
            "Comparisons that no claim declared are exploratory: p is corrected (Benjamini and Yekutieli) over the "
            "measures of one comparison. Several sources below the mean of their singles are convexity.",
            "Undefined is shown as — with its reason, never as 0. ↑ ↓: better, or more diverse.",
            *declared(suites, "reading"),
        )
        if note
    ]
