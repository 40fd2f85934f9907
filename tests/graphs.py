"""Stages made for tests take any number of inputs."""

from __future__ import annotations

from dataclasses import dataclass, field

from synthdiv.core.stage import Node, Stage


@dataclass
class Taking(Stage):
    """A stage whose inputs are called input0, input1, …"""

    takes: int = field(default=0, kw_only=True)

    def input_names(self) -> list[str]:
        return [f"input{number}" for number in range(self.takes)]


def taking(stage: Taking, *inputs: Node) -> Node:
    """The node of a stage with these inputs."""
    stage.takes = len(inputs)
    return Node(stage, dict(zip(stage.input_names(), inputs, strict=True)))
