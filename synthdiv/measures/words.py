"""Splitting text into words and into sentences, each by one fixed rule, so that measures stay comparable over time.

Budgets count words and not tokens: with a model's tokenizer, longer tokens would look like diversity. Of splitters of
sentences, nltk's punkt needs the download of a model that may change; pysbd is unmaintained and slow.
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

# The end of a sentence within a line, in any script. It is part of the key of every measure on sentences.
# A run of marks is matched from its first mark without backtracking (`++`), so the time is linear in the text. Marks
# come before the lookbehinds, so that the search jumps from mark to mark.
# Ambiguous cases follow one rule: a capital before a full stop is an initial ("Plan B. Then" is not split), and the
# case of the next word does not matter after an ordinary word, or text without capitals would have fewer sentences.
SENTENCE = r"""(?x)
    [。！？｡]++ [」』）】》”’"')\]]*+
  | [.!?…؟۔।॥] (?<! [.!?…؟۔।॥]{2} )
    (?<! ^\d\. ) (?<! ^\d\d\. ) (?<! ^\d\d\d\. )  # "1. Mix" is one sentence
    (?<! \b[A-HJ-Z]\. ) (?<! \b[A-Z]\.[A-Z]\. )
    (?<! \bMr\. ) (?<! \bMs\. ) (?<! \bMrs\. ) (?<! \bDr\. ) (?<! \bProf\. ) (?<! \bSt\. )
    (?<! \be\.g\. ) (?<! \bi\.e\. ) (?<! \bvs\. ) (?<! \bcf\. ) (?<! \bal\. ) (?<! \bapprox\. ) (?<! \bFig\. )
    (?: (?<! \betc\. ) (?<! \bInc\. ) (?<! \bLtd\. ) (?<! \bCo\. ) (?<! \bJr\. ) (?<! \bSr\. ) (?<! \b[ap]\.m\. )
      | (?! \s++ [a-z] ) )  # these may end a sentence: they do unless it goes on in lower case
    [.!?…؟۔।॥]*+ ["'”’“»›)\]}*_]*+ (?= \s | \Z )
"""
_END = re.compile(SENTENCE)
_CONTENT = re.compile(r"[^\W_]")


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


def sentences(text: str) -> list[str]:
    """Return the sentences of `text` in order, without surrounding white space; [] if there is none.

    The end of a line ends a sentence, because list items and headings have no full stop. Pieces without a letter or a
    digit (rules, bullets, single emoji) are dropped.
    """
    pieces: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        ends = [match.end() for match in _END.finditer(line)]
        pieces += [line[start:end].strip() for start, end in zip([0, *ends], [*ends, len(line)], strict=True)]
    return [piece for piece in pieces if _CONTENT.search(piece)]
