"""What a sweep costs: tokens, device-hours, money and disk of the nodes that are still to build. Rates are those of
earlier manifests on the same hardware, for models of similar size; where there are none, the operations of the model's
parameters are counted, and the bill says so."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen, unresolved
from synthdiv.study.generators import Facts
from synthdiv.study.lineage import population
from synthdiv.study.pipeline import judges, model
from synthdiv.views.history import History

# operations a second; one core gave 2.2e10 with toy_large, two gave 1.1e11 with 4.5 M weights
ASSUMED_RATE = {"cpu": 5e10}
ACCELERATOR_RATE = 1e14
DECODING = 10  # a sampled token costs as much as so many that are only read
SMALL_SECONDS = 0.05  # a node without a model; those of the demo take .04 each
STATE_BYTES = 3 * 12  # a parameter that is trained: three checkpoints of weights and two moments, fp32


@dataclass
class Bill:
    """What a launch takes. Tokens are counted in the tokenizer of the model that writes or reads them."""

    generate_tokens: int = 0
    train_tokens: int = 0
    device_hours: float = 0.0
    device: str = "cpu"
    accelerator: str = ""
    """The name of the devices, if manifests have it."""
    measured: float = 0.0
    """The share of the device-hours whose rate was measured."""
    usd: float = 0.0
    disk_bytes: int = 0
    unknown: list[str] = field(default_factory=list)
    """Models without a size: their hours and weights are not in the bill."""
    unpriced: list[str] = field(default_factory=list)
    """Hosted sources without a known price."""

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"device_hours": round(self.device_hours, 4), "usd": round(self.usd, 4)}


class CostEstimate:
    """A frozen sweep, what is missing of it in the outputs, and what each of its nodes takes."""

    def __init__(self, frozen: Frozen, cell: Cell):
        self.frozen, self.cell, self.root = frozen, cell, Path(cell.runtime.outputs)
        self.nodes, self.facts = frozen.nodes(), facts_of(frozen)
        self.sizes = {key: size for key, node in self.nodes.items() if (size := self._parameters(node))}
        self.history = History(self.root, self.sizes)
        self.device = device_of(cell.runtime.device, self.history)
        self.work = cache(lambda node: node.stage.work(node.inputs, self.history))

    @cached_property
    def unresolved(self) -> set[str]:
        """Nodes whose identity only the hub knows, and all that depend on them."""
        keys = set[str]()
        for key, node in self.nodes.items():
            if unresolved(node) or any(inner.key in keys for inner in node.inputs.values()):
                keys.add(key)
        return keys

    @cached_property
    def missing(self) -> dict[str, Node]:
        """The nodes that are still to build, or to fetch; those that are not resolved are among them."""
        store = Store(self.root)
        return {key: node for key, node in self.nodes.items() if key in self.unresolved or not store.has(node)}

    @cached_property
    def bill(self) -> Bill:
        return self.bill_of(list(self.missing.values()))

    def bill_of(self, nodes: list[Node]) -> Bill:
        """The sum over these nodes, and room for the checkpoints of the largest training."""
        bill, measured, checkpoints = Bill(device=self.device), 0.0, 0.0
        bill.accelerator = self.history.accelerators.get(self.device, "")
        for node in nodes:
            if node.stage.located:
                continue
            work = self.work(node)
            bill.generate_tokens += round(work.new_tokens)
            bill.train_tokens += round(work.trained_tokens)
            bill.usd += self.price(node)
            if self.unpriced(node) and (name := node.stage.source) not in bill.unpriced:  # type: ignore[attr-defined]
                bill.unpriced.append(name)
            if work.trained_tokens:
                weights = (self.size(node) or 0.0) * node.stage.trained_share
                checkpoints = max(checkpoints, STATE_BYTES * weights)
            seconds, known = self.seconds(node)
            if seconds is None and (name := self.name(node)) not in bill.unknown:
                bill.unknown.append(name)
            bill.device_hours += (seconds or 0.0) / 3600
            measured += (seconds or 0.0) / 3600 if known else 0.0
            bill.disk_bytes += int(self.disk(node))
        bill.disk_bytes += int(checkpoints)
        bill.measured = round(measured / bill.device_hours, 3) if bill.device_hours else 0.0
        return bill

    def size(self, node: Node) -> float | None:
        """Parameters of the model that a node runs or trains."""
        return self.sizes.get(node.work_model.key) if node.work_model else None

    def name(self, node: Node) -> str:
        """How to call a model without a known size."""
        model = node.work_model
        while model and model.work_model and model.work_model is not model:
            model = model.work_model
        locators = [getattr(model.stage, name, None) for name in ("hub", "path", "package", "file")] if model else []
        return str(next(filter(None, [*locators, (model or node).label])))

    def _parameters(self, node: Node) -> float | None:
        """Parameters of a model, as its facts or its shape say; None for other nodes or where nothing is known."""
        if not node.stage.model:
            return None
        if node.work_model and node.work_model is not node:  # a tuned student has those of the student
            return self._parameters(node.work_model)
        known = self.facts[node.key].parameters if node.key in self.facts else None
        return known or node.stage.parameters()

    def price(self, node: Node) -> float:
        """USD of a priced source: facts.price_in and price_out, for a million tokens. Recorded answers are paid for."""
        facts, work = self.facts.get(node.key), self.work(node)
        if facts is None:
            return 0.0
        return (work.read_tokens * (facts.price_in or 0.0) + work.new_tokens * (facts.price_out or 0.0)) / 1e6

    def unpriced(self, node: Node) -> bool:
        """Whether a server without a known price answers it."""
        facts, elsewhere = self.facts.get(node.key), not node.stage.devices(self.cell.runtime)
        unknown = facts is None or None in (facts.price_in, facts.price_out)
        return elsewhere and unknown and self.work(node).new_tokens > 0

    def seconds(self, node: Node) -> tuple[float | None, bool]:
        """Seconds on one device, None where a model's size is unknown; and whether the rate was measured."""
        work, size, devices = self.work(node), self.size(node), node.stage.devices(self.cell.runtime)
        if not devices:
            return 0.0, True
        rate = self.history.seconds(node.stage.kind, size, self.device)
        if rate is not None:
            return work.units * rate * devices, True
        tokens = DECODING * work.new_tokens + work.read_tokens + 3 * work.trained_tokens  # backward: twice forward
        if not tokens:
            return SMALL_SECONDS, False
        if size is None:
            return None, False
        return 2 * size * tokens / ASSUMED_RATE.get(self.device, ACCELERATOR_RATE), False

    def disk(self, node: Node) -> float:
        """Bytes of the artifact: measured, or by weights and units."""
        stage, size, units = node.stage, self.size(node), self.work(node).units
        measured = self.history.bytes(stage.kind, size, whole=stage.model)
        if measured is not None:
            return measured * (1 if stage.model else units)
        return 4 * (size or 0.0) * stage.trained_share if stage.model else stage.bytes_per_unit * units


