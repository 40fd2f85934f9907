"""The schema of rounds: students of one round write the answers on which those of the next are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from synthdiv.core.fields import listed_twice, setting
from synthdiv.evaluate.row_filter import RoundFilter
from synthdiv.generate.spec import Sampling
from synthdiv.study.generators import Student

Init = Enum("Init", {"base": "base", "continue": "continue"})
Init.__doc__ = "The weights that a round starts from: those of the base, or of the student of the round before."


class RoundPrompts(Enum):
    """Which train prompts a round has: a block that no other round has, or the same block in every round."""

    fresh_block = "fresh_block"
    same = "same"


class Data(Enum):
    """On which rows a round trains: on its own; on those of all rounds so far; on as many of these as one round has."""

    replace = "replace"
    accumulate = "accumulate"
    accumulate_fixed = "accumulate_fixed"


class Writers(Enum):
    """Who writes the rows of a round: the students of the round before; and as controls the sources of round 0; these
    at temperature T^round, without a training between (backend law); or nobody, as the rows of round 0 stay."""

    students = "students"
    sources = "sources"
    decoding = "decoding"
    initial = "initial"


class Lineage(Enum):
    """Who trains on what: each member on its own rows, N of them; all on N pooled rows, N / K of each; or each on the
    N / K rows that it wrote (the dose of one member of a pooled population)."""

    single = "single"
    pooled = "pooled"
    segmented = "segmented"


class Real(Enum):
    """The human rows of later rounds: always the same ones, or those of the round's own prompts."""

    same = "same"
    new = "new"


@dataclass
class Rounds:
    """Turns of the loop in which students become the next round's sources. Round 0 is the student tuned on the mix."""

    round: int = setting(0, least=0)
    """Which round is evaluated; it needs all rounds before, which all cells that begin alike share."""
    prompts: RoundPrompts = RoundPrompts.fresh_block
    """Which train prompts each round has. Fresh blocks need `mix.rows` of them a round."""
    data: Data = Data.replace
    """Which rows a round trains on."""
    init: Init = Init["base"]
    """What training starts from: from the base, drift is the data's; continued, it is also that of further steps."""
    writers: Writers = Writers.students
    """Who writes the rows of a round after round 0."""
    sampling: Sampling = field(default_factory=Sampling)
    """How students answer train prompts."""
    students: list[Student] = field(default_factory=list)
    """A population of families: the other base students; member 0 is `student`."""
    seeds: int = setting(1, least=1)
    """A population of seeds: so many trainings of one base. Member 0 has `train.seed`, the seeds of others follow."""
    lineage: Lineage = Lineage.single
    """How the members of a population share rows."""
    member: int = setting(0, least=0)
    """Which member is evaluated."""
    real_share: float = setting(0.0, least=0, below=1)
    """Share of the rows that students write that have human answers instead."""
    real: Real = Real.new
    """Which human answers these are."""
    filter: RoundFilter = RoundFilter.none
    """Which rows of a round are kept. Train by `train.match=steps`, so that fewer rows are no smaller budget."""
    least: float = 4.0
    """With filter=verifier: the lowest rating, on the scale of the rubric `quality`, that the first judge may give."""
    drop: float = setting(0.25, above=0, below=1)
    """With filter=surprise: the share of the rows left out, those least surprising to the vanilla student."""

    @property
    def size(self) -> int:
        """Members of the population."""
        return max(self.seeds, 1 + len(self.students))

    def check(self, name: str) -> list[str]:
        population = self.size > 1
        rules = {
            f"{name}.students, {name}.seeds={self.seeds}: a population is of families or of seeds; give one of the two":
                self.students and self.seeds > 1,
            f"{name}.member={self.member}: the population has members 0 to {self.size - 1}": self.member >= self.size,
            f"{name}.lineage={self.lineage.value}: needs a population; set {name}.seeds or {name}.students":
                self.lineage is not Lineage.single and not population,
            f"{name}.writers=initial: needs {name}.init=continue and {name}.data=replace, or nothing changes":
                self.writers is Writers.initial and (self.init is Init["base"] or self.data is not Data.replace),
            f"{name}.writers=decoding: needs {name}.sampling.top_p=1: only temperatures add up over rounds":
                self.writers is Writers.decoding and self.sampling.top_p < 1,
        }  # fmt: skip
        names = (student.name for student in self.students)
        problems = [problem for problem, wrong in rules.items() if wrong]
        return problems + listed_twice(f"{name}.students", names, "base students")

    def blocks(self) -> int:
        """How many blocks of train prompts are needed."""
        fresh = self.prompts is RoundPrompts.fresh_block and self.writers is not Writers.initial
        return self.round + 1 if fresh else 1
