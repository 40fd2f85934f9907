"""The table of lexical measures of a set of texts, and the values of those that need only n-gram counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.bleu import NEEDS_TWO_TEXTS, bleu_scores_of, self_bleu_measure
from synthdiv.measures.estimates import Ids, Measure, set_scores
from synthdiv.measures.growth import HEAPS, fit_heaps
from synthdiv.measures.ngrams import NgramCounts, NgramTable, count_ngrams, ngrams
from synthdiv.measures.words import words

REPETITION_CAUTION = "it falls where answers repeat themselves, because fewer fill the budget: see repetition_4"


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
    kept = table.lengths * present
    counts = [count_ngrams(table, kept, order) for order in (1, 2, 3)]
    bleu = bleu_scores_of(counts, kept, present)[present]
    self_bleu = float(bleu.mean()) if len(bleu) else math.nan
    return [self_bleu, *map(distinct, counts), *map(entropy, counts), *fit_heaps(counts[0].totals())]
