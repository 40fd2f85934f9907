"""A job file: all that a worker needs to build its nodes, frozen at launch. No configuration is composed again."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.core.ledger import NodeRecord
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import suite_class
from synthdiv.study.config import Track
from synthdiv.study.records import plain

FORMAT = 1
AGAIN = "type the command of the sweep again: it goes on where it stands"


@dataclass
class Job:
    """Nodes to build, in this order. `nodes` None: their keys come line by line from standard input, and what became of
    each goes to standard output. `graph` has them and all they stand on, inputs first; `attempts` the number of each
    node's next attempt; `requeues` how often a job that ran out of time may be queued again, `suites` the
    modules of the suites, whose stages are then known."""

    name: str
    sweep: str
    runtime: Runtime
    track: Track
    nodes: list[str] | None
    graph: list[NodeRecord]
    attempts: dict[str, int] = field(default_factory=dict)
    requeues: int = 0
    suites: list[str] = field(default_factory=list)
    format: int = FORMAT

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        row |= {"runtime": plain(self.runtime), "track": plain(self.track)}
        row["graph"] = [dataclasses.asdict(node) for node in self.graph]
        path.write_text(json.dumps(row), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Errors say what to do: a job file is written by a launch and never edited."""
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            found = row.get("format")
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path}: cannot be read as a job file ({error}); {AGAIN}") from error
        if found != FORMAT:
            raise ConfigError(f"{path}: is a job file of format {found}, this version reads {FORMAT}; {AGAIN}")
        try:
            return typed(cls, row)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: is not a job file of this version ({error!r}); {AGAIN}") from error

    def rebuilt(self) -> dict[str, Node]:
        """Every node of the graph by key. A key that comes out different was made by another version of a stage."""
        from synthdiv.study import pipeline  # noqa: F401  the stages of the pipeline are known once it is imported

        for module in self.suites:
            suite_class(module)
        known = sorted(Stage.__subclasses__(), key=lambda kind: kind.__module__.startswith("synthdiv."))
        kinds = {kind.name: kind for kind in known}  # of two with one name ours counts
        found: dict[str, Node] = {}
        for row in self.graph:
            if row.stage not in kinds:
                raise ConfigError(f"{row.stage} {row.key[:8]}: no such stage in this version of synthdiv; {AGAIN}")
            try:
                node = Node(typed(kinds[row.stage], row.fields), {name: found[key] for name, key in row.inputs.items()})
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ConfigError(
                    f"{row.stage} {row.key[:8]}: this version of synthdiv cannot read its fields ({error!r}); {AGAIN}"
                ) from error
            if node.key != row.key:
                raise ConfigError(
                    f"{row.stage} {row.key[:8]} was queued by another version of synthdiv, which gives it the key "
                    f"{node.key[:8]}; {AGAIN}"
                )
            found[row.key] = node
        return found


def typed(hint: Any, value: Any) -> Any:
    """JSON data as what the annotation `hint` says: dataclasses, enums, lists and optional ones of them."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
        return None if value is None else typed(hint, value)
    if typing.get_origin(hint) is list:
        return [typed(typing.get_args(hint)[0], item) for item in value]
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{name: typed(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    return value
