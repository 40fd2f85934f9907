"""95 % intervals over independent units (prompts). They speak of this trained model, not of the method that made it.

Means of per-prompt values use t; set-level measures use subsets of the prompts, never a bootstrap: duplicates are what
those measures score, and drawing with replacement makes duplicates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

NORMAL_975 = 1.959963984540054


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


def subsamples(groups: int, kept: int, seed: int, replicates: int) -> np.ndarray:
    """Random choices of `kept` of the group indices 0 .. groups-1 without replacement: integers (replicates, kept).

    Ascending in each row, because budgets take texts in the order given.
    """
    import numpy as np

    every = np.tile(np.arange(groups), (replicates, 1))
    return np.sort(np.random.default_rng(seed).permuted(every, axis=1)[:, :kept], axis=1)


def spread_interval(value: Any, drawn: Any, groups: int, kept: int) -> tuple[Any, Any]:
    """The interval around `value` (float or (k,)) from its values `drawn` on subsamples ((replicates,) or (.., k)).

    With `kept` of the groups in each and d = groups - kept left out, Var = kept / d times the variance among the
    subsamples (delete-d jackknife: Shao and Wu 1989, eq. 2.1), times the normal quantile. Exact for means. NaN where
    `value` or one of `drawn` is not finite, with fewer than two subsamples, and without a group kept or left out.
    """
    import numpy as np

    value, drawn = np.asarray(value, dtype=float), np.asarray(drawn, dtype=float)
    if not 0 < kept < groups or len(drawn) < 2:
        return value + math.nan, value + math.nan
    usable = np.isfinite(drawn).all(axis=0) & np.isfinite(value)
    variance = np.where(usable, drawn, 0.0).var(axis=0, ddof=1) * kept / (groups - kept)
    half = np.where(usable, NORMAL_975 * np.sqrt(variance), math.nan)
    centre = np.where(usable, value, math.nan)
    return centre - half, centre + half


def set_interval(
    statistic: Callable[[np.ndarray], Any], groups: int, seed: int, replicates: int = 40, kept: int | None = None
) -> tuple[Any, Any]:
    """The interval of a set-level measure by subsampling groups without replacement: half of them, or `kept`.

    A group is a prompt with all its samples. `statistic` takes ascending group indices (m,) and returns a float or a
    vector (k,); it is called once with all groups, for the centre, and on each subsample, for the spread. A difference
    of two arms gets its own interval by computing both on the same indices: `lambda i: measure(student, i) -
    measure(vanilla, i)`. A statistic with a budget scales it by `len(indices) / groups`.

    Half serves statistics whose level hardly depends on the number of groups, smooth or not (medians). Where the level
    does depend on it, so may the spread: keep nine tenths. Returns low and high, floats or (k,), see `spread_interval`.
    """
    import numpy as np

    kept = groups // 2 if kept is None else kept
    value = statistic(np.arange(groups))
    drawn = [statistic(chosen) for chosen in subsamples(groups, kept, seed, replicates if kept else 0)]
    return spread_interval(value, drawn, groups, kept)
