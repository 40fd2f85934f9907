"""Heaps' law V = K N^beta: how the vocabulary V grows with the number of words N read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.core.types import Score
from synthdiv.measures.intervals import Measure, jackknife_scores, prompt_numbers
from synthdiv.measures.ngrams import counted, ngrams
from synthdiv.measures.words import words

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np

LEAST_WORDS = 100
POINTS = 20


class Heaps(NamedTuple):
    """V = k N^beta, and the share `r2` of variance the fit explains. All NaN where there are too few words."""

    k: float
    beta: float
    r2: float


HEAPS = (
    Measure("heaps_k", "words", None, "needs 100 words"),
    Measure("heaps_beta", "", True, "needs 100 words"),
    Measure("heaps_r2", "", None, "needs 100 words and a vocabulary that still grows"),
)
UNDEFINED = Heaps(math.nan, math.nan, math.nan)


def rarefaction(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """E[V(n)] for each n of `sizes` (s,): distinct words expected in n words drawn without replacement.

    `counts` (V,) >= 1 are the frequencies f_i of the N words; V - sum_i C(N - f_i, n) / C(N, n), 1 <= n <= N (Hurlbert
    1971, eq. 14). The expectation over all orders of the words, so no order needs to be chosen or averaged.
    """
    import numpy as np
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


def heaps(texts: Sequence[str], prompts: Sequence[Hashable] | None = None, seed: int = 0) -> list[Score]:
    """K, beta and R2 of the words of `texts`, whatever their order: `heaps_k`, `heaps_beta`, `heaps_r2`.

    NaN below 100 words. Compare on equal budgets only. The interval leaves out groups of `prompts`.
    """
    prompt = prompt_numbers(prompts, len(texts))
    table = ngrams([words(text) for text in texts], 1)

    def statistic(keep: np.ndarray) -> Heaps:
        return heaps_of(counted(table, table.lengths * keep[prompt], 1).totals())

    return jackknife_scores(HEAPS, statistic, int(prompt.max(initial=-1)) + 1, seed)


def heaps_of(counts: np.ndarray) -> Heaps:
    """Heaps' law from word frequencies `counts` (any order, zeros ignored): least squares of log E[V(n)] on log n.

    Twenty log-spaced n over the last two decades, N/100 .. N, R2 on the log scale: compare on equal budgets only. A
    single repeated word gives K = 1, beta = 0 and no R2.
    """
    import numpy as np

    counts = counts[counts > 0]
    tokens = int(counts.sum())
    if tokens < LEAST_WORDS:
        return UNDEFINED
    if len(counts) == 1:
        return Heaps(1.0, 0.0, math.nan)
    sizes = np.unique(np.geomspace(tokens / 100, tokens, POINTS).round())
    x, y = np.log(sizes), np.log(rarefaction(counts, sizes))
    beta = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    log_k = float(y.mean() - beta * x.mean())
    return Heaps(math.exp(log_k), beta, _r2(y, log_k + beta * x))


def heaps_in_order(
    texts: Sequence[str], step: int = 1000, prompts: Sequence[Hashable] | None = None, seed: int = 0
) -> list[Score]:
    """The published variant (S1): V read off every `step` words in the order given, K and beta by least squares on V.

    `published_heaps_k`, `_beta` and `_r2` (R2 on V). NaN below 3 `step` words: two points fit any two parameters.
    Depends on the order of the texts.
    """
    import numpy as np

    prompt = prompt_numbers(prompts, len(texts))
    code: dict[str, int] = {}
    split = [[code.setdefault(word, len(code)) for word in words(text)] for text in texts]
    owner = np.repeat(prompt, [len(text) for text in split])
    read = np.array([word for text in split for word in text], dtype=np.int64)
    units = int(prompt.max(initial=-1)) + 1
    return jackknife_scores(in_order_measures(step), lambda keep: in_order(read[keep[owner]], step), units, seed)


def in_order_measures(step: int) -> list[Measure]:
    """HEAPS as published."""
    return [
        m._replace(name=f"published_{m.name}", undefined=m.undefined.replace(str(LEAST_WORDS), str(3 * step)))
        for m in HEAPS
    ]


def in_order(read: np.ndarray, step: int) -> Heaps:
    """Heaps' law of words as codes (N,) in the order in which they are read."""
    import numpy as np
    from scipy.optimize import minimize_scalar

    points = len(read) // step
    if points < 3:
        return UNDEFINED
    first = np.unique(read, return_index=True)[1]
    v = np.cumsum(np.bincount(first // step, minlength=points)[:points]).astype(float)
    x = np.arange(1, len(v) + 1) / len(v)  # words read, as a share: powers of it stay near 1

    def scale(beta: float) -> float:
        return float((v * x**beta).sum() / (x ** (2 * beta)).sum())  # the best K for this beta is linear

    best = minimize_scalar(
        lambda beta: ((v - scale(beta) * x**beta) ** 2).sum(), bounds=(0, 2), method="bounded", options={"xatol": 1e-9}
    )
    beta = float(best.x)
    k = scale(beta) * float(step * len(v)) ** -beta
    return Heaps(k, beta, _r2(v, scale(beta) * x**beta))


def _r2(observed: np.ndarray, fitted: np.ndarray) -> float:
    spread = float(((observed - observed.mean()) ** 2).sum())
    if observed.max() - observed.min() <= 1e-12 * abs(observed).max():
        return math.nan  # what varies so little is rounding: there is nothing to explain
    return 1.0 - float(((observed - fitted) ** 2).sum()) / spread
