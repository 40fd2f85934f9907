"""All semantic scores of one arm's sentence vectors, and differences from the vanilla student."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import DataError, Score
from synthdiv.measures.estimates import Estimate, Ids, join_notes, scores_of
from synthdiv.measures.neighbours import entropy_of, subsample, subsample_pair, support_of
from synthdiv.measures.reference import cluster_entropy_of, fit_centres, frechet_of, mauve_of
from synthdiv.measures.spectrum import vendi_of
from synthdiv.measures.vectors import VectorArm, between_of, cosine_of, has_direction, vector_arms, within_of


def semantic_scores(
    student: Any,
    vanilla: Any = None,
    human: Any = None,
    prompts: Ids = None,
    vanilla_prompts: Ids = None,
    human_prompts: Ids = None,
    seed: int = 0,
) -> list[Score]:
    """Return the semantic measures of `student` (n, d), and their differences from `vanilla` (k, d).

    mauve, frechet, precision, recall and cluster_entropy compare with `human` (m, d) and are absent without it.
    `prompts`, `vanilla_prompts` and `human_prompts` hold the prompt id of each vector; without ids there is one prompt
    per vector, in the same order in both arms. Measures that are quadratic in n use at most 2,000 vectors of each set
    (`neighbours.subsample`, `seed`).

    Vectors that are zero or not finite, such as those of empty answers, are left out. The scores of the student do not
    depend on `vanilla`; differences are on the prompts to which both arms have a vector. The notes count what is left
    out. Intervals leave out the same groups of prompts in both arms, and the human answers to them. n counts prompts,
    the smaller count for a difference. NaN with a note as each measure documents. Raises DataError if the arms have
    different prompts.
    """
    ids = list(range(len(student))) if prompts is None else prompts
    others = [] if vanilla is None else [(vanilla, range(len(vanilla)) if vanilla_prompts is None else vanilla_prompts)]
    if any(set(other_ids) != set(ids) for _, other_ids in others):
        raise DataError("student and vanilla answer different prompts: give both arms the same prompts")
    humans = [] if human is None else [(human, human_prompts)]
    arms = vector_arms(seed, (student, ids), *others, *humans)
    reference = Reference.of(arms.pop(), seed) if humans else None
    of_student, *of_vanilla = [Prompted.of(arm, name) for arm, name in zip(arms, ("", "vanilla "), strict=False)]
    levels = of_student.estimates(reference, seed)
    if not of_vanilla:
        return scores_of(levels)
    (base,) = of_vanilla
    pair = [of_student.common(base), base.common(of_student)]
    first = levels if pair[0] is of_student else pair[0].estimates(reference, seed)
    gaps = [one.minus(other) for one, other in zip(first, pair[1].estimates(reference, seed), strict=True)]
    return scores_of([*levels, *gaps])


@dataclass(frozen=True, eq=False)
class Reference:
    """The human vectors, and clusters of them."""

    arm: VectorArm
    note: str
    centres: Any
    centres_note: str

    @classmethod
    def of(cls, arm: VectorArm, seed: int) -> Reference:
        valid, note = with_direction(arm, "human ")
        return cls(valid, note, *fit_centres(valid.vectors, seed=seed))


@dataclass(frozen=True, eq=False)
class Prompted:
    """The vectors of an arm that have a direction, and the number of answers to each prompt, those without one too."""

    arm: VectorArm
    counts: np.ndarray
    note: str

    @classmethod
    def of(cls, arm: VectorArm, kind: str) -> Prompted:
        valid, note = with_direction(arm, kind)
        return cls(valid, np.bincount(arm.prompt, minlength=len(arm.group) - 1), note)

    def common(self, other: Prompted) -> Prompted:
        """Return the answers to prompts to which `other` has a vector too."""
        rows = np.isin(self.arm.prompt, other.arm.prompt)
        if rows.all():
            return self
        dropped = len(np.unique(self.arm.prompt[~rows]))
        note = join_notes(self.note, f"{dropped} prompts without a vector in the other arm left out")
        return replace(self, arm=self.arm.select(rows), note=note)

    def estimates(self, reference: Reference | None, seed: int) -> list[Estimate]:
        """Return every semantic measure."""
        arm = self.arm
        estimates = [cosine_of(arm), within_of(arm), between_of(arm), *vendi_of(arm)]
        if reference is None:
            limited, note = subsample(arm, seed, counts=self.counts)
            return [each.with_note(self.note) for each in (*estimates, entropy_of(limited).with_note(note))]
        limited, limited_human, note, human_note = subsample_pair(arm, reference.arm, seed, counts=self.counts)
        estimates.append(entropy_of(limited).with_note(note))
        against = [mauve_of(limited, limited_human, seed), *support_of(limited, limited_human)]
        mauve, precision, recall = (each.with_note(note, human_note) for each in against)
        clusters = cluster_entropy_of(arm, reference.centres, reference.centres_note)
        against = [clusters, mauve, frechet_of(arm, reference.arm), precision, recall]
        estimates += [each.with_note(reference.note) for each in against]
        return [each.with_note(self.note) for each in estimates]


def with_direction(arm: VectorArm, kind: str) -> tuple[VectorArm, str]:
    """Return the vectors that are neither zero nor infinite nor NaN, and a note that counts the others."""
    valid = has_direction(arm.vectors)
    if valid.all():
        return arm, ""
    note = f"{int((~valid).sum())} of {len(valid)} {kind}vectors are zero or not finite and left out"
    return arm.select(np.flatnonzero(valid)), note
