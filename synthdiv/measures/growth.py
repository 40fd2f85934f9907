"""Heaps' law V = K N^beta: growth of the vocabulary V with the number of words N."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import Ids, Measure, set_scores
from synthdiv.measures.ngrams import count_ngrams, ngrams
from synthdiv.measures.words import words

MIN_WORDS = 100
POINTS = 20


class HeapsFit(NamedTuple):
    """A fit V = k N^beta, and the share `r2` of the variance that it explains. All NaN for too few words."""

    k: float
    beta: float
    r2: float


HEAPS = (
    Measure("heaps_k", "words", None, "needs 100 words", 0),
    Measure("heaps_beta", "", True, "needs 100 words", 0, 1),
    Measure("heaps_r2", "", None, "needs 100 words and a vocabulary that still grows", 0, 1),
)
UNDEFINED = HeapsFit(math.nan, math.nan, math.nan)


def rarefaction(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return E[V(n)] for each n of `sizes` (s,): the expected number of distinct words in n words without replacement.

    `counts` (V,) >= 1 are the frequencies f_i of the N words; V - sum_i C(N - f_i, n) / C(N, n), 1 <= n <= N (Hurlbert
    1971, eq. 14). It is the expectation over all orders of the words, so it does not depend on their order.
    """
    from scipy.special import gammaln

    n = np.asarray(sizes, dtype=float)[:, None]
    frequency, types = np.unique(counts, return_counts=True)
    tokens = float((frequency * types).sum())
    rest = tokens - frequency  # all words but those of one type
    log_absent = (
        gammaln(rest + 1) - gammaln(np.maximum(rest - n, 0) + 1) + gammaln(tokens - n + 1) - gammaln(tokens + 1)
    )
    seen = np.where(rest >= n, -np.expm1(log_absent), 1.0)
    return seen @ types


def heaps(texts: Sequence[str], prompts: Ids = None, seed: int = 0) -> list[Score]:
    """Return `heaps_k`, `heaps_beta` and `heaps_r2` of the words of `texts`, independent of their order. NaN below 100
    words. Compare on equal budgets only. The interval leaves out groups of `prompts`."""
    table = ngrams([words(text) for text in texts], 1)

    def statistic(keep: np.ndarray) -> HeapsFit:
        return fit_heaps(count_ngrams(table, table.lengths * keep, 1).totals())

    return set_scores(HEAPS, statistic, prompts, len(texts), seed)


def fit_heaps(counts: np.ndarray) -> HeapsFit:
    """Fit Heaps' law to word frequencies `counts` (any order, zeros ignored): least squares of log E[V(n)] on log n.

    Twenty log-spaced n over the last two decades, N/100 to N; R2 on the log scale. Compare on equal budgets only. A
    single repeated word gives K = 1, beta = 0 and no R2.
    """
    counts = counts[counts > 0]
    tokens = int(counts.sum())
    if tokens < MIN_WORDS:
        return UNDEFINED
    if len(counts) == 1:
        return HeapsFit(1.0, 0.0, math.nan)
    sizes = np.unique(np.geomspace(tokens / 100, tokens, POINTS).round())
    x, y = np.log(sizes), np.log(rarefaction(counts, sizes))
    beta = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    log_k = float(y.mean() - beta * x.mean())
    return HeapsFit(math.exp(log_k), beta, _r2(y, log_k + beta * x))


def heaps_in_order(texts: Sequence[str], step: int = 1000, prompts: Ids = None, seed: int = 0) -> list[Score]:
    """Return `published_heaps_k`, `_beta` and `_r2`, the variant of S1: least squares on V after every `step` words.

    The words are read in the given order, and the result depends on it. R2 is on V. NaN below 3 `step` words: two
    points fit any two parameters.
    """
    table = ngrams([words(text) for text in texts], 1)
    owner = np.repeat(np.arange(len(texts)), table.lengths)
    measures = in_order_measures(step)
    return set_scores(measures, lambda keep: fit_in_order(table.words[keep[owner]], step), prompts, len(texts), seed)


def in_order_measures(step: int) -> list[Measure]:
    """Return HEAPS under the names of the published variant, whose exponent is fitted between 0 and 2."""
    k, beta, r2 = [
        m._replace(name=f"published_{m.name}", undefined=m.undefined.replace(str(MIN_WORDS), str(3 * step)))
        for m in HEAPS
    ]
    return [k, beta._replace(high=2), r2]


def fit_in_order(words_in_order: np.ndarray, step: int) -> HeapsFit:
    """Fit Heaps' law to the vocabulary after every `step` of the word codes (N,), in their order."""
    from scipy.optimize import minimize_scalar

    points = len(words_in_order) // step
    if points < 3:
        return UNDEFINED
    first = np.unique(words_in_order, return_index=True)[1]
    v = np.cumsum(np.bincount(first // step, minlength=points)[:points]).astype(float)
    x = np.arange(1, len(v) + 1) / len(v)  # share of the words: its powers stay near 1

    def scale(beta: float) -> float:
        return float((v * x**beta).sum() / (x ** (2 * beta)).sum())  # the best K for this beta is linear

    best = minimize_scalar(
        lambda beta: ((v - scale(beta) * x**beta) ** 2).sum(), bounds=(0, 2), method="bounded", options={"xatol": 1e-9}
    )
    beta = float(best.x)
    k = scale(beta) * float(step * len(v)) ** -beta
    return HeapsFit(k, beta, _r2(v, scale(beta) * x**beta))


def _r2(observed: np.ndarray, fitted: np.ndarray) -> float:
    spread = float(((observed - observed.mean()) ** 2).sum())
    if observed.max() - observed.min() <= 1e-12 * abs(observed).max():
        return math.nan  # so small a range is rounding, with no variance to explain
    return 1.0 - float(((observed - fitted) ** 2).sum()) / spread
