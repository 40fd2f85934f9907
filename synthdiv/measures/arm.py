"""The answers of one arm, split into words once, and the `@words` budget: texts, prompt by prompt, until W words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from synthdiv.measures.intervals import Measure, Measured, deletions
from synthdiv.measures.lexical import COUNTED, counted_values
from synthdiv.measures.ngrams import Ngrams, ngrams
from synthdiv.measures.order import CODECS, COMPRESSION_UNDEFINED, MTLD_UNDEFINED, compression_of, mtld_of
from synthdiv.measures.words import words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

POOLED = (
    *COUNTED,
    Measure("mtld", "words", True, MTLD_UNDEFINED),
    *(Measure(f"compression_{codec}", "ratio", False, COMPRESSION_UNDEFINED) for codec in CODECS),
)


LEAST_WORDS = 20
Choice = tuple["np.ndarray", "np.ndarray"]  # how many words of each text (T,), and which texts are present (T,)


@dataclass(frozen=True, eq=False)
class Arm:
    """Answers as words, T of them; `prompt` (T,) is the number of the prompt that each answers, ascending."""

    tokens: list[list[str]]
    prompt: np.ndarray
    prompts: int

    @classmethod
    def of(cls, groups: Sequence[Sequence[str]]) -> Arm:
        """The answers to each prompt."""
        return cls.split([[words(text) for text in group] for group in groups])

    @classmethod
    def split(cls, groups: Sequence[Sequence[list[str]]]) -> Arm:
        """The answers to each prompt, as words."""
        import numpy as np

        number = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        return cls([text for group in groups for text in group], number, len(groups))

    @cached_property
    def table(self) -> Ngrams:
        return ngrams(self.tokens, 3)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Words of each answer: (T,)."""
        import numpy as np

        return np.array([len(text) for text in self.tokens], dtype=np.int64)

    def first(self, count: int) -> Arm:
        """The first texts that have `count` words together: all that a budget can need."""
        import numpy as np

        texts = int(np.searchsorted(np.cumsum(self.lengths), count)) + 1
        return Arm(self.tokens[:texts], self.prompt[:texts], self.prompts)

    def part(self, present: np.ndarray, budget: int) -> Choice:
        """Of the texts in `present` (T,) those until `budget` words, and how many words of each: (T,) and (T,)."""
        import numpy as np

        sizes = self.lengths * present
        before = np.cumsum(sizes) - sizes
        return np.clip(budget - before, 0, sizes), present & (before < budget)

    def cut(self, prompts: np.ndarray, length: int) -> Arm:
        """The answers to `prompts` (k,), each cut to `length` words, renumbered."""
        import numpy as np

        start = np.searchsorted(self.prompt, np.arange(self.prompts + 1))
        return Arm.split([[text[:length] for text in self.tokens[start[p] : start[p + 1]]] for p in prompts])

    def measure(self, whole: Choice, replicates: Sequence[Choice], seed: int) -> Measured:
        """POOLED on the `whole` choice of texts; the counted ones on each replicate's too, those that depend on the
        order without each group of prompts."""
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        kept, present = whole
        if kept.sum() < LEAST_WORDS:
            return missing(f"{int(kept.sum())} words: fewer than {LEAST_WORDS} say nothing")
        texts, prompt = np.flatnonzero(present), self.prompt[present]
        cut = [self.tokens[t][: kept[t]] for t in texts]
        joined = [" ".join(text) for text in cut]
        ordered = [mtld_of(cut, prompt, self.prompts, seed)]
        ordered += [compression_of(joined, prompt, self.prompts, codec, seed) for codec in CODECS]
        value = np.concatenate([counted_values(self.table, *whole), [value for value, _ in ordered]])
        table = self.table
        with ThreadPoolExecutor(2) as pool:  # numpy releases the interpreter
            counts = np.array([*pool.map(lambda choice: counted_values(table, *choice), replicates)])
        drawn = np.hstack([counts.reshape(-1, len(COUNTED)), np.transpose([drawn for _, drawn in ordered])])
        return Measured(value, drawn, len(np.unique(prompt)))


def missing(note: str, measures: int = len(POOLED), prompts: int = 0) -> Measured:
    """Of an arm of which nothing can be said."""
    import numpy as np

    return Measured(np.full(measures, math.nan), np.empty((0, measures)), prompts, note)


def on_words(arms: Mapping[str, Arm], budget: int, seed: int) -> dict[str, Measured]:
    """Each arm on `budget` words. A replicate lacks a group of prompts and has a budget that all of them can fill.

    Only the spread among replicates is used, but it needs one budget for all, and one for all `arms`, whose differences
    are taken: these measures depend on it. An arm below the budget is not measured and has no say in the smaller one.
    """
    import numpy as np

    enough = {name: arm.first(budget + budget // 2) for name, arm in arms.items() if arm.lengths.sum() >= budget}
    smaller = budget
    for arm in enough.values():
        for mask in deletions(arm.prompts, seed):
            have = int(arm.lengths[mask[arm.prompt]].sum())
            smaller = min(smaller, have, budget * int(mask.sum()) // arm.prompts)
    found = {}
    for name, arm in enough.items():
        every = np.ones(len(arm.tokens), dtype=bool)
        masks = deletions(arm.prompts, seed)
        found[name] = arm.measure(arm.part(every, budget), [arm.part(m[arm.prompt], smaller) for m in masks], seed)
    for name, arm in arms.items():
        if name not in enough:
            found[name] = missing(f"{int(arm.lengths.sum())} words, the budget needs {budget}")
    return {name: found[name] for name in arms}
