"""The one way from a measure to a score: a table entry, an estimate with one number per independent unit, its interval.

An estimate keeps numbers whose spread is that of its value: values per prompt, or pseudo-values of a jackknife over
groups of prompts. The difference of two arms subtracts them, so that its interval is paired. A measure of a set is
never resampled with replacement: that adds duplicates, and these measures score duplicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.intervals import NONE, Ends, bounded_interval, half_width, median_interval, share_interval

Ids = Sequence[Hashable] | None
Statistic = Callable[["np.ndarray"], Any]  # of the groups that are kept
JACKKNIFE_GROUPS = 20  # each is left out once
SHARE = "share of answers"  # the unit of what counts answers: its interval is that of a binomial share
VANILLA = "-vanilla"  # ends the name of a difference
FEW_PROMPTS = "no interval: fewer than two prompts"
ON_BOUND = "no interval: the value is on its bound"
NO_SPREAD = "no interval: the same without any of the prompts"
FRAGILE = "no interval: undefined without some of the prompts"
MIN_MEDIAN = 6  # prompts for the interval of a median


class Measure(NamedTuple):
    """An entry of the table of measures. `undefined` says when it has no value; `low` and `high` bound its values;
    `caution` is a note on every score."""

    name: str
    unit: str
    higher_is_better: bool | None
    undefined: str
    low: float = -math.inf
    high: float = math.inf
    caution: str = ""


@dataclass(frozen=True, eq=False)
class Estimate:
    """One measure of one arm, or a difference of two arms.

    `units` (m,) are values per prompt, NaN for a prompt without one, whose mean (or median) is the value; or, for a
    measure of a `whole` set, pseudo-values of its jackknife. `n` counts prompts, `trials` answers (for a share).
    `reason` says why the value is NaN, `no_interval` why there are no units, `note` what else is to be known.
    """

    measure: Measure
    value: float
    units: np.ndarray
    n: int
    trials: int = 0
    whole: bool = True
    median: bool = False
    reason: str = ""
    no_interval: str = ""
    note: str = ""
    difference: bool = False

    def with_note(self, *notes: str) -> Estimate:
        return replace(self, note=join_notes(self.note, *notes))

    def minus(self, other: Estimate) -> Estimate:
        """Return the paired difference from an arm with the same prompts."""
        note = join_notes(self.note, other.note)
        if self.whole or other.whole:
            value = self.value - other.value if math.isfinite(other.value) else math.nan
            units = self.units - other.units if self.units.shape == other.units.shape else self.units[:0]
            reason, none = join_notes(self.reason, other.reason), join_notes(self.no_interval, other.no_interval)
            gap = replace(self, value=value, units=units, n=min(self.n, other.n), whole=True, difference=True)
            return replace(gap, reason=reason, no_interval=none, note=note)
        gap = mean_of(self.measure, self.units - other.units, median=self.median)
        infinite = "" if finite(self.units) and finite(other.units) else "infinite in one of the arms"
        value = math.nan if infinite else gap.value
        return replace(gap, value=value, reason=infinite or gap.reason, note=note, difference=True)

    def score(self) -> Score:
        """Return the score, with its value and interval within what is possible."""
        measure, (low, high) = self.measure, self.bounds()
        value = min(max(self.value, low), high) if not math.isnan(self.value) else math.nan
        ends, no_interval = self.interval(value)
        ends = (max(ends[0], low), min(ends[1], high)) if not math.isnan(ends[0]) else NONE
        reason = (self.reason or measure.undefined) if math.isnan(value) else no_interval
        missing = 0 if self.whole else len(self.units) - self.n
        left_out = f"{missing} of {len(self.units)} prompts left out: {measure.undefined}" if missing else ""
        if not self.whole and math.isnan(value):
            reason = self.reason or ("" if left_out else "no prompts")
        caution = measure.caution if not math.isnan(value) else ""
        name = measure.name + VANILLA * self.difference
        note = join_notes(reason, left_out, self.note, caution)
        return Score(name, value, self.n, *ends, measure.unit, measure.higher_is_better, note, least=low, most=high)

    def bounds(self) -> Ends:
        low, high = self.measure.low, self.measure.high
        return (low - high, high - low) if self.difference else (low, high)

    def interval(self, value: float) -> tuple[Ends, str]:
        """Return the interval of `value`, or (NaN, NaN) and why there is none."""
        units = self.units if self.whole else self.units[~np.isnan(self.units)]
        low, high = self.measure.low, self.measure.high
        if not math.isfinite(value):
            return NONE, ""
        if self.median:
            ends = median_interval(units)
            few = len(units) < MIN_MEDIAN
            return ends, f"no interval: {self.n} prompts, a median needs {MIN_MEDIAN}" if few else ""
        if len(units) < 2:
            return NONE, self.no_interval or FEW_PROMPTS
        if not np.isfinite(units).all():
            return NONE, FRAGILE
        half, level = half_width(units), not self.difference
        if level and self.measure.unit == SHARE:
            return share_interval(value, self._effective_trials(value, units)), ""
        if level and value in (low, high):
            if self.whole or not math.isfinite(high - low):
                return NONE, ON_BOUND
            a, b = share_interval((value - low) / (high - low), self.n)  # a mean is at most a share of nonzero values
            return (low + a * (high - low), low + b * (high - low)), ""
        if half <= max(1e-12 * abs(value), 1e-15):  # rounding
            return NONE, NO_SPREAD
        return bounded_interval(value, half, low, high) if level else (value - half, value + half), ""

    def _effective_trials(self, share: float, units: np.ndarray) -> float:
        """Return the trials that would give a share its variance, at most the answers; on the edge, the prompts."""
        variance = float(units.var(ddof=1)) / len(units)
        if share in (0.0, 1.0):
            return self.n
        return min(self.trials or self.n, share * (1 - share) / variance) if variance > 0 else self.trials or self.n


def join_notes(*notes: str) -> str:
    """Join the parts of notes, each part once."""
    return "; ".join(dict.fromkeys(part for note in notes if note for part in note.split("; ")))


def finite(values: np.ndarray) -> bool:
    return not np.isinf(values).any()


def undefined(measure: Measure, reason: str, n: int = 0) -> Estimate:
    """Return NaN with a reason."""
    return Estimate(measure, math.nan, np.empty(0), n, reason=reason)


def mean_of(measure: Measure, values: Any, trials: int = 0, median: bool = False, note: str = "") -> Estimate:
    """Return the mean (or median) over prompts of `values` (prompts,), NaN for a prompt without a value. `trials` is
    the number of answers that a share counts, by default one per prompt."""
    x = np.asarray(values, dtype=float)
    defined = x[~np.isnan(x)]
    value = float(np.median(defined) if median else defined.mean()) if len(defined) else math.nan
    return Estimate(measure, value, x, len(defined), trials or len(defined), whole=False, median=median, note=note)


def prompt_means(values: Any, prompt: np.ndarray, prompts: int | None = None) -> np.ndarray:
    """Return the mean over each prompt's answers (prompts,), without NaN values; NaN for a prompt without a value.
    `prompt` (n,) is the index of each value's prompt; `prompts` is their number, by default the largest index + 1."""
    x = np.asarray(values, dtype=float)
    defined = ~np.isnan(x)
    prompts = int(prompt.max(initial=-1)) + 1 if prompts is None else prompts
    count = np.bincount(prompt[defined], minlength=prompts)
    total = np.bincount(prompt[defined], weights=x[defined], minlength=prompts)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def prompt_groups(prompts: int, seed: int, groups: int = JACKKNIFE_GROUPS) -> np.ndarray:
    """Return the group, 0 to min(groups, prompts) - 1, of each prompt: integers (prompts,).

    Every `groups` consecutive prompts go to different groups, at random (`seed`), so that the first prompts, which a
    budget takes, contain every group, and are in the same groups whatever follows them.
    """
    count = max(min(groups, prompts), 1)
    deals = np.tile(np.arange(count), (-(-prompts // count), 1))
    return np.random.default_rng(seed).permuted(deals, axis=1).ravel()[:prompts]


def jackknife(statistic: Statistic, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (k,) of `statistic` and their pseudo-values (g, k), which have the spread of the values.

    `statistic` takes booleans (g + 1,): which groups are kept. The last is always True, for what belongs to no group,
    as index -1 does. It is called with all groups, and without each (Shao and Wu 1989). `sizes` (g,) is what each group
    holds of the sample, in prompts or words. Pseudo-values are those of the delete-m_j jackknife (Busing et al. 1999,
    Statistics and Computing 9, eq. 7 and 8), scaled so that the variance of their mean is its variance: without that,
    groups of unequal size made intervals of trigram entropy ten times too wide. No pseudo-values for one group.
    """
    from concurrent.futures import ThreadPoolExecutor

    groups = len(sizes)
    value = np.array(statistic(np.ones(groups + 1, dtype=bool)), dtype=float)
    if groups < 2 or not np.isfinite(value).any():
        return value, np.empty((0, *value.shape))
    with ThreadPoolExecutor(2) as pool:  # numpy releases the interpreter lock
        left = np.array([*pool.map(statistic, ~np.eye(groups, groups + 1, dtype=bool))], dtype=float)
    share = np.maximum(np.asarray(sizes, dtype=float) / max(sum(sizes), 1), 1e-12)[:, None]  # empty: changes nothing
    with np.errstate(invalid="ignore"):  # an infinite value has no interval
        gap = (1 / share - 1) * (value - left)
        return value, value + (gap - (share * gap).sum(axis=0)) * np.sqrt((groups - 1) / (1 / share - 1))


def set_scores(
    measures: Sequence[Measure], statistic: Statistic, prompts: Ids, count: int, seed: int = 0
) -> list[Score]:
    """Return the scores of `set_estimates`."""
    return [each.score() for each in set_estimates(measures, statistic, prompts, count, seed)]


def set_estimates(
    measures: Sequence[Measure], statistic: Statistic, prompts: Ids, count: int, seed: int = 0
) -> list[Estimate]:
    """Return measures that `statistic` computes together of the answers in a mask (count,). `prompts` (count,) holds
    the prompt id of each answer, None for one prompt per answer; the intervals leave out groups of prompts."""
    prompt = prompt_numbers(prompts, count)
    units = int(prompt.max(initial=-1)) + 1
    group = prompt_groups(units, seed)
    value, pseudo = jackknife(lambda keep: statistic(keep[group[prompt]]), np.bincount(group))
    return estimates(measures, value, pseudo, units)


def estimates(
    measures: Sequence[Measure], value: np.ndarray, pseudo: np.ndarray, n: int, trials: int = 0, note: str = ""
) -> list[Estimate]:
    """Return an estimate for each of `measures` from the results of `jackknife`."""
    return [
        Estimate(m, float(v), u, n, trials or n, note=note) for m, v, u in zip(measures, value, pseudo.T, strict=True)
    ]


def scores_of(student: Iterable[Estimate], vanilla: Iterable[Estimate] | None = None) -> list[Score]:
    """Return the scores of an arm, and its differences from another arm with the same measures and prompts."""
    student = list(student)
    gaps = [] if vanilla is None else [one.minus(other) for one, other in zip(student, vanilla, strict=True)]
    return [each.score() for each in [*student, *gaps]]


def prompt_numbers(prompts: Ids, count: int) -> np.ndarray:
    """Return the index of each answer's prompt, from 0 in order of appearance: integers (count,). `prompts` holds the
    prompt id of each answer; None means one prompt per answer. Raises ValueError if its length is not `count`, or if an
    id is NaN, which is equal to no other."""
    if prompts is None:
        return np.arange(count)
    if len(prompts) != count:
        raise ValueError(f"{count} answers and {len(prompts)} prompts: give one prompt id for each answer")
    if any(prompt != prompt for prompt in prompts):
        raise ValueError("a prompt id is NaN: give every answer an id, or leave out the answers without one")
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(prompt, len(index)) for prompt in prompts], dtype=np.int64)
