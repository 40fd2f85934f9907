"""Sentence vectors of an arm, and their mean cosine distances: exact, in one pass, in memory that does not grow with n.

The mean over all pairs follows from one sum, because the products u_i · u_j of all i and j add up to |sum of u|²: no
matrix of pairs. Sums by group of prompts give the interval without a second look at the vectors.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from synthdiv.core.types import Score
from synthdiv.measures.intervals import (
    deletions,
    evened,
    jackknife_interval,
    linearised,
    mean_interval,
    prompt_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import numpy as np

    Ids = Sequence[Hashable] | None

ROWS = 1024  # vectors held as float64 at once


@dataclass(frozen=True, eq=False)
class VectorArm:
    """Vectors (n, d) of any float type and any length but zero, and the prompt that each answers.

    `prompt` (n,) numbers it, -1 where it is none of the `units` prompts that are left out in turn. `group`
    (units + 1,) is the replicate that lacks a prompt, -1 where none does, as for prompt -1 at the end.
    """

    vectors: np.ndarray
    prompt: np.ndarray
    group: np.ndarray

    @property
    def left_out(self) -> np.ndarray:
        """The replicate that lacks each vector, or -1: integers (n,)."""
        return self.group[self.prompt]

    @property
    def groups(self) -> int:
        """How many replicates there are."""
        return int(self.group.max()) + 1

    @property
    def prompts(self) -> int:
        """How many prompts have a vector."""
        import numpy as np

        return int(np.count_nonzero(np.bincount(self.prompt + 1)[1:]))


class Estimate(NamedTuple):
    """A measure with all `n` prompts, and `drawn`: in each replicate (g,), or pseudo-values (units,) if `per_prompt`.

    `note` says why the value is NaN, or what it stands on.
    """

    value: float
    drawn: np.ndarray
    n: int
    note: str = ""
    per_prompt: bool = False

    def score(self, name: str, unit: str, higher_is_better: bool | None) -> Score:
        interval = mean_interval(self.drawn) if self.per_prompt else jackknife_interval(self.value, self.drawn)
        low, high = map(float, interval) if math.isfinite(self.value) else (math.nan, math.nan)
        missing = ""
        if math.isfinite(self.value) and math.isnan(low):
            why = "on fewer than two prompts" if self.n < 2 else "undefined without some of the prompts"
            missing = f"no interval: {why}"
        note = "; ".join(filter(None, [self.note, missing]))
        return Score(name, self.value, self.n, low, high, unit, higher_is_better, note)


def estimate(arm: VectorArm, values: Any, note: str = "") -> Estimate:
    """A measure of an arm from its `values` (groups + 1,): of all vectors, then of those in each replicate."""
    import numpy as np

    found = np.asarray(values, dtype=float)
    group = arm.group[np.unique(arm.prompt[arm.prompt >= 0])]
    kept = group != np.arange(arm.groups)[:, None]
    return Estimate(float(found[0]), evened(found[0], found[1:], kept), arm.prompts, note)


def undefined(arm: VectorArm, note: str) -> Estimate:
    import numpy as np

    return Estimate(math.nan, np.empty(0), arm.prompts, note)


def arms_of(seed: int, *sets: tuple[Any, Ids]) -> list[VectorArm]:
    """Sets of (vectors, prompt ids or None) as arms over one numbering and one choice of `deletions`.

    The prompts of the first set are the units that are left out; without ids each of its vectors is one. Other sets
    lose their answers to the same prompts; what they say to other prompts, or without ids, always stays. ValueError
    where there is not one id for each vector.
    """
    import numpy as np

    (vectors, ids), *_ = sets
    numbers = prompt_numbers(ids, len(vectors))
    units = int(numbers.max(initial=-1)) + 1
    group = np.append(dealt(units, seed), -1)
    arms = [VectorArm(np.asanyarray(vectors), numbers, group)]
    code = dict(zip(range(units) if ids is None else ids, numbers.tolist(), strict=True)) if len(sets) > 1 else {}
    for vectors, ids in sets[1:]:
        prompt_numbers(ids, len(vectors))
        prompt = [code.get(name, -1) for name in ids] if ids is not None else np.full(len(vectors), -1)
        arms.append(VectorArm(np.asanyarray(vectors), np.array(prompt, dtype=np.int64), group))
    return arms


def dealt(units: int, seed: int) -> np.ndarray:
    """The row of `deletions` that lacks each unit: integers (units,), -1 where there are no rows."""
    import numpy as np

    stays = deletions(units, seed)
    return (~stays).argmax(axis=0) if len(stays) else np.full(units, -1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) scaled to length 1, float64; NaN where that is impossible."""
    import numpy as np

    block = np.array(vectors, dtype=np.float64)
    with np.errstate(all="ignore"):
        length = np.sqrt(np.vecdot(block, block))[:, None]
        block /= np.where(np.isfinite(length) & (length > 0), length, math.nan)
    return block


