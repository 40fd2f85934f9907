"""The schema of a cell: every group of `conf/` is a field, every field a key of the command line."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from synthdiv.core.fields import locator, setting
from synthdiv.core.ledger import problem_of_name
from synthdiv.core.runtime import Runtime
from synthdiv.evaluate.respond import Evaluate
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import Precision
from synthdiv.prompts.prompt_set import Prompts
from synthdiv.train.pretrain import Pretrain
from synthdiv.train.train import Train


@dataclass
class Facts:
    """What planning and reports know about a model. No stage reads it, and it enters no key."""

    family: str = ""
    """The model family, which tells `multi` from `multi_decoding`."""
    parameters: float | None = None
    """Number of weights; null: unknown, so a plan cannot estimate its hours."""
    size_class: str = ""
    """An ordinal size, like small, medium or large."""
    licence: str = ""
    """The licence of the weights or the terms of the server."""
    price_in: float | None = None
    """USD per million prompt tokens; null: unknown."""
    price_out: float | None = None
    """USD per million new tokens; null: unknown."""


@dataclass
class Generator:
    """One source of answers, with the block that its backend needs."""

    name: str = ""
    """The name of the source, part of each row's random stream."""
    backend: Backend = Backend.hf
    """What runs it: hf and vllm need `checkpoint` or `pretrain`, the others the block of their name (api: `hosted`)."""
    checkpoint: Checkpoint | None = None
    """An existing model; null: another block."""
    pretrain: Pretrain | None = None
    """A model trained from nothing; null: another block."""
    hosted: Hosted | None = None
    """A model behind a server; null: another block."""
    recorded: Recorded | None = None
    """Answers in a file; null: another block."""
    law: Family | None = None
    """A family of the toy world, by its law; null: another block."""
    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are drawn."""
    precision: Precision = Precision.fp32
    """The format of the weights."""
    facts: Facts = field(default_factory=Facts)
    """What planning and reports know about it."""

    def check(self, name: str) -> list[str]:
        problems = []
        needs = {Backend.recorded: ["recorded"], Backend.api: ["hosted"], Backend.law: ["law"]}
        given = [block for block in ("checkpoint", "pretrain", "hosted", "recorded", "law") if getattr(self, block)]
        wanted = needs.get(self.backend, ["checkpoint", "pretrain"])
        if len(given) != 1 or given[0] not in wanted:
            problems.append(
                f"{name}.backend={self.backend.value}: needs exactly one of {', '.join(wanted)}; "
                f"given: {', '.join(given) or 'none'}"
            )
        how = self.sampling
        if self.backend is Backend.law and (how.top_k or how.min_p or how.repetition_penalty != 1 or how.stop):
            problems.append(f"{name}.sampling: backend law has temperature, top_p and max_new_tokens only")
        if self.name in ("", "human", EVERY) or "/" in self.name:
            problems.append(f"{name}.name={self.name!r}: needs a name without a slash that is not 'human' or {EVERY!r}")
        return problems


@dataclass
class Generators:
    """The sources of a mix."""

    models: list[Generator] = field(default_factory=list)
    """The sources, in the order that `mix.rotation` shifts."""
    path: str | None = locator()
    """A file that recorded sources may refer to."""
    backend: Backend = Backend.hf
    """A backend that presets of local models may refer to."""
    seed: int = setting(0, seed=True)
    """Seed of the rows' random streams."""
    shard_rows: int = setting(256, least=1)
    """The most prompts of a shard, the unit of work and of reuse."""
    samples: int = setting(1, least=1)
    """Answers to each prompt."""
    top_logprobs: int = setting(0, least=0, most=20)
    """Log-probabilities of that many tokens at each place, from servers (vllm, api); 0: none."""
    batch_tokens: int = setting(16384, least=1)
    """Bound on rows × (prompt + answer) of a batch of backend hf: which rows share a batch can change last bits."""
    overlap: float = setting(0.5, least=0, most=1)
    """Share of the human law in the speech of each toy family; 1: all families speak the human law (the null)."""
    shift: float = setting(0.0, least=0, most=1)
    """Share of the last toy family's speech that no human uses; the first has none, those between in proportion."""
    grade: Grade = field(default_factory=Grade)
    """How much worse toy families answer than their law; only those of backend law have a grade."""

    def check(self, name: str) -> list[str]:
        problems = []
        twice = sorted(source for source, count in Counter(model.name for model in self.models).items() if count > 1)
        problems += [f"{name}.models: {source!r} is listed twice; sources need different names" for source in twice]
        if self.top_logprobs and any(model.backend is Backend.hf for model in self.models):
            problems.append(f"{name}.top_logprobs: only servers give them (backend vllm or api); set it to 0 for hf")
        if self.grade != Grade() and not any(model.law for model in self.models):
            problems.append(f"{name}.grade: only sources of backend law have a grade; choose generators=toy")
        return problems