def facts_of(frozen: Frozen) -> dict[str, Facts]:
    """Facts by the key of the model that they describe, and by the shards that a source or a judge writes."""
    facts, known = dict[str, Facts](), dict[str, Node]()
    for point, graph in zip(frozen.points, frozen.graphs, strict=True):
        if graph is None:
            continue
        for spec, judge in zip(point.cell.judge.models, judges(point.cell), strict=True):
            if judge.source.model:
                facts[judge.source.model.key] = spec.facts
        facts |= {model(point.cell, student).key: student.facts for student, _ in population(point.cell)}
        sources = {source.name: source.facts for source in point.cell.generators.models}
        before = len(known)
        if graph.mix:
            graph.mix.gather(known)
        for node in itertools.islice(known.values(), before, None):  # an ancestor of many mixes counts once
            if (name := getattr(node.stage, "source", None)) in sources:  # no student of a round before
                facts[node.key] = sources[name]
                if "model" in node.inputs:
                    of_student = facts.get(key := node.inputs["model"].key)  # the student may be the same checkpoint
                    facts[key] = of_student if of_student and of_student.parameters else facts[node.key]
    judged = [node for node in frozen.nodes().values() if "model" in node.inputs and node.key not in facts]
    return facts | {node.key: facts[key] for node in judged if (key := node.inputs["model"].key) in facts}


def device_of(device: str, history: History) -> str:
    """The kind of device that is planned for: the one given, else that of the newest artifact, else any here."""
    if device != "auto":
        return device.split(":")[0]
    return history.device or ("cuda" if Path("/dev/nvidiactl").exists() else "cpu")
