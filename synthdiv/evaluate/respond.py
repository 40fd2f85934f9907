"""How students answer for evaluation: decodings, samples, and the suites that measure the answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.evaluate.suite import own_suites, suite_class
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.models.load import Precision


@dataclass
class Decoding:
    """A named way of answering test prompts."""

    name: str = ""
    """The name, which prefixes the scores of its answers."""
    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are drawn."""


def study_decodings() -> list[Decoding]:
    """S1's decoding, and temperature 1 with top-p 1 beside it, because top-p hides the tail."""
    return [Decoding("published", Sampling(0.7, 0.9)), Decoding("plain", Sampling(1.0, 1.0))]


@dataclass
class Respond:
    """Answers of students to the test prompts."""

    decodings: list[Decoding] = field(default_factory=study_decodings)
    """Every decoding answers all test prompts."""
    samples: int = setting(8, least=1)
    """Answers to each of the first `subset` prompts; the others get one."""
    subset: int = setting(100, least=0)
    """Prompts of the stratified order that get several answers."""
    seed: int = setting(0, seed=True)
    """Seed of the answers' random streams."""

    def check(self, name: str) -> list[str]:
        names = [decoding.name for decoding in self.decodings]
        if len(set(names)) == len(names) and all(names) and not any("/" in each for each in names):
            return []
        return [f"{name}.decodings: need different names without a slash; have {names}"]


@dataclass
class Evaluate:
    """The evaluation of every student, tuned or vanilla."""

    respond: Respond = field(default_factory=Respond)
    """Answers to the test prompts."""
    suites: list[Any] = field(default_factory=list)
    """The suites, each `{suite: NAME, FIELD: VALUE, …}`; their fields are on their own pages."""
    backend: Backend = Backend.hf
    """What runs students: hf or vllm."""
    precision: Precision = Precision.fp32
    """The format of the weights."""
    batch_tokens: int = setting(16384, least=1)
    """Bound on rows × (prompt + answer) of a batch."""

    def check(self, name: str) -> list[str]:
        wrong = []
        if self.backend not in (Backend.hf, Backend.vllm):
            wrong.append(f"{name}.backend={self.backend.value}: a student answers by hf or vllm")
        for index, suite in enumerate(self.suites):
            if type(suite) is not suite_class(suite.suite):
                wrong.append(
                    f"{name}.suites.{index}.suite={suite.suite}: the item has the fields of another suite; "
                    f"set {name}.suites"
                )
        if not self.suites:
            wrong.append(f"{name}.suites=[]: needs at least one suite; choose {', '.join(own_suites())}")
        modules = [suite.suite for suite in self.suites]
        for module in sorted({module for module in modules if modules.count(module) > 1}):
            wrong.append(f"{name}.suites: {module} is listed twice; a cell has each suite once")
        return wrong
