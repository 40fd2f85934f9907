"""Answers from vLLM in a process of its own."""

from __future__ import annotations

from typing import Any

from synthdiv.generate.answer import Answers, Shard
from synthdiv.runtime import Runtime
from synthdiv.types import Artifact


def serve(artifact: Artifact, precision: str, runtime: Runtime) -> Any:
    raise NotImplementedError


def answers(shard: Shard) -> Answers:
    raise NotImplementedError
