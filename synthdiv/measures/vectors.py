"""Sentence vectors of an arm and their mean cosine distances: exact, in one pass, with memory independent of n.

The mean over all pairs follows from the sum of the unit vectors u, because the sum of u_i · u_j over all i and j is
|sum of u|²; no matrix of pairs is needed. Sums by group of prompts give the interval in the same pass.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import (
    Estimate,
    Ids,
    Measure,
    Statistic,
    estimates,
    jackknife,
    mean_of,
    prompt_groups,
    prompt_numbers,
    undefined,
)

BLOCK_ROWS = 1024  # vectors that are converted to float64 at once
COSINE = Measure("cosine_distance", "0-2", True, "fewer than two vectors", 0, 2)
WITHIN = Measure("cosine_distance_within", "0-2", True, "no prompt with two vectors", 0, 2)
BETWEEN = Measure("cosine_distance_between", "0-2", True, "fewer than two prompts", 0, 2)


@dataclass(frozen=True, eq=False)
class VectorArm:
    """Vectors (n, d) of any float type and nonzero length, with the prompt of each.

    `prompt` (n,) is the prompt index, or -1 for a prompt that is never left out. `group` (units + 1,) is the jackknife
    group of each prompt, or -1 for none; its last entry belongs to prompt -1.
    """

    vectors: np.ndarray
    prompt: np.ndarray
    group: np.ndarray

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1

    @property
    def row_group(self) -> np.ndarray:
        """The group of each vector, the number of groups for none: integers (n,)."""
        group = self.group[self.prompt]
        return group % (self.groups + 1)  # -1 becomes the last

    @property
    def prompts(self) -> int:
        """Number of prompts that have a vector."""
        return int(np.count_nonzero(np.bincount(self.prompt + 1)[1:]))

    def select(self, rows: Any) -> VectorArm:
        return VectorArm(self.vectors[rows], self.prompt[rows], self.group)

    def estimates(self, measures: Sequence[Measure], statistic: Statistic, note: str = "") -> list[Estimate]:
        """Return what `statistic` computes of kept groups (`jackknife`)."""
        present = np.unique(self.prompt[self.prompt >= 0])
        sizes = np.bincount(self.group[present] + 1, minlength=self.groups + 1)[1:]
        value, pseudo = jackknife(statistic, sizes)
        return estimates(measures, value, pseudo, self.prompts, len(self.vectors), note)


def vector_arms(seed: int, *sets: tuple[Any, Ids]) -> list[VectorArm]:
    """Return sets of (vectors, prompt ids or None) as arms with common prompt indices and groups.

    The prompts of the first set are the units that are left out; without ids each vector is one unit. The other sets
    leave out their answers to the same prompts; their answers to other prompts, or without ids, are always kept. Raises
    ValueError if the number of ids differs from that of vectors.
    """
    (vectors, ids), *_ = sets
    numbers = prompt_numbers(ids, len(vectors))
    units = int(numbers.max(initial=-1)) + 1
    group = np.append(prompt_groups(units, seed), -1)
    arms = [VectorArm(np.asanyarray(vectors), numbers, group)]
    index_of = dict(zip(range(units) if ids is None else ids, numbers.tolist(), strict=True)) if len(sets) > 1 else {}
    for vectors, ids in sets[1:]:
        prompt_numbers(ids, len(vectors))
        prompt = [index_of.get(name, -1) for name in ids] if ids is not None else np.full(len(vectors), -1)
        arms.append(VectorArm(np.asanyarray(vectors), np.array(prompt, dtype=np.int64), group))
    return arms


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (n, d) scaled to length 1, float64; NaN for a vector that is zero or not finite."""
    block = np.array(vectors, dtype=np.float64)
    with np.errstate(all="ignore"):
        length = np.sqrt(np.vecdot(block, block))[:, None]
        block /= np.where(np.isfinite(length) & (length > 0), length, math.nan)
    return block


