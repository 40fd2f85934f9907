"""Measures of one answer at a time: how long it is, in how many sentences, how much of it repeats itself.

A score is the mean over prompts of the mean over a prompt's answers, so that no prompt counts for more than another.
Each measure also gives its values per answer, NaN where an answer has none. Functions that end in `_of` take texts that
are split into words.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from synthdiv.core.types import Score
from synthdiv.measures.intervals import mean_score, prompt_means, prompt_numbers
from synthdiv.measures.sentences import sentences
from synthdiv.measures.words import words

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np

    Tokens = Sequence[Sequence[str]]
    Prompts = Sequence[Hashable] | None


def response_length(texts: Sequence[str], prompts: Prompts = None) -> Score:
    """Mean words in an answer, 0 for an empty one. `prompts` (T,) names the prompt of each answer."""
    return response_length_of([words(text) for text in texts], prompts)


def response_length_of(tokens: Tokens, prompts: Prompts = None) -> Score:
    """`response_length` of texts given as words."""
    return _score("response_words", response_lengths(tokens), prompts, "words", None)


def response_lengths(tokens: Tokens) -> np.ndarray:
    """Words in each answer: floats (T,)."""
    import numpy as np

    return np.array([len(text) for text in tokens], dtype=float)


def sentence_count(texts: Sequence[str], prompts: Prompts = None) -> Score:
    """Mean sentences in an answer, by `sentences`; 0 for one without any."""
    return _score("sentences", sentence_counts(texts), prompts, "sentences", None)


def sentence_counts(texts: Sequence[str]) -> np.ndarray:
    """Sentences in each answer: floats (T,)."""
    import numpy as np

    return np.array([len(sentences(text)) for text in texts], dtype=float)


def repetition_rate(texts: Sequence[str], prompts: Prompts = None, n: int = 4) -> Score:
    """Mean share of an answer's word n-grams that repeat an earlier one of the same answer: 0 .. 1, lower is better.

    seq-rep-n of Welleck et al. 2020, Neural text generation with unlikelihood training, sec. 6. Answers below `n` words
    have no n-gram: they are left out and counted in the note.
    """
    return repetition_rate_of([words(text) for text in texts], prompts, n)


def repetition_rate_of(tokens: Tokens, prompts: Prompts = None, n: int = 4) -> Score:
    """`repetition_rate` of texts given as words."""
    return _score(f"repetition_{n}", repetitions(tokens, n), prompts, "share", False, f"below {n} words")


def repetitions(tokens: Tokens, n: int = 4) -> np.ndarray:
    """1 - distinct / all word n-grams of each answer: (T,) in 0 .. 1, NaN below `n` words. ValueError if n < 1."""
    import numpy as np

    if n < 1:
        raise ValueError(f"n-grams of {n} words: n must be at least 1")
    return np.array([_repeated(text, n) for text in tokens], dtype=float)


def _repeated(tokens: Sequence[str], n: int) -> float:
    count = len(tokens) - n + 1
    if count < 1:
        return math.nan
    return 1.0 - len(set(zip(*(tokens[start:] for start in range(n)), strict=False))) / count


def _score(
    name: str, values: np.ndarray, prompts: Prompts, unit: str, higher_is_better: bool | None, undefined: str = ""
) -> Score:
    """Mean over prompts of the mean of `values` (T,) over each prompt's answers; `undefined` says which are NaN."""
    import numpy as np

    prompt = prompt_numbers(prompts, len(values))
    score = mean_score(name, prompt_means(values, prompt), unit, higher_is_better, "no answer counts")
    missing = int(np.isnan(values).sum())
    if not missing:
        return score
    return replace(score, note=f"{missing} of {len(values)} answers left out: {undefined}; {score.note}".rstrip("; "))
