"""Nearest-neighbour measures: the entropy of a set of vectors, and its precision and recall against the human set.

All distances are chords |u - v| between unit vectors, 0 to 2. The cost is quadratic in the number of vectors, so at
most `LIMIT` vectors of a set are used, of prompts sampled by a seed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from synthdiv.measures.intervals import JACKKNIFE_GROUPS
from synthdiv.measures.vectors import (
    Estimate,
    VectorArm,
    estimated,
    invalid_reason,
    replicate_of_unit,
    undefined,
    unit_vectors,
    vector_arms,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from synthdiv.core.types import Score
    from synthdiv.measures.vectors import Ids

LIMIT = 2000
NEIGHBOURS = 3  # as Kynkäänniemi et al.; the entropy stays defined for a text with one or two copies
COPY_DISTANCE = 1e-4  # closer vectors are equal: encodings of one text differ by float32 rounding


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
    (arm,) = vector_arms(seed, (vectors, prompts))
    (arm,), _, notes = subsample([arm], None, seed, limit)
    return with_notes(entropy_of(arm), *notes).score("neighbour_entropy", "nats", True)


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
    return _support(vectors, human, prompts, human_prompts, seed, limit)[0].score("precision", "share", True)


def support_recall(
    vectors: Any, human: Any, prompts: Ids = None, human_prompts: Ids = None, seed: int = 0, limit: int = LIMIT
) -> Score:
    """Return the share, 0 to 1, of `human` (m, d) in the support of `vectors` (n, d): low if coverage has collapsed. As
    `support_precision`."""
    return _support(vectors, human, prompts, human_prompts, seed, limit)[1].score("recall", "share", True)


def _support(vectors: Any, human: Any, prompts: Ids, human_prompts: Ids, seed: int, limit: int) -> list[Estimate]:
    arm, reference = vector_arms(seed, (vectors, prompts), (human, human_prompts))
    (arm,), reference, notes = subsample([arm], reference, seed, limit)
    return [with_notes(estimate, *notes) for estimate in support_of(arm, reference)]


def with_notes(estimate: Estimate, *notes: str) -> Estimate:
    """Return `estimate` with `notes` appended to its note."""
    return estimate._replace(note="; ".join(filter(None, [estimate.note, *notes])))


def subsample(
    arms: Sequence[VectorArm], human: Any, seed: int, limit: int = LIMIT
) -> tuple[list[VectorArm], Any, tuple[str, str]]:
    """Return at most `limit` vectors of each arm, of the same prompts in all arms, and notes with the numbers.

    Prompts are sampled by `seed` one after the other; a prompt with more answers than remain is skipped. All answers to
    a prompt are used if those of the first 20 prompts fit, else only its first answers, as many as let 20 prompts fit,
    because an interval needs many prompts. `human` (an arm or None) keeps its answers to the selected prompts and to
    prompts of no arm, at most `limit` of them; the second note is about it.
    """
    import numpy as np

    units = len(arms[0].group) - 1
    random = np.random.default_rng(seed)
    order = random.permutation(units)
    counts = np.max([np.bincount(arm.prompt, minlength=units) for arm in arms], axis=0)
    first_counts = counts[order[:JACKKNIFE_GROUPS]]
    answers_per_prompt = max(
        1, bisect_right(range(1, limit + 1), limit, key=lambda maximum: np.minimum(first_counts, maximum).sum())
    )
    remaining, group = limit, np.full(units + 1, -1)
    selected = []
    for prompt, size in zip(order.tolist(), np.minimum(counts, answers_per_prompt)[order].tolist(), strict=True):
        if size <= remaining:
            remaining -= size
            selected.append(prompt)
    selected.sort()
    group[selected] = replicate_of_unit(len(selected), seed)
    kept = np.append(np.isin(np.arange(units), selected), True)
    parts = [_rows(arm, _first_answers(arm.prompt, kept, answers_per_prompt), group) for arm in arms]
    sizes = dict.fromkeys((len(part.vectors), len(arm.vectors)) for part, arm in zip(parts, arms, strict=True))
    note = " and ".join(f"{entered} of {total}" for entered, total in sizes)
    note = f"on {note} vectors" if any(entered < total for entered, total in sizes) else ""
    if human is None:
        return parts, None, (note, "")
    rows = np.flatnonzero(kept[human.prompt])
    rows = rows if len(rows) <= limit else np.sort(random.permutation(rows)[:limit])
    total = len(human.prompt)
    human_note = f"on {len(rows)} of {total} human vectors" if len(rows) < total else ""
    return parts, _rows(human, rows, group), (note, human_note)


def _first_answers(prompt: np.ndarray, kept: np.ndarray, maximum: int) -> np.ndarray:
    """Return the rows of the first `maximum` answers to each prompt in `kept`; `prompt` (n,) is the index per row."""
    import numpy as np

    rows = np.flatnonzero(kept[prompt])
    rows = rows[np.argsort(prompt[rows], kind="stable")]
    rank = np.arange(len(rows)) - np.searchsorted(prompt[rows], prompt[rows])  # among the answers to one prompt
    return np.sort(rows[rank < maximum])


def _rows(arm: VectorArm, rows: np.ndarray, group: np.ndarray) -> VectorArm:
    return VectorArm(arm.vectors[rows], arm.prompt[rows], group)


def entropy_of(arm: VectorArm) -> Estimate:
    """Return `nearest_neighbour_entropy` of all vectors of `arm`; quadratic."""
    import numpy as np
    from scipy.special import digamma, gammaln

    reason = invalid_reason(arm.vectors, NEIGHBOURS + 1)
    sphere = arm.vectors.shape[1] - 1 if not reason else 1
    if reason or sphere < 1:
        return undefined(arm, reason or "vectors of fewer than two dimensions")
    directions = unit_vectors(arm.vectors)
    radii = neighbour_radii(chord_distances(directions, directions), arm.left_out, arm.groups)
    copies = int((radii[0] == 0).sum())
    if copies:
        return undefined(arm, f"{copies} of {len(directions)} vectors have {NEIGHBOURS} copies or more")
    ball = 0.5 * sphere * math.log(math.pi) - gammaln(sphere / 2 + 1)
    values = []
    for group, radius in enumerate(radii, -1):
        kept = np.log(radius if group < 0 else radius[arm.left_out != group])
        values.append(digamma(len(kept)) - digamma(NEIGHBOURS) + ball + sphere * kept.mean() if len(kept) else math.nan)
    return estimated(arm, values)


def support_of(arm: VectorArm, human: VectorArm) -> list[Estimate]:
    """Return precision and recall of all vectors of `arm`; quadratic."""
    reason = invalid_reason(arm.vectors, NEIGHBOURS + 1) or invalid_reason(human.vectors, NEIGHBOURS + 1, "human ")
    if reason:
        return [undefined(arm, reason)] * 2
    vectors, human_vectors = unit_vectors(arm.vectors), unit_vectors(human.vectors)
    distances = chord_distances(vectors, human_vectors)
    radii = neighbour_radii(chord_distances(vectors, vectors), arm.left_out, arm.groups)
    human_radii = neighbour_radii(chord_distances(human_vectors, human_vectors), human.left_out, arm.groups)
    return [
        _share_within(distances, human_radii, arm.left_out, human.left_out, arm),
        _share_within(distances.T, radii, human.left_out, arm.left_out, arm),
    ]


def chord_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the distances of unit vectors (n, d) and (m, d): (n, m), exactly 0 for copies."""
    import numpy as np

    distances = np.sqrt(np.maximum(2 - 2 * (a @ b.T), 0))
    distances[distances < COPY_DISTANCE] = 0
    return distances


