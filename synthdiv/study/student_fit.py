"""Whether checkpoints that are on this machine fit their recipe: targets of an adapter, and the context length."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from synthdiv.core.stage import Node
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.weights import context_length, linear_paths
from synthdiv.train.adapter import unknown_targets
from synthdiv.train.recipe import Method
from synthdiv.train.train import Train


def unfit(nodes: Iterable[Node]) -> list[str]:
    """Problems of recipes with the students that they train."""
    facts, problems = dict[str, tuple[int | None, list[str]]](), dict[str, None]()
    for node in nodes:
        stage, student = node.stage, node.inputs.get("student")
        if not isinstance(stage, Train) or not student or not isinstance(student.stage, Checkpoint):
            continue
        if student.key not in facts:  # cells have equal nodes of their own
            facts[student.key] = facts_of(student)
        context, paths = facts[student.key]
        if context and stage.max_tokens > context:
            problems[
                f"train.max_tokens={stage.max_tokens}: the context of {student.stage.path or student.stage.hub} is "
                f"{context} tokens; lower train.max_tokens to that, or choose another student"
            ] = None
        if stage.method is not Method.full and paths:
            problem = unknown_targets(stage.lora.targets, paths, exact=False)
            problems |= {problem: None} if problem else {}
    return list(problems)


def facts_of(student: Node) -> tuple[int | None, list[str]]:
    """Context length and linear layers; nothing where the checkpoint is not on this machine."""
    folder: Path | None = student.stage.locate()
    return (context_length(folder), linear_paths(folder)) if folder else (None, [])
