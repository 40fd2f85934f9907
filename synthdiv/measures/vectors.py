"""Sentence vectors of an arm and their mean cosine distances: exact, in one pass, with memory independent of n.

The mean over all pairs follows from the sum of the unit vectors u, because the sum of u_i · u_j over all i and j is
|sum of u|²; no matrix of pairs is needed. Sums by group of prompts give the interval in the same pass.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from synthdiv.core.types import Score
from synthdiv.measures.intervals import (
    balanced,
    jackknife_interval,
    jackknife_masks,
    mean_interval,
    prompt_numbers,
    pseudo_values,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import numpy as np

    Ids = Sequence[Hashable] | None

BLOCK_ROWS = 1024  # vectors that are converted to float64 at once


@dataclass(frozen=True, eq=False)
class VectorArm:
    """Vectors (n, d) of any float type and nonzero length, with the prompt of each.

    `prompt` (n,) is the prompt index, or -1 for a prompt that is never left out. `group` (units + 1,) is the replicate
    that leaves out a prompt, or -1 for none; its last entry belongs to prompt -1.
    """

    vectors: np.ndarray
    prompt: np.ndarray
    group: np.ndarray

    @property
    def left_out(self) -> np.ndarray:
        """The replicate that leaves out each vector, or -1: integers (n,)."""
        return self.group[self.prompt]

    @property
    def groups(self) -> int:
        """Number of replicates."""
        return int(self.group.max()) + 1

    @property
    def prompts(self) -> int:
        """Number of prompts that have a vector."""
        import numpy as np

        return int(np.count_nonzero(np.bincount(self.prompt + 1)[1:]))


class Estimate(NamedTuple):
    """The value of a measure on `n` prompts, with jackknife replicates (g,), or pseudo-values (units,) if `per_prompt`.
    `note` says why the value is NaN, or which vectors it is computed on."""

    value: float
    replicates: np.ndarray
    n: int
    note: str = ""
    per_prompt: bool = False

    def score(self, name: str, unit: str, higher_is_better: bool | None) -> Score:
        interval = (
            mean_interval(self.replicates) if self.per_prompt else jackknife_interval(self.value, self.replicates)
        )
        low, high = map(float, interval) if math.isfinite(self.value) else (math.nan, math.nan)
        interval_note = ""
        if math.isfinite(self.value) and math.isnan(low):
            reason = "on fewer than two prompts" if self.n < 2 else "undefined without some of the prompts"
            interval_note = f"no interval: {reason}"
        note = "; ".join(filter(None, [self.note, interval_note]))
        return Score(name, self.value, self.n, low, high, unit, higher_is_better, note)


def estimated(arm: VectorArm, values: Any, note: str = "") -> Estimate:
    """Return the estimate of an arm from `values` (groups + 1,): of all vectors, then of each replicate."""
    import numpy as np

    value, *replicates = np.asarray(values, dtype=float)
    group = arm.group[np.unique(arm.prompt[arm.prompt >= 0])]
    kept = group != np.arange(arm.groups)[:, None]
    return Estimate(float(value), balanced(value, replicates, kept), arm.prompts, note)


def undefined(arm: VectorArm, note: str) -> Estimate:
    import numpy as np

    return Estimate(math.nan, np.empty(0), arm.prompts, note)


def vector_arms(seed: int, *sets: tuple[Any, Ids]) -> list[VectorArm]:
    """Return sets of (vectors, prompt ids or None) as arms with common prompt indices and jackknife masks.

    The prompts of the first set are the units that are left out; without ids each vector is one unit. The other sets
    leave out their answers to the same prompts; their answers to other prompts, or without ids, are always kept. Raises
    ValueError if the number of ids differs from that of vectors.
    """
    import numpy as np

    (vectors, ids), *_ = sets
    numbers = prompt_numbers(ids, len(vectors))
    units = int(numbers.max(initial=-1)) + 1
    group = np.append(replicate_of_unit(units, seed), -1)
    arms = [VectorArm(np.asanyarray(vectors), numbers, group)]
    index_of = dict(zip(range(units) if ids is None else ids, numbers.tolist(), strict=True)) if len(sets) > 1 else {}
    for vectors, ids in sets[1:]:
        prompt_numbers(ids, len(vectors))
        prompt = [index_of.get(name, -1) for name in ids] if ids is not None else np.full(len(vectors), -1)
        arms.append(VectorArm(np.asanyarray(vectors), np.array(prompt, dtype=np.int64), group))
    return arms


def replicate_of_unit(units: int, seed: int) -> np.ndarray:
    """Return the row of `jackknife_masks` that leaves out each unit: integers (units,), -1 if there are no rows."""
    import numpy as np

    masks = jackknife_masks(units, seed)
    return (~masks).argmax(axis=0) if len(masks) else np.full(units, -1)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (n, d) scaled to length 1, float64; NaN for a vector that is zero or not finite."""
    import numpy as np

    block = np.array(vectors, dtype=np.float64)
    with np.errstate(all="ignore"):
        length = np.sqrt(np.vecdot(block, block))[:, None]
        block /= np.where(np.isfinite(length) & (length > 0), length, math.nan)
    return block


