"""Splitting text into sentences by one fixed rule, so that measures on sentences stay comparable over time.

nltk's punkt needs the download of a model that may change; pysbd is unmaintained and slow.
"""

from __future__ import annotations

import re

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