EVERY = "every"  # the value of mix.source that stands for each generator


class Kind(Enum):
    """Who writes the fine-tuning set; `none` is the vanilla student."""

    none = "none"
    human = "human"
    single = "single"
    multi = "multi"
    multi_decoding = "multi_decoding"


@dataclass
class MixSpec:
    """Which source answers which prompt."""

    kind: Kind = Kind.multi
    """Who writes the fine-tuning set."""
    source: str | None = None
    """The one source of mix=single; null: the first; `every`: a cell of each. Other mixes ignore it."""
    weights: list[float] | None = None
    """Relative weights, one per generator; null: equal."""
    rows: int | None = setting(None, least=1)
    """Prompts of the mix; null: every train prompt."""
    real_share: float = setting(0.0, least=0, most=1)
    """Share of the prompts with human answers."""
    rotation: int = setting(0, seed=True)
    """Shifts which source owns which shards; another rotation is a replicate."""
    sample: int = setting(0, seed=True)
    """Which of the `generators.samples` answers is taken; another one is a replicate."""
    leave_out: list[str] = field(default_factory=list)
    """Ids of prompts on which a source failed, left out whoever owns them; the same list in all cells compared."""


@dataclass
class Student:
    """The model that is fine-tuned: an existing checkpoint, or one trained from nothing."""

    name: str = ""
    """The name shown."""
    checkpoint: Checkpoint | None = None
    """An existing model; null: `pretrain`."""
    pretrain: Pretrain | None = None
    """A model trained from nothing; null: `checkpoint`."""
    facts: Facts = field(default_factory=Facts)
    """What planning and reports know about it."""

    def check(self, name: str) -> list[str]:
        if bool(self.checkpoint) == bool(self.pretrain):
            return [f"{name}.checkpoint, {name}.pretrain: give one of the two"]
        return []


class TrackerName(Enum):
    """Where finished cells are shown."""

    none = "none"
    wandb = "wandb"


@dataclass
class Track:
    """Where finished cells are shown; never identity."""

    name: TrackerName = TrackerName.none
    """The tracker. W&B writes offline where there is no key."""
    project: str = "synthdiv"
    """The project in W&B."""
    entity: str | None = None
    """The account or team in W&B; null: the account's own."""
    samples: int = 50
    """Answers in the table of each cell."""

    def check(self, name: str) -> list[str]:
        """The project is also the name of a folder of the outputs."""
        if re.fullmatch(r"(?!\.)[^/\\#?%:\0]{1,128}", self.project):
            return []
        needs = "needs 1 to 128 characters without / \\ # ? % : and without a leading dot"
        return [f"{name}.project={self.project!r}: {needs}"]


@dataclass
class Report:
    """What reports show; never identity."""

    measures: list[str] = field(default_factory=list)
    """Columns of the tables and figures; empty: the headline scores of the suites."""
    unmatched: bool = False
    """Declares that this cell trains on more or less than those it is compared with, by design."""


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
    evaluate: Evaluate = field(default_factory=Evaluate)
    """The evaluation."""
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
        for index, model in enumerate(self.generators.models):
            if model.backend is not Backend.api or not model.hosted:
                continue
            name = f"generators.models.{index}"
            if model.hosted.server not in servers:
                problems.append(
                    f"{name}.hosted.server={model.hosted.server}: no such server in runtime.servers; choose "
                    f"{', '.join(servers) or 'a name and describe it there'}"
                )
            if self.runtime.budget_usd is not None and None in (model.facts.price_in, model.facts.price_out):
                problems.append(f"runtime.budget_usd: needs {name}.facts.price_in and price_out, USD a million tokens")
        return problems