def has_direction(vectors: np.ndarray) -> np.ndarray:
    """Return which vectors are nonzero and finite: booleans (n,)."""
    import numpy as np

    finite = [np.isfinite(unit_vectors(block)[:, 0]) for _, block in blocks(vectors)]
    return np.concatenate(finite) if finite else np.zeros(0, dtype=bool)


def invalid_reason(vectors: np.ndarray, minimum: int = 2, kind: str = "") -> str:
    """Return why a measure of `vectors` is undefined, or an empty string."""
    short = f"fewer than {minimum} {kind}vectors" if len(vectors) < minimum else ""
    return short or _no_direction_note(len(vectors) - int(has_direction(vectors).sum()), len(vectors), kind)


def _no_direction_note(bad: int, count: int, kind: str = "") -> str:
    return f"{bad} of {count} {kind}vectors are zero or not finite" if bad else ""


def blocks(vectors: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield slices of a few rows with their vectors. Pages of a mapped file are released once read."""
    for start in range(0, len(vectors), BLOCK_ROWS):
        yield slice(start, start + BLOCK_ROWS), vectors[start : start + BLOCK_ROWS]
        mapped: Any = getattr(vectors, "_mmap", None)
        if hasattr(mapped, "madvise") and getattr(vectors, "mode", "") != "c":  # "c": changes exist in memory only
            mapped.madvise(mmap.MADV_DONTNEED)


def label_sums(vectors: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Return the sums of unit vectors by label 0 to count - 1, float64 (count, d), and the number of invalid vectors.
    One pass; the memory is that of the sums."""
    import numpy as np
    from scipy.sparse import csc_array

    total, invalid = np.zeros((count, vectors.shape[1])), 0
    for rows, block_rows in blocks(vectors):
        block = np.array(block_rows, dtype=np.float64)
        with np.errstate(all="ignore"):
            length = np.sqrt(np.vecdot(block, block))
        valid = np.isfinite(length) & (length > 0)
        invalid += int((~valid).sum())
        groups, index = np.unique(labels[rows], return_inverse=True)
        scale = 1 / np.where(valid, length, 1.0)
        total[groups] += csc_array((scale, index, np.arange(len(block) + 1)), (len(groups), len(block))) @ block
    return total, invalid


def cosine_of(arm: VectorArm) -> Estimate:
    """Return the mean cosine distance over all pairs of vectors."""
    import numpy as np

    if len(arm.vectors) < 2:
        return undefined(arm, "fewer than two vectors")
    labels = arm.left_out + 1  # 0: in every replicate
    total, invalid = label_sums(arm.vectors, labels, arm.groups + 1)
    if invalid:
        return undefined(arm, _no_direction_note(invalid, len(labels)))
    counts = np.bincount(labels, minlength=len(total)).astype(float)
    return estimated(arm, _mean_distance(total, counts, counts, counts))


def between_of(arm: VectorArm) -> Estimate:
    """Return the mean cosine distance over pairs of vectors of different prompts."""
    import numpy as np

    if arm.prompts < 2:
        return undefined(arm, "fewer than two prompts")
    total, invalid, counts = _prompt_sums(arm)
    if invalid:
        return undefined(arm, _no_direction_note(invalid, len(arm.vectors)))
    square = np.vecdot(total, total)
    labels, groups = arm.group[:-1] + 1, arm.groups + 1
    of_group = np.zeros((groups, total.shape[1]))
    np.add.at(of_group, labels, total)
    count, within, pairs = (np.bincount(labels, weights, groups) for weights in (counts, square, counts**2))
    return estimated(arm, _mean_distance(of_group, count, within, pairs))


def within_of(arm: VectorArm) -> Estimate:
    """Return the mean over prompts with two or more vectors of the mean cosine distance of their pairs."""
    import numpy as np

    total, invalid, counts = _prompt_sums(arm)
    several = counts > 1
    if invalid or not several.any():
        return undefined(arm, _no_direction_note(invalid, len(arm.vectors)) or "no prompt with two vectors")
    pairs = np.where(several, counts * (counts - 1), 1.0)
    distance = np.where(several, 1 - (np.vecdot(total, total) - counts) / pairs, 0.0).clip(0, 2)
    count = int(several.sum())
    # with one prompt all pseudo-values are equal, which would give an interval of width 0
    pseudo = pseudo_values(distance, several.astype(float)) if count > 1 else np.full(len(distance), math.nan)
    return Estimate(float(distance[several].mean()), pseudo, count, per_prompt=True)


def _prompt_sums(arm: VectorArm) -> tuple[np.ndarray, int, np.ndarray]:
    """Return the sum of unit vectors of each prompt (units, d), invalid vectors, and vectors per prompt (units,)."""
    import numpy as np

    units = len(arm.group) - 1
    if not len(arm.vectors):
        return np.zeros((units, 0)), 0, np.zeros(units)
    return *label_sums(arm.vectors, arm.prompt, units), np.bincount(arm.prompt, minlength=units).astype(float)


def _mean_distance(
    total: np.ndarray, counts: np.ndarray, excluded_cosines: np.ndarray, excluded_pairs: np.ndarray
) -> np.ndarray:
    """Return 1 - mean cosine over ordered pairs, of all groups and without each group but the first: (groups,).

    `total` (groups, d) holds sums of unit vectors; `excluded_pairs` (groups,) counts the pairs that are left out, and
    `excluded_cosines` (groups,) is the sum of their cosines.
    """
    import numpy as np

    left_out = np.eye(len(total))
    left_out[0] = 0.0  # group 0 is never left out: its row is the value with all groups
    kept = 1 - left_out
    rest = total.sum(axis=0) - left_out @ total
    pairs_left = (kept @ counts) ** 2 - kept @ excluded_pairs
    cosines = np.vecdot(rest, rest) - kept @ excluded_cosines
    distance: np.ndarray = np.where(pairs_left > 0, 1 - cosines / np.where(pairs_left > 0, pairs_left, 1.0), math.nan)
    return distance.clip(0, 2)


def mean_cosine_distance(vectors: Any, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the mean of 1 - cosine over all pairs of distinct vectors, 0 to 2: semantic diversity.

    `vectors` (n, d), n ≥ 2, has any float type and may be a mapped file; `prompts` (n,) holds the prompt id of each,
    None for one prompt per vector. Exact: 1 - (|sum u|² - n) / (n (n - 1)) for unit vectors u, in float64. NaN with a
    note for fewer than two vectors, or if a vector is zero or not finite. Jackknife interval over prompts.
    """
    (arm,) = vector_arms(seed, (vectors, prompts))
    return cosine_of(arm).score("cosine_distance", "0-2", True)


def within_prompt_distance(vectors: Any, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the mean over prompts of the mean cosine distance, 0 to 2, between the answers to one prompt.

    As `mean_cosine_distance`, but with a t interval over prompts. Only prompts with two or more answers count, and `n`
    is their number; NaN without any. The memory is one float64 vector per prompt.
    """
    (arm,) = vector_arms(seed, (vectors, prompts))
    return within_of(arm).score("cosine_distance_within", "0-2", True)


def between_prompt_distance(vectors: Any, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the mean cosine distance, 0 to 2, over pairs of answers to different prompts. As `mean_cosine_distance`.
    The memory is one float64 vector per prompt. NaN for fewer than two prompts."""
    (arm,) = vector_arms(seed, (vectors, prompts))
    return between_of(arm).score("cosine_distance_between", "0-2", True)
