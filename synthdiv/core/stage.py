"""A stage is a plain dataclass; a node is a stage and the nodes it takes; a key is a hash of what both are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from synthdiv.core.types import Artifact, ConfigError, Run

MISSING = dataclasses.MISSING


def added(default: Any, before: Any) -> Any:
    """A field that older keys did not have: left out of the key while it equals `before`, what it stood for then."""
    return field(default=default, metadata={"before": before})


def locator(default: Any = None) -> Any:
    """A field that says where something is. `resolve` turns it into an identity field; it never enters a key."""
    return field(default=default, metadata={"locator": True})


class Stage:
    """One step of work. Subclasses are dataclasses; these constants carry no annotation, or they would be fields.

    `version` rises when the same fields give other bytes. `ranks` is `one` or `many`. `kept` are the names in a partial
    directory that a later builder may continue from. A `located` stage does no work: its artifact lies where it says.
    Nodes that open one `model` are best built in a row.
    """

    name = ""
    version = 1
    ranks = "one"
    kept = tuple[str, ...]()
    located = False
    model = False

    @property
    def kind(self) -> str:
        """What measured rates and cluster profiles call this stage: its name, unless it has several kinds."""
        return self.name

    def check(self) -> list[str]:
        """All problems of the fields, each starting with its dotted name."""
        return []

    def locate(self) -> Path | None:
        """Where the artifact of a `located` stage lies; None while it is not on this machine."""
        raise NotImplementedError

    def fetch(self) -> None:
        """Bring the artifact of a `located` stage to this machine."""

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        """Do the work, write it below `out`, return the summary for the manifest."""
        raise NotImplementedError


@cache
def _identity(kind: type) -> list[tuple[str, Any, Any]]:
    """Name, type and `before` (MISSING where there is none) of each field that can enter a key."""
    hints = _hints(kind)
    found = [(item.name, _plain_optional(hints[item.name]), item.metadata) for item in dataclasses.fields(kind)]
    return [(name, hint, facts.get("before", MISSING)) for name, hint, facts in found if not facts.get("locator")]


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _plain_optional(hint: Any) -> Any:
    if isinstance(hint, type):
        return hint
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def canonical(value: Any, hint: Any, where: str = "") -> Any:
    """`value` as JSON data that is equal exactly where the meaning is equal, typed by the annotation `hint`."""
    if value is None:
        return None
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return canonical_fields(value, where)
    hint = _plain_optional(hint)
    if isinstance(value, list | tuple):
        inner = (typing.get_args(hint) or (Any,))[0]
        return [canonical(item, inner, f"{where}.{index}") for index, item in enumerate(value)]
    if hint is float and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, float) and (not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0)):
        raise ConfigError(f"{where}={value!r}: NaN, infinity and -0.0 have no place in a key; give a number")
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{where}: {type(value).__name__} cannot be part of a key")


def canonical_fields(record: Any, where: str = "") -> dict[str, Any]:
    """The identity of a dataclass: its fields but locators, and but those that still equal their `before`."""
    kind: Any = type(record)
    out = dict[str, Any]()
    for name, hint, before in _identity(kind):
        value = getattr(record, name)
        if before is MISSING or value != before:
            out[name] = canonical(value, hint, f"{where}.{name}" if where else name)
    return out


def digest(data: Any) -> str:
    """SHA-256 of canonical JSON, hexadecimal."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, eq=False)
class Node:
    """A stage and the nodes whose artifacts it takes. Equal keys are the same node, whoever asks."""

    stage: Stage
    inputs: tuple[Node, ...] = ()

    @cached_property
    def key(self) -> str:
        fields = canonical_fields(self.stage, self.stage.name)
        return digest([self.stage.name, self.stage.version, fields, [node.key for node in self.inputs]])

    @property
    def label(self) -> str:
        return f"{self.stage.name} {self.key[:8]}"

    def ancestry(self) -> dict[str, Node]:
        """This node and all it stands on, by key, inputs before what takes them."""
        found: dict[str, Node] = {}
        self.gather(found)
        return found

    def gather(self, found: dict[str, Node]) -> None:
        """Add this node and all it stands on to `found`, inputs first; what is there stays."""
        if self.key not in found:
            for node in self.inputs:
                node.gather(found)
            found[self.key] = self
