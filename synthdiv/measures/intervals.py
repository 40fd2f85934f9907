"""95 % confidence intervals over independent units (prompts), for one trained model and not for a training method."""

from __future__ import annotations

import math
from collections.abc import Sequence

from synthdiv.core.lazy import np, special

Ends = tuple[float, float]
NONE: Ends = (math.nan, math.nan)


def half_width(values: np.ndarray) -> float:
    """Return half the width of the t interval of the mean of `values` (n ≥ 2, finite)."""
    n = len(values)
    return float(special.stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(n)


def median_interval(values: Sequence[float] | np.ndarray) -> Ends:
    """Return the distribution-free interval of the median of `values` (n,): two order statistics, coverage ≥ 95 %.

    The ends are the k-th smallest and k-th largest value, k the largest with P(Binomial(n, 1/2) < k) <= 2.5 %
    (David and Nagaraja 2003, Order Statistics, sec. 7.1). (NaN, NaN) for fewer than six values, or if one is NaN.
    """
    x = np.sort(np.asarray(values, dtype=float))
    n = len(x)
    k = int(np.searchsorted(special.bdtr(np.arange(n, dtype=float), n, 0.5), 0.025, side="right"))
    if k == 0 or np.isnan(x).any():
        return NONE
    return float(x[k - 1]), float(x[n - k])


def share_interval(share: float, trials: float) -> Ends:
    """Return the interval of Clopper and Pearson 1934 for a `share` of `trials` > 0, which need not be whole: an
    effective number where trials are dependent. It never has width 0."""
    hits, misses = share * trials, (1 - share) * trials
    low = float(special.betaincinv(hits, misses + 1, 0.025)) if hits > 0 else 0.0
    return low, float(special.betaincinv(hits + 1, misses, 0.975)) if misses > 0 else 1.0


def bounded_interval(value: float, half: float, low: float, high: float) -> Ends:
    """Return `value` ± `half` on a scale without bounds: the logit of a value between `low` and `high`, the logarithm
    of its distance from one bound if the other is infinite, the value itself if both are. Never outside the bounds."""
    if math.isinf(low) and math.isinf(high):
        return value - half, value + half
    slope = 1 / (value - low) + 1 / (high - value)  # of the scale: the half width there is half * slope
    if math.isinf(high):
        factor = math.exp(min(half * slope, 700.0))
        return low + (value - low) / factor, low + (value - low) * factor
    if math.isinf(low):
        upper, lower = bounded_interval(-value, half, -high, math.inf)
        return -lower, -upper
    centre = math.log((value - low) / (high - value))
    ends = (centre - half * slope, centre + half * slope)
    a, b = (low + (high - low) / (1 + math.exp(min(max(-end, -700.0), 700.0))) for end in ends)
    return a, b


def pseudo_values(numerators: Sequence[float] | np.ndarray, denominators: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return pseudo-values (n,) of the pooled ratio R = sum(numerators) / sum(denominators), one per independent unit.

    u_i = R + (a_i - R b_i) / mean(b): their mean is R and their variance equals that of R to first order (Cochran
    1977, Sampling Techniques, eq. 2.39). So the t interval of their mean is that of R, and that of the difference of
    two such arrays over the same units is the interval of the paired difference. All NaN if the denominators sum to 0.
    """
    a, b = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if not b.sum() > 0 or not np.isfinite(a).all():
        return np.full(len(a), math.nan)
    ratio = a.sum() / b.sum()
    return ratio + (a - ratio * b) / b.mean()
