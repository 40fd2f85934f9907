"""Measures of single answers: length in words and sentences, repetition and loops.

A score is the mean over prompts of the mean over each prompt's answers, so that every prompt has the same weight. Each
measure is a function of values per answer, NaN for an answer without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import SHARE, Estimate, Ids, Measure, mean_of, prompt_means, prompt_numbers
from synthdiv.measures.words import sentences, words

Tokens = Sequence[Sequence[str]]
LOOPING = 0.5  # share of an answer's 4-grams that are repeated, from which on it loops
RESPONSE_WORDS = Measure("response_words", "words", None, "no answer", 0)
SENTENCES = Measure("sentences", "sentences", None, "no answer", 0)
EMPTY = Measure("empty", SHARE, None, "no answer", 0, 1)
LOOPS = Measure("looping", SHARE, None, "no answer", 0, 1)


def repetition_measure(n: int) -> Measure:
    return Measure(f"repetition_{n}", "share", False, f"no answer of {n} words", 0, 1)


def response_length(texts: Sequence[str], prompts: Ids = None) -> Score:
    """Return the mean number of words in an answer. `prompts` (T,) holds the prompt id of each answer."""
    return _score(RESPONSE_WORDS, [len(words(text)) for text in texts], prompts)


def sentence_count(texts: Sequence[str], prompts: Ids = None) -> Score:
    """Return the mean number of sentences in an answer, as split by `sentences`."""
    return _score(SENTENCES, [len(sentences(text)) for text in texts], prompts)


def repetition_rate(texts: Sequence[str], prompts: Ids = None, n: int = 4) -> Score:
    """Return the mean share of an answer's word n-grams that repeat an earlier one of it: 0 to 1, lower is better.

    seq-rep-n of Welleck et al. 2020, Neural text generation with unlikelihood training, sec. 6. Answers of fewer than
    `n` words are left out and counted in the note.
    """
    return _score(repetition_measure(n), repetitions([words(text) for text in texts], n), prompts)


def repetitions(tokens: Tokens, n: int = 4) -> np.ndarray:
    """Return 1 - distinct / all word n-grams of each answer: (T,) in 0 to 1, NaN below `n` words. Raises ValueError if
    n < 1."""
    if n < 1:
        raise ValueError(f"n={n}: an n-gram needs at least 1 word")
    return np.array([_repeated_share(text, n) for text in tokens], dtype=float)


def _repeated_share(tokens: Sequence[str], n: int) -> float:
    count = len(tokens) - n + 1
    if count < 1:
        return math.nan
    return 1.0 - len(set(zip(*(tokens[start:] for start in range(n)), strict=False))) / count


def answer_estimate(measure: Measure, values: Any, prompt: np.ndarray, prompts: int | None = None) -> Estimate:
    """Return the mean over prompts of the mean of `values` (T,) over each prompt's answers; `prompt` (T,) is the index
    of their prompt. The note counts the answers without a value."""
    x = np.asarray(values, dtype=float)
    missing = int(np.isnan(x).sum())
    note = f"{missing} of {len(x)} answers have no value: {measure.undefined}" if missing else ""
    return mean_of(measure, prompt_means(x, prompt, prompts), len(x) - missing, note=note)


def _score(measure: Measure, values: Any, prompts: Ids) -> Score:
    return answer_estimate(measure, values, prompt_numbers(prompts, len(values))).score()
