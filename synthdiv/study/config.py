"""The schema of a cell: every group of `conf/` is a field, every field a key of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from synthdiv.core.runtime import Runtime
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import Precision
from synthdiv.prompts.prompt_set import Prompts
from synthdiv.train.pretrain import Pretrain
from synthdiv.train.train import Train


@dataclass
class Facts:
    """What planning and reports know of a model and no stage reads. `parameters` is a count, prices are USD per million
    tokens, `size_class` is ordinal."""

    family: str = ""
    parameters: float | None = None
    size_class: str = ""
    licence: str = ""
    price_in: float | None = None
    price_out: float | None = None


@dataclass
class Generator:
    """One source of answers. `hf` and `vllm` need `checkpoint` or `pretrain`, `api` needs `hosted`, `recorded` needs
    `recorded`."""

    name: str = ""
    backend: Backend = Backend.hf
    checkpoint: Checkpoint | None = None
    pretrain: Pretrain | None = None
    hosted: Hosted | None = None
    recorded: Recorded | None = None
    sampling: Sampling = field(default_factory=Sampling)
    precision: Precision = Precision.fp32
    facts: Facts = field(default_factory=Facts)

    def check(self, name: str) -> list[str]:
        problems = self.sampling.check(f"{name}.sampling")
        blocks = {Backend.recorded: ["recorded"], Backend.api: ["hosted"]}
        given = [block for block in ("checkpoint", "pretrain", "hosted", "recorded") if getattr(self, block)]
        wanted = blocks.get(self.backend, ["checkpoint", "pretrain"])
        if len(given) != 1 or given[0] not in wanted:
            problems.append(
                f"{name}.backend={self.backend.value}: needs exactly one of {', '.join(wanted)}; "
                f"given: {', '.join(given) or 'none'}"
            )
        if self.pretrain:
            problems += self.pretrain.check(f"{name}.pretrain")
        if self.checkpoint:
            problems += [f"{name}.{problem}" for problem in self.checkpoint.check()]
        if self.hosted:
            problems += [f"{name}.{problem}" for problem in self.hosted.check()]
        if self.recorded:
            problems += self.recorded.check(f"{name}.recorded")
        if self.name in ("", "human") or "/" in self.name:
            problems.append(f"{name}.name={self.name!r}: needs a name without a slash that is not 'human'")
        return problems


@dataclass
class Generators:
    """The sources of a mix, in the order that rotation turns. Rows are answered in shards of at most `shard_rows`, each
    prompt `samples` times.

    `batch_tokens` bounds rows × (prompt + answer) of a generation batch: which rows share a batch can change the last
    bits of their logits, so it is identity. `path` is the file that recorded sources may name as theirs, `backend` what
    local models may. `top_logprobs` asks servers for the log-probabilities of that many tokens at each place. `overlap`
    and `shift` speak to toy families alone: the share of the human law in each family's, and the share of the last
    family's speech that no human uses (the first has none, those between in proportion).
    """

    models: list[Generator] = field(default_factory=list)
    path: str | None = None
    backend: Backend = Backend.hf
    seed: int = 0
    shard_rows: int = 256
    samples: int = 1
    top_logprobs: int = 0
    batch_tokens: int = 16384
    overlap: float = 0.0
    shift: float = 0.0

    def check(self) -> list[str]:
        problems = []
        for index, model in enumerate(self.models):
            problems += model.check(f"generators.models.{index}")
        names = [model.name for model in self.models]
        for name in sorted({name for name in names if names.count(name) > 1}):
            problems.append(f"generators.models: the name {name!r} stands twice; sources are told apart by name")
        if self.shard_rows < 1 or self.batch_tokens < 1 or self.samples < 1:
            problems.append("generators.shard_rows, generators.batch_tokens and generators.samples: need 1 or more")
        if not 0 <= self.top_logprobs <= 20:
            problems.append(f"generators.top_logprobs={self.top_logprobs}: needs 0 (none) to 20")
        if self.top_logprobs and any(model.backend is Backend.hf for model in self.models):
            problems.append("generators.top_logprobs: only servers give them (backend vllm or api); set it to 0 for hf")
        if not 0 <= self.overlap <= 1 or not 0 <= self.shift <= 1:
            problems.append(f"generators.overlap={self.overlap}, generators.shift={self.shift}: need 0 to 1")
        if (self.overlap or self.shift) and not any(model.pretrain and model.pretrain.toy for model in self.models):
            problems.append("generators.overlap, generators.shift: only toy families have them; set them to 0")
        return problems


class Kind(Enum):
    """Who writes the fine-tuning set; `none` leaves the student untouched."""

    none = "none"
    human = "human"
    single = "single"
    multi = "multi"
    multi_decoding = "multi_decoding"


@dataclass
class MixSpec:
    """`source` names the one source of `single` (null: the first). `weights` are relative, one per generator (null:
    equal). `rows` null takes every train prompt. `rotation` shifts which source owns which shards. `sample` is which of
    the `generators.samples` answers of a source is taken: another one is a replicate."""

    kind: Kind = Kind.multi
    source: str | None = None
    weights: list[float] | None = None
    rows: int | None = None
    real_share: float = 0.0
    rotation: int = 0
    sample: int = 0


@dataclass
class Student:
    """The model that is fine-tuned: an existing checkpoint, or one trained from nothing."""

    name: str = ""
    checkpoint: Checkpoint | None = None
    pretrain: Pretrain | None = None
    facts: Facts = field(default_factory=Facts)

    def check(self) -> list[str]:
        problems = []
        if bool(self.checkpoint) == bool(self.pretrain):
            problems.append("student.checkpoint, student.pretrain: give one of the two")
        if self.pretrain:
            problems += self.pretrain.check("student.pretrain")
        if self.checkpoint:
            problems += [f"student.{problem}" for problem in self.checkpoint.check()]
        return problems


@dataclass
class Decoding:
    """A named way of answering test prompts."""

    name: str = ""
    sampling: Sampling = field(default_factory=Sampling)


def study_decodings() -> list[Decoding]:
    """S1's decoding, and the plain one beside it, because top-p hides the tail (science.md, 4)."""
    return [Decoding("published", Sampling(0.7, 0.9)), Decoding("plain", Sampling(1.0, 1.0))]


