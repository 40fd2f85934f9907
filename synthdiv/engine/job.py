"""A job file: all that a worker needs to build its nodes, frozen at launch. No configuration is composed again."""

from __future__ import annotations

import dataclasses
import json
import secrets
import types
import typing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.core.fields import type_hints
from synthdiv.core.ledger import NodeRecord
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import suite_class
from synthdiv.study.config import Track
from synthdiv.study.records import plain

FORMAT = 1
RESUME = "type the command of the sweep again: it continues from what is built"


@dataclass
class Job:
    """Nodes to build, and what their builds may use."""

    name: str
    """Names the file of events, and begins the names of the workers of a launch."""
    sweep: str
    """The sweep in whose ledger the workers write."""
    runtime: Runtime
    """Where and how fast."""
    track: Track
    """Settings of the tracker."""
    nodes: list[str] | None
    """Keys in the order in which to build them. None: the launcher says on standard input what to build."""
    graph: list[NodeRecord]
    """These nodes and all that they depend on, inputs first."""
    attempts: dict[str, int] = field(default_factory=dict)
    """The number of the next attempt, by key; 1 where it is missing."""
    requeues: int = 0
    """How often a job that ran out of time may be queued again."""
    suites: list[str] = field(default_factory=list)
    """The modules of the suites, as the configuration names them: importing them makes their stages known."""
    secret: str = field(default_factory=secrets.token_hex)
    """What the ranks of this job know and others do not: the names by which they meet begin with it. Only the user may
    read the file."""
    format: int = FORMAT
    """Format of the file: another one is refused."""

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        row |= {"runtime": plain(self.runtime), "track": plain(self.track)}
        row["graph"] = list(map(vars, self.graph))
        path.touch(mode=0o600)
        path.write_text(json.dumps(row), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Errors say what to do: a job file is written by a launch and never edited."""
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            version = row.get("format")
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path}: cannot be read as a job file ({error}); {RESUME}") from error
        if version != FORMAT:
            raise ConfigError(f"{path}: is a job file of format {version}, this version reads {FORMAT}; {RESUME}")
        try:
            return typed(cls, row)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: is not a job file of this version ({error!r}); {RESUME}") from error

    def rebuilt(self) -> dict[str, Node]:
        """Every node of the graph by key. Raises ConfigError where this version of a stage gives another key."""
        from synthdiv.study import pipeline  # noqa: F401  the stages of the pipeline are known once it is imported

        for module in self.suites:
            suite_class(module)
        known = sorted(stages(Stage), key=lambda kind: kind.__module__.startswith("synthdiv."))
        kinds = {kind.name: kind for kind in known}  # ours wins where two have one name
        nodes: dict[str, Node] = {}
        for row in self.graph:
            label = f"{row.stage} {row.key[:8]}"
            if row.stage not in kinds:
                raise ConfigError(f"{label}: no such stage in this version of synthdiv; {RESUME}")
            try:
                node = Node(typed(kinds[row.stage], row.fields), {name: nodes[key] for name, key in row.inputs.items()})
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                message = f"{label}: this version of synthdiv cannot read its fields ({error!r}); {RESUME}"
                raise ConfigError(message) from error
            if node.key != row.key:
                reason = f"was queued by another version of synthdiv, which gives it the key {node.key[:8]}"
                raise ConfigError(f"{label} {reason}; {RESUME}")
            nodes[row.key] = node
        return nodes


def stages(kind: type[Stage]) -> list[type[Stage]]:
    """All subclasses that are imported."""
    return [each for inner in kind.__subclasses__() for each in (inner, *stages(inner))]


def typed(hint: Any, value: Any) -> Any:
    """JSON data as the type that the annotation `hint` names: dataclasses, enums, lists, and optional ones of them."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
        return None if value is None else typed(hint, value)
    if typing.get_origin(hint) is list:
        return [typed(typing.get_args(hint)[0], item) for item in value]
    if dataclasses.is_dataclass(hint):
        hints = type_hints(hint)  # type: ignore[arg-type]
        return hint(**{name: typed(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    return hint(value) if isinstance(hint, type) and issubclass(hint, Enum) else value
