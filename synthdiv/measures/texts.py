"""The `@texts` budget: the same prompts in all arms, each answer cut to L words, prompts short in any arm left out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.measures.arms import POOLED, Arm
from synthdiv.measures.bleu import bleu_scores
from synthdiv.measures.intervals import Measured, deletions, evened, prompt_means
from synthdiv.measures.lexical import COUNTED, counted_values

if TYPE_CHECKING:
    import numpy as np

BETWEEN = (COUNTED[0], COUNTED[2])  # Self-BLEU-3 and distinct-2: enough to tell prompts and samples apart
LEAST_PROMPTS = 2


class Texts(NamedTuple):
    """One arm on the budget: POOLED on all its texts; BETWEEN on the first answer to each prompt; and `within`, BETWEEN
    among the answers to one prompt, (2, prompts), NaN for prompts with one answer. `note` counts what was left out.
    """

    pooled: Measured
    between: Measured
    within: np.ndarray
    note: str


def on_texts(
    arms: Mapping[str, Arm], prompts: Mapping[str, Sequence[Hashable]], length: int, seed: int, paired: bool = True
) -> dict[str, Texts]:
    """Each arm on the prompts that all can give: `prompts` names those of each arm, in the order of their numbers.

    Not `paired`: each arm gives its own first long prompts, as many as the arm with the fewest has.
    """
    import numpy as np

    if not arms:
        return {}
    long = {name: long_prompts(arm, length) for name, arm in arms.items()}
    if paired:
        shared = set.intersection(
            *({key for key, ok in zip(prompts[name], long[name], strict=True) if ok} for name in arms)
        )
        order = [key for key in prompts[next(iter(arms))] if key in shared]
        places = {name: {key: number for number, key in enumerate(prompts[name])} for name in arms}
        chosen = {name: np.array([places[name][key] for key in order], dtype=np.int64) for name in arms}
    else:
        count = min(int(ok.sum()) for ok in long.values())
        chosen = {name: np.flatnonzero(ok)[:count] for name, ok in long.items()}
    fewest = min(arms, key=lambda name: int(long[name].sum()))
    lacks = f"{len(chosen[fewest])} prompts have answers of {length} words in all arms, needs {LEAST_PROMPTS}"
    if len(arms) > 1:
        lacks += f" (fewest: {fewest:.40}, with {int(long[fewest].sum())})"
    why = f"an answer below {length} words" + (
        " in some arm"
        if len(arms) > 1 and paired
        else ", or more than the arm with the fewest has"
        if not paired
        else ""
    )
    return {name: measure(arms[name], chosen[name], length, seed, lacks, why) for name in arms}


def long_prompts(arm: Arm, length: int) -> np.ndarray:
    """Which prompts have answers, all of them of `length` words or more: booleans (prompts,)."""
    import numpy as np

    short = np.bincount(arm.prompt, arm.lengths < length, minlength=arm.prompts)
    return (short == 0) & (np.bincount(arm.prompt, minlength=arm.prompts) > 0)


def measure(arm: Arm, chosen: np.ndarray, length: int, seed: int, lacks: str, why: str) -> Texts:
    """One arm on the prompts in `chosen` (k,). `lacks` says what is wrong where they are too few, `why` why the others
    are left out."""
    import numpy as np

    dropped = arm.prompts - len(chosen)
    note = f"{dropped} of {arm.prompts} prompts left out: {why}" if dropped else ""
    width = len(BETWEEN)
    if len(chosen) < LEAST_PROMPTS:
        empty = [Measured(np.full(k, math.nan), np.empty((0, k)), len(chosen), lacks) for k in (len(POOLED), width)]
        return Texts(empty[0], empty[1], np.full((width, arm.prompts), math.nan), note)
    cut = arm.cut(chosen, length)
    every = np.ones(len(cut.tokens), dtype=bool)
    first = np.diff(cut.prompt, prepend=-1) != 0
    masks = deletions(cut.prompts, seed)
    pooled = cut.measure((cut.lengths, every), [(cut.lengths * m[cut.prompt], m[cut.prompt]) for m in masks], seed)

    def between(present: np.ndarray) -> np.ndarray:
        return counted_values(cut.table, cut.lengths, present & first)[[0, 2]]

    drawn = np.array([between(mask[cut.prompt]) for mask in masks]).reshape(-1, width)
    apart = Measured(between(every), drawn, cut.prompts)
    pooled, apart = (part._replace(drawn=evened(part.value, part.drawn, masks)) for part in (pooled, apart))
    return Texts(pooled, apart, within(cut), note)


def within(arm: Arm) -> np.ndarray:
    """Self-BLEU-3 and distinct-2 among the answers to each prompt: (2, prompts), NaN for prompts with one answer."""
    import numpy as np

    several = np.bincount(arm.prompt, minlength=arm.prompts) > 1
    every = np.ones(len(arm.tokens), dtype=bool)
    bleu = prompt_means(bleu_scores(arm.table, arm.lengths, every, 3, arm.prompt), arm.prompt, arm.prompts)
    pairs: list[set[tuple[str, str]]] = [set() for _ in range(arm.prompts)]
    for text, prompt in zip(arm.tokens, arm.prompt.tolist(), strict=True):
        pairs[prompt].update(pairwise(text))
    count = np.bincount(arm.prompt, np.maximum(arm.lengths - 1, 0), minlength=arm.prompts)
    distinct = np.array([len(found) for found in pairs]) / np.where(count > 0, count, math.nan)
    return np.where(several, [bleu, distinct], math.nan)
