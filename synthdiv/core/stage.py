"""A stage is a plain dataclass; a node is a stage and its named inputs; a key is a hash of what both are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

from synthdiv.core.fields import MISSING, dotted, type_hints, without_none
from synthdiv.core.runtime import Runtime
from synthdiv.core.types import Artifact, ConfigError, Run

CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
PLAIN = (str, int, bool, type(None))  # types of values that JSON has as they are
PROMPT_TOKENS, ANSWER_TOKENS = 100, 200  # what planning assumes where no manifest was measured


class Measured(Protocol):
    """Averages over finished artifacts, for planning."""

    def ratio(self, kind: str, numerator: str, denominator: str, model: str = "") -> float | None:
        """The sum of one number of the summaries of stages of `kind` divided by that of another; of the model with this
        key alone where it has any. None where nothing was measured."""


@dataclass(frozen=True)
class Work:
    """What building a node takes, as far as a plan can know: `units` of the stage's `unit`, and tokens that a model
    samples, reads and trains on."""

    units: float = 1.0
    new_tokens: float = 0.0
    read_tokens: float = 0.0
    trained_tokens: float = 0.0


class Stage:
    """One step of work. Subclasses are dataclasses; these constants carry no annotation, or they would be fields.

    - `version` rises when the same fields give other bytes.
    - `ranks` is `one` or `many`.
    - `kept` are the names in a partial directory that a later builder may continue from.
    - A `located` stage does no work: its artifact lies where its fields say.
    - `model` says that the artifact is a model: nodes that open one model are best built in a row.
    - `model_input` names the input that is the model which the stage runs or trains; its size decides the rate.
    - `unit` is the number of the summary that rates and sizes are measured for one of; empty: the node itself.
    - `bytes_per_unit` is what planning assumes for the artifact where nothing was measured.
    - `less_memory` says what a user can lower when the stage runs out of memory.
    - `confidential`: only the owner may read its files, and those of stages with `shows_texts` that take them: their
      outputs contain texts of their inputs.
    - `quotes_models` says of a prompt set that its prompts quote what models wrote.
    """

    name = ""
    version = 1
    ranks = "one"
    kept = tuple[str, ...]()
    located = False
    model = False
    model_input = ""
    unit = ""
    bytes_per_unit = 3e5
    less_memory = "it needs a machine with more memory"
    confidential = False
    shows_texts = False
    quotes_models = False

    @property
    def kind(self) -> str:
        """What measured rates and cluster profiles call this stage: its name, unless it has several kinds."""
        return self.name

    @property
    def trained_share(self) -> float:
        """Of a stage that trains a model: trained weights as a share of all."""
        return 1.0

    def parameters(self) -> float | None:
        """Of a stage whose artifact is a model: how many weights it has; None where only `facts` can say it."""
        return None

    def devices(self, runtime: Runtime) -> int:
        """On how many devices it works at once; 0: on none of ours."""
        return 1

    def input_names(self) -> Iterable[str]:
        """The names of all inputs, in the order in which they enter the key."""
        return ()

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        """What building this stage on `inputs` takes."""
        return Work()

    def together(self, inputs: Mapping[str, Node], runtime: Runtime) -> int:
        """How many nodes of this stage that take the same model one process builds at a time."""
        return 1

    def locate(self) -> Path | None:
        """Where the artifact of a `located` stage lies; None while it is not on this machine."""
        raise NotImplementedError

    def fetch(self) -> None:
        """Bring the artifact of a `located` stage to this machine."""

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        """Do the work, write it below `out`, return the summary for the manifest."""
        raise NotImplementedError


@cache
def _identity(kind: type) -> list[tuple[str, Any, Any]]:
    """Name, type and `before` (MISSING where there is none) of each field that can enter a key."""
    hints = type_hints(kind)
    fields = [(item.name, without_none(hints[item.name]), item.metadata) for item in dataclasses.fields(kind)]
    return [(name, hint, facts.get("before", MISSING)) for name, hint, facts in fields if not facts.get("locator")]


def canonical(value: Any, hint: Any, where: str) -> Any:
    """`value` as JSON data that is equal exactly where the meaning is equal, typed by the annotation `hint`."""
    if value is None:
        return None
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return canonical_fields(value, where)
    hint = without_none(hint)
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
            plain = type(value) in PLAIN and hint is not float
            out[name] = value if plain else canonical(value, hint, dotted(where, name))
    return out


def digest(data: Any) -> str:
    """SHA-256 of canonical JSON, hexadecimal."""
    return hashlib.sha256(CANONICAL.encode(data).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, eq=False)
class Node:
    """A stage and the nodes whose artifacts it takes, by name. Equal keys are the same node, whoever wants it."""

    stage: Stage
    inputs: Mapping[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = list(self.stage.input_names())
        if sorted(names) != sorted(self.inputs):
            raise TypeError(f"{self.stage.name} takes the inputs {names}, not {list(self.inputs)}")
        object.__setattr__(self, "inputs", {name: self.inputs[name] for name in names})

    @cached_property
    def key(self) -> str:
        fields = canonical_fields(self.stage, self.stage.name)
        inputs = [[name, node.key] for name, node in self.inputs.items()]
        return digest([self.stage.name, self.stage.version, fields, inputs])

    @property
    def label(self) -> str:
        return f"{self.stage.name} {self.key[:8]}"

    @property
    def work_model(self) -> Node | None:
        """The node of the model that this node runs or trains; pretraining trains its own."""
        if self.stage.model_input:
            return self.inputs.get(self.stage.model_input)
        return self if self.stage.model and not self.stage.located else None

    @cached_property
    def confidential(self) -> bool:
        """Whether only the owner may read its files: a confidential prompt set, answers to it, prompts about these."""
        passed = self.stage.shows_texts and any(node.confidential for node in self.inputs.values())
        return self.stage.confidential or passed

    def ancestry(self) -> dict[str, Node]:
        """This node and all it depends on, by key, inputs before what takes them."""
        nodes: dict[str, Node] = {}
        self.gather(nodes)
        return nodes

    def gather(self, nodes: dict[str, Node]) -> None:
        """Add this node and all it depends on to `nodes`, inputs first; what is there stays."""
        if self.key not in nodes:
            for node in self.inputs.values():
                node.gather(nodes)
            nodes[self.key] = self
