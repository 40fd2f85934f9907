"""Measures of single answers: length in words and sentences, and repetition.

A score is the mean over prompts of the mean over each prompt's answers, so that every prompt has the same weight. Each
measure also has a function of values per answer, NaN for an answer without one. Functions whose names end in `_of` take
texts that are already split into words.
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
    Ids = Sequence[Hashable] | None


def response_length(texts: Sequence[str], prompts: Ids = None) -> Score:
    """Return the mean number of words in an answer. `prompts` (T,) holds the prompt id of each answer."""
    return response_length_of([words(text) for text in texts], prompts)


def response_length_of(tokens: Tokens, prompts: Ids = None) -> Score:
    return _score("response_words", response_lengths(tokens), prompts, "words", None)


def response_lengths(tokens: Tokens) -> np.ndarray:
    """Return the number of words in each answer: floats (T,)."""
    import numpy as np

    return np.array([len(text) for text in tokens], dtype=float)


def sentence_count(texts: Sequence[str], prompts: Ids = None) -> Score:
    """Return the mean number of sentences in an answer, as split by `sentences`."""
    return _score("sentences", sentence_counts(texts), prompts, "sentences", None)


def sentence_counts(texts: Sequence[str]) -> np.ndarray:
    """Return the number of sentences in each answer: floats (T,)."""
    import numpy as np

    return np.array([len(sentences(text)) for text in texts], dtype=float)


def repetition_rate(texts: Sequence[str], prompts: Ids = None, n: int = 4) -> Score:
    """Return the mean share of an answer's word n-grams that repeat an earlier one of it: 0 to 1, lower is better.

    seq-rep-n of Welleck et al. 2020, Neural text generation with unlikelihood training, sec. 6. Answers of fewer than
    `n` words are left out and counted in the note.
    """
    return repetition_rate_of([words(text) for text in texts], prompts, n)


def repetition_rate_of(tokens: Tokens, prompts: Ids = None, n: int = 4) -> Score:
    return _score(f"repetition_{n}", repetitions(tokens, n), prompts, "share", False, f"below {n} words")


def repetitions(tokens: Tokens, n: int = 4) -> np.ndarray:
    """Return 1 - distinct / all word n-grams of each answer: (T,) in 0 to 1, NaN below `n` words. Raises ValueError if
    n < 1."""
    import numpy as np

    if n < 1:
        raise ValueError(f"n={n}: an n-gram needs at least 1 word")
    return np.array([_repeated_share(text, n) for text in tokens], dtype=float)


def _repeated_share(tokens: Sequence[str], n: int) -> float:
    count = len(tokens) - n + 1
    if count < 1:
        return math.nan
    return 1.0 - len(set(zip(*(tokens[start:] for start in range(n)), strict=False))) / count


def _score(
    name: str, values: np.ndarray, prompts: Ids, unit: str, higher_is_better: bool | None, undefined: str = ""
) -> Score:
    """Return the mean over prompts of the mean of `values` (T,) over each prompt's answers. `undefined` says which
    values are NaN, for the note."""
    import numpy as np

    prompt = prompt_numbers(prompts, len(values))
    score = mean_score(name, prompt_means(values, prompt), unit, higher_is_better, "no answer counts")
    missing = int(np.isnan(values).sum())
    if not missing:
        return score
    return replace(score, note=f"{missing} of {len(values)} answers left out: {undefined}; {score.note}".rstrip("; "))
