"""Splitting text into words by one regular expression.

Budgets count words and not tokens: with a model's tokenizer, longer tokens would look like diversity.
"""

from __future__ import annotations

import re
import unicodedata

# Letters and digits of any script, with apostrophes inside. It is part of the key of every measure on words. In scripts
# without spaces between words (Thai, Lao, Burmese, Khmer, kana, Han) each letter is a word: a sentence as one word
# would differ from every other. Vowel signs that are combining marks end a word, in all arms alike.
UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
REGEX = rf"(?=[{UNSPACED}])[^\W_]|[^\W_{UNSPACED}]+(?:['’][^\W_{UNSPACED}]+)*"
_WORD = re.compile(REGEX)


def words(text: str) -> list[str]:
    """Return the words of `text` in lower case, composed (NFC) and with straight apostrophes. Lower-casing comes after
    the match, because it can decompose a letter (Turkish İ) and so split its word."""
    matches = _WORD.findall(unicodedata.normalize("NFC", text))
    return [word.lower().replace("’", "'") for word in matches]


def truncate_words(text: str, length: int) -> tuple[str, int]:
    """Return `text` (NFC) up to its `length`-th word, or all of it for 0, and the number of words in the whole text."""
    text = unicodedata.normalize("NFC", text)
    ends = [match.end() for match in _WORD.finditer(text)]
    return (text[: ends[length - 1]] if 0 < length < len(ends) else text), len(ends)
