"""Measures of sentence vectors against the human ones: entropy over shared clusters, Fréchet distance and MAUVE."""

from __future__ import annotations

import math
import warnings
from typing import Any

from synthdiv.core.lazy import np, special
from synthdiv.core.types import Score
from synthdiv.measures.estimates import Estimate, Ids, Measure, undefined
from synthdiv.measures.neighbours import LIMIT, subsample_pair
from synthdiv.measures.vectors import VectorArm, blocks, invalid_reason, unit_vectors, vector_arms

MAX_CLUSTERS = 50
MAX_FIT_VECTORS = 20_000  # vectors on which clusters are fitted
VARIANCE, SCALING, CURVE_POINTS = 0.9, 5, 25  # defaults of MAUVE: variance kept, its constant c, points of the curve
CLUSTERS = Measure("cluster_entropy", "bits", True, "no vectors", 0)
MAUVE = Measure("mauve", "0-1", True, "fewer than 20 vectors", 0, 1)
NEW_CLUSTERS = "no interval: its clusters differ from study to study as much as the answers do"
AUC = Measure("auc", "0-1", False, "fewer than 20 vectors", 0, 1)
FRECHET = Measure("frechet", "squared distance", False, "fewer than two vectors", 0)


def cluster_entropy(
    vectors: Any, human: Any = None, prompts: Ids = None, clusters: int | None = None, seed: int = 0
) -> Score:
    """Return the Shannon entropy (bits) of the distribution of `vectors` (n, d) over clusters of `human` (m, d).

    Range 0 to log2(clusters). The clusters are those of k-means (`seed`) on the directions of at most 20,000 human
    vectors, so that all arms have the same ones; without `human`, of `vectors` themselves. The default of `clusters` is
    min(50, m / 10); the note gives the number. As a plug-in entropy it is low by about (clusters - 1) / (2 n log 2)
    bits: compare equal n. `prompts` (n,) holds the prompt id of each vector, None for one prompt per vector. Jackknife
    interval over prompts, for these clusters. NaN with a note without vectors, for fewer than 20 human vectors, or if
    one is zero or not finite.
    """
    (arm,) = vector_arms(seed, (vectors, prompts))
    centres, note = fit_centres(arm.vectors if human is None else human, clusters, seed)
    return cluster_entropy_of(arm, centres, note).score()


