"""The answers of one arm as words, and lexical measures without a budget: as published, and of single answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.measures import answers, bleu
from synthdiv.measures.estimates import Estimate, Measure, estimates, jackknife, mean_of, prompt_groups, prompt_means
from synthdiv.measures.lexical import fit_in_order, in_order_measures
from synthdiv.measures.ngrams import ngrams
from synthdiv.measures.words import sentences, words

STEP = 1000  # words between two points of the vocabulary curve in the published Heaps' law
PUBLISHED = (
    bleu.self_bleu_measure("published_self_bleu_3_aggregated", bleu.NEEDS_FULL_POOL),
    *in_order_measures(STEP),
)
INDIVIDUAL = bleu.self_bleu_measure("published_self_bleu_3_individual", bleu.NEEDS_TWO_SENTENCES)


@dataclass(frozen=True, eq=False)
class WordArm:
    """The answers of one arm as words, by prompt; `texts` are the same as they were written."""

    texts: list[Sequence[str]]
    seed: int = 0
    intervals: bool = True

    def groups(self, prompts: int) -> np.ndarray:
        """The jackknife group of each prompt; without intervals all are in one, which is 20 times as fast."""
        return prompt_groups(prompts, self.seed) * self.intervals

    @cached_property
    def tokens(self) -> list[list[list[str]]]:
        return [[words(text) for text in group] for group in self.texts]

    @cached_property
    def first(self) -> list[list[str]]:
        """The first answer to each prompt; no words for a prompt without an answer."""
        return [group[0] if group else [] for group in self.tokens]

    @cached_property
    def sentences(self) -> list[list[str]]:
        """The sentences of each answer."""
        return [sentences(text) for group in self.texts for text in group]

    @cached_property
    def all_answers(self) -> list[list[str]]:
        return list(chain(*self.tokens))

    @cached_property
    def prompt(self) -> np.ndarray:
        """The index of the prompt of each answer: (answers,)."""
        return np.repeat(np.arange(len(self.texts)), [len(group) for group in self.texts])

    def long(self, length: int) -> np.ndarray:
        """Which prompts have a first answer of `length` words or more: (prompts,)."""
        return np.array([len(text) >= length for text in self.first], dtype=bool)


def published_estimates(arm: WordArm) -> list[Estimate]:
    """Return PUBLISHED of the first answer to each prompt, and INDIVIDUAL of all answers."""
    table, owner = bleu.sentence_table(arm.sentences, 3)
    first = np.flatnonzero(np.diff(arm.prompt, prepend=-1))  # the first answer to each prompt that has one
    group = arm.groups(len(arm.texts))
    is_first, place = np.isin(owner, first), np.searchsorted(first, owner, side="right") - 1
    prompt = arm.prompt[first]
    codes = ngrams([arm.all_answers[answer] for answer in first], 1)
    word_group = np.repeat(group[prompt], codes.lengths)

    def values(keep: np.ndarray) -> list[float]:
        present = is_first & keep[group[arm.prompt[owner]]]
        self_bleu = bleu.aggregated_value(table, place, present, len(first), 3)
        return [self_bleu, *fit_in_order(codes.words[keep[word_group]], STEP)]

    value, pseudo = jackknife(values, np.bincount(group))
    individual = prompt_means(bleu.individual_values(table, owner, len(arm.prompt), 3), arm.prompt, len(arm.texts))
    return [*estimates(PUBLISHED, value, pseudo, len(first)), mean_of(INDIVIDUAL, individual)]


def answer_estimates(arm: WordArm) -> list[Estimate]:
    """Return the measures of single answers, of all of them."""
    lengths = np.array([len(text) for text in arm.all_answers], dtype=float)
    repeated = answers.repetitions(arm.all_answers)
    columns: list[tuple[Measure, Any]] = [
        (answers.RESPONSE_WORDS, lengths),
        (answers.SENTENCES, [len(split) for split in arm.sentences]),
        (answers.repetition_measure(4), repeated),
        (answers.EMPTY, lengths == 0),
        (answers.LOOPS, repeated >= answers.LOOPING),
    ]
    return [answers.answer_estimate(m, values, arm.prompt, len(arm.texts)) for m, values in columns]
