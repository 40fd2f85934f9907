"""Nearest-neighbour measures: the entropy of a set of vectors, and its precision and recall against the human set.

All distances are chords |u - v| between unit vectors, 0 to 2. The cost is quadratic in the number of vectors, so at
most `LIMIT` vectors of a set are used, of prompts sampled by a seed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import JACKKNIFE_GROUPS, SHARE, Estimate, Ids, Measure, prompt_groups, undefined
from synthdiv.measures.vectors import VectorArm, invalid_reason, unit_vectors, vector_arms

LIMIT = 2000
NEIGHBOURS = 3  # as Kynkäänniemi et al.; the entropy stays defined for a text with one or two copies
COPY_DISTANCE = 1e-4  # closer vectors are equal: encodings of one text differ by float32 rounding
ENTROPY = Measure("neighbour_entropy", "nats", True, "fewer than four vectors")
PRECISION = Measure("precision", SHARE, True, "fewer than four vectors", 0, 1)
RECALL = PRECISION._replace(name="recall")


def nearest_neighbour_entropy(vectors: Any, prompts: Ids = None, seed: int = 0, limit: int = LIMIT) -> Score:
    """Return the differential entropy (nats) of the directions of `vectors`, on the unit sphere of d - 1 dimensions.

    psi(n) - psi(k) + log c + (d - 1) mean log r, r the chord to the k-th nearest other vector, k = 3, and c the volume
    of the unit ball of d - 1 dimensions (Kozachenko and Leonenko 1987; for k > 1 Kraskov et al. 2004, eq. 20). Any real
    number: apart from noise at most the log of the sphere's area, and far below zero for large d, because texts fill
    few of d dimensions. Compare differences at equal n only.

    `vectors` (n, d) has any float type; `prompts` (n,) holds the prompt id of each, None for one prompt per vector. At
    most `limit` vectors are used, of prompts sampled by `seed`; the note gives the number. Jackknife interval over
    prompts. NaN with a note for fewer than k + 1 vectors or two dimensions, if a vector is zero or not finite, or if a
    vector has k or more copies (the entropy would be minus infinity).
    """
    arm, note = subsample(vector_arms(seed, (vectors, prompts))[0], seed, limit)
    return entropy_of(arm).with_note(note).score()


def support_precision(
    vectors: Any, human: Any, prompts: Ids = None, human_prompts: Ids = None, seed: int = 0, limit: int = LIMIT
) -> Score:
    """Return the share, 0 to 1, of `vectors` (n, d) in the support of `human` (m, d): low if they spread beyond it.

    The support of a set is the union of balls around its vectors up to the third nearest other vector (Kynkäänniemi et
    al. 2019, Improved Precision and Recall Metric for Assessing Generative Models, eq. 1 and 2); here on unit vectors.
    At most `limit` vectors of each set are used, of prompts sampled by `seed`; the note gives the number. The value
    depends on n and m: compare equal ones. Jackknife interval over `prompts`; with `human_prompts`, replicates leave
    out the human answers to the same prompts. NaN with a note for fewer than four vectors in a set, or if one is zero
    or not finite.
    """
    return _support(vectors, human, prompts, human_prompts, seed, limit)[0].score()


def support_recall(
    vectors: Any, human: Any, prompts: Ids = None, human_prompts: Ids = None, seed: int = 0, limit: int = LIMIT
) -> Score:
    """Return the share, 0 to 1, of `human` (m, d) in the support of `vectors` (n, d): low if coverage has collapsed. As
    `support_precision`."""
    return _support(vectors, human, prompts, human_prompts, seed, limit)[1].score()


def _support(vectors: Any, human: Any, prompts: Ids, human_prompts: Ids, seed: int, limit: int) -> list[Estimate]:
    arm, reference = vector_arms(seed, (vectors, prompts), (human, human_prompts))
    arm, reference, *notes = subsample_pair(arm, reference, seed, limit)
    return [estimate.with_note(*notes) for estimate in support_of(arm, reference)]


def subsample(arm: VectorArm, seed: int, limit: int = LIMIT, counts: Any = None) -> tuple[VectorArm, str]:
    """Return at most `limit` vectors of an arm, and a note with the numbers.

    Prompts are sampled by `seed` one after the other; a prompt with more answers than remain is skipped. All answers to
    a prompt are used if those of the first 20 prompts fit, else only its first answers, as many as let 20 prompts fit,
    because an interval needs many prompts. `counts` (units,) are the answers to each prompt, with those without a
    vector, so that arms with equal counts use the same prompts.
    """
    units = len(arm.group) - 1
    counts = np.bincount(arm.prompt, minlength=units) if counts is None else counts
    order = np.random.default_rng(seed).permutation(units)
    first_counts = counts[order[:JACKKNIFE_GROUPS]]
    answers = bisect_right(range(1, limit + 1), limit, key=lambda maximum: np.minimum(first_counts, maximum).sum())
    answers = max(answers, 1)
    remaining, group, selected = limit, np.full(units + 1, -1), []
    for prompt, size in zip(order.tolist(), np.minimum(counts, answers)[order].tolist(), strict=True):
        if size <= remaining:
            remaining -= size
            selected.append(prompt)
    selected.sort()
    group[selected] = prompt_groups(len(selected), seed)
    part = VectorArm(arm.vectors, arm.prompt, group).select(_first_answers(arm.prompt, selected, answers))
    entered, total = len(part.vectors), len(arm.vectors)
    return part, f"on {entered} of {total} vectors" if entered < total else ""


def subsample_pair(
    arm: VectorArm, human: VectorArm, seed: int, limit: int = LIMIT, counts: Any = None
) -> tuple[VectorArm, VectorArm, str, str]:
    """Return `subsample` of an arm, at most `limit` human answers to its prompts and to prompts of no arm, and a note
    on each of the two."""
    part, note = subsample(arm, seed, limit, counts)
    selected = part.group >= 0
    selected[-1] = True
    rows = np.flatnonzero(selected[human.prompt])
    rows = rows if len(rows) <= limit else np.sort(np.random.default_rng([seed, 1]).permutation(rows)[:limit])
    total = len(human.prompt)
    human_note = f"on {len(rows)} of {total} human vectors" if len(rows) < total else ""
    reference = VectorArm(human.vectors[rows], human.prompt[rows], part.group)
    return part, reference, note, human_note


def _first_answers(prompt: np.ndarray, selected: list[int], maximum: int) -> np.ndarray:
    """Return the rows of the first `maximum` answers to each of the `selected` prompts, `prompt` (n,) being theirs."""
    rows = np.flatnonzero(np.isin(prompt, selected))
    rows = rows[np.argsort(prompt[rows], kind="stable")]
    rank = np.arange(len(rows)) - np.searchsorted(prompt[rows], prompt[rows])  # among the answers to one prompt
    return np.sort(rows[rank < maximum])


def entropy_of(arm: VectorArm) -> Estimate:
    """Return `nearest_neighbour_entropy` of all vectors of `arm`; quadratic."""
    from scipy.special import digamma, gammaln

    reason = invalid_reason(arm.vectors, NEIGHBOURS + 1)
    sphere = arm.vectors.shape[1] - 1 if not reason else 1
    if reason or sphere < 1:
        return undefined(ENTROPY, reason or "vectors of fewer than two dimensions", arm.prompts)
    directions, group = unit_vectors(arm.vectors), arm.row_group
    radii = neighbour_radii(chord_distances(directions, directions), group)
    copies = int((radii(np.ones(arm.groups + 1, dtype=bool)) == 0).sum())
    if copies:
        return undefined(
            ENTROPY, f"{copies} of {len(directions)} vectors have {NEIGHBOURS} copies or more", arm.prompts
        )
    ball = 0.5 * sphere * math.log(math.pi) - gammaln(sphere / 2 + 1)

    def statistic(keep: np.ndarray) -> list[float]:
        logs = np.log(radii(keep)[keep[group]])
        return [digamma(len(logs)) - digamma(NEIGHBOURS) + ball + sphere * logs.mean() if len(logs) else math.nan]

    return arm.estimates([ENTROPY], statistic)[0]


def support_of(arm: VectorArm, human: VectorArm) -> list[Estimate]:
    """Return precision and recall of all vectors of `arm`; quadratic."""
    reason = invalid_reason(arm.vectors, NEIGHBOURS + 1) or invalid_reason(human.vectors, NEIGHBOURS + 1, "human ")
    if reason:
        return [undefined(measure, reason, arm.prompts) for measure in (PRECISION, RECALL)]
    vectors, human_vectors = unit_vectors(arm.vectors), unit_vectors(human.vectors)
    group, human_group = arm.row_group, human.row_group
    distances = chord_distances(vectors, human_vectors)
    radii = neighbour_radii(chord_distances(vectors, vectors), group)
    human_radii = neighbour_radii(chord_distances(human_vectors, human_vectors), human_group)

    def statistic(keep: np.ndarray) -> list[float]:
        mask, human_mask = keep[group], keep[human_group]
        return [
            _share_within(distances[mask][:, human_mask], human_radii(keep)[human_mask]),
            _share_within(distances[mask][:, human_mask].T, radii(keep)[mask]),
        ]

    return arm.estimates([PRECISION, RECALL], statistic)


def chord_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distances of unit vectors (n, d) and (m, d): (n, m), exactly 0 for copies."""
    distances = np.sqrt(np.maximum(2 - 2 * (a @ b.T), 0))
    distances[distances < COPY_DISTANCE] = 0
    return distances