def neighbour_radii(distances: np.ndarray, left_out: np.ndarray, groups: int) -> np.ndarray:
    """Return the distance of each vector to its k-th nearest other one: (groups + 1, n), of all and of each replicate.

    `distances` (n, n) are those within one set; the diagonal is overwritten. NaN with fewer than k other vectors. A
    replicate leaves out at most the largest group, so the k plus that many nearest neighbours are enough.
    """
    import numpy as np

    np.fill_diagonal(distances, np.inf)  # a vector is not its own neighbour
    largest_group = int(np.bincount(left_out + 1, minlength=2)[1:].max())
    width = min(len(distances), largest_group + NEIGHBOURS)
    nearest = np.argpartition(distances, width - 1, axis=1)[:, :width]
    ordered = np.take_along_axis(distances, nearest, axis=1)
    sorting = np.argsort(ordered, axis=1)
    nearest, ordered = np.take_along_axis(nearest, sorting, axis=1), np.take_along_axis(ordered, sorting, axis=1)
    radii = np.empty((groups + 1, len(distances)))
    for group in range(-1, groups):
        kept = (left_out[nearest] != group) | (group < 0)
        position = (np.cumsum(kept, axis=1) >= NEIGHBOURS).argmax(axis=1)  # the first position with k kept neighbours
        radius = ordered[np.arange(len(ordered)), position]
        radii[group + 1] = np.where((kept.sum(axis=1) >= NEIGHBOURS) & np.isfinite(radius), radius, math.nan)
    return radii


def _share_within(
    distances: np.ndarray, radii: np.ndarray, left_out: np.ndarray, centre_left_out: np.ndarray, arm: VectorArm
) -> Estimate:
    """Return the share of points (n,) within `radii` (groups + 1, m) of a centre, of all and of each replicate."""
    import numpy as np

    shares = []
    for group, radius in enumerate(radii, -1):
        kept = (left_out != group) | (group < 0)
        kept_radii = np.where(
            (centre_left_out != group) | (group < 0), radius, math.nan
        )  # comparisons with NaN are false
        shares.append((distances[kept] <= kept_radii).any(axis=1).mean() if kept.any() else math.nan)
        if np.isnan(kept_radii).all():
            shares[-1] = math.nan
    return estimated(arm, shares)
