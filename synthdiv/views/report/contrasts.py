"""The comparisons of arms on each headline measure: page, trackers and terminal show these."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
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
)
from synthdiv.study.claims import EXCESS, MIXTURE
from synthdiv.views.report.arms import Arm, varying
from synthdiv.views.report.collect import VANILLA, CellRow, finished
from synthdiv.views.report.comparisons import Comparison, comparisons, rank, source_of
from synthdiv.views.report.pools import SweepArms, pooled_error
from synthdiv.views.report.shared_replicates import checked_at_half, differences, human_likelihoods

SHOWN, NOT_SHOWN, DESCRIBED, UNDEFINED = "shown", "not shown", "descriptive", "not measured"
NO_RATIO = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Contrast:
    """One measure of one comparison."""

    name: str
    measure: str
    arm: Arm
    effect: Effect
    """The difference, its interval and p."""
    unit: str = ""
    higher_is_better: bool | None = False
    adjusted: float = math.nan
    """p by Benjamini and Yekutieli within the headlines of this comparison."""
    noise: float = math.nan
    """95 % of the differences of two models of one arm are smaller."""
    size: tuple[float, float, float] = NO_RATIO
    """The difference in standard deviations of models of one arm, with its 95 % interval."""
    ratio: tuple[float, float, float] = NO_RATIO
    """The ratio of a measure that is positive, with its 95 % interval."""
    span: float = math.nan
    """|human - vanilla|, the unit of margins."""
    prompts: Ends = NONE
    """The interval over prompts where there are too few replicates for another: of these models, not of the method."""
    seeds: tuple[str, ...] = ()
    """Those that vary."""
    keys: tuple[str, ...] = ()
    """The artifacts of suites that the numbers come from."""
    note: str = ""
    part: str = ""
    """See `Comparison`."""

    @property
    def rank(self) -> int:
        return rank(self.name, self.part)

    @property
    def verdict(self) -> str:
        """Exploratory; what was declared before has the verdict of its claim."""
        if math.isnan(self.effect.error) or self.part:
            return UNDEFINED if math.isnan(self.effect.value) else DESCRIBED
        return SHOWN if self.adjusted < ALPHA else NOT_SHOWN

    @property
    def better(self) -> int:
        """1 (or -1) where the interval says that the first arm is better (or worse) than the others, else 0."""
        low, high = self.effect.interval()
        return 0 if self.higher_is_better is None else ((low > 0) - (high < 0)) * (1 if self.higher_is_better else -1)


def contrasts(
    root: Path, sweep: SweepArms, measures: Sequence[str], which: Iterable[Comparison] | None = None
) -> list[Contrast]:
    """Every comparison of a sweep, or those of `which`, on these measures, the primary ones first."""
    result = []
    for comparison in comparisons(sweep.arms) if which is None else which:
        names = [EXCESS] if comparison.contrast.endswith(MIXTURE) else measures
        family = [contrast(root, comparison, name, sweep) for name in names]
        corrected = adjusted([each.effect.p() for each in family], BENJAMINI_YEKUTIELI)
        result += [replace(each, adjusted=p) for each, p in zip(family, corrected, strict=True)]
    return sorted(result, key=lambda each: each.rank)


def contrast(root: Path, comparison: Comparison, measure: str, sweep: SweepArms, second: bool = False) -> Contrast:
    """One measure of one comparison; the note has a `second` opinion by MixedLM where it is asked for."""
    few = f"{comparison.part}: describes these alone" if comparison.part else ""
    nothing = Effect(math.nan, math.nan, math.nan, 0, 0)
    draft = Contrast(comparison.name, measure, comparison.arm, nothing, "nats/answer", part=comparison.part, note=few)
    rows = comparison.replicates
    if measure == EXCESS:
        return excess(root, draft, rows)
    scores = [[each.scores.get(measure) for each in row] for row in rows]
    notes = [score.note for row in scores for score in row if score and not math.isfinite(score.value)]
    draft = replace(draft, note=join_notes(few, *notes))
    if infinite := infinite_models(scores, comparison.all_arms):
        return replace(draft, effect=replace(nothing, replicates=len(rows)), note=join_notes(infinite, draft.note))
    rows = [
        row for row in rows if all(measure in one.scores and math.isfinite(one.scores[measure].value) for one in row)
    ]
    if not rows:
        return replace(draft, note=join_notes("no replicate has equal seeds and this measure in all arms", draft.note))
    like, seeds = rows[0][0].scores[measure], tuple(varying([row[0] for row in rows]))
    draft = replace(draft, unit=like.unit, higher_is_better=like.higher_is_better, seeds=seeds)
    if comparison.of_best and (like.higher_is_better is None or len(rows) < 2):
        return replace(draft, note=join_notes("no best single: no better direction, or one replicate", draft.note))
    return measured(root, draft, comparison, rows, sweep, second)


def infinite_models(scores: Sequence[Sequence[Score | None]], arms: Sequence[Arm]) -> str:
    """Which arms have how many infinite scores: these are the worst, and a test without them would hide it."""
    columns = zip(*scores, strict=True)
    counts = [sum(score is not None and math.isinf(score.value) for score in column) for column in columns]
    words = [f"{count} of {len(scores)} models of {arm.axes['mix']} {source_of(arm)}".strip()
             for arm, count in zip(arms, counts, strict=bool(scores)) if count]  # fmt: skip
    return f"no test: infinite in {', '.join(words)}" if words else ""


def measured(
    root: Path, draft: Contrast, comparison: Comparison, rows: Sequence[list[CellRow]], sweep: SweepArms, second: bool
) -> Contrast:
    """The comparison on replicates in which all arms have a finite score."""
    measure, like = draft.measure, rows[0][0].scores[draft.measure]
    kinds = {str(one.axes["mix"]) for one in comparison.all_arms}
    level = np.array([[row.scores[measure].value for row in each] for each in rows]).T
    weights = np.full(level.shape, -1.0 / len(comparison.others))
    if comparison.of_best:
        weights[1:] = 0
        weights[1 + best_on_others(level[1:], bool(like.higher_is_better)), np.arange(len(rows))] = -1
    weights[: 1 + len(comparison.members)] = 1 / (1 + len(comparison.members))
    synthetic, alone = not {"human", VANILLA} & kinds, level[: 1 if VANILLA in kinds else None]
    error = sweep.error(rows, level, comparison.all_arms, measure) if synthetic else pooled_error(alone)
    used = error if synthetic and not comparison.members else None  # members of one pool depend on each other
    table, n = differences(root, rows, measure, weights)
    done = replace(effect(table, used, float((weights**2).sum(axis=0).mean())), n=n, limit=like.most - like.least)
    if comparison.of_best:
        pairs = [[[row[0], row[at]] for row in rows] for at in range(1, len(level))]
        sides = np.array([[1.0], [-1.0]]) * np.ones(len(rows))
        parts = tuple(effect(differences(root, pair, measure, sides)[0], used) for pair in pairs)
        done = replace(done, parts=parts, highest=bool(like.higher_is_better))
    done, opinion = checked_at_half(root, rows, measure, weights, done), ""
    if second and len(table) > 1 and not math.isnan(done.error):
        value, error_of, refusal = mixed_model(table)
        opinion = f"MixedLM {refusal or f'{value:.4g}, standard error {error_of:.2g} (here {done.error:.2g})'}"
    few = len(table) > 1 and len(rows) < ENOUGH
    error = error if error and error.homogeneous else pooled_error(alone)  # that of a noisy arm is not that of others
    sd = error.sd if error else float(level[0].std(ddof=1)) if len(rows) > 1 else math.nan
    return replace(
        draft, effect=done, noise=1.96 * math.sqrt(2) * sd, size=done.standardized(sd) if sd > 0 else NO_RATIO,
        ratio=ratio(level, weights) if like.least >= 0 and math.isinf(like.most) and level.min() > 0 else NO_RATIO,
        prompts=bootstrap_interval(table.mean(axis=1)) if few else NONE,
        span=sweep.span(comparison.arm, measure), note=join_notes(done.note, draft.note, opinion),
        keys=tuple(dict.fromkeys(row.origin[measure] for each in rows for row in each)),
    )  # fmt: skip


def excess(root: Path, draft: Contrast, rows: Sequence[list[CellRow]]) -> Contrast:
    """Several sources against the mixture of their singles, on human answers that all students scored."""
    import pandas

    scored = [
        human_likelihoods(finished(root, row.likelihood) if row.likelihood else None) for each in rows for row in each
    ]
    shared = pandas.concat(scored, axis=1, join="inner") if scored else pandas.DataFrame()
    if len(rows) < 2 or shared.empty:
        needs = "needs likelihoods of the same human answers in two replicates or more of every arm"
        return replace(draft, note=join_notes(needs, draft.note))
    values = shared.to_numpy().T.reshape(len(rows), -1, len(shared)).swapaxes(0, 1)
    table, size = mixture_excess(values[1:], values[0])
    few = f"at most this: {size} models of the arm for {len(values) - 1} singles" if size < len(values) - 1 else ""
    keys, done = tuple(row.likelihood for each in rows for row in each), replace(effect(table), at_most=bool(few))
    seeds = varying([each[0] for each in rows])
    return replace(draft, effect=done, keys=keys, seeds=seeds, note=join_notes(done.note, draft.note, few))


def ratio(level: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """The ratio of the arm to the others, with its interval over replicates."""
    above, below = ((weights.clip(*ends) * level).sum(axis=0) for ends in ((0, None), (None, 0)))
    done = effect(np.log(above / -below)[None])
    low, high = (math.exp(end) for end in done.interval())
    return math.exp(done.value), low, high
