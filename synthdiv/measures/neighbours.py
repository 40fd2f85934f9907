"""What nearest neighbours say: the entropy of a set of vectors, and on which side it left the human set.

All distances are chords |u - v| between unit vectors, 0 to 2. They are quadratic in the number of vectors, so at most
`LIMIT` of a set are used, prompts drawn by a seed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from synthdiv.measures.intervals import GROUPS
from synthdiv.measures.vectors import Estimate, VectorArm, arms_of, dealt, estimate, problem, undefined, unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from synthdiv.core.types import Score
    from synthdiv.measures.vectors import Ids

LIMIT = 2000
NEIGHBOURS = 3  # as Kynkäänniemi et al.; it also leaves the entropy defined where a text has one or two copies
COPY = 1e-4  # one text encoded twice in float32 can lie a rounding apart: vectors closer than this are the same


def nearest_neighbour_entropy(vectors: Any, prompts: Ids = None, seed: int = 0, limit: int = LIMIT) -> Score:
    """The differential entropy (nats) of the directions of `vectors`, on the unit sphere of d - 1 dimensions.

    psi(n) - psi(k) + log c + (d - 1) mean log r, r the chord to the k-th nearest other vector, k = 3, and c the volume
    of the unit ball of d - 1 dimensions (Kozachenko and Leonenko 1987; for k > 1 Kraskov et al. 2004, eq. 20). Any real
    number, at most the log of the sphere's area but for noise, and far below zero where d is large: texts fill few of d
    dimensions, so read differences at equal n only.

    `vectors` (n, d), any float type; `prompts` (n,) names the prompt of each, None where each answers its own. At most
    `limit` vectors, prompts drawn by `seed`: the note says so. Jackknife interval over prompts. NaN with a note
    below k + 1 vectors, below two dimensions, where a vector is zero or not finite, and where one has k copies or more,
    which the note counts: such atoms have an entropy of minus infinity.
    """
    (arm,) = arms_of(seed, (vectors, prompts))
    (arm,), _, notes = limited([arm], None, seed, limit)
    return noted(entropy_of(arm), *notes).score("neighbour_entropy", "nats", True)


def support_precision(
    vectors: Any, human: Any, prompts: Ids = None, human_prompts: Ids = None, seed: int = 0, limit: int = LIMIT
) -> Score:
    """The share, 0 to 1, of `vectors` (n, d) within the support of `human` (m, d): low where they spread beyond it.

    A set's support is the balls around its vectors that reach to the third nearest other one (Kynkäänniemi et al. 2019,
    Improved Precision and Recall Metric for Assessing Generative Models, eq. 1 and 2); here on unit vectors. At most
    `limit` vectors of each set, prompts drawn by `seed`: the note says so. It depends on n and m: compare equal
    ones. Jackknife interval over `prompts`; where `human_prompts` names them too, human answers are left out with
    theirs. NaN with a note below four vectors in a set, and where one is zero or not finite.
    """
    return _support(vectors, human, prompts, human_prompts, seed, limit)[0].score("precision", "share", True)


def support_recall(
    vectors: Any, human: Any, prompts: Ids = None, human_prompts: Ids = None, seed: int = 0, limit: int = LIMIT
) -> Score:
    """The share, 0 to 1, of `human` (m, d) within the support of `vectors` (n, d): low where coverage has collapsed.

    As `support_precision`.
    """
    return _support(vectors, human, prompts, human_prompts, seed, limit)[1].score("recall", "share", True)


def _support(vectors: Any, human: Any, prompts: Ids, human_prompts: Ids, seed: int, limit: int) -> list[Estimate]:
    arm, reference = arms_of(seed, (vectors, prompts), (human, human_prompts))
    (arm,), reference, notes = limited([arm], reference, seed, limit)
    return [noted(estimate, *notes) for estimate in support_of(arm, reference)]


def noted(estimate: Estimate, *notes: str) -> Estimate:
    """`estimate` with something more to know."""
    return estimate._replace(note="; ".join(filter(None, [estimate.note, *notes])))


def limited(
    arms: Sequence[VectorArm], human: Any, seed: int, limit: int = LIMIT
) -> tuple[list[VectorArm], Any, tuple[str, str]]:
    """At most `limit` vectors of each arm, of the same prompts in all, drawn by `seed`; and notes that say so.

    Prompts are drawn one after the other, and one that does not fit into what is left is passed over. They enter whole
    where the first 20 drawn fit, else each with its first answers, as many as let these fit: an interval needs many
    prompts. Of `human` (an arm or None) the answers to these prompts and to none of the others', and of these at most
    `limit`; the second note is about them.
    """
    import numpy as np

    units = len(arms[0].group) - 1
    random = np.random.default_rng(seed)
    order = random.permutation(units)
    counts = np.max([np.bincount(arm.prompt, minlength=units) for arm in arms], axis=0)
    first = counts[order[:GROUPS]]
    most = max(1, bisect_right(range(1, limit + 1), limit, key=lambda cap: np.minimum(first, cap).sum()))
    room, group = limit, np.full(units + 1, -1)
    chosen = []
    for prompt, size in zip(order.tolist(), np.minimum(counts, most)[order].tolist(), strict=True):
        if size <= room:
            room -= size
            chosen.append(prompt)
    chosen.sort()
    group[chosen] = dealt(len(chosen), seed)
    stays = np.append(np.isin(np.arange(units), chosen), True)
    cut = [_rows(arm, _first(arm.prompt, stays, most), group) for arm in arms]
    sizes = dict.fromkeys((len(part.vectors), len(arm.vectors)) for part, arm in zip(cut, arms, strict=True))
    note = " and ".join(f"{entered} of {whole}" for entered, whole in sizes)
    note = f"on {note} vectors" if any(entered < whole for entered, whole in sizes) else ""
    if human is None:
        return cut, None, (note, "")
    rows = np.flatnonzero(stays[human.prompt])
    rows = rows if len(rows) <= limit else np.sort(random.permutation(rows)[:limit])
    whole = len(human.prompt)
    human_note = f"on {len(rows)} of {whole} human vectors" if len(rows) < whole else ""
    return cut, _rows(human, rows, group), (note, human_note)


def _first(prompt: np.ndarray, stays: np.ndarray, most: int) -> np.ndarray:
    """The rows of the first `most` answers to each of the prompts that stay; `prompt` (n,) numbers that of each row."""
    import numpy as np

    rows = np.flatnonzero(stays[prompt])
    rows = rows[np.argsort(prompt[rows], kind="stable")]
    place = np.arange(len(rows)) - np.searchsorted(prompt[rows], prompt[rows])  # among the answers to its prompt
    return np.sort(rows[place < most])


def _rows(arm: VectorArm, rows: np.ndarray, group: np.ndarray) -> VectorArm:
    return VectorArm(arm.vectors[rows], arm.prompt[rows], group)


def entropy_of(arm: VectorArm) -> Estimate:
    """`nearest_neighbour_entropy` of all vectors of `arm`: quadratic."""
    import numpy as np
    from scipy.special import digamma, gammaln

    lacks = problem(arm.vectors, NEIGHBOURS + 1)
    sphere = arm.vectors.shape[1] - 1 if not lacks else 1
    if lacks or sphere < 1:
        return undefined(arm, lacks or "vectors of fewer than two dimensions")
    directions = unit(arm.vectors)
    radii = reaches(chords(directions, directions), arm.left_out, arm.groups)
    copies = int((radii[0] == 0).sum())
    if copies:
        return undefined(arm, f"{copies} of {len(directions)} vectors have {NEIGHBOURS} copies or more")
    ball = 0.5 * sphere * math.log(math.pi) - gammaln(sphere / 2 + 1)
    values = []
    for group, radius in enumerate(radii, -1):
        kept = np.log(radius if group < 0 else radius[arm.left_out != group])
        values.append(digamma(len(kept)) - digamma(NEIGHBOURS) + ball + sphere * kept.mean() if len(kept) else math.nan)
    return estimate(arm, values)


def support_of(arm: VectorArm, human: VectorArm) -> list[Estimate]:
    """Precision and recall of all vectors of `arm`: quadratic."""
    lacks = problem(arm.vectors, NEIGHBOURS + 1) or problem(human.vectors, NEIGHBOURS + 1, "human ")
    if lacks:
        return [undefined(arm, lacks)] * 2
    own, theirs = unit(arm.vectors), unit(human.vectors)
    across = chords(own, theirs)
    reach = reaches(chords(own, own), arm.left_out, arm.groups)
    human_reach = reaches(chords(theirs, theirs), human.left_out, arm.groups)
    return [
        _covered(across, human_reach, arm.left_out, human.left_out, arm),
        _covered(across.T, reach, human.left_out, arm.left_out, arm),
    ]


def chords(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances of unit vectors (n, d) and (m, d): (n, m). Those of copies are exactly 0."""
    import numpy as np

    distances = np.sqrt(np.maximum(2 - 2 * (a @ b.T), 0))
    distances[distances < COPY] = 0
    return distances


