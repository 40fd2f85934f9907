"""Vendi scores: the effective number of different vectors of a set, from the eigenvalues of its cosine matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import Estimate, Ids, Measure, undefined
from synthdiv.measures.vectors import VectorArm, blocks, invalid_reason, unit_vectors, vector_arms

ORDERS = (1, 2, math.inf)


def vendi(vectors: Any, q: float = 1, prompts: Ids = None, seed: int = 0) -> Score:
    """Return the effective number of different vectors, 1 (all equal) to n: exp of the Rényi entropy of order `q`.

    `vectors` (n, d) has any float type; `prompts` (n,) holds the prompt id of each, None for one prompt per vector. The
    entropy is that of the eigenvalues of K / n, K being the cosines (Friedman and Dieng 2023, The Vendi Score, eq. 2;
    orders from Pasarkar and Dieng 2024, Cousins of the Vendi Score, eq. 3): order 1 is Shannon's, 2 gives n² / |K|²,
    infinity n / (largest eigenvalue); higher orders weight frequent meanings more. It is at most d and grows with n:
    compare sets of equal size. Jackknife interval over prompts. NaN with a note for fewer than two vectors, or if one
    is zero or not finite. Raises ValueError for another order.
    """
    return vendi_of(vector_arms(seed, (vectors, prompts))[0], (q,))[0].score()


def vendi_of(arm: VectorArm, orders: Sequence[float] = ORDERS) -> list[Estimate]:
    """Return an estimate for each of `orders`, from the same matrices."""
    most = min(arm.vectors.shape) if len(arm.vectors) > 1 else math.inf
    measures = [Measure(f"vendi_{q:g}", "vectors", True, "fewer than 2 vectors", 1, most) for q in orders]
    reason = invalid_reason(arm.vectors)
    if reason:
        return [undefined(measure, reason, arm.prompts) for measure in measures]
    group = arm.row_group
    counts = np.bincount(group, minlength=arm.groups + 1)
    if len(arm.vectors) <= arm.vectors.shape[1]:
        cosines = _cosines(arm.vectors)
    else:  # the moments (d, d) have the same positive eigenvalues
        parts = np.array([_moments(arm.vectors[group == label]) for label in range(arm.groups + 1)])
        total = parts.sum(axis=0)

    def statistic(keep: np.ndarray) -> list[float]:
        count = int(counts[keep].sum())
        if count < 2:
            return [math.nan] * len(orders)
        if len(arm.vectors) <= arm.vectors.shape[1]:
            rows = np.flatnonzero(keep[group])
            matrix = cosines[np.ix_(rows, rows)]
        else:
            matrix = total - parts[~keep].sum(axis=0)
        return [effective_number(matrix / count, q) for q in orders]

    return arm.estimates(measures, statistic)


def effective_number(matrix: np.ndarray, q: float) -> float:
    """Return exp of the Rényi entropy of order `q` of the eigenvalues of a symmetric matrix of trace 1."""
    if q not in ORDERS:
        raise ValueError(f"q={q}: unknown order; choose 1, 2 or infinity")
    if not matrix.size:
        return math.nan
    if q == 2:
        return float(1 / np.sum(matrix**2))
    shares = np.linalg.eigvalsh(matrix)
    if q == math.inf:
        return float(1 / shares[-1])
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _cosines(vectors: np.ndarray) -> np.ndarray:
    directions = unit_vectors(vectors)
    return directions @ directions.T


def _moments(vectors: np.ndarray) -> np.ndarray:
    """Return the sum of u uᵀ over the unit vectors u: (d, d)."""
    total = np.zeros((vectors.shape[1],) * 2)
    for _, block in blocks(vectors):
        directions = unit_vectors(block)
        total += directions.T @ directions
    return total
