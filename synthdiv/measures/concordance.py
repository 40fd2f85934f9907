"""Whether trained models agree on prompts, measures on cells, and two methods on one comparison."""

from __future__ import annotations

import math

from synthdiv.core.lazy import np, special
from synthdiv.measures.intervals import NONE, Ends

MOST_VALUES = 2000  # for MixedLM, which takes minutes with more
LEAST_VARIANCE = 1e-4  # of a random effect, to that of the residuals: below, MixedLM's fixed effects may be exactly 0


def consistency(values: np.ndarray) -> tuple[float, Ends]:
    """Return the intraclass correlation ICC(C,1) of `values` (prompts, replicates), with its 95 % interval: the share
    of the variance between prompts that another replicate repeats (McGraw and Wong 1996, Psychological Methods 1).

    1: every replicate finds the same prompts hard, whatever its level; 0: prompts differ by chance alone.
    """
    values = values[np.isfinite(values).all(axis=1)]
    prompts, replicates = values.shape
    if prompts < 2 or replicates < 2:
        return math.nan, NONE
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    dfs = (prompts - 1, (prompts - 1) * (replicates - 1))
    error, between = float((rest**2).sum()) / dfs[1], replicates * float(values.mean(axis=1).var(ddof=1))
    if not error > 1e-24 * between:
        return (1.0 if between > 0 else math.nan), NONE
    f = between / error
    ratios = (f, f / special.fdtri(*dfs, 0.975), f * special.fdtri(*dfs[::-1], 0.975))
    value, low, high = ((x - 1) / (x + replicates - 1) for x in ratios)
    return float(value), (float(low), float(high))


def rank_correlation(one: np.ndarray, other: np.ndarray, units: int) -> tuple[float, Ends]:
    """Return Spearman's correlation of two measures over cells, with the 95 % interval of Bonett and Wright 2000
    (Psychometrika 65) for `units` independent ones: cells of one arm are not. No interval below five units."""
    from scipy.stats import rankdata

    defined = np.isfinite(one) & np.isfinite(other)
    ranks = [rankdata(each[defined]) for each in (one, other)]
    if defined.sum() < 3 or min(rank.std() for rank in ranks) == 0:
        return math.nan, NONE
    value = float(np.clip(np.corrcoef(*ranks)[0, 1], -1, 1))
    if units < 5 or abs(value) == 1:
        return value, NONE
    half = 1.959964 * math.sqrt((1 + value**2 / 2) / (units - 3))
    return value, (math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half))


def mixed_model(differences: np.ndarray) -> tuple[float, float, str]:
    """Return a second opinion on paired `differences` (prompts, replicates): mean and standard error by MixedLM with
    crossed random effects, or NaN and why not. Where the variance of a random effect is near 0 MixedLM may return fixed
    effects of exactly 0.0 and `converged=True` (statsmodels#10239): such a fit is refused.
    """
    import warnings

    import pandas
    from statsmodels.regression.mixed_linear_model import MixedLM

    if differences.size > MOST_VALUES:
        return math.nan, math.nan, f"not asked: more than {MOST_VALUES:,} values"
    prompts, replicates = np.indices(differences.shape)
    scale = float(differences.std()) or 1.0
    frame = pandas.DataFrame({"d": differences.ravel() / scale, "prompt": prompts.ravel(), "model": replicates.ravel()})
    parts = {"prompt": "0 + C(prompt)", "model": "0 + C(model)"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own warnings are judged here
        fit = MixedLM.from_formula("d ~ 1", frame, groups=np.ones(len(frame)), re_formula="0", vc_formula=parts).fit()
    least, value = float(np.min(fit.vcomp)) / float(fit.scale), float(fit.fe_params.iloc[0])
    if not fit.converged or least < LEAST_VARIANCE or value == 0.0:
        return math.nan, math.nan, f"refused: converged={fit.converged}, least variance of a random effect {least:.1g}"
    return value * scale, float(fit.bse_fe.iloc[0]) * scale, ""
