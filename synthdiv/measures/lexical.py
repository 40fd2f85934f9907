"""The table of lexical measures of a set of texts, and the values of those that need only n-gram counts: distinct
n-grams, entropy, and Heaps' law V = K N^beta, the growth of the vocabulary V with the number of words N."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.bleu import NEEDS_TWO_TEXTS, bleu_scores_of, self_bleu_measure
from synthdiv.measures.estimates import Ids, Measure, set_scores
from synthdiv.measures.ngrams import NgramCounts, NgramTable, count_ngrams, ngrams
from synthdiv.measures.words import words

REPETITION_CAUTION = "it falls where answers repeat themselves, because fewer fill the budget: see repetition_4"
MIN_WORDS, POINTS = 100, 20  # for a fit of Heaps' law


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


def distinct_measure(n: int) -> Measure:
    return Measure(f"distinct_{n}", "share", True, f"no text of {n} words", 0, 1)


def entropy_measure(n: int) -> Measure:
    return Measure(f"entropy_{n}", "bits", True, f"no text of {n} words", 0)


COUNT_MEASURES = (
    self_bleu_measure("self_bleu_3", NEEDS_TWO_TEXTS),
    *map(distinct_measure, (1, 2, 3)),
    *map(entropy_measure, (1, 2, 3)),
    *HEAPS,
)


def distinct_n(texts: Sequence[str], n: int, prompts: Ids = None, seed: int = 0) -> Score:
    """Return distinct word n-grams / all word n-grams of the pooled texts, in (0, 1]; NaN without any (Li et al. 2016).

    The value falls with the number of words: compare on equal budgets only. The interval leaves out groups of
    `prompts`.
    """
    return _pooled(distinct_measure(n), distinct, texts, n, prompts, seed)


def ngram_entropy(texts: Sequence[str], n: int, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the Shannon entropy in bits of the word n-grams of all `texts` (Zhang et al. 2018, Ent-n).

    Range 0 to log2 of their number. The plug-in estimate rises with the number of words: compare on equal budgets only.
    NaN without any n-gram.
    """
    return _pooled(entropy_measure(n), entropy, texts, n, prompts, seed)


def _pooled(
    measure: Measure, value: Callable[[NgramCounts], float], texts: Sequence[str], n: int, prompts: Ids, seed: int
) -> Score:
    table = ngrams([words(text) for text in texts], n)
    measures = bounded_by(table, [measure])
    return set_scores(
        measures, lambda keep: [value(count_ngrams(table, table.lengths * keep, n))], prompts, len(texts), seed
    )[0]


def bounded_by(table: NgramTable, measures: Sequence[Measure]) -> list[Measure]:
    """Return the measures with the largest entropy that so many words can have."""
    most = math.log2(max(int(table.lengths.sum()), 2))
    return [m._replace(high=most) if m.unit == "bits" else m for m in measures]


def distinct(counts: NgramCounts) -> float:
    """Return distinct n-grams / all n-grams: (0, 1], NaN without any."""
    total = counts.count.sum()
    return len(counts.first) / float(total) if total else math.nan


def entropy(counts: NgramCounts) -> float:
    """Return the entropy of the n-grams in bits, NaN without any."""
    if not len(counts.first):
        return math.nan
    totals = counts.totals()
    occurrences = float(totals.sum())
    # max: rounding of a sum over equal words must not give a negative entropy
    return max(0.0, math.log2(occurrences) - float(totals @ np.log2(totals)) / occurrences)


def count_values(table: NgramTable, present: np.ndarray) -> list[float]:
    """Return COUNT_MEASURES (k,) of the texts in `present` (T,), NaN if undefined."""
    lengths = table.lengths * present
    counts = [count_ngrams(table, lengths, order) for order in (1, 2, 3)]
    bleu = bleu_scores_of(counts, lengths, present)[present]
    self_bleu = float(bleu.mean()) if len(bleu) else math.nan
    return [self_bleu, *map(distinct, counts), *map(entropy, counts), *fit_heaps(counts[0].totals())]


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
    inclusion = np.where(rest >= n, -np.expm1(log_absent), 1.0)
    return inclusion @ types


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
