"""The schema of a cell: every group of `conf/` is a field, every field a key of the command line."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from enum import Enum

from synthdiv.core.fields import setting
from synthdiv.core.ledger import problem_of_name
from synthdiv.core.runtime import Runtime
from synthdiv.evaluate.suite import Evaluate
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.mix.filters import Duplicates, Filter, FilteredSet, Overlap
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.prompts.prompt_set import Prompts
from synthdiv.study.claims import DeclaredClaim
from synthdiv.study.generators import Generator, Generators, Judges, Student
from synthdiv.study.rounds import Rounds
from synthdiv.train.train import Train


class Kind(Enum):
    """Who writes the fine-tuning set; `none` is the vanilla student."""

    none = "none"
    human = "human"
    single = "single"
    multi = "multi"
    multi_decoding = "multi_decoding"
    single_matched = "single_matched"


SINGLES = (Kind.single, Kind.single_matched)


class By(Enum):
    """How the rows of one level of diversity differ from those of another."""

    selection = "selection"
    sampling = "sampling"
    paraphrase = "paraphrase"
    topics = "topics"


@dataclass
class Diversity:
    """How `mix.level` is reached."""

    by: By = By.selection
    """Selection from a pool, `generators.samples` answers to every train prompt (`mix.rows=null` is a quarter of these
    prompts); sampling; paraphrases in place of a share of the pairs; or pairs that are written on topics."""
    near: float = setting(1.0, above=0, most=1)
    """Selection: the share of the pool, nearest to the split `target`, that is chosen from: a bound on the shift."""
    pattern: str = ""
    """Selection: a regular expression whose last match in an answer and in the human one is its label; empty: none.
    The toy world knows what is right."""
    low: Sampling = field(default_factory=lambda: Sampling(0.5, 1.0))
    """Sampling: temperature, top-p and min-p at level 0."""
    wording: str = ""
    """Paraphrase, topics: what a generator is asked, with {prompt} and {response}, or with {topic}. It has to write
    `Question: …`, a new line, and `Answer: …`."""
    tries: int = setting(3, least=1)
    """Paraphrase, topics: pairs asked for each one needed, as some are identical, unreadable or held out."""
    topics: list[str] = field(default_factory=list)
    """Topics: level 0 has the first one, level 1 all."""
    high: Sampling = field(default_factory=lambda: Sampling(1.5, 1.0))
    """Sampling: those at level 1; between they are linear."""
    encoder: Checkpoint | None = None
    """Selection: a model of sentence-transformers whose vectors are compared; null: hashed n-grams of words. The suite
    `reached` measures with another one."""

    def check(self, name: str) -> list[str]:
        if self.encoder and self.by is not By.selection:
            return [f"{name}.encoder: is for {name}.by=selection, not {self.by.value}; set {name}.encoder=null"]
        if self.by is By.topics and len({*self.topics}) < max(2, len(self.topics)):
            return [f"{name}.topics={self.topics}: needs two or more different topics"]
        slots = {By.topics: ["{topic}"], By.paraphrase: ["{prompt}", "{response}"]}.get(self.by, [])
        return [f"{name}.wording={self.wording!r}: needs {slot}" for slot in slots if slot not in self.wording]

    def topics_at(self, level: float) -> list[str]:
        """The topics of a level; none otherwise."""
        return self.topics[: 1 + round(level * (len(self.topics) - 1))] if self.by is By.topics else []


@dataclass
class MixSpec:
    """Which source answers which prompt."""

    kind: Kind = Kind.multi
    """Who writes the fine-tuning set."""
    source: str | None = None
    """The one source of mix=single; null: the first; `every`: a cell of each. Other mixes ignore it."""
    weights: list[float] | None = None
    """Relative weights, one per generator, 0 leaves one out; null: equal."""
    rows: int | None = setting(None, least=1)
    """Prompts of the mix; null: every train prompt."""
    real_share: float = setting(0.0, least=0, most=1)
    """Share of the prompts with human answers."""
    real_rows: int | None = setting(None, least=1)
    """Number of prompts with human answers, the first ones, whatever is generated on top; null: `real_share` counts."""
    real_rotation: int = setting(0, least=0, seed=True)
    """Takes other prompts for the human rows and for a mix of fewer than all prompts; another one is a replicate."""
    rotation: int = setting(0, seed=True)
    """Shifts which source owns which shards; another rotation is a replicate."""
    sample: int = setting(0, seed=True)
    """Which of the `generators.samples` answers is taken; another one is a replicate."""
    leave_out: list[str] = field(default_factory=list)
    """Ids of prompts on which a source failed, left out whoever owns them; the same list in all cells compared."""
    filter: Filter = Filter.none
    """Rows that are left out by their answers: refusals, by their first words (a control for studies of safety). Train
    by `train.match=steps`, so that fewer rows are no smaller budget, or set `spare`."""
    duplicates: Duplicates = Duplicates.none
    """Answers of which only the first stays: `exact` but for case and white space, or `near` (word 3-grams, .8)."""
    min_words: int = setting(0, least=0)
    """Rows with shorter answers are left out; 1: empty answers."""
    max_words: int = setting(0, least=0)
    """Rows with longer answers are left out; 0: none."""
    overlap: Overlap = Overlap.report
    """Rows whose prompt or answer is nearly one of an evaluation set, those of suites included, are counted (`report`),
    left out (`remove`), or stop the build (`refuse`)."""
    spare: float = setting(0.0, least=0)
    """Further prompts that are answered, as a share of the rows, for the place of rows that filters remove; 0: none."""
    level: float | None = setting(None, least=0, most=1)
    """How diverse the generated rows are, 0 to 1, by `diversity`; null: selection takes random rows of its pool."""
    diversity: Diversity | None = None
    """How a level is reached; null: as the sources answer, or by selection where there is a level."""

    temperatures: list[float] = field(default_factory=lambda: [0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0])
    """Of mix=single_matched: those that are tried, and between which the one is that matches mix=multi."""
    tolerance: float = setting(0.05, least=0)
    """Of mix=single_matched: how far its NLL a token may be from that of mix=multi beyond chance, as a share."""

    def further(self, rows: int) -> int:
        """Further prompts of a block of so many rows: none where no filter removes a row."""
        filters = {name: getattr(self, name) for name in ("filter", "duplicates", "min_words", "max_words", "overlap")}
        return math.ceil(self.spare * rows) if FilteredSet(**filters).filters() else 0

    def diversity_of_level(self) -> Diversity | None:
        """How its level is reached; None without one."""
        return self.diversity or (None if self.level is None else Diversity())

    def sampled(self, generator: Generator) -> Generator:
        """A source with the sampling of the level."""
        diversity, level = self.diversity_of_level(), self.level or 0.0
        if not diversity or diversity.by is not By.sampling:
            return generator
        ends = {
            name: (getattr(diversity.low, name), getattr(diversity.high, name))
            for name in ("temperature", "top_p", "min_p")
        }
        at = {name: round(low + level * (high - low), 9) for name, (low, high) in ends.items()}
        return replace(generator, sampling=replace(generator.sampling, **at))

    def check(self, name: str) -> list[str]:
        by = self.diversity.by if self.diversity else By.selection
        if self.level is None and by is not By.selection:
            return [f"{name}.level=null: {name}.diversity.by={by.value} needs a level from 0 to 1"]
        degrees = self.temperatures
        if self.kind is Kind.single_matched and (len({*degrees}) < 2 or not all(0 < each <= 10 for each in degrees)):
            return [f"{name}.temperatures={degrees}: needs two or more different ones, above 0 and at most 10"]
        one = by in (By.paraphrase, By.topics) and self.kind not in (Kind.none, Kind.human, Kind.single)
        if one or (self.diversity_of_level() and self.kind is Kind.single_matched):
            return [f"{name}.kind={self.kind.value}: has no level by {by.value}; choose mix=single"]
        return []


class TrackerName(Enum):
    """Where finished cells are shown."""

    none = "none"
    wandb = "wandb"
    trackio = "trackio"


@dataclass
class Track:
    """Where finished cells are shown; never identity."""

    name: TrackerName = TrackerName.none
    """The tracker. W&B writes offline where there is no key."""
    project: str | None = None
    """The project; null: WANDB_PROJECT, else `synthdiv`."""
    entity: str | None = None
    """The account or team in W&B; null: WANDB_ENTITY, else the account's own."""
    samples: int = 50
    """Answers, and prompts with their scores, in the tables of each cell."""

    def check(self, name: str) -> list[str]:
        """The project is also the name of a folder of the outputs."""
        if re.fullmatch(r"(?!\.)[^/\\#?%:\0]{1,128}", "synthdiv" if self.project is None else self.project):
            return []
        needs = "needs 1 to 128 characters without / \\ # ? % : and without a leading dot"
        return [f"{name}.project={self.project!r}: {needs}"]


