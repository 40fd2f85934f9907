"""Distinct-n and n-gram entropy of pooled texts, and the measures that need only n-gram counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from synthdiv.core.types import Score
from synthdiv.measures.bleu import NEEDS_TWO_TEXTS, bleu_scores_of
from synthdiv.measures.growth import HEAPS, fit_heaps
from synthdiv.measures.intervals import Measure, jackknife_score, prompt_numbers
from synthdiv.measures.ngrams import NgramCounts, NgramTable, count_ngrams, ngrams
from synthdiv.measures.words import words

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy as np

COUNT_MEASURES = (
    Measure("self_bleu_3", "0-100", False, NEEDS_TWO_TEXTS),
    *(Measure(f"distinct_{n}", "share", True, f"no text of {n} words") for n in (1, 2, 3)),
    *(Measure(f"entropy_{n}", "bits", True, f"no text of {n} words") for n in (1, 2, 3)),
    *HEAPS,
)


def distinct_n(texts: Sequence[str], n: int, prompts: Sequence[Hashable] | None = None, seed: int = 0) -> Score:
    """Return distinct word n-grams / all word n-grams of the pooled texts, in (0, 1]; NaN without any (Li et al. 2016).

    The value falls with the number of words: compare on equal budgets only. The interval leaves out groups of
    `prompts`.
    """
    return _pooled(f"distinct_{n}", "share", distinct, texts, n, prompts, seed)


def ngram_entropy(texts: Sequence[str], n: int, prompts: Sequence[Hashable] | None = None, seed: int = 0) -> Score:
    """Return the Shannon entropy in bits of the word n-grams of all `texts` (Zhang et al. 2018, Ent-n).

    Range 0 to log2 of their number. The plug-in estimate rises with the number of words: compare on equal budgets only.
    NaN without any n-gram.
    """
    return _pooled(f"entropy_{n}", "bits", entropy, texts, n, prompts, seed)


def _pooled(
    name: str,
    unit: str,
    value: Callable[[NgramCounts], float],
    texts: Sequence[str],
    n: int,
    prompts: Sequence[Hashable] | None,
    seed: int,
) -> Score:
    prompt = prompt_numbers(prompts, len(texts))
    table = ngrams([words(text) for text in texts], n)

    def statistic(keep: np.ndarray) -> float:
        return value(count_ngrams(table, table.lengths * keep[prompt], n))

    units = int(prompt.max(initial=-1)) + 1
    undefined = f"no text of {n} words"
    return jackknife_score(name, statistic, units, unit=unit, higher_is_better=True, undefined=undefined, seed=seed)


def distinct(counts: NgramCounts) -> float:
    """Return distinct n-grams / all n-grams: (0, 1], NaN without any."""
    total = counts.count.sum()
    return len(counts.first) / float(total) if total else math.nan


def entropy(counts: NgramCounts) -> float:
    """Return the entropy of the n-grams in bits, NaN without any."""
    import numpy as np

    if not len(counts.first):
        return math.nan
    totals = counts.totals()
    occurrences = float(totals.sum())
    # max: rounding of a sum over equal words must not give a negative entropy
    return max(0.0, math.log2(occurrences) - float(totals @ np.log2(totals)) / occurrences)


def count_values(table: NgramTable, kept: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return COUNT_MEASURES (k,) of the first `kept` (T,) words of the texts in `present` (T,), NaN if undefined."""
    import numpy as np

    kept = kept * present
    counts = [count_ngrams(table, kept, order) for order in (1, 2, 3)]
    bleu = bleu_scores_of(counts, kept, present)[present]
    return np.array(
        [
            float(bleu.mean()) if len(bleu) else math.nan,
            *map(distinct, counts),
            *map(entropy, counts),
            *fit_heaps(counts[0].totals()),
        ]
    )
