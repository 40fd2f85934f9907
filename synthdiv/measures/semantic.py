"""All semantic scores of one arm's sentence vectors, and differences from the vanilla student."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from synthdiv.core.types import DataError, Score
from synthdiv.measures.neighbours import entropy_of, subsample, support_of, with_notes
from synthdiv.measures.reference import cluster_entropy_of, fit_centres, frechet_of, mauve_of
from synthdiv.measures.spectrum import vendi_of
from synthdiv.measures.vectors import (
    Estimate,
    VectorArm,
    between_of,
    cosine_of,
    has_direction,
    undefined,
    vector_arms,
    within_of,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np

    from synthdiv.measures.vectors import Ids

# name: (unit, higher_is_better), in the order of the scores
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
    """Return MEASURES of `student` (n, d), and their differences from `vanilla` (k, d), named `<name>-vanilla`.

    mauve, frechet, precision and recall compare with `human` (m, d) and are absent without it. `prompts`,
    `vanilla_prompts` and `human_prompts` hold the prompt id of each vector; without ids there is one prompt per vector,
    in the same order in both arms. Clusters are `centres` (clusters, d), or those of `human`, `vanilla` or `student`,
    the first that is given. Measures that are quadratic in n use at most 2,000 vectors of each set, of the same prompts
    in both arms (`neighbours.subsample`, `seed`).

    Vectors that are zero or not finite, such as those of empty answers, are left out; prompts without a vector in one
    arm are left out of both; the notes count them. Intervals leave out the same groups of prompts in both arms, and the
    human answers to them. n counts prompts, the smaller count for a difference. NaN with a note as each measure
    documents. Raises DataError if the arms have different prompts.
    """
    sets = [("student", student, prompts)]
    if vanilla is not None:
        sets.append(("vanilla", vanilla, vanilla_prompts))
    valid_sets = [drop_directionless(name, vectors, ids) for name, vectors, ids in sets]
    if len({frozenset(valid_set.prompts) for valid_set in valid_sets}) > 1:
        raise DataError("student and vanilla answer different prompts: give both arms the same prompts")
    answered = frozenset.intersection(*(frozenset(valid_set.ids) for valid_set in valid_sets))
    dropped = len(set(valid_sets[0].prompts) - answered)
    notes = [valid_set.note for valid_set in valid_sets]
    notes += [f"{dropped} prompts without a vector left out"] * (dropped > 0)
    arms: list[tuple[Any, Ids]] = [valid_set.select(answered) for valid_set in valid_sets]
    if human is not None:
        human_set = drop_directionless("human", human, human_prompts)
        notes.append(human_set.note)
        arms.append((human_set.vectors, None if human_prompts is None else human_set.ids))
    vector_sets = vector_arms(seed, *arms)
    reference = vector_sets.pop() if human is not None else None
    estimates = _estimates(vector_sets, reference, seed, centres)
    if vanilla is not None:
        of_student, of_vanilla = estimates
        estimates = [
            of_student,
            {f"{name}-vanilla": difference(of_student[name], of_vanilla[name]) for name in of_student},
        ]
    note = "; ".join(filter(None, notes))
    return [
        with_notes(estimate, note).score(name, *MEASURES[name.removesuffix("-vanilla")])
        for arm_estimates in estimates
        for name, estimate in arm_estimates.items()
    ]


class PromptedVectors(NamedTuple):
    """The nonzero finite vectors of one set, the prompt id of each, and all prompts of the set."""

    vectors: np.ndarray
    ids: list[Hashable]
    prompts: list[Hashable]
    note: str

    def select(self, prompts: frozenset[Hashable]) -> tuple[np.ndarray, list[Hashable]]:
        """Return the vectors and ids of `prompts`, without a copy if these are all."""
        rows = [row for row, key in enumerate(self.ids) if key in prompts]
        all_selected = len(rows) == len(self.ids)
        return (self.vectors if all_selected else self.vectors[rows]), [self.ids[row] for row in rows]


def drop_directionless(name: str, vectors: Any, ids: Ids) -> PromptedVectors:
    """Drop those of `vectors` (n, d) that are zero or not finite. Raises ValueError if the number of ids is not n."""
    import numpy as np

    vectors = np.asanyarray(vectors)
    prompts: list[Hashable] = list(range(len(vectors)) if ids is None else ids)
    valid = has_direction(vectors)
    if len(prompts) != len(valid):
        raise ValueError(f"{name}: {len(valid)} vectors and {len(prompts)} prompts: give one prompt id for each vector")
    if valid.all():
        return PromptedVectors(vectors, prompts, prompts, "")
    rows = np.flatnonzero(valid)
    note = f"{len(valid) - len(rows)} of {len(valid)} {name} vectors are zero or not finite and left out"
    return PromptedVectors(vectors[rows], [prompts[row] for row in rows], prompts, note)


def difference(student: Estimate, vanilla: Estimate) -> Estimate:
    """Return the difference of one measure between two arms with the same prompts and replicates."""
    n = min(student.n, vanilla.n)
    note = "; ".join(dict.fromkeys(filter(None, [student.note, vanilla.note])))
    if math.isnan(student.value) or math.isnan(vanilla.value):
        return Estimate(math.nan, student.replicates[:0], n, note)
    return Estimate(student.value - vanilla.value, student.replicates - vanilla.replicates, n, note, student.per_prompt)


def _estimates(
    arms: Sequence[VectorArm], human: VectorArm | None, seed: int, centres: Any
) -> list[dict[str, Estimate]]:
    """Return the measures of each arm, in the order of MEASURES."""
    if centres is None:
        centres, cluster_note = fit_centres((human or arms[-1]).vectors, seed=seed)
    else:
        cluster_note = f"{len(centres)} clusters"
    limited_arms, limited_human, notes = subsample(arms, human, seed)
    estimates = []
    for arm, limited in zip(arms, limited_arms, strict=True):
        clusters = undefined(arm, "") if centres is None else cluster_entropy_of(arm, centres)
        values = {
            "cosine_distance": cosine_of(arm),
            "cosine_distance_within": within_of(arm),
            "cosine_distance_between": between_of(arm),
            **dict(zip(("vendi_1", "vendi_2", "vendi_inf"), vendi_of(arm), strict=True)),
            "neighbour_entropy": with_notes(entropy_of(limited), notes[0]),
            "cluster_entropy": with_notes(clusters, cluster_note),
        }
        if human is not None:
            precision, recall = (with_notes(one, *notes) for one in support_of(limited, limited_human))
            values |= {
                "mauve": with_notes(mauve_of(limited, limited_human, seed), *notes),
                "frechet": frechet_of(arm, human),
                "precision": precision,
                "recall": recall,
            }
        estimates.append(values)
    return estimates
