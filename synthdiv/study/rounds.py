"""The schema of rounds: students of one round write the answers on which those of the next are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from synthdiv.core.fields import setting
from synthdiv.generate.spec import Sampling
from synthdiv.mix.round_rows import RoundFilter
from synthdiv.study.generators import Student

RoundPrompts = StrEnum("RoundPrompts", "fresh_block same")
Data = StrEnum("Data", "replace accumulate accumulate_fixed")
Init = StrEnum("Init", "base continue")
Writers = StrEnum("Writers", "students sources decoding initial")
Lineage = StrEnum("Lineage", "single pooled segmented")
Real = StrEnum("Real", "same new")
STUDENTS_OF = "students_of_"  # what the axis `mix` begins with after round 0, where students of human answers write


@dataclass
class StudentSampling(Sampling):
    """How students answer train prompts."""

    max_new_tokens: int | None = setting(None, least=1)  # type: ignore[assignment]
    """Longest answer, in tokens of the student; null: that of the first of `evaluate.respond.decodings`."""


@dataclass
class Rounds:
    """Turns of the loop in which students become the next round's sources. Round 0 is the student tuned on the mix."""

    round: int = setting(0, least=0)
    """Which round is evaluated; it needs all rounds before, which all cells that begin alike share."""
    prompts: RoundPrompts = RoundPrompts.fresh_block
    """A block of `mix.rows` train prompts that no other round has, or the block of round 0 in every round."""
    data: Data = Data.replace
    """A round trains on its own rows, on those of all rounds so far, or on as many of these as one round has."""
    init: Init = Init.base
    """The weights that a round starts from: those of the base, so that drift is the data's and not that of further
    steps, or of the student of the round before."""
    writers: Writers = Writers.students
    """Who writes the rows after round 0: the students of the round before; or as controls the sources of round 0; these
    at temperature T^round, without a training between (backend law); or nobody, as the rows of round 0 stay."""
    sampling: StudentSampling = field(default_factory=StudentSampling)
    """How students answer train prompts."""
    students: list[Student] = field(default_factory=list)
    """A population of families: the other base students; member 0 is `student`."""
    seeds: int = setting(1, least=1)
    """A population of seeds: so many trainings of one base. Member 0 has `train.seed`, the seeds of others follow."""
    lineage: Lineage = Lineage.single
    """Members train on their own rows, N of them; on N pooled rows, N / K of each; or on the N / K that they wrote."""
    member: int = setting(0, least=0)
    """Which member is evaluated."""
    real_share: float = setting(0.0, least=0, below=1)
    """Share of the rows after round 0 that have human answers."""
    real: Real = Real.new
    """Those are always the same rows, of round 0, or those of the round's own prompts."""
    filter: RoundFilter = RoundFilter.none
    """Which rows of a round are kept: those that the first judge accepts (verifier), or those that surprise the vanilla
    student most by NLL per token (Gambetta et al. 2024, arXiv 2410.12341)."""
    least: float = 4.0
    """With filter=verifier: the lowest rating that is accepted, on the scale of the rubric `quality`."""
    drop: float = setting(0.25, above=0, below=1)
    """With filter=surprise: the share of the rows left out, those least surprising."""

    @property
    def size(self) -> int:
        """Members of the population."""
        return max(self.seeds, 1 + len(self.students))
