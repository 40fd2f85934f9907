"""N-grams of many texts as sorted integer codes, computed once and counted for any subset of words in linear time.

Budgets, differences and jackknife replicates all count subsets of one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from synthdiv.core.lazy import np


class Occurrences(NamedTuple):
    """All N n-grams of one order, sorted by `code` (N,), then by the index of their `text` (N,), then by position.
    `end` (N,) is the number of words of the text up to the end of the n-gram."""

    code: np.ndarray
    text: np.ndarray
    end: np.ndarray


@dataclass(frozen=True, eq=False)
class NgramTable:
    """The 1- to n-grams of T texts; `lengths` (T,) counts their words, `words` (N,) holds the code of every word."""

    orders: tuple[Occurrences, ...]
    lengths: np.ndarray
    words: np.ndarray


@dataclass(frozen=True, eq=False)
class NgramCounts:
    """Occurrences of C n-grams: `count` (P,) in text `text` (P,); `first` (C,) is the first row of each n-gram."""

    first: np.ndarray
    text: np.ndarray
    count: np.ndarray

    def totals(self) -> np.ndarray:
        """Return the occurrences of each n-gram in all texts: (C,)."""
        return np.add.reduceat(self.count, self.first) if len(self.first) else self.count


def ngrams(texts: Sequence[Sequence[str]], n: int) -> NgramTable:
    """Return the table of the 1- to n-grams of `texts` (lists of words). Memory is linear in the number of n-grams."""
    word_codes: dict[str, int] = {}
    words = np.array([word_codes.setdefault(word, len(word_codes)) for text in texts for word in text], dtype=np.int64)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    text = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    position = np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    orders, codes = [], words
    for order in range(1, n + 1):
        if order > 1:
            # dense codes are below the number of words, so the product stays far from 2^63
            codes = codes[:-1] * max(len(word_codes), 1) + words[order - 1 :]
        fits = position[: len(codes)] + order <= lengths[text[: len(codes)]]
        by_code = np.argsort(codes, kind="stable")
        ordered = codes[by_code]
        dense = np.cumsum(np.diff(ordered, prepend=ordered[:1]) != 0)
        codes = np.empty_like(dense)
        codes[by_code] = dense
        complete = by_code[fits[by_code]]
        orders.append(
            Occurrences(codes[complete].astype(np.int32), text[complete], (position[complete] + order).astype(np.int32))
        )
    return NgramTable(tuple(orders), lengths, words)


def count_ngrams(table: NgramTable, lengths: np.ndarray, order: int) -> NgramCounts:
    """Count the n-grams of one order in the first `lengths` (T,) words of each text."""
    occurrences = table.orders[order - 1]
    kept_ngrams = occurrences.end <= lengths[occurrences.text]
    code, text = occurrences.code[kept_ngrams], occurrences.text[kept_ngrams]
    new_code = np.diff(code, prepend=-1) != 0
    pair = np.flatnonzero(new_code | (np.diff(text, prepend=-1) != 0))
    return NgramCounts(np.flatnonzero(new_code[pair]), text[pair], np.diff(pair, append=len(code)))