def has_direction(vectors: np.ndarray) -> np.ndarray:
    """Return which vectors are nonzero and finite: booleans (n,)."""
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
    from scipy.sparse import csc_array

    total, invalid = np.zeros((count, vectors.shape[1] if len(vectors) else 0)), 0
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
    labels = arm.row_group
    total, invalid = label_sums(arm.vectors, labels, arm.groups + 1)
    if invalid or len(labels) < 2:
        return undefined(COSINE, _no_direction_note(invalid, len(labels)), arm.prompts)
    counts = np.bincount(labels, minlength=len(total)).astype(float)
    return _mean_distance(arm, COSINE, total, np.array([counts, counts, counts]))


def between_of(arm: VectorArm) -> Estimate:
    """Return the mean cosine distance over pairs of vectors of different prompts."""
    sums, invalid, counts = _prompt_sums(arm)
    if invalid or arm.prompts < 2:
        return undefined(BETWEEN, _no_direction_note(invalid, len(arm.vectors)), arm.prompts)
    groups = arm.groups + 1
    labels = arm.group[:-1] % groups
    total = np.zeros((groups, sums.shape[1]))
    np.add.at(total, labels, sums)
    columns = [np.bincount(labels, each, groups) for each in (counts, np.vecdot(sums, sums), counts**2)]
    return _mean_distance(arm, BETWEEN, total, np.array(columns))


def within_of(arm: VectorArm) -> Estimate:
    """Return the mean over prompts with two or more vectors of the mean cosine distance of their pairs."""
    total, invalid, counts = _prompt_sums(arm)
    several = counts > 1
    if invalid or not several.any():
        return undefined(WITHIN, _no_direction_note(invalid, len(arm.vectors)) or WITHIN.undefined)
    pairs = np.where(several, counts * (counts - 1), 1.0)
    distance = (1 - (np.vecdot(total, total) - counts) / pairs).clip(0, 2)
    return mean_of(WITHIN._replace(undefined="one vector"), np.where(several, distance, math.nan))


def _prompt_sums(arm: VectorArm) -> tuple[np.ndarray, int, np.ndarray]:
    """Return the sum of unit vectors of each prompt (units, d), invalid vectors, and vectors per prompt (units,)."""
    units = len(arm.group) - 1
    return *label_sums(arm.vectors, arm.prompt, units), np.bincount(arm.prompt, minlength=units).astype(float)


def _mean_distance(arm: VectorArm, measure: Measure, total: np.ndarray, columns: np.ndarray) -> Estimate:
    """Return 1 - mean cosine over ordered pairs. By group: `total` (groups, d) holds sums of unit vectors, `columns`
    (3, groups) the number of vectors, and the sum of the cosines and the number of the pairs that are left out."""

    def statistic(keep: np.ndarray) -> list[float]:
        vector_sum, (count, cosines, left_out) = total[keep].sum(axis=0), columns[:, keep].sum(axis=1)
        pairs = count**2 - left_out
        return [float(1 - (vector_sum @ vector_sum - cosines) / pairs) if pairs > 0 else math.nan]

    return arm.estimates([measure], statistic)[0]


def mean_cosine_distance(vectors: Any, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the mean of 1 - cosine over all pairs of distinct vectors, 0 to 2: semantic diversity.

    `vectors` (n, d), n ≥ 2, has any float type and may be a mapped file; `prompts` (n,) holds the prompt id of each,
    None for one prompt per vector. Exact: 1 - (|sum u|² - n) / (n (n - 1)) for unit vectors u, in float64. NaN with a
    note for fewer than two vectors, or if a vector is zero or not finite. Jackknife interval over prompts.
    """
    return cosine_of(*vector_arms(seed, (vectors, prompts))).score()


def within_prompt_distance(vectors: Any, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the mean over prompts of the mean cosine distance, 0 to 2, between the answers to one prompt.

    As `mean_cosine_distance`, but with a t interval over prompts. Only prompts with two or more answers count, and `n`
    is their number; NaN without any. The memory is one float64 vector per prompt.
    """
    return within_of(*vector_arms(seed, (vectors, prompts))).score()


def between_prompt_distance(vectors: Any, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the mean cosine distance, 0 to 2, over pairs of answers to different prompts. As `mean_cosine_distance`.
    The memory is one float64 vector per prompt. NaN for fewer than two prompts."""
    return between_of(*vector_arms(seed, (vectors, prompts))).score()
