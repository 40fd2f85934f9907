"""The mean of answers to requests inside of templates, with an interval over both: each request meets each template."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.measures.estimates import Estimate, Ids, Measure, mean_of, prompt_means, prompt_numbers


def crossed_mean(measure: Measure, values: Any, requests: Ids, templates: Ids) -> Estimate:
    """Return the mean over requests of `values` (n,), whose interval covers new requests *and* new templates.

    The variance is that of two-way clusters, V = V_requests + V_templates - V_cells (Cameron, Gelbach and Miller 2011,
    by statsmodels), at least the larger of the first two; t with as many degrees of freedom as the factor with fewer
    levels leaves. For the difference of two arms give the paired differences of their answers as `values`, with a
    measure of their range: the difference of two such estimates is paired by that factor alone. With one template or
    one request, the interval is over the other factor.
    """
    from statsmodels.regression.linear_model import OLS
    from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

    x = np.asarray(values, dtype=float)
    groups = [prompt_numbers(ids, len(x)) for ids in (requests, templates)]
    over_requests = mean_of(measure, prompt_means(x, groups[0]))
    defined = ~np.isnan(x)
    x, groups = x[defined], [np.unique(each[defined], return_inverse=True)[1] for each in groups]
    levels = [int(each.max(initial=-1)) + 1 for each in groups]
    if min(levels) < 2:
        return over_requests if levels[0] >= levels[1] else mean_of(measure, prompt_means(x, groups[1]))
    few = int(np.argmin(levels))
    means = prompt_means(x, groups[few])
    spread = means.std(ddof=1)
    if not spread > 0:
        return over_requests
    both, first, second = cov_cluster_2groups(OLS(x, np.ones(len(x))).fit(), *groups)
    variance = float(max(both[0, 0], first[0, 0], second[0, 0]))
    scale = math.sqrt(variance * levels[few]) / spread
    units = over_requests.value + (means - means.mean()) * scale
    return replace(over_requests, units=units, whole=True, note=f"over {levels[0]} requests and {levels[1]} templates")
