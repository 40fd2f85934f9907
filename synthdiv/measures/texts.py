"""The `@texts` budget: the same prompts in all arms, each answer cut to L words.

A prompt with a shorter answer in any arm is left out of all arms.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.measures.arm import WordArm, undefined_arm
from synthdiv.measures.bleu import bleu_scores
from synthdiv.measures.intervals import Jackknifed, balanced, jackknife_masks, prompt_means
from synthdiv.measures.lexical import COUNT_MEASURES, count_values

if TYPE_CHECKING:
    import numpy as np

BETWEEN = (COUNT_MEASURES[0], COUNT_MEASURES[2])  # Self-BLEU-3 and distinct-2
MIN_PROMPTS = 2
MAX_SIZE_RATIO = 10  # arms with fewer long prompts than the largest arm has, divided by this, are excluded


class Texts(NamedTuple):
    """One arm on the budget: POOLED on all texts, BETWEEN on the first answer to each prompt, and within prompts.

    `within` (2, prompts) has BETWEEN among the answers to each prompt, NaN for a prompt with one answer. `note` counts
    the prompts left out.
    """

    pooled: Jackknifed
    between: Jackknifed
    within: np.ndarray
    note: str


def texts_values(
    arms: Mapping[str, WordArm], prompts: Mapping[str, Sequence[Hashable]], length: int, seed: int, paired: bool = True
) -> dict[str, Texts]:
    """Return the values of each arm on the common long prompts; `prompts` holds the prompt ids of each arm in order.

    An arm with less than a tenth of the long prompts of the largest arm is undefined and excluded from the choice of
    prompts, because it would leave too few for the others. With `paired=False` each arm gives its first long prompts,
    as many as the smallest arm has.
    """
    import numpy as np

    long = {name: long_prompts(arm, length) for name, arm in arms.items()}
    count = {name: int(is_long.sum()) for name, is_long in long.items()}
    largest = max(count.values(), default=0)
    included = [name for name in arms if count[name] * MAX_SIZE_RATIO >= largest]
    if paired:
        long_ids = {
            name: [key for key, is_long in zip(prompts[name], long[name], strict=True) if is_long] for name in included
        }
        common = set.intersection(*map(set, long_ids.values())) if long_ids else set()
        order = [key for key in long_ids[included[0]] if key in common] if long_ids else []
        index_of = {name: {key: number for number, key in enumerate(prompts[name])} for name in included}
        selected = {name: np.array([index_of[name][key] for key in order], dtype=np.int64) for name in included}
    else:
        fewest = min((count[name] for name in included), default=0)
        selected = {name: np.flatnonzero(long[name])[:fewest] for name in included}
    reason = f"fewer than {MIN_PROMPTS} prompts have answers of {length} words"
    if len(included) > 1:
        smallest = min(included, key=lambda name: count[name])
        reason += f" in all of {len(included)} ({smallest:.40} has {count[smallest]})"
    values = {
        name: _measure_arm(arms[name], rows, length, seed, reason, count[name]) for name, rows in selected.items()
    }
    for name in set(arms) - set(included):
        reason = f"{count[name]} prompts have answers of {length} words, less than a tenth of the most, {largest}"
        values[name] = undefined_texts(arms[name], reason, "")
    return {name: values[name] for name in arms}


def long_prompts(arm: WordArm, length: int) -> np.ndarray:
    """Return which prompts have answers, all of at least `length` words: booleans (prompts,)."""
    import numpy as np

    short = np.bincount(arm.prompt, arm.lengths < length, minlength=arm.prompts)
    return (short == 0) & (np.bincount(arm.prompt, minlength=arm.prompts) > 0)


def undefined_texts(arm: WordArm, reason: str, note: str) -> Texts:
    """Return NaN for every value of an arm, with the `reason`."""
    import numpy as np

    pooled, between = undefined_arm(reason), undefined_arm(reason, len(BETWEEN))
    return Texts(pooled, between, np.full((len(BETWEEN), arm.prompts), math.nan), note)


def _measure_arm(arm: WordArm, selected: np.ndarray, length: int, seed: int, reason: str, long: int) -> Texts:
    """Return one arm on the prompts in `selected` (k,), of `long` long prompts; `reason` is for too few of them."""
    import numpy as np

    causes = {f"with an answer below {length} words": arm.prompts - long, "for other arms": long - len(selected)}
    left_out = ", ".join(f"{count} {cause}" for cause, count in causes.items() if count)
    note = f"{arm.prompts - len(selected)} of {arm.prompts} prompts left out: {left_out}" if left_out else ""
    width = len(BETWEEN)
    if len(selected) < MIN_PROMPTS:
        return undefined_texts(arm, reason, note)
    cut = arm.truncated(selected, length)
    all_texts = np.ones(len(cut.tokens), dtype=bool)
    first = np.diff(cut.prompt, prepend=-1) != 0
    masks = jackknife_masks(cut.prompts, seed)
    pooled = cut.measure((cut.lengths, all_texts), [(cut.lengths * m[cut.prompt], m[cut.prompt]) for m in masks], seed)

    def between(present: np.ndarray) -> np.ndarray:
        return count_values(cut.table, cut.lengths, present & first)[[0, 2]]

    replicates = np.array([between(mask[cut.prompt]) for mask in masks]).reshape(-1, width)
    between_values = Jackknifed(between(all_texts), replicates, cut.prompts)
    pooled, between_values = (
        part._replace(replicates=balanced(part.value, part.replicates, masks)) for part in (pooled, between_values)
    )
    within = np.full((width, arm.prompts), math.nan)
    within[:, selected] = within_prompt_values(cut)
    return Texts(pooled, between_values, within, note)


def within_prompt_values(arm: WordArm) -> np.ndarray:
    """Return Self-BLEU-3 and distinct-2 among the answers to each prompt: (2, prompts), NaN for one answer."""
    import numpy as np

    several = np.bincount(arm.prompt, minlength=arm.prompts) > 1
    all_texts = np.ones(len(arm.tokens), dtype=bool)
    bleu = prompt_means(bleu_scores(arm.table, arm.lengths, all_texts, 3, arm.prompt), arm.prompt, arm.prompts)
    bigrams_of: list[set[tuple[str, str]]] = [set() for _ in range(arm.prompts)]
    for text, prompt in zip(arm.tokens, arm.prompt.tolist(), strict=True):
        bigrams_of[prompt].update(pairwise(text))
    count = np.bincount(arm.prompt, np.maximum(arm.lengths - 1, 0), minlength=arm.prompts)
    distinct = np.array([len(bigrams) for bigrams in bigrams_of]) / np.where(count > 0, count, math.nan)
    return np.where(several, [bleu, distinct], math.nan)
