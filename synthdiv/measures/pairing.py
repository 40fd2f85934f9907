"""Arms as mappings from prompt ids to answers: which prompts two arms share, and the scores of one and of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import Estimate, scores_of


def compared(
    make: Callable[[Mapping[str, Any]], list[Estimate]],
    student: Mapping[str, Any],
    vanilla: Mapping[str, Any] | None = None,
    size: Callable[[Any], Any] | None = None,
) -> list[Score]:
    """Return the scores that `make` computes of the student, and of its differences on the common prompts. `size` of an
    answer is what must be equal in both arms; where it is not, template or tokenizer differ."""
    levels = make(student)
    if vanilla is None:
        return scores_of(levels)
    common = [prompt for prompt in student if prompt in vanilla]
    note = unpaired_note(student, vanilla)
    unlike = [prompt for prompt in common if size and size(student[prompt]) != size(vanilla[prompt])]
    first, other = (make({prompt: arm[prompt] for prompt in common}) for arm in (student, vanilla))
    gaps = [one.minus(each).with_note(note) for one, each in zip(first, other, strict=True)]
    if not common:
        gaps = [replace(gap, value=math.nan, reason="no prompt in both arms") for gap in gaps]
    if unlike:
        reason = f"{len(unlike)} answers differ in tokens or bytes between the arms, the first to prompt {unlike[0]!r}"
        gaps = [replace(gap, value=math.nan, reason=gap.reason or reason) for gap in gaps]
    return scores_of([*levels, *gaps])


def unpaired_note(student: Iterable[str], vanilla: Iterable[str]) -> str:
    """Return how many prompts only one of the arms has, or an empty string."""
    unpaired = len(set(student) ^ set(vanilla))
    return f"{unpaired} prompts of one arm alone left out" if unpaired else ""


def shuffled_prompts(prompts: Iterable[str], seed: int) -> list[str]:
    """Return the prompts in a random order that depends only on their set and `seed`, not on the order of strata."""
    ids = sorted(prompts)
    return [ids[index] for index in np.random.default_rng(seed).permutation(len(ids))]


def unknown_reason(values: Mapping[str, Iterable[float]]) -> str:
    """Return which prompts have a likelihood that is NaN, or an empty string."""
    unknown = [prompt for prompt, each in values.items() if any(x != x for x in each)]
    if not unknown:
        return ""
    return f"{len(unknown)} of {len(values)} prompts have answers without likelihood, the first {unknown[0]!r}"
