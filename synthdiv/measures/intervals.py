"""95 % confidence intervals over independent units (prompts), for one trained model and not for a training method.

The mean of per-prompt values has a t interval. A set-level measure has a delete-d jackknife interval over groups of
prompts. It has no bootstrap interval: resampling with replacement adds duplicates, and these measures score duplicates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from synthdiv.core.types import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy as np

JACKKNIFE_GROUPS = 20  # replicates of a set-level measure; each leaves out one group of prompts
NO_INTERVAL = "no interval: fewer than two prompts, or undefined without some of them"


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the t interval of the mean of `values` (n,), one per independent unit. (NaN, NaN) for fewer than two
    values, or if one is NaN or infinite."""
    import numpy as np
    from scipy.special import stdtrit

    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 2 or not np.isfinite(x).all():
        return math.nan, math.nan
    half_width = float(stdtrit(n - 1, 0.975)) * float(x.std(ddof=1)) / math.sqrt(n)
    mean = float(x.mean())
    return mean - half_width, mean + half_width


def pseudo_values(numerators: Sequence[float] | np.ndarray, denominators: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return pseudo-values (n,) of the pooled ratio R = sum(numerators) / sum(denominators), one per independent unit.

    u_i = R + (a_i - R b_i) / mean(b): their mean is R and their variance equals that of R to first order (Cochran
    1977, Sampling Techniques, eq. 2.39). So `mean_interval` of them is the interval of R, and `mean_interval` of the
    difference of two such arrays over the same units is the interval of the paired difference. All NaN if the
    denominators sum to 0.
    """
    import numpy as np

    a, b = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if not b.sum() > 0 or not np.isfinite(a).all():
        return np.full(len(a), math.nan)
    ratio = a.sum() / b.sum()
    return ratio + (a - ratio * b) / b.mean()


def median_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the distribution-free interval of the median of `values` (n,): two order statistics, coverage ≥ 95 %.

    The ends are the k-th smallest and k-th largest value, k the largest with P(Binomial(n, 1/2) < k) <= 2.5 %
    (David and Nagaraja 2003, Order Statistics, sec. 7.1). (NaN, NaN) for fewer than six values, or if one is NaN.
    """
    import numpy as np
    from scipy.special import bdtr

    x = np.sort(np.asarray(values, dtype=float))
    n = len(x)
    k = int(np.searchsorted(bdtr(np.arange(n, dtype=float), n, 0.5), 0.025, side="right"))
    if k == 0 or np.isnan(x).any():
        return math.nan, math.nan
    return float(x[k - 1]), float(x[n - k])


def jackknife_masks(units: int, seed: int, groups: int = JACKKNIFE_GROUPS) -> np.ndarray:
    """Return masks (g, units), g = min(groups, units): True where a replicate keeps a unit. Each unit is left out once.

    Every `groups` consecutive units go to different groups, at random (`seed`), so that the first units, which a budget
    takes, contain every group. No rows for fewer than two units.
    """
    import numpy as np

    count = min(groups, units)
    if count < 2:
        return np.ones((0, units), dtype=bool)
    deals = np.tile(np.arange(count), (-(-units // count), 1))
    group = np.random.default_rng(seed).permuted(deals, axis=1).ravel()[:units]
    return group != np.arange(count)[:, None]


def balanced(value: Any, replicates: Any, kept: np.ndarray) -> np.ndarray:
    """Adjust `replicates` ((g,) or (g, k)), each on a row of `kept` (g, units), to groups of equal size.

    With groups of unequal size, replicates of a measure that grows with the number of units differ by their size alone;
    this made intervals of trigram entropy ten times too wide. Each replicate is shifted as the delete-m_j jackknife
    weights it (Busing et al. 1999, Statistics and Computing 9), for `jackknife_interval`.
    """
    import numpy as np

    value, replicates = np.asarray(value, dtype=float), np.asarray(replicates, dtype=float)
    if not len(replicates):
        return replicates
    share = (~kept).mean(axis=1).reshape(-1, *[1] * value.ndim)  # of units that the replicate leaves out
    share = np.maximum(share, 1e-12)  # an empty group: its replicate equals the value and adds nothing
    with np.errstate(invalid="ignore"):  # infinite replicates give NaN and no interval
        deviation = (1 / share - 1) * (replicates - value)
        return value + (deviation - (share * deviation).sum(axis=0)) / np.sqrt((1 / share - 1) * (len(replicates) - 1))


def jackknife_interval(value: Any, replicates: Any) -> tuple[Any, Any]:
    """Return the interval around `value` (float or (k,)) from its `replicates` ((g,) or (g, k)) on `jackknife_masks`.

    Var = (g - 1) / g times the sum of squares among the replicates (delete-d jackknife of disjoint groups: Shao and Wu
    1989; Wolter 2007, Introduction to Variance Estimation, eq. 4.2.5), times t with g - 1 degrees of freedom. Exact for
    means of equal groups. NaN if `value` or a replicate is not finite, or for fewer than two replicates.
    """
    import numpy as np
    from scipy.special import stdtrit

    value, replicates = np.asarray(value, dtype=float), np.asarray(replicates, dtype=float)
    count = len(replicates)
    if count < 2:
        return value + math.nan, value + math.nan
    usable = np.isfinite(replicates).all(axis=0) & np.isfinite(value)
    variance = np.where(usable, replicates, 0.0).var(axis=0) * (count - 1)
    half_width = np.where(usable, float(stdtrit(count - 1, 0.975)) * np.sqrt(variance), math.nan)
    centre = np.where(usable, value, math.nan)
    return centre - half_width, centre + half_width


class Measure(NamedTuple):
    """Name, unit and direction of a measure; `undefined` says when it has no value."""

    name: str
    unit: str
    higher_is_better: bool | None
    undefined: str


class Jackknifed(NamedTuple):
    """k measures of one arm: `value` (k,) and `replicates` (g, k), one row per jackknife mask. `missing_reason` says
    why all are NaN; it is empty otherwise."""

    value: np.ndarray
    replicates: np.ndarray
    prompts: int
    missing_reason: str = ""

    def minus(self, other: Jackknifed) -> Jackknifed:
        """Return the paired difference from another arm with the same prompts and masks."""
        reason = "; ".join(dict.fromkeys(note for note in (self.missing_reason, other.missing_reason) if note))
        prompts = min(self.prompts, other.prompts)
        # an undefined arm has no replicates, and neither has its difference
        replicates = self.replicates[: len(other.replicates)] - other.replicates[: len(self.replicates)]
        return Jackknifed(self.value - other.value, replicates, prompts, reason)


def set_scores(measures: Sequence[Measure], measured: Jackknifed, suffix: str = "", note: str = "") -> list[Score]:
    """Return each of `measures` as a Score. Its note is `note`, after the reason for a missing value or interval."""
    lows, highs = jackknife_interval(measured.value, measured.replicates)
    scores = []
    for (name, unit, direction, undefined), value, low, high in zip(measures, measured.value, lows, highs, strict=True):
        reason = (measured.missing_reason or undefined) if math.isnan(value) else NO_INTERVAL if math.isnan(low) else ""
        notes = "; ".join(part for part in (reason, note) if part)
        interval = clip_share_interval(name + suffix, unit, float(low), float(high))
        scores.append(Score(name + suffix, float(value), measured.prompts, *interval, unit, direction, notes))
    return scores


def clip_share_interval(name: str, unit: str, low: float, high: float) -> tuple[float, float]:
    """Clip the interval of a share to [0, 1] and that of a difference of shares to [-1, 1]."""
    if not unit.startswith("share") or math.isnan(low):
        return low, high
    lower_bound = -1.0 if name.endswith("-vanilla") else 0.0
    return max(low, lower_bound), min(high, 1.0)


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
    """Return a set-level measure as a Score; `statistic` takes a mask (units,) of the prompts that are kept. It is
    called once with all prompts, for the value, and once for each jackknife mask, for the interval."""
    measures = [Measure(name, unit, higher_is_better, undefined)]
    return jackknife_scores(measures, lambda mask: [statistic(mask)], units, seed)[0]


def jackknife_scores(
    measures: Sequence[Measure], statistic: Callable[[np.ndarray], Sequence[float]], units: int, seed: int = 0
) -> list[Score]:
    """Return the scores of several measures that `statistic` computes together, as in `jackknife_score`."""
    import numpy as np

    value = np.array(statistic(np.ones(units, dtype=bool)), dtype=float)
    kept = jackknife_masks(units if np.isfinite(value).any() else 0, seed)
    replicates = np.array([statistic(mask) for mask in kept], dtype=float).reshape(-1, len(value))
    return set_scores(measures, Jackknifed(value, balanced(value, replicates, kept), units))


def prompt_means(values: Sequence[float] | np.ndarray, prompt: np.ndarray, prompts: int | None = None) -> np.ndarray:
    """Return the mean over each prompt's answers (prompts,), without NaN values; NaN for a prompt without a value.
    `prompt` (n,) is the index of each value's prompt; `prompts` is their number, by default the largest index + 1."""
    import numpy as np

    x = np.asarray(values, dtype=float)
    defined = ~np.isnan(x)
    prompts = int(prompt.max(initial=-1)) + 1 if prompts is None else prompts
    count = np.bincount(prompt[defined], minlength=prompts)
    total = np.bincount(prompt[defined], weights=x[defined], minlength=prompts)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def mean_score(
    name: str, values: Sequence[float] | np.ndarray, unit: str, higher_is_better: bool | None, undefined: str
) -> Score:
    """Return the mean over prompts of `values` (prompts,) with its t interval; n counts the prompts with a value. A
    prompt without a value is NaN; `undefined` says when that happens, and the note counts such prompts."""
    import numpy as np

    x = np.asarray(values, dtype=float)
    defined = x[~np.isnan(x)]
    missing = len(x) - len(defined)
    notes = [f"{missing} of {len(x)} prompts left out: {undefined}"] if missing else [] if len(x) else ["no prompts"]
    value = float(defined.mean()) if len(defined) else math.nan
    low, high = clip_share_interval(name, unit, *mean_interval(defined))
    if len(defined) == 1:
        notes.append("no interval: one prompt")
    return Score(name, value, len(defined), low, high, unit, higher_is_better, "; ".join(notes))


def prompt_numbers(prompts: Sequence[Hashable] | None, count: int) -> np.ndarray:
    """Return the index of each answer's prompt, from 0 in order of appearance: integers (count,). `prompts` holds the
    prompt id of each answer; None means one prompt per answer. Raises ValueError if its length is not `count`."""
    import numpy as np

    if prompts is None:
        return np.arange(count)
    if len(prompts) != count:
        raise ValueError(f"{count} answers and {len(prompts)} prompts: give one prompt id for each answer")
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(prompt, len(index)) for prompt in prompts], dtype=np.int64)
