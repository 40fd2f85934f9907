"""N-grams of many texts as sorted integers: coded once, then counted for any choice of texts and cuts in linear time.

That makes budgets, differences and intervals affordable: each is another choice of the same table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class Occurrences(NamedTuple):
    """All N n-grams of one order, sorted by `code` (N,), then by the `text` (N,) they stand in, then by place.

    `end` (N,) is how many words of the text an n-gram needs: it is there where at least so many are kept.
    """

    code: np.ndarray
    text: np.ndarray
    end: np.ndarray


@dataclass(frozen=True, eq=False)
class Ngrams:
    """The 1- to n-grams of T texts; `lengths` (T,) counts their words, `words` (N,) are their codes as they stand."""

    orders: tuple[Occurrences, ...]
    lengths: np.ndarray
    words: np.ndarray


@dataclass(frozen=True, eq=False)
class Counted:
    """How often each n-gram stands in each text: `count` (P,) in `text` (P,); `first` (C,) is where a code begins."""

    first: np.ndarray
    text: np.ndarray
    count: np.ndarray

    def totals(self) -> np.ndarray:
        """Occurrences of each n-gram in all texts: (C,)."""
        import numpy as np

        return np.add.reduceat(self.count, self.first) if len(self.first) else self.count


def ngrams(texts: Sequence[Sequence[str]], n: int) -> Ngrams:
    """Code the 1- to n-grams of `texts`, which are lists of words. Memory is linear in the number of n-grams."""
    import numpy as np

    known: dict[str, int] = {}
    words = np.array([known.setdefault(word, len(known)) for text in texts for word in text], dtype=np.int64)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    text = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    place = np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    orders, codes = [], words
    for order in range(1, n + 1):
        if order > 1:
            # dense codes are below the number of words, so the product stays far from 2^63
            codes = codes[:-1] * max(len(known), 1) + words[order - 1 :]
        fits = place[: len(codes)] + order <= lengths[text[: len(codes)]]
        by_code = np.argsort(codes, kind="stable")
        ordered = codes[by_code]
        dense = np.cumsum(np.diff(ordered, prepend=ordered[:1]) != 0)
        codes = np.empty_like(dense)
        codes[by_code] = dense
        inside = by_code[fits[by_code]]
        orders.append(
            Occurrences(codes[inside].astype(np.int32), text[inside], (place[inside] + order).astype(np.int32))
        )
    return Ngrams(tuple(orders), lengths, words)


def counted(table: Ngrams, kept: np.ndarray, order: int) -> Counted:
    """The n-grams of one order in the first `kept` (T,) words of each text."""
    import numpy as np

    found = table.orders[order - 1]
    there = found.end <= kept[found.text]
    code, text = found.code[there], found.text[there]
    new_code = np.diff(code, prepend=-1) != 0
    pair = np.flatnonzero(new_code | (np.diff(text, prepend=-1) != 0))
    return Counted(np.flatnonzero(new_code[pair]), text[pair], np.diff(pair, append=len(code)))
