"""Words, and budgets counted in them. No model's tokenizer has a say: longer tokens would look like diversity."""

from __future__ import annotations

import re
import unicodedata

# Letters and digits of any script, with apostrophes inside. It is part of the identity of every measure on words.
# Scripts that put no space between words (Thai, Lao, Burmese, Khmer, kana, Han) give a word a letter: a whole sentence
# as one word would be distinct from every other. Vowel signs that are combining marks end a word, in all arms alike.
UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
REGEX = rf"(?=[{UNSPACED}])[^\W_]|[^\W_{UNSPACED}]+(?:['’][^\W_{UNSPACED}]+)*"
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