def usable(vectors: np.ndarray) -> np.ndarray:
    """Which vectors have a direction, neither zero nor with a NaN or an infinity: booleans (n,)."""
    import numpy as np

    found = [np.isfinite(unit(block)[:, 0]) for _, block in blocks(vectors)]
    return np.concatenate(found) if found else np.zeros(0, dtype=bool)


def problem(vectors: np.ndarray, least: int = 2, what: str = "") -> str:
    """Why nothing can be said about `vectors`, or nothing."""
    short = f"fewer than {least} {what}vectors" if len(vectors) < least else ""
    return short or _unusable(len(vectors) - int(usable(vectors).sum()), len(vectors), what)


def _unusable(bad: int, count: int, what: str = "") -> str:
    return f"{bad} of {count} {what}vectors are zero or not finite" if bad else ""


def blocks(vectors: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """A few rows after the other. Pages of a mapped file are given back once read: they count as our memory."""
    for start in range(0, len(vectors), ROWS):
        yield slice(start, start + ROWS), vectors[start : start + ROWS]
        mapped: Any = getattr(vectors, "_mmap", None)
        if hasattr(mapped, "madvise") and getattr(vectors, "mode", "") != "c":  # "c": changes live in memory alone
            mapped.madvise(mmap.MADV_DONTNEED)


def sums(vectors: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Sums of unit vectors by label 0 .. count-1, float64 (count, d), and how many vectors have no direction.

    One pass; memory is that of the sums.
    """
    import numpy as np
    from scipy.sparse import csc_array

    total, bad = np.zeros((count, vectors.shape[1])), 0
    for rows, part in blocks(vectors):
        block = np.array(part, dtype=np.float64)
        with np.errstate(all="ignore"):
            length = np.sqrt(np.vecdot(block, block))
        good = np.isfinite(length) & (length > 0)
        bad += int((~good).sum())
        names, local = np.unique(labels[rows], return_inverse=True)
        scale = 1 / np.where(good, length, 1.0)
        total[names] += csc_array((scale, local, np.arange(len(block) + 1)), (len(names), len(block))) @ block
    return total, bad


def cosine_of(arm: VectorArm) -> Estimate:
    """Over all pairs of vectors."""
    import numpy as np

    if len(arm.vectors) < 2:
        return undefined(arm, "fewer than two vectors")
    labels = arm.left_out + 1  # 0: left out of none
    total, bad = sums(arm.vectors, labels, arm.groups + 1)
    if bad:
        return undefined(arm, _unusable(bad, len(labels)))
    rows = np.bincount(labels, minlength=len(total)).astype(float)
    return estimate(arm, _outside(total, rows, rows, rows))


def between_of(arm: VectorArm) -> Estimate:
    """Over pairs of vectors of different prompts."""
    import numpy as np

    if arm.prompts < 2:
        return undefined(arm, "fewer than two prompts")
    total, bad, rows = _by_prompt(arm)
    if bad:
        return undefined(arm, _unusable(bad, len(arm.vectors)))
    square = np.vecdot(total, total)
    labels, groups = arm.group[:-1] + 1, arm.groups + 1
    of_group = np.zeros((groups, total.shape[1]))
    np.add.at(of_group, labels, total)
    count, inside, pairs = (np.bincount(labels, weights, groups) for weights in (rows, square, rows**2))
    return estimate(arm, _outside(of_group, count, inside, pairs))


def within_of(arm: VectorArm) -> Estimate:
    """The mean over prompts, of those with two vectors or more, of the mean over their pairs."""
    import numpy as np

    total, bad, rows = _by_prompt(arm)
    several = rows > 1
    if bad or not several.any():
        return undefined(arm, _unusable(bad, len(arm.vectors)) or "no prompt with two vectors")
    pairs = np.where(several, rows * (rows - 1), 1.0)
    own = np.where(several, 1 - (np.vecdot(total, total) - rows) / pairs, 0.0).clip(0, 2)
    count = int(several.sum())
    # of one prompt the pseudo-values would all be its own value: an interval without width
    pseudo = linearised(own, several.astype(float)) if count > 1 else np.full(len(own), math.nan)
    return Estimate(float(own[several].mean()), pseudo, count, per_prompt=True)


def _by_prompt(arm: VectorArm) -> tuple[np.ndarray, int, np.ndarray]:
    """Sums of unit vectors by prompt (units, d), vectors without a direction, and vectors of each prompt (units,)."""
    import numpy as np

    units = len(arm.group) - 1
    if not len(arm.vectors):
        return np.zeros((units, 0)), 0, np.zeros(units)
    return *sums(arm.vectors, arm.prompt, units), np.bincount(arm.prompt, minlength=units).astype(float)


def _outside(total: np.ndarray, rows: np.ndarray, inside: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """1 - mean cosine of the pairs that do not count as `pairs`, whose cosines add up to `inside`: with all groups, and
    without each but the first. Sums of unit vectors `total` (groups, d), the others (groups,); pairs are ordered."""
    import numpy as np

    lost = np.eye(len(total))
    lost[0] = 0.0  # group 0 is never left out: its row stands for all groups
    keep = 1 - lost
    rest = total.sum(axis=0) - lost @ total
    number = (keep @ rows) ** 2 - keep @ pairs
    cosines = np.vecdot(rest, rest) - keep @ inside
    distance: np.ndarray = np.where(number > 0, 1 - cosines / np.where(number > 0, number, 1.0), math.nan)
    return distance.clip(0, 2)


def mean_cosine_distance(vectors: Any, prompts: Ids = None, seed: int = 0) -> Score:
    """The mean over all pairs of distinct vectors of 1 - cosine, 0 to 2; the semantic diversity of the answers.

    `vectors` (n, d), n ≥ 2, any float type, a mapped file too; `prompts` (n,) names the prompt of each, None where each
    answers its own. Exact: 1 - (|sum u|² - n) / (n (n - 1)) for unit vectors u, in float64. NaN with a note below two
    vectors and where a vector is zero or not finite. Jackknife interval over prompts.
    """
    (arm,) = arms_of(seed, (vectors, prompts))
    return cosine_of(arm).score("cosine_distance", "0-2", True)


def within_prompt_distance(vectors: Any, prompts: Ids = None, seed: int = 0) -> Score:
    """The mean over prompts of the mean cosine distance, 0 to 2, between the answers to that prompt.

    As `mean_cosine_distance`. Prompts with one answer do not enter: `n` counts those with two or more, and it is NaN
    without any. t interval over prompts. Memory is one float64 vector for each prompt.
    """
    (arm,) = arms_of(seed, (vectors, prompts))
    return within_of(arm).score("cosine_distance_within", "0-2", True)


def between_prompt_distance(vectors: Any, prompts: Ids = None, seed: int = 0) -> Score:
    """The mean cosine distance, 0 to 2, over pairs of answers to different prompts.

    As `mean_cosine_distance`. Memory is one float64 vector for each prompt. NaN below two prompts.
    """
    (arm,) = arms_of(seed, (vectors, prompts))
    return between_of(arm).score("cosine_distance_between", "0-2", True)
