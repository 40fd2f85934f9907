"""Sentences by one fixed rule, because measures on sentences must cut all arms alike, today and in five years.

Our own: nltk's punkt needs a download (a model that may change), pysbd is unmaintained and slow.
"""

from __future__ import annotations

import re

# Where a sentence ends within a line, in any script. It is part of the identity of every measure on sentences.
# A run of marks is entered only at its first and never given back (`++`), so the time is linear in the text; marks come
# before the looks back, so that the search jumps from mark to mark.
# In doubt it decides alike everywhere: a capital before a full stop is an initial ("Plan B. Then" is not cut), and the
# case of the next word says nothing after an ordinary word, or careless writers would seem to write fewer sentences.
SENTENCE = r"""(?x)
    [。！？｡]++ [」』）】》”’"')\]]*+
  | [.!?…؟۔।॥] (?<! [.!?…؟۔।॥]{2} )
    (?<! ^\d\. ) (?<! ^\d\d\. ) (?<! ^\d\d\d\. )  # "1. Mix" is one sentence
    (?<! \b[A-HJ-Z]\. ) (?<! \bMr\. ) (?<! \bMs\. ) (?<! \bMrs\. ) (?<! \bDr\. ) (?<! \bProf\. ) (?<! \bSt\. )
    (?<! \be\.g\. ) (?<! \bi\.e\. ) (?<! \bvs\. ) (?<! \bcf\. ) (?<! \bal\. ) (?<! \bapprox\. ) (?<! \bFig\. )
    (?: (?<! \betc\. ) (?<! \bInc\. ) (?<! \bLtd\. ) (?<! \bCo\. ) (?<! \bJr\. ) (?<! \bSr\. ) (?<! \b[ap]\.m\. )
      | (?! \s++ [a-z] ) )  # these may end a sentence: they do unless it goes on in lower case
    [.!?…؟۔।॥]*+ ["'”’“»›)\]}*_]*+ (?= \s | \Z )
"""
_END = re.compile(SENTENCE)
_CONTENT = re.compile(r"[^\W_]")


def sentences(text: str) -> list[str]:
    """The sentences of `text` in order, without the white space around them.

    A line end ends a sentence, because list items and headings have no full stop. Pieces without a letter or a digit
    (rules, bullets, lone emoji) are none; a text without any gives [].
    """
    pieces: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        ends = [match.end() for match in _END.finditer(line)]
        pieces += [line[start:end].strip() for start, end in zip([0, *ends], [*ends, len(line)], strict=True)]
    return [piece for piece in pieces if _CONTENT.search(piece)]
