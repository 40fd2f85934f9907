"""Splitting text into words by one regular expression.

Budgets count words and not tokens: with a model's tokenizer, longer tokens would look like diversity.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

# Letters and digits of any script, with apostrophes inside. It is part of the key of every measure on words. Combining
# marks (vowel signs, accents, points), joiners and soft hyphens continue a word. In scripts without spaces between
# words (Thai, Lao, Burmese, Khmer, kana, Han) each letter with its marks is a word: a sentence as one word would differ
# from every other. Version 1 of the syntax of the package `regex`; for texts in NFKC, where width does not count.
UNSPACED = r"\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}\p{Hiragana}\p{Katakana}\p{Han}"
MARK = r"\p{M}\u200c\u200d\u00ad"
LETTER = rf"[[\p{{L}}\p{{N}}]--[{UNSPACED}]]"
PART = rf"{LETTER}[[\p{{L}}\p{{N}}{MARK}]--[{UNSPACED}]]*+"
LONE = rf"[[\p{{L}}\p{{N}}]&&[{UNSPACED}]][{MARK}]*+"
REGEX = rf"(?V1){PART}(?:['’‘′]{PART})*+|{LONE}"
DROPPED = str.maketrans("’‘′", "'''", "\u00ad\u200c\u200d")  # invisible: with and without them is one word
_ASCII = re.compile("[a-z0-9]+(?:'[a-z0-9]+)*")  # the same words of ASCII text, four times as fast


@cache
def pattern(expression: str = REGEX) -> Any:
    import regex

    return regex.compile(expression)


def words(text: str) -> list[str]:
    """Return the words of `text` in lower case and NFKC, with straight apostrophes, without joiners and soft hyphens.
    Lower-casing comes after the match, because it can decompose a letter (Turkish İ) and so split its word."""
    if text.isascii():
        return _ASCII.findall(text.lower())
    return [word.lower().translate(DROPPED) for word in pattern().findall(unicodedata.normalize("NFKC", text))]


def spaced(text: str) -> str:
    """Return `text` in NFC with blanks around each letter of scripts without spaces, where words have no others."""
    return text if text.isascii() else pattern(f"(?V1){LONE}").sub(r" \g<0> ", unicodedata.normalize("NFC", text))


def truncate_words(text: str, length: int) -> tuple[str, int]:
    """Return `text` (NFKC) up to its `length`-th word, or all of it for 0, and the number of words in all of it."""
    text = unicodedata.normalize("NFKC", text)
    ends = [match.end() for match in pattern().finditer(text)]
    return (text[: ends[length - 1]] if 0 < length < len(ends) else text), len(ends)
