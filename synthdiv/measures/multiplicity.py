"""Corrections for several tests, and the tests of the published study."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from synthdiv.core.lazy import np

HOLM, BENJAMINI_YEKUTIELI = "holm", "fdr_by"


def adjusted(p: Sequence[float], method: str) -> list[float]:
    """Return p values adjusted by Holm 1979 (below .05 the chance of any false claim is at most 5 %) or by Benjamini
    and Yekutieli 2001 (at most 5 % of the findings are expected to be false, however tests depend on each other). NaN
    is no test. (statsmodels' Holm collects garbage at each call: a second each beside large tables.)"""
    values = np.array(p, dtype=float)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested])]
    rank = np.arange(1, len(order) + 1)
    if method == HOLM:
        raised = np.maximum.accumulate(values[order] * rank[::-1])
    else:
        raised = np.minimum.accumulate((values[order] * len(rank) * (1 / rank).sum() / rank)[::-1])[::-1]
    values[order] = np.minimum(raised, 1)
    return [float(value) for value in values]


def published_tests(arms: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what S1 reports of the values per prompt of arms: Kruskal and Wallis over all of them, then Mann and
    Whitney of each pair with Bonferroni. They take prompts for replicates and ignore that these are paired."""
    from scipy.stats import kruskal, mannwhitneyu

    pairs = list(itertools.combinations(arms, 2))
    tests = [("Kruskal–Wallis", [*arms], kruskal(*arms.values()), 1)] if pairs else []
    tests += [("Mann–Whitney", [*pair], mannwhitneyu(*(arms[name] for name in pair)), len(pairs)) for pair in pairs]
    return [
        {
            "test": test,
            "arms": ", ".join(names),
            "statistic": float(done.statistic),
            "p": min(done.pvalue * times, 1.0),
            "tests": times,
        }
        for test, names, done, times in tests
    ]