def fit_centres(vectors: Any, clusters: int | None = None, seed: int = 0) -> tuple[Any, str]:
    """Return centres (clusters, d) of the directions of `vectors` (m, d) and a note, or None and the reason."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    vectors = np.asanyarray(vectors)
    reason = invalid_reason(vectors, max(20 if clusters is None else clusters, 1), "reference ")
    if reason:
        return None, reason
    count = min(MAX_CLUSTERS, len(vectors) // 10) if clusters is None else clusters
    sample = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:MAX_FIT_VECTORS])
    with warnings.catch_warnings():  # fewer distinct vectors than clusters: some clusters stay empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(count, random_state=seed, n_init=1).fit(unit_vectors(vectors[sample]))
    return fitted.cluster_centers_, f"{count} clusters, which the interval takes as given"


def cluster_entropy_of(arm: VectorArm, centres: Any, note: str = "") -> Estimate:
    """Return `cluster_entropy` over given centres; `note` is on them, or says why there are none."""
    reason = note if centres is None else invalid_reason(arm.vectors, 1)
    if reason:
        return undefined(CLUSTERS, reason, arm.prompts)
    half = 0.5 * np.vecdot(centres, centres)
    nearest = np.concatenate(
        [(unit_vectors(block) @ centres.T - half).argmax(axis=1) for _, block in blocks(arm.vectors)]
    )
    groups, count = arm.groups + 1, len(centres)
    counts = np.bincount(arm.row_group * count + nearest, minlength=groups * count).reshape(groups, count)
    measure = CLUSTERS._replace(high=math.log2(max(len(centres), 2)))
    return arm.estimates([measure], lambda keep: [_entropy(counts[keep].sum(axis=0))], note)[0]


def _entropy(counts: np.ndarray) -> float:
    total = counts.sum()
    return float(special.entr(counts / total).sum()) / math.log(2) if total else math.nan


def frechet_distance(vectors: Any, human: Any, prompts: Ids = None, human_prompts: Ids = None, seed: int = 0) -> Score:
    """Return the Fréchet distance, ≥ 0, between Gaussians fitted to `vectors` (n, d) and `human` (m, d).

    |mean - mean'|² + tr(C + C' - 2 (C C')^½) (Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, eq. 6),
    in squared units of the vectors, which are not normalised. It is biased upwards for small n and m: compare equal
    ones; the note warns below 2 d. Jackknife interval over `prompts`; with `human_prompts`, replicates leave out the
    human answers to the same prompts. NaN with a note for fewer than two vectors in a set, or if one is not finite.
    """
    return frechet_of(*vector_arms(seed, (vectors, prompts), (human, human_prompts))).score()


def frechet_of(arm: VectorArm, human: VectorArm) -> Estimate:
    for kind, one in (("", arm), ("human ", human)):
        count = len(one.vectors)
        invalid = sum(int((~np.isfinite(block).all(axis=1)).sum()) for _, block in blocks(one.vectors))
        if invalid or count < 2:
            reason = (
                f"{invalid} of {count} {kind}vectors are not finite" if invalid else f"fewer than two {kind}vectors"
            )
            return undefined(FRECHET, reason, arm.prompts)
    # centre first: sums of squares lose the digits of a small spread around a large mean
    origin = np.asarray(np.mean(human.vectors, axis=0, dtype=np.float64))
    of_arm, of_human = _moment_sums(arm, origin), _moment_sums(human, origin)
    d, smaller = arm.vectors.shape[1], min(len(arm.vectors), len(human.vectors))
    note = f"biased: {smaller} vectors of {d} dimensions" * (smaller < 2 * d)
    return arm.estimates(
        [FRECHET], lambda keep: [_frechet(*_gaussian(of_arm, keep), *_gaussian(of_human, keep))], note
    )[0]


Sums = tuple["np.ndarray", "np.ndarray", "np.ndarray"]


def _moment_sums(arm: VectorArm, origin: np.ndarray) -> Sums:
    """Return, by group: the number of vectors, and the sums of v and of v vᵀ, v relative to `origin` (d,)."""
    groups, d, row_group = arm.groups + 1, len(origin), arm.row_group
    first, second = np.zeros((groups, d)), np.zeros((groups, d, d))
    for group in range(groups):
        for _, block in blocks(arm.vectors[row_group == group]):
            centred = block.astype(np.float64) - origin
            first[group] += centred.sum(axis=0)
            second[group] += centred.T @ centred
    return np.bincount(row_group, minlength=groups), first, second


def _gaussian(sums: Sums, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (d,), NaN below two vectors, and the covariance (d, d) of the groups that are kept."""
    n, total, square = (each.sum(axis=0) - each[~keep].sum(axis=0) for each in sums)
    if n < 2:
        return np.full(len(total), math.nan), square
    mean = total / n
    return mean, (square - n * np.outer(mean, mean)) / (n - 1)


def _frechet(mean: np.ndarray, covariance: np.ndarray, human_mean: np.ndarray, human_covariance: np.ndarray) -> float:
    gap = mean - human_mean
    if np.isnan(gap).any():
        return math.nan
    # tr (C C')^½ = tr (R C R)^½ with R = C'^½, the root of a symmetric matrix
    squares, axes = np.linalg.eigh(human_covariance)
    root = (axes * np.sqrt(squares.clip(0))) @ axes.T
    cross_term = np.sqrt(np.linalg.eigvalsh(root @ covariance @ root).clip(0)).sum()
    return float(max(gap @ gap + np.trace(covariance) + np.trace(human_covariance) - 2 * cross_term, 0.0))


def mauve(
    vectors: Any, human: Any, prompts: Ids = None, human_prompts: Ids = None, seed: int = 0, limit: int = LIMIT
) -> Score:
    """Return MAUVE, 0 to 1 (equal sets): the area under the curve of divergences between both sets over clusters.

    Equal to `compute_mauve` of mauve-text 0.4 on the same features and seed, with its defaults (Pillutla et al. 2021,
    MAUVE, eq. 2; n / 10 clusters of the pooled unit vectors in the axes of 90 % of their variance, c = 5). The
    package is not used because it always prints.

    At most `limit` of `vectors` (n, d) and of `human` (m, d) are used, of prompts sampled by `seed`; the note gives the
    numbers. The value depends on n and m: compare equal ones. It has no interval: one for fixed clusters covered 60 to
    82 %, and new clusters in each replicate add more noise than there is. NaN with a note for fewer than 20 vectors in
    a set, if all vectors are equal, or if one is zero or not finite.
    """
    arm, reference = vector_arms(seed, (vectors, prompts), (human, human_prompts))
    arm, reference, *notes = subsample_pair(arm, reference, seed, limit)
    return mauve_of(arm, reference, seed).with_note(*notes).score()


def mauve_of(arm: VectorArm, human: VectorArm, seed: int) -> Estimate:
    """Return `mauve` of all vectors of `arm`; quadratic, because the number of clusters grows with n."""
    reason = invalid_reason(arm.vectors, 20) or invalid_reason(human.vectors, 20, "human ")
    if reason:
        return undefined(MAUVE, reason, arm.prompts)
    count = max(2, round(min(len(arm.vectors), len(human.vectors)) / 10))
    labels = _pooled_clusters(np.vstack([unit_vectors(arm.vectors), unit_vectors(human.vectors)]), count, seed)
    if labels is None:
        return undefined(MAUVE, "all vectors are equal", arm.prompts)
    rows = len(arm.vectors)
    q, p = (np.bincount(part, minlength=count) for part in (labels[:rows], labels[rows:]))
    return Estimate(MAUVE, divergence_area(p, q), np.empty(0), arm.prompts, no_interval=NEW_CLUSTERS)


def _pooled_clusters(pooled: np.ndarray, count: int, seed: int) -> Any:
    """Return the cluster of each of the pooled unit vectors (n, d); None if all are equal. The steps and seeds are
    those of mauve-text; its bounds on the points of a cluster only print warnings."""
    import faiss
    from sklearn.decomposition import PCA

    if np.ptp(pooled, axis=0).max() < 1e-6:
        return None
    axes = PCA(random_state=seed + 1).fit(pooled)
    dims = int(np.argmax(np.cumsum(axes.explained_variance_ratio_) >= VARIANCE)) + 1
    reduced = axes.transform(pooled)[:, :dims].astype(np.float32)
    kmeans = faiss.Kmeans(dims, count, niter=500, nredo=5, update_index=True, seed=seed + 2, min_points_per_centroid=1)
    kmeans.train(reduced)
    return kmeans.index.search(reduced, 1)[1].ravel()


def divergence_area(p: np.ndarray, q: np.ndarray) -> float:
    """Return MAUVE of histograms p and q (k,): the area under (exp -c KL(q|r), exp -c KL(p|r)), r = w p + (1 - w) q. 0
    < w < 1. NaN if a histogram is empty."""
    if not p.sum() or not q.sum():
        return math.nan
    p, q = p / p.sum(), q / q.sum()
    weights = np.linspace(1e-6, 1 - 1e-6, CURVE_POINTS)[:, None]
    mixed = weights * p + (1 - weights) * q
    x, y = (np.exp(-SCALING * special.rel_entr(histogram, mixed).sum(axis=1)) for histogram in (q, p))
    x, y = np.r_[1.0, x, 0.0], np.r_[0.0, y, 1.0]
    by_x, by_y = np.argsort(x), np.argsort(y)
    return min(1.0, 0.5 * float(np.trapezoid(y[by_x], x[by_x]) + np.trapezoid(x[by_y], y[by_y])))


def two_sample_auc(vectors: Any, human: Any, seed: int = 0) -> Score:
    """Return how well a logistic model tells `vectors` (n, d) from `human` (m, d): the area under the ROC curve of
    predictions for the fifth of the rows on which it was not fitted. .5: not at all, 1: always; below .5 is chance. The
    folds share vectors, so there is no interval. NaN with a note for fewer than 20 vectors in a set."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    smaller = min(len(vectors), len(human))
    if smaller < 20:
        return undefined(AUC, f"{smaller} vectors in a set, fewer than 20", smaller).score()
    folds, label = (
        StratifiedKFold(5, shuffle=True, random_state=seed),
        np.repeat([1, 0], [len(vectors), len(human)]),
    )
    both = np.vstack([vectors, human])
    p = cross_val_predict(LogisticRegression(C=10.0), both, label, cv=folds, method="predict_proba")[:, 1]
    value = float(roc_auc_score(label, p))
    return Estimate(AUC, value, np.empty(0), len(vectors), no_interval="no interval: folds share vectors").score()
