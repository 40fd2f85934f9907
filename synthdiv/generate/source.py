"""A source is a name with a model inside: a generator, a student under evaluation, or a judge."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from synthdiv.core.stage import Node
from synthdiv.generate.generate import Generate
from synthdiv.generate.spec import MODELLESS, Backend, LongPrompt, Recorded, Sampling
from synthdiv.models.load import Precision


@dataclass(frozen=True)
class Source:
    """Who answers prompts, and how. `model` is the node of its model; None for recorded answers. `temperature` is the
    node that tunes that of `sampling`."""

    name: str
    backend: Backend = Backend.hf
    model: Node | None = None
    recorded: Recorded | None = None
    sampling: Sampling = field(default_factory=Sampling)
    precision: Precision = Precision.fp32
    seed: int = 0
    batch_tokens: int = 16384
    top_logprobs: int = 0
    temperature: Node | None = None

    def answers(self, prompts: Node, samples: int = 1, **which: Any) -> Node:
        """The node of its answers to prompts: `which` are the fields of `Generate` that select them. Only what the
        backend uses becomes identity."""
        if self.backend in MODELLESS:  # nothing is sampled
            stage = Generate(self.name, self.backend, self.recorded, samples=samples, **which)
            return Node(stage, {"prompts": prompts})
        assert self.model, "every other backend runs a model"
        inputs = {"prompts": prompts, "model": self.model}
        if self.backend is Backend.logits:  # nothing is sampled either
            read: dict[str, Any] = {"precision": self.precision, "batch_tokens": self.batch_tokens}
            return Node(Generate(self.name, self.backend, **read, **which), inputs)
        used: dict[str, Any] = {"sampling": self.sampling, "seed": self.seed, "samples": samples}
        if self.backend in (Backend.api, Backend.law):  # the server decides what does not fit; a law takes any prompt
            used["sampling"] = replace(self.sampling, overlong=LongPrompt.error)
        else:
            used["precision"] = self.precision
        if self.backend is Backend.hf:  # servers cut batches of their own
            used["batch_tokens"] = self.batch_tokens
        elif self.backend is not Backend.law:
            used["top_logprobs"] = self.top_logprobs
        if self.temperature:
            used["tuned"], inputs["temperature"] = True, self.temperature
        return Node(Generate(self.name, self.backend, **used, **which), inputs)