def reaches(distances: np.ndarray, left_out: np.ndarray, groups: int) -> np.ndarray:
    """How far it is from each vector to its k-th nearest other one, of all and of those in each replicate.

    `distances` (n, n) of a set to itself, whose diagonal is overwritten; returns (groups + 1, n), NaN where there are
    not k others. A replicate lacks no more than the largest group, so that many neighbours more are all it takes.
    """
    import numpy as np

    np.fill_diagonal(distances, np.inf)  # a vector is no neighbour of itself
    lost = int(np.bincount(left_out + 1, minlength=2)[1:].max())
    width = min(len(distances), lost + NEIGHBOURS)
    near = np.argpartition(distances, width - 1, axis=1)[:, :width]
    ordered = np.take_along_axis(distances, near, axis=1)
    sorting = np.argsort(ordered, axis=1)
    near, ordered = np.take_along_axis(near, sorting, axis=1), np.take_along_axis(ordered, sorting, axis=1)
    found = np.empty((groups + 1, len(distances)))
    for group in range(-1, groups):
        stays = (left_out[near] != group) | (group < 0)
        place = (np.cumsum(stays, axis=1) >= NEIGHBOURS).argmax(axis=1)  # the first place with k of them
        radius = ordered[np.arange(len(ordered)), place]
        found[group + 1] = np.where((stays.sum(axis=1) >= NEIGHBOURS) & np.isfinite(radius), radius, math.nan)
    return found


def _covered(
    distances: np.ndarray, reach: np.ndarray, left_out: np.ndarray, centre_left_out: np.ndarray, arm: VectorArm
) -> Estimate:
    """The share of points (n,) within `reach` (groups + 1, m) of a centre, of all and of those in each replicate."""
    import numpy as np

    shares = []
    for group, radius in enumerate(reach, -1):
        stays = (left_out != group) | (group < 0)
        balls = np.where((centre_left_out != group) | (group < 0), radius, math.nan)  # no distance is below NaN
        shares.append((distances[stays] <= balls).any(axis=1).mean() if stays.any() else math.nan)
        if np.isnan(balls).all():
            shares[-1] = math.nan
    return estimate(arm, shares)
