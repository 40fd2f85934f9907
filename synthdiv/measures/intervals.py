"""95 % intervals over independent units (prompts). They speak of this trained model, not of the method that made it.

Means of per-prompt values use t; set-level measures leave out groups of prompts (delete-d jackknife), never a
bootstrap: duplicates are what those measures score, and drawing with replacement makes duplicates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from synthdiv.core.types import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy as np

GROUPS = 20  # replicates of a set-level measure, each without one group of prompts
NO_INTERVAL = "no interval: fewer than two prompts, or undefined without some of them"


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The t interval of the mean of `values` (n,), one per independent unit.

    (NaN, NaN) below two values, or where one is NaN or infinite.
    """
    import numpy as np
    from scipy.special import stdtrit

    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 2 or not np.isfinite(x).all():
        return math.nan, math.nan
    half = float(stdtrit(n - 1, 0.975)) * float(x.std(ddof=1)) / math.sqrt(n)
    mean = float(x.mean())
    return mean - half, mean + half


def linearised(numerators: Sequence[float] | np.ndarray, denominators: Sequence[float] | np.ndarray) -> np.ndarray:
    """Pseudo-values (n,) of the pooled ratio R = sum(numerators) / sum(denominators), one per independent unit.

    u_i = R + (a_i - R b_i) / mean(b): their mean is R and their variance that of R to first order (Cochran 1977,
    Sampling Techniques, eq. 2.39), so `mean_interval` of them is R's interval, and of the difference of two
    such arrays over the same units, the interval of the paired difference. All NaN where the denominators sum to 0.
    """
    import numpy as np

    a, b = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if not b.sum() > 0 or not np.isfinite(a).all():
        return np.full(len(a), math.nan)
    ratio = a.sum() / b.sum()
    return ratio + (a - ratio * b) / b.mean()


