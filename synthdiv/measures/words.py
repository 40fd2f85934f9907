"""Words, and budgets counted in them. No model's tokenizer has a say: longer tokens would look like diversity."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Letters and digits of any script, with apostrophes inside. It is part of the identity of every measure on words.
# Vowel signs that are combining marks (Devanagari, Thai) end a word, in all arms alike.
REGEX = r"[^\W_]+(?:['’][^\W_]+)*"
_WORD = re.compile(REGEX)


def words(text: str) -> list[str]:
    """The lower-cased words of `text`, composed (NFC) and with straight apostrophes, so that spelling variants are one.

    Lower-cased after the match: lower-casing can decompose a letter (Turkish İ), which would break its word.
    """
    found = _WORD.findall(unicodedata.normalize("NFC", text))
    return [word.lower().replace("’", "'") for word in found]


def cut(text: str, length: int) -> tuple[str, int]:
    """`text` (NFC) until the end of its `length`-th word, 0 for all of it; and how many words it has in all."""
    text = unicodedata.normalize("NFC", text)
    ends = [found.end() for found in _WORD.finditer(text)]
    return (text[: ends[length - 1]] if 0 < length < len(ends) else text), len(ends)


def cut_lengths(lengths: Iterable[int], budget: int) -> list[int] | None:
    """How many words of each text are kept, in order, until `budget` words; texts after that are not listed.

    None where all texts together have fewer. Empty texts before the end stay, with 0: they are answers too.
    """
    kept: list[int] = []
    left = budget
    for length in lengths:
        if left <= 0:
            break
        kept.append(min(int(length), left))
        left -= kept[-1]
    return kept if left <= 0 else None


def cut_to_words(texts: Sequence[str], budget: int) -> list[list[str]] | None:
    """The words of `texts`, in the order given, until `budget` words; the last text cut. None where there are fewer."""
    split = [words(text) for text in texts]
    kept = cut_lengths(map(len, split), budget)
    return None if kept is None else [text[:length] for text, length in zip(split, kept, strict=False)]
