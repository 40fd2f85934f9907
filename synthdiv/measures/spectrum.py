"""Vendi scores: how many different vectors a set amounts to, from the eigenvalues of its matrix of cosines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from synthdiv.measures.vectors import Estimate, VectorArm, arms_of, blocks, estimate, problem, undefined, unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from synthdiv.core.types import Score
    from synthdiv.measures.vectors import Ids

ORDERS = (1, 2, math.inf)


def vendi(vectors: Any, q: float = 1, prompts: Ids = None, seed: int = 0) -> Score:
    """The effective number of different vectors, 1 (all equal) to n: exp of the Rényi entropy of order `q`.

    `vectors` (n, d), any float type; `prompts` (n,) names the prompt of each, None where each answers its own. The
    entropy is that of the eigenvalues of K / n, with K the cosines (Friedman and Dieng 2023, The Vendi Score, eq. 2;
    orders from Pasarkar and Dieng 2024, Cousins of the Vendi Score, eq. 3): order 1 is Shannon's, 2 gives n² / |K|²,
    infinity n / (largest eigenvalue); higher orders see frequent meanings only. It cannot exceed d, and grows with n:
    compare sets of one size. Jackknife interval over prompts. NaN with a note below two vectors, because one alone is
    no set, and where one is zero or not finite. ValueError for another order.
    """
    (arm,) = arms_of(seed, (vectors, prompts))
    return vendi_of(arm, (q,))[0].score(f"vendi_{q:g}", "vectors", True)


def vendi_value(vectors: np.ndarray, q: float = 1) -> float:
    """`vendi` without its interval: `vectors` (n, d), all with a direction."""
    wide = len(vectors) <= vectors.shape[1]
    return effective_number((_cosines(vectors) if wide else _moments(vectors)) / len(vectors), q)


def vendi_of(arm: VectorArm, orders: Sequence[float] = ORDERS) -> list[Estimate]:
    """Estimates of all `orders`, which share their eigenvalues."""
    import numpy as np

    lacks = problem(arm.vectors)
    if lacks:
        return [undefined(arm, lacks)] * len(orders)
    found = np.array([[effective_number(matrix, q) for q in orders] for matrix in _matrices(arm)])
    lost = np.bincount(arm.left_out + 1, minlength=arm.groups + 1)[1:]
    found[1:][len(arm.vectors) - lost < 2] = math.nan  # undefined there too
    return [estimate(arm, values) for values in found.T]


def effective_number(matrix: np.ndarray, q: float) -> float:
    """exp of the Rényi entropy of order `q` of the eigenvalues of a symmetric matrix of trace 1."""
    import numpy as np

    if q not in ORDERS:
        raise ValueError(f"order {q}: choose 1, 2 or infinity")
    if not matrix.size:
        return math.nan
    if q == 2:
        return float(1 / np.sum(matrix**2))
    shares = np.linalg.eigvalsh(matrix)
    if q == math.inf:
        return float(1 / shares[-1])
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _matrices(arm: VectorArm) -> list[np.ndarray]:
    """Of all vectors, and of those in each replicate, whichever is smaller: cosines (n, n) / n, or moments (d, d) / n,
    which have the same positive eigenvalues."""
    import numpy as np

    left_out, groups = arm.left_out, range(arm.groups)
    if len(arm.vectors) <= arm.vectors.shape[1]:
        cosines = _cosines(arm.vectors)
        kept = [np.flatnonzero(left_out != group) for group in groups]
        return [cosines / len(cosines), *(cosines[np.ix_(rows, rows)] / max(len(rows), 1) for rows in kept)]
    parts = [_moments(arm.vectors[left_out == group]) for group in (-1, *groups)]
    whole, sizes = np.sum(parts, axis=0), [int((left_out == group).sum()) for group in groups]
    count = len(left_out)
    rest = [(whole - part) / max(count - size, 1) for part, size in zip(parts[1:], sizes, strict=True)]
    return [whole / count, *rest]


def _cosines(vectors: np.ndarray) -> np.ndarray:
    directions = unit(vectors)
    return directions @ directions.T


def _moments(vectors: np.ndarray) -> np.ndarray:
    """The sum of u uᵀ over the unit vectors u: (d, d)."""
    import numpy as np

    total = np.zeros((vectors.shape[1],) * 2)
    for _, block in blocks(vectors):
        directions = unit(block)
        total += directions.T @ directions
    return total