def median_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The distribution-free interval of the median of `values` (n,) between two order statistics; covers at least 95 %.

    The ends are the k-th smallest and k-th largest value, k the largest with P(Binomial(n, 1/2) < k) <= 2.5 %
    (David and Nagaraja 2003, Order Statistics, sec. 7.1). (NaN, NaN) below six values, or where one is NaN.
    """
    import numpy as np
    from scipy.special import bdtr

    x = np.sort(np.asarray(values, dtype=float))
    n = len(x)
    k = int(np.searchsorted(bdtr(np.arange(n, dtype=float), n, 0.5), 0.025, side="right"))
    if k == 0 or np.isnan(x).any():
        return math.nan, math.nan
    return float(x[k - 1]), float(x[n - k])


def deletions(units: int, seed: int, groups: int = GROUPS) -> np.ndarray:
    """Which of `units` stay in each replicate: booleans (g, units), g = min(groups, units); each unit is left out once.

    The units are dealt like cards: each `groups` units in a row go to different groups, at random (`seed`), so that a
    budget which takes the first units finds every group among them. No rows below two units.
    """
    import numpy as np

    count = min(groups, units)
    if count < 2:
        return np.ones((0, units), dtype=bool)
    deals = np.tile(np.arange(count), (-(-units // count), 1))
    group = np.random.default_rng(seed).permuted(deals, axis=1).ravel()[:units]
    return group != np.arange(count)[:, None]


def evened(value: Any, drawn: Any, kept: np.ndarray) -> np.ndarray:
    """The replicates `drawn` ((g,) or (g, k)), each on a row of `kept` (g, units), as if all groups had one size.

    Where they have not, replicates of a measure that grows with the number of units differ by their size alone, which
    made intervals of trigram entropy ten times too wide. So each is moved as the delete-m_j jackknife weighs it (Busing
    et al. 1999, Statistics and Computing 9), for `jackknife_interval`. Equal groups move together.
    """
    import numpy as np

    value, drawn = np.asarray(value, dtype=float), np.asarray(drawn, dtype=float)
    if not len(drawn):
        return drawn
    share = (~kept).mean(axis=1).reshape(-1, *[1] * value.ndim)  # of the units that are left out
    share = np.maximum(share, 1e-12)  # a group of none: its replicate is the value, and moves nothing
    with np.errstate(invalid="ignore"):  # infinite replicates: NaN, and no interval
        away = (1 / share - 1) * (drawn - value)
        return value + (away - (share * away).sum(axis=0)) / np.sqrt((1 / share - 1) * (len(drawn) - 1))


def jackknife_interval(value: Any, drawn: Any) -> tuple[Any, Any]:
    """The interval around `value` (float or (k,)) from its values `drawn` on `deletions` ((g,) or (g, k)).

    Var = (g - 1) / g times the sum of squares among the replicates (delete-d jackknife of disjoint groups: Shao and Wu
    1989; Wolter 2007, Introduction to Variance Estimation, eq. 4.2.5), times t with g - 1 degrees of freedom. Exact for
    means of equal groups. NaN where `value` or a replicate is not finite, and below two replicates.
    """
    import numpy as np
    from scipy.special import stdtrit

    value, drawn = np.asarray(value, dtype=float), np.asarray(drawn, dtype=float)
    count = len(drawn)
    if count < 2:
        return value + math.nan, value + math.nan
    usable = np.isfinite(drawn).all(axis=0) & np.isfinite(value)
    variance = np.where(usable, drawn, 0.0).var(axis=0) * (count - 1)
    half = np.where(usable, float(stdtrit(count - 1, 0.975)) * np.sqrt(variance), math.nan)
    centre = np.where(usable, value, math.nan)
    return centre - half, centre + half


class Measure(NamedTuple):
    """What a set-level measure is called, and when it is `undefined`."""

    name: str
    unit: str
    higher_is_better: bool | None
    undefined: str


class Measured(NamedTuple):
    """Measures (k,) of one arm, and the same on each of `deletions`: (g, k). `lacks` says why all are NaN."""

    value: np.ndarray
    drawn: np.ndarray
    prompts: int
    lacks: str = ""

    def minus(self, other: Measured) -> Measured:
        """The difference to another arm on the same prompts and deletions, which has an interval of its own."""
        lacks = "; ".join(dict.fromkeys(note for note in (self.lacks, other.lacks) if note))
        prompts = min(self.prompts, other.prompts)
        drawn = self.drawn[: len(other.drawn)] - other.drawn[: len(self.drawn)]  # an arm that lacks something has none
        return Measured(self.value - other.value, drawn, prompts, lacks)


def set_scores(measures: Sequence[Measure], measured: Measured, suffix: str = "", note: str = "") -> list[Score]:
    """Each of `measures` as a Score; where it has no value or no interval, the note says why, else it is `note`."""
    lows, highs = jackknife_interval(measured.value, measured.drawn)
    scores = []
    for (name, unit, direction, undefined), x, low, high in zip(measures, measured.value, lows, highs, strict=True):
        missing = (measured.lacks or undefined) if math.isnan(x) else NO_INTERVAL if math.isnan(low) else ""
        notes = "; ".join(part for part in (missing, note) if part)
        ends = clipped(name + suffix, unit, float(low), float(high))
        scores.append(Score(name + suffix, float(x), measured.prompts, *ends, unit, direction, notes))
    return scores


def clipped(name: str, unit: str, low: float, high: float) -> tuple[float, float]:
    """An interval of a share within 0 and 1, that of a difference of two within -1 and 1."""
    if not unit.startswith("share") or math.isnan(low):
        return low, high
    least = -1.0 if name.endswith("-vanilla") else 0.0
    return max(low, least), min(high, 1.0)


def jackknife_score(
    name: str,
    statistic: Callable[[np.ndarray], float],
    units: int,
    *,
    unit: str,
    higher_is_better: bool | None,
    undefined: str,
    seed: int = 0,
) -> Score:
    """A set-level measure as a Score: `statistic` of a boolean mask (units,) of the prompts that stay.

    It is called once with all, for the value, and once for each of `deletions`, for the interval.
    """
    measures = [Measure(name, unit, higher_is_better, undefined)]
    return jackknife_scores(measures, lambda mask: [statistic(mask)], units, seed)[0]


def jackknife_scores(
    measures: Sequence[Measure], statistic: Callable[[np.ndarray], Sequence[float]], units: int, seed: int = 0
) -> list[Score]:
    """`jackknife_score` of several measures that `statistic` gives at once."""
    import numpy as np

    value = np.array(statistic(np.ones(units, dtype=bool)), dtype=float)
    kept = deletions(units if np.isfinite(value).any() else 0, seed)
    drawn = np.array([statistic(mask) for mask in kept], dtype=float).reshape(-1, len(value))
    return set_scores(measures, Measured(value, evened(value, drawn, kept), units))


def prompt_means(values: Sequence[float] | np.ndarray, prompt: np.ndarray, prompts: int | None = None) -> np.ndarray:
    """The mean of the values of each prompt's answers, NaN ones left out; NaN where none is left: (prompts,).

    `prompt` is the number of each value's prompt, from 0; `prompts` how many there are, if not those that are named.
    """
    import numpy as np

    x = np.asarray(values, dtype=float)
    there = ~np.isnan(x)
    prompts = int(prompt.max(initial=-1)) + 1 if prompts is None else prompts
    count = np.bincount(prompt[there], minlength=prompts)
    total = np.bincount(prompt[there], weights=x[there], minlength=prompts)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def mean_score(
    name: str, values: Sequence[float] | np.ndarray, unit: str, higher_is_better: bool | None, undefined: str
) -> Score:
    """The mean of one value a prompt with its t interval; n counts the prompts that have one.

    `undefined` says when a prompt has none; the note counts those.
    """
    import numpy as np

    x = np.asarray(values, dtype=float)
    there = x[~np.isnan(x)]
    missing = len(x) - len(there)
    notes = [f"{missing} of {len(x)} prompts left out: {undefined}"] if missing else [] if len(x) else ["no prompts"]
    value = float(there.mean()) if len(there) else math.nan
    low, high = clipped(name, unit, *mean_interval(there))
    if len(there) == 1:
        notes.append("no interval: one prompt")
    return Score(name, value, len(there), low, high, unit, higher_is_better, "; ".join(notes))


def prompt_numbers(prompts: Sequence[Hashable] | None, count: int) -> np.ndarray:
    """For each of `count` answers the number of its prompt, from 0 in order of appearance: integers (count,).

    `prompts` names the prompt of each answer; None where each answers its own. ValueError where the counts differ.
    """
    import numpy as np

    if prompts is None:
        return np.arange(count)
    if len(prompts) != count:
        raise ValueError(f"{count} answers and {len(prompts)} prompts: there must be one for each")
    code: dict[Hashable, int] = {}
    return np.array([code.setdefault(prompt, len(code)) for prompt in prompts], dtype=np.int64)
