"""Every semantic score of one arm's sentence vectors, beside the untouched student's and the human ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from synthdiv.core.types import DataError, Score
from synthdiv.measures.neighbours import entropy_of, limited, noted, support_of
from synthdiv.measures.reference import centres_of, clusters_of, frechet_of, mauve_of
from synthdiv.measures.spectrum import vendi_of
from synthdiv.measures.vectors import Estimate, VectorArm, arms_of, between_of, cosine_of, undefined, usable, within_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np

    from synthdiv.measures.vectors import Ids

# name: unit, and whether higher is better; in the order of the scores
MEASURES = {
    "cosine_distance": ("0-2", True),
    "cosine_distance_within": ("0-2", True),
    "cosine_distance_between": ("0-2", True),
    "vendi_1": ("vectors", True),
    "vendi_2": ("vectors", True),
    "vendi_inf": ("vectors", True),
    "neighbour_entropy": ("nats", True),
    "cluster_entropy": ("bits", True),
    "mauve": ("0-1", True),
    "frechet": ("squared distance", False),
    "precision": ("share", True),
    "recall": ("share", True),
}


def semantic_scores(
    student: Any,
    vanilla: Any = None,
    human: Any = None,
    prompts: Ids = None,
    vanilla_prompts: Ids = None,
    human_prompts: Ids = None,
    seed: int = 0,
    centres: Any = None,
) -> list[Score]:
    """The scores of MEASURES of `student` (n, d), and each minus that of `vanilla` (k, d), named `<name>-vanilla`.

    `human` (m, d) is what mauve, frechet, precision and recall compare with: they are absent without it. Ids name the
    prompt of each vector; without them each vector answers a prompt of its own, in the same order in both arms.
    Clusters are those of `centres` (clusters, d), else of `human`, else of `vanilla`, else of `student`: what is
    compared needs one set of them. Measures quadratic in n take at most 2,000
    vectors of each set (`neighbours.limited`, `seed`), the same prompts of both arms.

    Vectors that are zero or not finite, as those of empty answers, are left out; prompts that then have no vector in
    one arm are left out of both; the notes say how many. Intervals leave out the same groups of prompts in both arms,
    and human answers with theirs where `human_prompts` are of the same names. n counts prompts, the smaller count for a
    difference. NaN with a note where a measure has one (see each). DataError: arms with other prompts.
    """
    sets = [("student", student, prompts)]
    if vanilla is not None:
        sets.append(("vanilla", vanilla, vanilla_prompts))
    found = [directed(name, vectors, ids) for name, vectors, ids in sets]
    if len({frozenset(one.asked) for one in found}) > 1:
        raise DataError("student and vanilla answer other prompts: a difference needs the same in both")
    answered = frozenset.intersection(*(frozenset(one.ids) for one in found))
    lost = len(set(found[0].asked) - answered)
    notes = [one.note for one in found] + [f"{lost} prompts without a vector left out"] * (lost > 0)
    arms: list[tuple[Any, Ids]] = [one.of(answered) for one in found]
    if human is not None:
        people = directed("human", human, human_prompts)
        notes.append(people.note)
        arms.append((people.vectors, None if human_prompts is None else people.ids))
    numbered = arms_of(seed, *arms)
    reference = numbered.pop() if human is not None else None
    estimates = _estimates(numbered, reference, seed, centres)
    if vanilla is not None:
        own, base = estimates
        estimates = [own, {f"{name}-vanilla": minus(own[name], base[name]) for name in own}]
    note = "; ".join(filter(None, notes))
    return [
        noted(estimate, note).score(name, *MEASURES[name.removesuffix("-vanilla")])
        for part in estimates
        for name, estimate in part.items()
    ]


class Directed(NamedTuple):
    """The vectors of one set that have a direction, the prompt of each, and all prompts that were asked."""

    vectors: np.ndarray
    ids: list[Hashable]
    asked: list[Hashable]
    note: str

    def of(self, prompts: frozenset[Hashable]) -> tuple[np.ndarray, list[Hashable]]:
        """What answers `prompts`; not copied where that is all."""
        rows = [row for row, key in enumerate(self.ids) if key in prompts]
        whole = len(rows) == len(self.ids)
        return (self.vectors if whole else self.vectors[rows]), [self.ids[row] for row in rows]


def directed(name: str, vectors: Any, ids: Ids) -> Directed:
    """`vectors` (n, d) without those that are zero or not finite. ValueError where there is not one id for each."""
    import numpy as np

    vectors = np.asanyarray(vectors)
    asked: list[Hashable] = list(range(len(vectors)) if ids is None else ids)
    stays = usable(vectors)
    if len(asked) != len(stays):
        raise ValueError(f"{name}: {len(stays)} vectors and {len(asked)} prompts: there must be one for each")
    if stays.all():
        return Directed(vectors, asked, asked, "")
    rows = np.flatnonzero(stays)
    note = f"{len(stays) - len(rows)} of {len(stays)} {name} vectors are zero or not finite and left out"
    return Directed(vectors[rows], [asked[row] for row in rows], asked, note)


def minus(own: Estimate, base: Estimate) -> Estimate:
    """The difference of one measure between two arms over the same prompts and replicates."""
    n = min(own.n, base.n)
    note = "; ".join(dict.fromkeys(filter(None, [own.note, base.note])))
    if math.isnan(own.value) or math.isnan(base.value):
        return Estimate(math.nan, own.drawn[:0], n, note)
    return Estimate(own.value - base.value, own.drawn - base.drawn, n, note, own.per_prompt)


def _estimates(
    arms: Sequence[VectorArm], human: VectorArm | None, seed: int, centres: Any
) -> list[dict[str, Estimate]]:
    """Each measure of each arm, in the order of MEASURES."""
    if centres is None:
        centres, which = centres_of((human or arms[-1]).vectors, seed=seed)
    else:
        which = f"{len(centres)} clusters"
    few, few_human, notes = limited(arms, human, seed)
    found = []
    for arm, part in zip(arms, few, strict=True):
        values = {
            "cosine_distance": cosine_of(arm),
            "cosine_distance_within": within_of(arm),
            "cosine_distance_between": between_of(arm),
            **dict(zip(("vendi_1", "vendi_2", "vendi_inf"), vendi_of(arm), strict=True)),
            "neighbour_entropy": noted(entropy_of(part), notes[0]),
            "cluster_entropy": undefined(arm, which) if centres is None else noted(clusters_of(arm, centres), which),
        }
        if human is not None:
            precision, recall = (noted(estimate, *notes) for estimate in support_of(part, few_human))
            values |= {
                "mauve": noted(mauve_of(part, few_human, seed), *notes),
                "frechet": frechet_of(arm, human),
                "precision": precision,
                "recall": recall,
            }
        found.append(values)
    return found
