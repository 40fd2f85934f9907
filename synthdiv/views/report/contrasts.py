"""Which arms are compared, and the comparison of each headline measure: page, trackers and terminal show these."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.measures.concordance import mixed_model
from synthdiv.measures.estimates import join_notes
from synthdiv.measures.intervals import NONE, Ends
from synthdiv.measures.multiplicity import BENJAMINI_YEKUTIELI, adjusted
from synthdiv.measures.replicates import (
    ALPHA,
    ENOUGH,
    Effect,
    best_on_others,
    bootstrap_interval,
    effect,
    mixture_excess,
    replicate_error,
)
from synthdiv.study.claims import AXIS, BEST, MEAN, MIXTURE, SEVERAL, SYNTHETIC
from synthdiv.views.report.arms import Arm, value_of
from synthdiv.views.report.collect import VANILLA, CellRow, finished
from synthdiv.views.report.shared_replicates import differences, human_likelihoods, matched, pool, varying

if TYPE_CHECKING:
    import numpy as np

EXCESS = "excess over the mixture"  # a measure of its own: nats an answer
OF_SOURCES = ("mix", "source", "mix.weights", "mix.source", "real_share")
SHOWN, NOT_SHOWN, DESCRIBED, UNDEFINED = "shown", "not shown", "descriptive", "not measured"
NO_RATIO = (math.nan, math.nan, math.nan)

Comparison = tuple[str, Arm, list[Arm]]  # its name, the arm, and those it is compared with


@dataclass(frozen=True)
class Contrast:
    """One measure of one comparison. `name` is what claims write, `arm` the arm that is compared. `effect`
    has the difference in `unit`, its interval and p; `adjusted` is p by Benjamini and Yekutieli within
    the headlines of this comparison.

    `noise`: 95 % of the differences of two models of one arm are smaller. `size` is the difference in standard
    deviations of such models, `ratio` that of measures that are positive, both with 95 % intervals; `span` is |human -
    vanilla|, the unit of margins. `prompts` is the interval over prompts where there are too few replicates for another
    one: of these models, not of the method. `keys` are the suites that the numbers come from, `seeds` those that vary.
    """

    name: str
    measure: str
    arm: Arm
    effect: Effect
    unit: str = ""
    higher_is_better: bool | None = False
    adjusted: float = math.nan
    noise: float = math.nan
    size: tuple[float, float, float] = NO_RATIO
    ratio: tuple[float, float, float] = NO_RATIO
    span: float = math.nan
    prompts: Ends = NONE
    seeds: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    note: str = ""

    @property
    def primary(self) -> bool:
        """Several sources against their best single or the mixture of them: below their *mean* is convexity."""
        return self.name.endswith((BEST, MIXTURE))

    @property
    def verdict(self) -> str:
        """Exploratory; what was declared before has the verdict of its claim."""
        if math.isnan(self.effect.error):
            return UNDEFINED if math.isnan(self.effect.value) else DESCRIBED
        return SHOWN if self.adjusted < ALPHA else NOT_SHOWN

    @property
    def better(self) -> int:
        """1 (or -1) where the interval says that the first arm is better (or worse) than the others, else 0."""
        low, high = self.effect.interval()
        return 0 if self.higher_is_better is None else ((low > 0) - (high < 0)) * (1 if self.higher_is_better else -1)


def contrasts(root: Path, arms: Sequence[Arm], measures: Sequence[str]) -> list[Contrast]:
    """Every comparison of the arms on these measures, the primary ones first."""
    result = []
    for what in comparisons(arms):
        family = [contrast(root, what, name, arms) for name in ([EXCESS] if what[0].endswith(MIXTURE) else measures)]
        corrected = adjusted([each.effect.p() for each in family], BENJAMINI_YEKUTIELI)
        result += [replace(each, adjusted=p) for each, p in zip(family, corrected, strict=True)]
    return sorted(result, key=lambda each: not each.primary)


def comparisons(arms: Sequence[Arm], claimed: str = "") -> Iterator[Comparison]:
    """Several sources with each alone; synthetic arms with human answers; these with the vanilla student and with the
    mean of synthetic arms; what is `claimed` of two values of an axis. Only arms that are equal on all other axes."""
    for arm in arms:
        mix = str(arm.axes.get("mix"))
        alike = [other for other in arms if other is not arm and comparable(arm, other)]
        kinds = {kind: [one for one in alike if one.axes["mix"] == kind] for kind in ("single", "human", VANILLA)}
        singles = [one for one in kinds["single"] if set(one.sources) <= set(arm.sources)]
        if mix in SEVERAL and singles:
            yield from (
                (f"{mix} - {other}", arm, singles) for other in (BEST, MIXTURE, MEAN)[: 3 if singles[1:] else 1]
            )
        if mix in ("single", *SEVERAL):
            yield from ((f"{mix} - human", arm, [one]) for one in kinds["human"])
        if mix == "human":
            yield from (("human - vanilla", arm, [one]) for one in kinds[VANILLA])
            if synthetic := [one for one in alike if one.axes["mix"] not in ("human", VANILLA)]:
                yield f"human - {SYNTHETIC}", arm, synthetic
        if parts := re.fullmatch(AXIS, claimed):
            axis, one, other = parts.groups()
            others = [each for each in arms if value_of(each, axis) == other and equal_but(axis, arm, each)]
            yield from ((claimed, arm, [each]) for each in others if value_of(arm, axis) == one)


def comparable(one: Arm, other: Arm) -> bool:
    """Whether two arms are equal on all axes that apply to both, but for who writes the answers."""
    names = [name for name in {**one.axes, **other.axes} if name not in OF_SOURCES]
    pairs = [{value_of(one, name), value_of(other, name)} for name in names]
    return all(len(pair) == 1 or NOT_APPLICABLE in pair for pair in pairs)


def equal_but(axis: str, one: Arm, other: Arm) -> bool:
    return all(value_of(one, name) == value_of(other, name) for name in {**one.axes, **other.axes} if name != axis)


def contrast(root: Path, what: Comparison, measure: str, arms: Sequence[Arm], second: bool = False) -> Contrast:
    """One measure of one comparison; the note has a `second` opinion by MixedLM where it is asked for."""
    import numpy as np

    name, arm, others = what
    made = Contrast(name, measure, arm, Effect(math.nan, math.nan, math.nan, 0, 0), "nats/answer")
    rows = matched([arm, *others])
    if measure == EXCESS:
        return excess(root, made, rows)
    scores = [[each.scores.get(measure) for each in row] for row in rows]
    reasons = join_notes(*(score.note for row in scores for score in row if score and not math.isfinite(score.value)))
    rows = [
        row for row, parts in zip(rows, scores, strict=True) if all(one and math.isfinite(one.value) for one in parts)
    ]
    if not rows:
        return replace(made, note=join_notes("no replicate has equal seeds and this measure in all arms", reasons))
    like = rows[0][0].scores[measure]
    made = replace(
        made, unit=like.unit, higher_is_better=like.higher_is_better, seeds=tuple(varying([r[0] for r in rows]))
    )
    level = np.array([[row.scores[measure].value for row in each] for each in rows]).T
    weights = np.full(level.shape, -1.0 / len(others))
    if name.endswith(BEST) and len(others) > 1:
        if like.higher_is_better is None or len(rows) < 2:
            return replace(made, note="no best single: no better direction, or one replicate")
        weights[1:] = 0
        weights[1 + best_on_others(level[1:], like.higher_is_better), np.arange(len(rows))] = -1
    weights[0] = 1
    synthetic = not {"human", VANILLA} & {str(each.axes["mix"]) for each in (arm, *others)}
    levels = pool(arm, others, arms, measure) if synthetic else level[: 1 if others[0].axes["mix"] == VANILLA else None]
    error = replicate_error(levels) if min(levels.shape) > 1 else None
    table, n = differences(root, rows, measure, weights)
    done = replace(effect(table, error if synthetic else None, float((weights**2).sum(axis=0).mean())), n=n)
    opinion = ""
    if second and len(table) > 1 and not math.isnan(done.error):
        value, error_of, refusal = mixed_model(table)
        opinion = f"MixedLM {refusal or f'{value:.4g}, standard error {error_of:.2g} (here {done.error:.2g})'}"
    few = len(table) > 1 and len(rows) < ENOUGH
    sd = error.sd if error else float(level[0].std(ddof=1)) if len(rows) > 1 else math.nan
    return replace(
        made, effect=done, noise=1.96 * math.sqrt(2) * sd, size=done.standardized(sd) if sd > 0 else NO_RATIO,
        ratio=ratio(level, weights) if like.least >= 0 and math.isinf(like.most) and level.min() > 0 else NO_RATIO,
        prompts=bootstrap_interval(table.mean(axis=1)) if few else NONE,
        span=span(arms, arm, measure), note=join_notes(done.note, reasons, opinion),
        keys=tuple(dict.fromkeys(row.origin[measure] for each in rows for row in each)),
    )  # fmt: skip


def excess(root: Path, made: Contrast, rows: Sequence[list[CellRow]]) -> Contrast:
    """Several sources against the mixture of their singles, on human answers that all students scored."""
    import pandas

    paths = [[finished(root, row.likelihood) if row.likelihood else None for row in each] for each in rows]
    scored = [human_likelihoods(path) if path else pandas.Series(dtype=float) for each in paths for path in each]
    shared = pandas.concat(scored, axis=1, join="inner") if scored else pandas.DataFrame()
    if len(rows) < 2 or shared.empty:
        return replace(made, note="needs likelihoods of the same human answers in two replicates or more of every arm")
    values = shared.to_numpy().T.reshape(len(rows), -1, len(shared)).swapaxes(0, 1)
    table, size = mixture_excess(values[1:], values[0])
    few = f"at most this: {size} models of the arm for {len(values) - 1} singles" if size < len(values) - 1 else ""
    keys, done = tuple(row.likelihood for each in rows for row in each), effect(table)
    seeds = varying([each[0] for each in rows])
    return replace(made, effect=done, keys=keys, seeds=seeds, note=join_notes(done.note, few))


def ratio(level: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """The ratio of the arm to the others, with its interval over replicates."""
    import numpy as np

    done = effect(np.log(level[0] / -(weights[1:] * level[1:]).sum(axis=0))[None])
    low, high = (math.exp(end) for end in done.interval())
    return math.exp(done.value), low, high


def span(arms: Sequence[Arm], arm: Arm, measure: str) -> float:
    """|human - vanilla| of the arms that are comparable."""
    alike = [one for one in arms if comparable(arm, one) and measure in one.means]
    ends = [one.means[measure].value for mix in ("human", VANILLA) for one in alike if one.axes["mix"] == mix]
    return abs(ends[0] - ends[1]) if len(ends) == 2 else math.nan
