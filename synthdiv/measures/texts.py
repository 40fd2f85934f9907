"""The `@texts` budget: the same prompts in all arms, each answer cut to L words, prompts short in any arm left out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.measures.arm import Arm, missing
from synthdiv.measures.bleu import bleu_scores
from synthdiv.measures.intervals import Measured, deletions, evened, prompt_means
from synthdiv.measures.lexical import COUNTED, counted_values

if TYPE_CHECKING:
    import numpy as np

BETWEEN = (COUNTED[0], COUNTED[2])  # Self-BLEU-3 and distinct-2: enough to tell prompts and samples apart
LEAST_PROMPTS = 2
SAY = 10  # an arm with fewer than one in so many of the long prompts of another has no say


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

    An arm with less than a tenth of the long prompts of the one with the most is not measured and has no say: a broken
    one would leave nothing of the others. Not `paired`: each arm gives its own first long prompts, as many as the
    arm with the fewest has.
    """
    import numpy as np

    long = {name: long_prompts(arm, length) for name, arm in arms.items()}
    count = {name: int(ok.sum()) for name, ok in long.items()}
    most = max(count.values(), default=0)
    heard = [name for name in arms if count[name] * SAY >= most]
    if paired:
        kept = {name: [key for key, ok in zip(prompts[name], long[name], strict=True) if ok] for name in heard}
        shared = set.intersection(*map(set, kept.values())) if kept else set()
        order = [key for key in kept[heard[0]] if key in shared] if kept else []
        places = {name: {key: number for number, key in enumerate(prompts[name])} for name in heard}
        chosen = {name: np.array([places[name][key] for key in order], dtype=np.int64) for name in heard}
    else:
        fewest = min((count[name] for name in heard), default=0)
        chosen = {name: np.flatnonzero(long[name])[:fewest] for name in heard}
    lacks = f"fewer than {LEAST_PROMPTS} prompts have answers of {length} words"
    if len(heard) > 1:
        least = min(heard, key=lambda name: count[name])
        lacks += f" in all of {len(heard)} ({least:.40} has {count[least]})"
    found = {name: measure(arms[name], rows, length, seed, lacks, count[name]) for name, rows in chosen.items()}
    for name in set(arms) - set(heard):
        few = f"{count[name]} prompts have answers of {length} words, less than a tenth of the most, {most}"
        found[name] = nothing(arms[name], few, "")
    return {name: found[name] for name in arms}


def long_prompts(arm: Arm, length: int) -> np.ndarray:
    """Which prompts have answers, all of them of `length` words or more: booleans (prompts,)."""
    import numpy as np

    short = np.bincount(arm.prompt, arm.lengths < length, minlength=arm.prompts)
    return (short == 0) & (np.bincount(arm.prompt, minlength=arm.prompts) > 0)


def nothing(arm: Arm, lacks: str, note: str) -> Texts:
    """An arm of which nothing can be said, and why."""
    import numpy as np

    pooled, apart = missing(lacks), missing(lacks, len(BETWEEN))
    return Texts(pooled, apart, np.full((len(BETWEEN), arm.prompts), math.nan), note)


def measure(arm: Arm, chosen: np.ndarray, length: int, seed: int, lacks: str, long: int) -> Texts:
    """One arm on the prompts in `chosen` (k,), of `long` ones. `lacks` says what is wrong where too few."""
    import numpy as np

    reasons = {f"with an answer below {length} words": arm.prompts - long, "for other arms": long - len(chosen)}
    left = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
    note = f"{arm.prompts - len(chosen)} of {arm.prompts} prompts left out: {left}" if left else ""
    width = len(BETWEEN)
    if len(chosen) < LEAST_PROMPTS:
        return nothing(arm, lacks, note)
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
    inside = np.full((width, arm.prompts), math.nan)
    inside[:, chosen] = within(cut)
    return Texts(pooled, apart, inside, note)


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