def neighbour_radii(distances: np.ndarray, group: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of the kept groups: the distance of each vector to its k-th nearest kept other one, (n,), NaN
    with fewer than k.

    `distances` (n, n) are those within one set; the diagonal is overwritten; `group` (n,) is the group of each vector.
    One group at most is left out, so the k plus the largest group nearest neighbours are enough.
    """
    np.fill_diagonal(distances, np.inf)  # a vector is not its own neighbour
    width = min(len(distances), int(np.bincount(group).max()) + NEIGHBOURS)
    nearest = np.argpartition(distances, width - 1, axis=1)[:, :width]
    ordered = np.take_along_axis(distances, nearest, axis=1)
    sorting = np.argsort(ordered, axis=1)
    nearest, ordered = np.take_along_axis(nearest, sorting, axis=1), np.take_along_axis(ordered, sorting, axis=1)

    def radii(keep: np.ndarray) -> np.ndarray:
        neighbour_counts = np.cumsum(keep[group[nearest]], axis=1)
        radius = ordered[np.arange(len(ordered)), (neighbour_counts >= NEIGHBOURS).argmax(axis=1)]
        return np.where((neighbour_counts[:, -1] >= NEIGHBOURS) & np.isfinite(radius), radius, math.nan)

    return radii


def _share_within(distances: np.ndarray, radii: np.ndarray) -> float:
    """Return the share of points within `radii` (m,) of one of the centres; `distances` (points, m)."""
    if not len(distances) or np.isnan(radii).all():
        return math.nan
    return float((distances <= radii).any(axis=1).mean())  # comparisons with NaN are false