@dataclass
class Respond:
    """Answers for evaluation: `samples` to each of the first `subset` test prompts, one to each other."""

    decodings: list[Decoding] = field(default_factory=study_decodings)
    samples: int = 8
    subset: int = 100
    seed: int = 0


@dataclass
class Evaluate:
    """`words` and `texts` are the budgets of the collapse measures: words in all, and words of each answer. `encoder`
    is a model of sentence-transformers, without which nothing semantic is measured. `truth_prompts` is how many toy
    prompts are enumerated whole. Students answer by `backend` hf or vllm."""

    respond: Respond = field(default_factory=Respond)
    backend: Backend = Backend.hf
    precision: Precision = Precision.fp32
    batch_tokens: int = 16384
    words: int = 10000
    texts: int = 50
    encoder: Checkpoint | None = None
    seed: int = 0
    truth_prompts: int = 16

    def check(self) -> list[str]:
        problems = []
        names = [decoding.name for decoding in self.respond.decodings]
        for index, decoding in enumerate(self.respond.decodings):
            problems += decoding.sampling.check(f"evaluate.respond.decodings.{index}.sampling")
        if len(set(names)) < len(names) or not all(names) or any("/" in name for name in names):
            problems.append(f"evaluate.respond.decodings: need names, each once and without a slash; have {names}")
        if self.respond.samples < 1 or self.respond.subset < 0:
            problems.append("evaluate.respond: needs samples ≥ 1 and subset ≥ 0")
        if self.backend not in (Backend.hf, Backend.vllm):
            problems.append(f"evaluate.backend={self.backend.value}: a student answers by hf or vllm")
        if self.seed < 0:
            problems.append(f"evaluate.seed={self.seed}: needs 0 or more")
        if self.encoder:
            problems += [problem.replace("checkpoint.", "evaluate.encoder.") for problem in self.encoder.check()]
        for name in ("batch_tokens", "words", "texts", "truth_prompts"):
            if getattr(self, name) < 1:
                problems.append(f"evaluate.{name}={getattr(self, name)}: needs 1 or more")
        return problems


class TrackerName(Enum):
    """Where finished cells are shown."""

    none = "none"
    wandb = "wandb"


@dataclass
class Track:
    """`project`, `entity` and `samples` (answers in the table) are for W&B; without a key it writes offline."""

    name: TrackerName = TrackerName.none
    project: str = "synthdiv"
    entity: str | None = None
    samples: int = 50


@dataclass
class Report:
    """What is shown; never identity. `measures` are the columns of the tables (empty: the key measures). `unmatched`
    declares that this cell trains on more or less than those it is compared with, by design."""

    measures: list[str] = field(default_factory=list)
    unmatched: bool = False


@dataclass
class Cell:
    """One point of the grid. `sweep` is the name under which cells are kept together; `rerun` names a node that is
    built anew on purpose, by the first digits of its key (`4f1c`, or `train/4f1c`)."""

    sweep: str = "default"
    rerun: str = ""
    prompts: Prompts = field(default_factory=Prompts)
    generators: Generators = field(default_factory=Generators)
    mix: MixSpec = field(default_factory=MixSpec)
    student: Student = field(default_factory=Student)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    runtime: Runtime = field(default_factory=Runtime)
    track: Track = field(default_factory=Track)
    report: Report = field(default_factory=Report)

    def check(self) -> list[str]:
        """All problems of the fields of this cell, each with its dotted name."""
        problems: list[str] = []
        for part in (self.prompts, self.generators, self.student, self.train, self.evaluate, self.runtime):
            problems += part.check()
        problems += self.problems_of_servers()
        if self.mix.kind is not Kind.none:
            problems += self.train.problems_on(self.runtime)
        if not self.sweep or "/" in self.sweep or self.sweep.startswith("."):
            problems.append(f"sweep={self.sweep!r}: needs a name without a slash and without a leading dot")
        return problems

    def problems_of_servers(self) -> list[str]:
        """Hosted models whose server nobody described, or whose price a budget in money would need."""
        problems, known = [], [server.name for server in self.runtime.servers]
        for index, model in enumerate(self.generators.models):
            if model.backend is not Backend.api or not model.hosted:
                continue
            name = f"generators.models.{index}"
            if model.hosted.server not in known:
                told = ", ".join(known) or "none"
                problems.append(
                    f"{name}.hosted.server={model.hosted.server}: no such server in runtime.servers; there are {told}"
                )
            prices = (model.facts.price_in, model.facts.price_out)
            if self.runtime.budget_usd is not None and None in prices:
                problems.append(
                    f"runtime.budget_usd: needs {name}.facts.price_in and price_out, USD per million tokens"
                )
        return problems
