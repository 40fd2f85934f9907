"""The schema of sources, judges and students: models with what they need, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from synthdiv.core.fields import listed_twice, locator, setting
from synthdiv.evaluate.rubric import Rubrics
from synthdiv.generate.hosted import Hosted
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.spec import JUDGES_ONLY, MODELLESS, Backend, Recorded, Sampling
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.gguf import Gguf
from synthdiv.models.load import Precision
from synthdiv.train.pretrain import Pretrain

EVERY = "every"  # the value of mix.source that stands for each generator
NO_JUDGES = (Backend.recorded, Backend.law)


@dataclass
class Facts:
    """What planning and reports know about a model. No stage reads it, and it enters no key."""

    family: str = ""
    """The model family, which tells `multi` from `multi_decoding`, and judges from what they judge."""
    base: str = ""
    """The checkpoint that it was made from; empty: its own hub name or path."""
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
class Model:
    """What sources, students and judges have in common."""

    name: str = ""
    """The name that is shown. That of a source is also a part of the random stream of its rows."""
    checkpoint: Checkpoint | None = None
    """An existing model; null: another block."""
    pretrain: Pretrain | None = None
    """A model trained from nothing; null: another block."""
    gguf: Gguf | None = None
    """A model in a GGUF file; null: another block."""
    facts: Facts = field(default_factory=Facts)
    """What planning and reports know about it."""


@dataclass
class Generator(Model):
    """One source of answers, with the block that its backend needs."""

    backend: Backend = Backend.hf
    """What runs it; docs/generators.md says which of the blocks `checkpoint`, `pretrain`, `gguf`, `hosted`, `recorded`
    and `law` it needs."""
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

    def check(self, name: str) -> list[str]:
        problems = []
        needs = {Backend.recorded: ["recorded"], Backend.api: ["hosted"], Backend.law: ["law"]}
        blocks = [
            block for block in ("checkpoint", "pretrain", "gguf", "hosted", "recorded", "law") if getattr(self, block)
        ]
        required_blocks = needs.get(self.backend, ["checkpoint", "pretrain", "gguf"])
        if self.backend in JUDGES_ONLY and not isinstance(self, Judge):
            problems.append(
                f"{name}.backend={self.backend.value}: answers for judges only; choose {others(JUDGES_ONLY)}"
            )
        elif self.backend in MODELLESS and self.backend is not Backend.recorded:
            problems += [f"{name}.{block}: backend {self.backend.value} runs no model" for block in blocks]
        elif len(blocks) != 1 or blocks[0] not in required_blocks:
            problems.append(
                f"{name}.backend={self.backend.value}: needs exactly one of {', '.join(required_blocks)}; "
                f"given: {', '.join(blocks) or 'none'}"
            )
        how = self.sampling
        if self.backend is Backend.law and (how.top_k or how.min_p or how.repetition_penalty != 1 or how.stop):
            problems.append(f"{name}.sampling: backend law has temperature, top_p and max_new_tokens only")
        if self.name in ("", "human", EVERY) or "/" in self.name:
            problems.append(f"{name}.name={self.name!r}: needs a name without a slash that is not 'human' or {EVERY!r}")
        return problems


def others(backends: tuple[Backend, ...]) -> str:
    return ", ".join(each.value for each in Backend if each not in backends)


@dataclass
class Judge(Generator):
    """One judge: a generator of verdicts."""

    backend: Backend = Backend.logits
    """What runs it."""
    headline: bool = True
    """A member of the panel whose mean is the headline: unrelated to student, sources and the other members."""

    def check(self, name: str) -> list[str]:
        if self.backend in NO_JUDGES:
            return [f"{name}.backend={self.backend.value}: a judge has {others(NO_JUDGES)}"]
        if self.name in ("panel", "student"):
            return [f"{name}.name={self.name!r}: scores have this name for the panel, or for the student as a judge"]
        return super().check(name)


@dataclass
class Judges:
    """Who judges answers, and what is asked. Suites say which rubrics they ask."""

    models: list[Judge] = field(default_factory=list)
    """The judges."""
    rubrics: Rubrics = field(default_factory=Rubrics)
    """The wording of what they are asked."""
    top_logprobs: int = setting(5, least=0, most=20)
    """Of so many first tokens servers (vllm, api) report the probability; 0: their text alone counts."""

    def check(self, name: str) -> list[str]:
        return listed_twice(f"{name}.models", (model.name for model in self.models), "judges")


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
        problems = listed_twice(f"{name}.models", (model.name for model in self.models), "sources")
        if self.top_logprobs and any(model.backend is Backend.hf for model in self.models):
            problems.append(f"{name}.top_logprobs: only servers give them (backend vllm or api); set it to 0 for hf")
        if self.grade != Grade() and not any(model.law for model in self.models):
            problems.append(f"{name}.grade: only sources of backend law have a grade; choose generators=toy")
        return problems


@dataclass
class Student(Model):
    """The model that is fine-tuned: an existing checkpoint, or one trained from nothing."""

    def check(self, name: str) -> list[str]:
        if sum(map(bool, (self.checkpoint, self.pretrain, self.gguf))) != 1:
            return [f"{name}.checkpoint, {name}.pretrain, {name}.gguf: give one of the three"]
        return []