@dataclass
class Report:
    """What reports show; never identity."""

    measures: list[str] = field(default_factory=list)
    """Columns of the tables and figures; empty: the headline scores of the suites."""
    show_completions: bool = False
    """Whether `synthdiv trace` shows answers to requests for harm; nothing else ever shows them."""
    unmatched: bool = False
    """Declares that this cell trains on more or less than those it is compared with, by design."""
    claims: list[DeclaredClaim] = field(default_factory=list)
    """What the study sets out to show, written into the sweep at launch (docs/statistics.md)."""
    pilot: str = ""
    """A noise-floor sweep, whose variances say what the claims can detect; its replicates are used for nothing else."""


@dataclass
class Cell:
    """One point of the grid."""

    sweep: str = "default"
    """The name under which cells are kept together."""
    rerun: str = ""
    """A node that is built again on purpose: the first digits of its key (`4f1c`, or `train/4f1c`)."""
    prompts: Prompts = field(default_factory=Prompts)
    """The prompt set."""
    generators: Generators = field(default_factory=Generators)
    """The sources."""
    mix: MixSpec = field(default_factory=MixSpec)
    """Which source answers which prompt."""
    student: Student = field(default_factory=Student)
    """The model that is fine-tuned."""
    train: Train = field(default_factory=Train)
    """The recipe."""
    rounds: Rounds = field(default_factory=Rounds)
    """Turns of the loop in which students become sources."""
    evaluate: Evaluate = field(default_factory=Evaluate)
    """The evaluation."""
    judge: Judges = field(default_factory=Judges)
    """Who judges answers; suites without rubrics have none."""
    runtime: Runtime = field(default_factory=Runtime)
    """Where and how fast; never identity."""
    track: Track = field(default_factory=Track)
    """Where finished cells are shown."""
    report: Report = field(default_factory=Report)
    """What reports show."""

    def check(self, name: str) -> list[str]:
        """The rules between blocks."""
        problems = self.problems_of_servers()
        if self.mix.kind is not Kind.none:
            problems += self.train.problems_on(self.runtime)
        return [*problems, *filter(None, [problem_of_name(self.sweep)])]

    def problems_of_servers(self) -> list[str]:
        """Hosted models whose server is not described, or whose price a budget in money needs."""
        problems, servers = [], [server.name for server in self.runtime.servers]
        models: dict[str, Generator] = {f"generators.models.{at}": m for at, m in enumerate(self.generators.models)}
        models |= {f"judge.models.{at}": model for at, model in enumerate(self.judge.models)}
        for name, model in models.items():
            if model.backend is not Backend.api or not model.hosted:
                continue
            if model.hosted.server not in servers:
                problems.append(
                    f"{name}.hosted.server={model.hosted.server}: no such server in runtime.servers; choose "
                    f"{', '.join(servers) or 'a name and describe it there'}"
                )
            if self.runtime.budget_usd is not None and None in (model.facts.price_in, model.facts.price_out):
                problems.append(f"runtime.budget_usd: needs {name}.facts.price_in and price_out, USD a million tokens")
        return problems
