"""Distinct-n and Self-BLEU, on integer-coded n-grams.

`ngram_table` codes the texts once; the functions ending in `_of` then take any subset of them, each cut to its first
words, in time linear in the n-grams chosen. That makes intervals over subsets of prompts affordable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.measures.words import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


@dataclass(frozen=True, eq=False)
class NgramTable:
    """The n-grams of T texts, laid end to end.

    `grams[k - 1][t]` is the code of the k-gram that starts at token t (across ends of texts too: `Part` never asks
    for those); `starts` (T,) is each text's first token and `lengths` (T,) its number of tokens.
    """

    grams: tuple[np.ndarray, ...]
    starts: np.ndarray
    lengths: np.ndarray


class Part(NamedTuple):
    """Some texts of a table, `texts` (m,), each cut to its first `kept` (m,) tokens."""

    texts: np.ndarray
    kept: np.ndarray


def ngram_table(texts: Sequence[Sequence[str]], n: int) -> NgramTable:
    """Code the 1- to n-grams of `texts`, which are lists of tokens. Codes are dense from 0 for each order."""
    import numpy as np

    code: dict[str, int] = {}
    tokens = np.array([code.setdefault(token, len(code)) for text in texts for token in text], dtype=np.int64)
    grams = [tokens]
    for order in range(2, n + 1):
        stem = grams[-1][: max(len(tokens) - order + 1, 0)]
        # dense codes are below the number of tokens, so the product stays far from 2^63
        grams.append(np.unique(stem * max(len(code), 1) + tokens[order - 1 :], return_inverse=True)[1])
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return NgramTable(tuple(grams), np.cumsum(lengths) - lengths, lengths)


def whole(table: NgramTable) -> Part:
    """Every text, uncut."""
    import numpy as np

    return Part(np.arange(len(table.lengths)), table.lengths)


def occurrences(table: NgramTable, part: Part, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Each k-gram occurrence in `part`, k = `order`: the text's place in `part`, and the k-gram's code."""
    import numpy as np

    count = np.maximum(part.kept - order + 1, 0)
    end = np.cumsum(count)
    place = np.repeat(np.arange(len(count)), count)
    token = np.arange(len(place)) + np.repeat(table.starts[part.texts] - (end - count), count)
    return place, table.grams[order - 1][token]


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct word n-grams / word n-grams, pooled over `texts`: (0, 1], NaN without any (Li et al. 2016, sec. 5).

    Falls with the number of words: compare on equal budgets only.
    """
    table = ngram_table([words(text) for text in texts], n)
    return distinct_n_of(table, whole(table), n)


def distinct_n_of(table: NgramTable, part: Part, n: int) -> float:
    """`distinct_n` of the tokens of `part`."""
    import numpy as np

    codes = occurrences(table, part, n)[1]
    return np.count_nonzero(np.bincount(codes)) / len(codes) if len(codes) else math.nan


def self_bleu(texts: Sequence[str], n: int = 3) -> float:
    """Mean over `texts` of the BLEU of each against all the others, 0 .. 100; lower is more diverse (Zhu et al. 2018).

    Each BLEU is sacrebleu's `BLEU(max_ngram_order=n, effective_order=True).sentence_score`: tokenizer 13a, exp
    smoothing, closest reference length. An empty text scores 0 there and here. NaN for fewer than two texts, or where
    no text has a token (sacrebleu says 0, but nothing was compared). Rises with the number of texts.
    """
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenize = Tokenizer13a()
    table = ngram_table([tokenize(text.rstrip()).split() for text in texts], n)
    return self_bleu_of(table, whole(table), n)


def self_bleu_of(table: NgramTable, part: Part, n: int = 3) -> float:
    """`self_bleu` of the tokens of `part` as they are."""
    import numpy as np

    if len(part.kept) < 2 or not part.kept.any():
        return math.nan
    matched = np.array([_matched(table, part, order) for order in range(1, n + 1)])
    total = np.maximum(part.kept - np.arange(n)[:, None], 0)
    return float(_bleu(matched, total, part.kept, _closest(part.kept)).mean())


def _matched(table: NgramTable, part: Part, order: int) -> np.ndarray:
    """Per text, its k-grams clipped by their largest count in any other text: (m,).

    Only the single text with the most of a k-gram is clipped, namely to the second largest count; all others are
    already at or below the largest.
    """
    import numpy as np

    texts = len(part.kept)
    place, code = occurrences(table, part, order)
    if not len(code):
        return np.zeros(texts)
    pair, count = np.unique(code * texts + place, return_counts=True)
    code, place = np.divmod(pair, texts)
    first = np.flatnonzero(np.diff(code, prepend=-1))
    per_code = np.diff(first, append=len(code))
    at_top = count == np.repeat(np.maximum.reduceat(count, first), per_code)
    second = np.maximum.reduceat(np.where(at_top, 0, count), first)
    alone = np.add.reduceat(at_top.astype(np.int64), first) == 1
    clipped = np.where(at_top & np.repeat(alone, per_code), np.repeat(second, per_code), count)
    return np.bincount(place, weights=clipped, minlength=texts)


def _closest(lengths: np.ndarray) -> np.ndarray:
    """For each text the length closest to its own among the others; of two equally close the shorter: (m,), m >= 2."""
    import numpy as np

    far = 4 * int(lengths.max()) + 4  # beyond any real difference
    unique, index, count = np.unique(lengths, return_inverse=True, return_counts=True)
    padded = np.concatenate([[-far], unique, [far]])
    below, above = padded[:-2], padded[2:]
    neighbour = np.where(unique - below <= above - unique, below, above)
    return np.where(count > 1, unique, neighbour)[index]


def _bleu(matched: np.ndarray, total: np.ndarray, length: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Sentence BLEU (m,) from matches and totals (n, m) and lengths (m,): effective order, exp smoothing.

    The k-th order without a match counts as 1 / 2^k matches (Chen and Cherry 2014, method 3); a text without any match
    scores 0; orders longer than the text are left out of the mean.
    """
    import numpy as np

    present = total > 0
    halvings = np.cumsum(present & (matched == 0), axis=0)
    smoothed = np.where(matched > 0, matched, 0.5**halvings)
    log_precision = np.where(present, np.log(100.0 * smoothed / np.maximum(total, 1)), 0.0)
    mean = log_precision.sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    brevity = np.exp(np.minimum(0.0, 1.0 - reference / np.maximum(length, 1)))
    return np.where(matched.any(axis=0), brevity * np.exp(mean), 0.0)
