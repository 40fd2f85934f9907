"""How far a set of sentence vectors lies from the human one: over shared clusters, as Gaussians, and by MAUVE."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from synthdiv.measures.neighbours import LIMIT, limited, noted
from synthdiv.measures.vectors import Estimate, VectorArm, arms_of, blocks, estimate, problem, undefined, unit

if TYPE_CHECKING:
    import numpy as np

    from synthdiv.core.types import Score
    from synthdiv.measures.vectors import Ids

CLUSTERS = 50
FITTED = 20_000  # vectors that the clusters are fitted on
VARIANCE, SCALING, CURVE = 0.9, 5, 25  # MAUVE's defaults: variance kept, its constant c, points on the curve


def cluster_entropy(
    vectors: Any, human: Any = None, prompts: Ids = None, clusters: int | None = None, seed: int = 0
) -> Score:
    """The Shannon entropy (bits), 0 to log2 of the clusters, of where `vectors` (n, d) fall among clusters of `human`.

    k-means (`seed`) on the directions of `human` (m, d), at most 20,000 of them: one set of clusters for all arms.
    Without `human` on `vectors` themselves: then arms have clusters of their own. `clusters` is the lesser of 50 and
    m / 10 by default; the note says how many. Low by about (clusters - 1) / (2 n log 2) bits, as plug-in entropies
    are: compare equal n. `prompts` (n,) names the prompt of each, None where each answers its own. Jackknife interval
    over prompts, for these clusters. NaN with a note without vectors, below 20 human ones, and where one is zero or
    not finite.
    """
    (arm,) = arms_of(seed, (vectors, prompts))
    centres, note = centres_of(arm.vectors if human is None else human, clusters, seed)
    found = clusters_of(arm, centres) if centres is not None else undefined(arm, note)
    return noted(found, note if centres is not None else "").score("cluster_entropy", "bits", True)


def centres_of(vectors: Any, clusters: int | None = None, seed: int = 0) -> tuple[Any, str]:
    """Centres (clusters, d) of the directions of `vectors` (m, d), and how many; or None, and why."""
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    vectors = np.asanyarray(vectors)
    lacks = problem(vectors, max(20 if clusters is None else clusters, 1), "reference ")
    if lacks:
        return None, lacks
    count = min(CLUSTERS, len(vectors) // 10) if clusters is None else clusters
    chosen = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:FITTED])
    with warnings.catch_warnings():  # fewer distinct vectors than clusters: some stay empty, which is as it should be
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(count, random_state=seed, n_init=1).fit(unit(vectors[chosen]))
    return fitted.cluster_centers_, f"{count} clusters"


def clusters_of(arm: VectorArm, centres: np.ndarray) -> Estimate:
    """`cluster_entropy` over given centres."""
    import numpy as np

    lacks = problem(arm.vectors, 1)
    if lacks:
        return undefined(arm, lacks)
    half = 0.5 * np.vecdot(centres, centres)
    nearest = np.concatenate([(unit(block) @ centres.T - half).argmax(axis=1) for _, block in blocks(arm.vectors)])
    values = _entropies(_without(nearest, arm.left_out, arm.groups, len(centres)))
    return estimate(arm, values)


def _without(labels: np.ndarray, left_out: np.ndarray, groups: int, count: int) -> np.ndarray:
    """How often each label 0 .. count-1 is among all, and among those in each replicate: (groups + 1, count)."""
    import numpy as np

    cells = np.bincount((left_out + 1) * count + labels, minlength=(groups + 1) * count).reshape(groups + 1, count)
    cells[0] = cells.sum(axis=0)
    cells[1:] = cells[0] - cells[1:]
    return cells


def _entropies(counts: np.ndarray) -> np.ndarray:
    import numpy as np
    from scipy.special import entr

    total = counts.sum(axis=1, keepdims=True)
    return np.where(total[:, 0] > 0, entr(counts / np.maximum(total, 1)).sum(axis=1) / math.log(2), math.nan)


def frechet_distance(vectors: Any, human: Any, prompts: Ids = None, human_prompts: Ids = None, seed: int = 0) -> Score:
    """The Fréchet distance, 0 or more, between Gaussians fitted to `vectors` (n, d) and `human` (m, d), as given.

    |mean - mean'|² + tr(C + C' - 2 (C C')^½) (Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, eq. 6),
    in squared units of the vectors. Biased upwards, the more the smaller n and m: compare equal ones; the note warns
    below 2 d. Jackknife interval over `prompts`; where `human_prompts` names them too, human answers are left out with
    theirs. NaN with a note below two vectors in a set, and where one is not finite.
    """
    arm, reference = arms_of(seed, (vectors, prompts), (human, human_prompts))
    return frechet_of(arm, reference).score("frechet", "squared distance", False)


def frechet_of(arm: VectorArm, human: VectorArm) -> Estimate:
    import numpy as np

    for what, part in (("", arm), ("human ", human)):
        bad = sum(int((~np.isfinite(block).all(axis=1)).sum()) for _, block in blocks(part.vectors))
        if bad or len(part.vectors) < 2:
            note = (
                f"{bad} of {len(part.vectors)} {what}vectors are not finite" if bad else f"fewer than two {what}vectors"
            )
            return undefined(arm, note)
    # centred first: the covariances come from sums of squares, which would swallow a small spread about a far mean
    origin = np.asarray(np.mean(human.vectors, axis=0, dtype=np.float64))
    own, theirs = _gaussians(arm, origin, arm.groups), _gaussians(human, origin, arm.groups)
    values = np.array([_frechet(*a, *b) for a, b in zip(own, theirs, strict=True)])
    d = arm.vectors.shape[1]
    few = min(len(arm.vectors), len(human.vectors))
    return estimate(arm, values, f"biased: {few} vectors of {d} dimensions" * (few < 2 * d))


def _gaussians(arm: VectorArm, origin: np.ndarray, groups: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean (d,) about `origin` and covariance (d, d) of all vectors, and of those in each replicate."""
    import numpy as np

    left_out, d = arm.left_out, len(origin)
    count, first, second = np.zeros(groups + 1), np.zeros((groups + 1, d)), np.zeros((groups + 1, d, d))
    for group in range(-1, groups):
        rows = np.flatnonzero(left_out == group)
        count[group + 1] = len(rows)
        for _, block in blocks(arm.vectors[rows]):
            moved = block.astype(np.float64) - origin
            first[group + 1] += moved.sum(axis=0)
            second[group + 1] += moved.T @ moved
    for part in (count, first, second):
        part[0] = part.sum(axis=0)
        part[1:] = part[0] - part[1:]
    found = []
    for n, total, square in zip(count, first, second, strict=True):
        mean = total / n if n > 1 else np.full(d, math.nan)
        found.append((mean, (square - n * np.outer(mean, mean)) / (n - 1) if n > 1 else square))
    return found


def _frechet(mean: np.ndarray, covariance: np.ndarray, human_mean: np.ndarray, human_covariance: np.ndarray) -> float:
    import numpy as np

    gap = mean - human_mean
    if np.isnan(gap).any():
        return math.nan
    # tr (C C')^½ is that of (R C R)^½ with R = C'^½, which is symmetric: no root of a matrix that is not
    squares, axes = np.linalg.eigh(human_covariance)
    root = (axes * np.sqrt(squares.clip(0))) @ axes.T
    both = np.sqrt(np.linalg.eigvalsh(root @ covariance @ root).clip(0)).sum()
    return float(max(gap @ gap + np.trace(covariance) + np.trace(human_covariance) - 2 * both, 0.0))


def mauve(
    vectors: Any, human: Any, prompts: Ids = None, human_prompts: Ids = None, seed: int = 0, limit: int = LIMIT
) -> Score:
    """MAUVE, 0 to 1 where both sets are alike: the area under the curve of divergences between them over clusters.

    Equal to `compute_mauve` of mauve-text 0.4 on the same features and seed, with its defaults (Pillutla et al. 2021,
    MAUVE, eq. 2; n / 10 clusters of the pooled unit vectors in the axes of 90 % of their variance, c = 5). Not called,
    because it cannot be kept from printing and does not return the clusters, which the interval needs.

    `vectors` (n, d) and `human` (m, d), at most `limit` of each, prompts drawn by `seed`: the note says so. It
    depends on n and m: compare equal ones. Jackknife interval over `prompts` for these clusters, because new clusters
    for each replicate would add their own noise many times over; where `human_prompts` names the prompts too, human
    answers are left out with theirs. NaN with a note below 20 vectors in a set, where all vectors are equal, and where
    one is zero or not finite.
    """
    arm, reference = arms_of(seed, (vectors, prompts), (human, human_prompts))
    (arm,), reference, notes = limited([arm], reference, seed, limit)
    return noted(mauve_of(arm, reference, seed), *notes).score("mauve", "0-1", True)


def mauve_of(arm: VectorArm, human: VectorArm, seed: int) -> Estimate:
    """`mauve` of all vectors of `arm`: quadratic, as the number of clusters grows with that of the vectors."""
    import numpy as np

    lacks = problem(arm.vectors, 20) or problem(human.vectors, 20, "human ")
    if lacks:
        return undefined(arm, lacks)
    count = max(2, round(min(len(arm.vectors), len(human.vectors)) / 10))
    labels = _quantised(np.vstack([unit(arm.vectors), unit(human.vectors)]), count, seed)
    if labels is None:
        return undefined(arm, "all vectors are equal")
    rows = len(arm.vectors)
    own = _without(labels[:rows], arm.left_out, arm.groups, count)
    theirs = _without(labels[rows:], human.left_out, arm.groups, count)
    values = np.array([divergence_area(p, q) for p, q in zip(theirs, own, strict=True)])
    return estimate(arm, values)


def _quantised(pooled: np.ndarray, count: int, seed: int) -> Any:
    """The cluster of each of the pooled unit vectors (n, d); None where these are all equal.

    The library's steps and seeds; it calls faiss with other bounds on the points of a cluster, which only print.
    """
    import faiss
    import numpy as np
    from sklearn.decomposition import PCA

    if np.ptp(pooled, axis=0).max() < 1e-6:
        return None
    axes = PCA(random_state=seed + 1).fit(pooled)
    kept = int(np.argmax(np.cumsum(axes.explained_variance_ratio_) >= VARIANCE)) + 1
    reduced = axes.transform(pooled)[:, :kept].astype(np.float32)
    kmeans = faiss.Kmeans(kept, count, niter=500, nredo=5, update_index=True, seed=seed + 2, min_points_per_centroid=1)
    kmeans.train(reduced)
    return kmeans.index.search(reduced, 1)[1].ravel()


def divergence_area(p: np.ndarray, q: np.ndarray) -> float:
    """MAUVE of two histograms (k,): the area under (exp -c KL(q|r), exp -c KL(p|r)), r = w p + (1 - w) q, 0 < w < 1.

    NaN where one is empty.
    """
    import numpy as np
    from scipy.special import rel_entr

    if not p.sum() or not q.sum():
        return math.nan
    p, q = p / p.sum(), q / q.sum()
    weights = np.linspace(1e-6, 1 - 1e-6, CURVE)[:, None]
    mixed = weights * p + (1 - weights) * q
    x, y = (np.exp(-SCALING * rel_entr(law, mixed).sum(axis=1)) for law in (q, p))
    x, y = np.r_[1.0, x, 0.0], np.r_[0.0, y, 1.0]
    up, along = np.argsort(x), np.argsort(y)
    return float(0.5 * (np.trapezoid(y[up], x[up]) + np.trapezoid(x[along], y[along])))
