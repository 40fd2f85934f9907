"""The answers of one arm as words, and the `@words` budget: answers in prompt order up to a number of words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from synthdiv.measures.intervals import Jackknifed, Measure, jackknife_masks
from synthdiv.measures.lexical import COUNT_MEASURES, count_values
from synthdiv.measures.ngrams import NgramTable, ngrams
from synthdiv.measures.order import CODECS, COMPRESSION_UNDEFINED, MTLD_UNDEFINED, compression_of, mtld_of
from synthdiv.measures.words import words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

POOLED = (
    *COUNT_MEASURES,
    Measure("mtld", "words", True, MTLD_UNDEFINED),
    *(Measure(f"compression_{codec}", "ratio", False, COMPRESSION_UNDEFINED) for codec in CODECS),
)


MIN_WORDS = 20
Selection = tuple["np.ndarray", "np.ndarray"]  # words kept of each text (T,), and which texts are present (T,)


@dataclass(frozen=True, eq=False)
class WordArm:
    """T answers as words; `prompt` (T,) is the index of each answer's prompt, ascending, below `prompts`."""

    tokens: list[list[str]]
    prompt: np.ndarray
    prompts: int

    @classmethod
    def from_texts(cls, groups: Sequence[Sequence[str]]) -> WordArm:
        """Take the answers to each prompt as texts."""
        return cls.from_words([[words(text) for text in group] for group in groups])

    @classmethod
    def from_words(cls, groups: Sequence[Sequence[list[str]]]) -> WordArm:
        """Take the answers to each prompt as lists of words."""
        import numpy as np

        number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        return cls([text for group in groups for text in group], number, len(groups))

    @cached_property
    def table(self) -> NgramTable:
        return ngrams(self.tokens, 3)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of words of each answer: (T,)."""
        import numpy as np

        return np.array([len(text) for text in self.tokens], dtype=np.int64)

    def prefix(self, count: int) -> WordArm:
        """Return the shortest prefix of the texts that has `count` words, or all texts."""
        import numpy as np

        texts = int(np.searchsorted(np.cumsum(self.lengths), count)) + 1
        return WordArm(self.tokens[:texts], self.prompt[:texts], self.prompts)

    def within_budget(self, present: np.ndarray, budget: int) -> Selection:
        """Select the first texts of `present` (T,) up to `budget` words; the last text is cut."""
        import numpy as np

        sizes = self.lengths * present
        before = np.cumsum(sizes) - sizes
        return np.clip(budget - before, 0, sizes), present & (before < budget)

    def truncated(self, prompts: np.ndarray, length: int) -> WordArm:
        """Return the answers to `prompts` (k,), each cut to `length` words, with prompt indices from 0."""
        import numpy as np

        start = np.searchsorted(self.prompt, np.arange(self.prompts + 1))
        return WordArm.from_words([[text[:length] for text in self.tokens[start[p] : start[p + 1]]] for p in prompts])

    def measure(self, all_texts: Selection, replicates: Sequence[Selection], seed: int) -> Jackknifed:
        """Return the values and replicates of POOLED on the selection `all_texts`.

        Count measures are computed again on each selection in `replicates`; `mtld` and compression, which depend on the
        order of texts, compute replicates of their own.
        """
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        kept, present = all_texts
        if kept.sum() < MIN_WORDS:
            return undefined_arm(f"{int(kept.sum())} words: at least {MIN_WORDS} are needed")
        texts, prompt = np.flatnonzero(present), self.prompt[present]
        kept_words = [self.tokens[t][: kept[t]] for t in texts]
        joined = [" ".join(text) for text in kept_words]
        order_measures = [mtld_of(kept_words, prompt, self.prompts, seed)]
        order_measures += [compression_of(joined, prompt, self.prompts, codec, seed) for codec in CODECS]
        value = np.concatenate([count_values(self.table, *all_texts), [value for value, _ in order_measures]])
        table = self.table
        with ThreadPoolExecutor(2) as pool:  # numpy releases the interpreter lock
            counts = np.array([*pool.map(lambda selection: count_values(table, *selection), replicates)])
        order_replicates = np.transpose([values for _, values in order_measures])
        values = np.hstack([counts.reshape(-1, len(COUNT_MEASURES)), order_replicates])
        return Jackknifed(value, values, len(np.unique(prompt)))


def undefined_arm(note: str, measures: int = len(POOLED), prompts: int = 0) -> Jackknifed:
    """Return NaN for each of the measures, with the reason `note`."""
    import numpy as np

    return Jackknifed(np.full(measures, math.nan), np.empty((0, measures)), prompts, note)


def words_values(arms: Mapping[str, WordArm], budget: int, seed: int) -> dict[str, Jackknifed]:
    """Return the values of each arm on `budget` words, and replicates on the largest budget that all of them can fill.

    A replicate leaves out a group of prompts, so it has fewer words. All replicates of all `arms` need one budget,
    because these measures depend on it and differences between arms are taken. An arm with fewer words than `budget` is
    undefined and does not affect the budget of replicates.
    """
    import numpy as np

    measurable = {name: arm.prefix(budget + budget // 2) for name, arm in arms.items() if arm.lengths.sum() >= budget}
    common_budget = budget
    for arm in measurable.values():
        for mask in jackknife_masks(arm.prompts, seed):
            available = int(arm.lengths[mask[arm.prompt]].sum())
            common_budget = min(common_budget, available, budget * int(mask.sum()) // arm.prompts)
    values = {}
    for name, arm in measurable.items():
        all_texts = np.ones(len(arm.tokens), dtype=bool)
        masks = jackknife_masks(arm.prompts, seed)
        replicates = [arm.within_budget(mask[arm.prompt], common_budget) for mask in masks]
        values[name] = arm.measure(arm.within_budget(all_texts, budget), replicates, seed)
    for name, arm in arms.items():
        if name not in measurable:
            values[name] = undefined_arm(f"{int(arm.lengths.sum())} words, the budget needs {budget}")
    return {name: values[name] for name in arms}
