"""What a plan costs: tokens, device-hours, money and disk of the nodes that are still to build.

Rates are those of earlier manifests on the same hardware, for models of about the same size. Where there are none, a
node of a model counts the operations of its parameters; the constants of that are stated with the bill.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.evaluate.likelihood import Likelihood, Target
from synthdiv.evaluate.sentence_vectors import Vectors
from synthdiv.generate.generate import Generate, Side
from synthdiv.generate.spec import Backend
from synthdiv.mix.mix import Mix
from synthdiv.prompts.prompt_set import Prompts
from synthdiv.prompts.shards import Grid
from synthdiv.study.config import Cell, Facts
from synthdiv.study.freeze import Frozen, unresolved
from synthdiv.train.pretrain import Pretrain
from synthdiv.train.recipe import Method
from synthdiv.train.schedule import Match
from synthdiv.train.train import Train
from synthdiv.views.history import History

PROMPT, ANSWER = 100, 200  # tokens, where no manifest tells
SUPPORT = 300  # answers that a toy prompt's law allows, where no manifest tells
OPERATIONS = {"cuda": 1e14, "mps": 1e12, "cpu": 1e10}  # a second, in large batches; decoding reaches a tenth
SMALL = 5.0  # seconds of a node without a model
BYTES = {"generate": 1500, "likelihood": 1000, "prompts": 500, "mix": 500}  # a row; other nodes: 300 kB


@dataclass
class Bill:
    """Tokens are counted in the tokenizer of whoever writes or reads them. `measured` is the share of the device-hours
    whose rate was measured, on `accelerator` if manifests name it; `unknown` names models without a size, whose hours
    and weights are not in the bill, `unpriced` hosted sources whose facts have no price."""

    generate_tokens: int = 0
    train_tokens: int = 0
    device_hours: float = 0.0
    device: str = "cpu"
    accelerator: str = ""
    measured: float = 0.0
    usd: float = 0.0
    disk_bytes: int = 0
    unknown: list[str] = field(default_factory=list)
    unpriced: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"device_hours": round(self.device_hours, 4), "usd": round(self.usd, 4)}


class Estimate:
    """Sizes, prices and history of one plan, and what each of its nodes takes."""

    def __init__(self, frozen: Frozen, cell: Cell):
        self.devices = cell.runtime.tensor_parallel  # of one vLLM
        self.root, self.nodes, self.facts = Path(cell.runtime.outputs), frozen.nodes(), facts_of(frozen)
        self.sizes: dict[str, float] = {}
        for key, node in self.nodes.items():
            size = self._parameters(node)
            if size:
                self.sizes[key] = size
        self.history = History(self.root, self.sizes)
        self.device = device_of(cell.runtime.device, self.history)

    def missing(self) -> list[str]:
        """Keys of the nodes that are still to build, or to fetch; those above what is unresolved are among them."""
        store, unknown = Store(self.root), set[str]()
        for key, node in self.nodes.items():
            if unresolved(node) or any(inner.key in unknown for inner in node.inputs):
                unknown.add(key)
        return [key for key, node in self.nodes.items() if key in unknown or not store.has(node)]

    def bill(self, keys: Iterable[str]) -> Bill:
        """The sum over these nodes, and room for the checkpoints of the largest training."""
        found, measured, room, unknown = Bill(device=self.device), 0.0, 0.0, dict[str, None]()
        found.accelerator = self.history.accelerators.get(self.device, "")
        for node in map(self.nodes.__getitem__, keys):
            if node.stage.located:
                continue
            if isinstance(node.stage, Generate):
                found.generate_tokens += self.written(node)
                found.usd += self.price(node)
                found.unpriced += [name for name in self.unpriced(node) if name not in found.unpriced]
            if isinstance(node.stage, Train | Pretrain):
                found.train_tokens += self.trained(node)
                room = max(room, self.checkpoints(node))
            seconds, known = self.seconds(node)
            if seconds is None:
                unknown[self.name(node)] = None
            found.device_hours += (seconds or 0.0) / 3600
            measured += (seconds or 0.0) / 3600 if known else 0.0
            found.disk_bytes += int(self.disk(node))
        found.disk_bytes += int(room)
        found.measured = round(measured / found.device_hours, 3) if found.device_hours else 0.0
        found.unknown = list(unknown)
        return found

    def model(self, node: Node) -> Node | None:
        """The model that a node runs or trains; a pretraining trains its own."""
        if isinstance(node.stage, Pretrain):
            return node
        place = 0 if isinstance(node.stage, Train) else 1
        takes = isinstance(node.stage, Train | Generate | Likelihood) and len(node.inputs) > place
        return node.inputs[place] if takes else None

    def size(self, node: Node) -> float | None:
        model = self.model(node)
        return self.sizes.get(model.key) if model else None

    def name(self, node: Node) -> str:
        """How to call a model whose size nobody told."""
        model = self.model(node)
        while model and isinstance(model.stage, Train):
            model = model.inputs[0]
        locator = model and (getattr(model.stage, "hub", None) or getattr(model.stage, "path", None))
        return str(locator or node.label)

    def _parameters(self, node: Node) -> float | None:
        """Parameters of a model, as its facts say or as its shape gives; None for what is none or says nothing."""
        stage = node.stage
        told = self.facts[node.key].parameters if node.key in self.facts else None
        if isinstance(stage, Pretrain):
            return told or 12 * stage.layers * stage.hidden**2 + stage.vocabulary * stage.hidden
        if isinstance(stage, Train):
            return self.sizes.get(node.inputs[0].key)
        return told if stage.located else None

    def answers(self, node: Node) -> int:
        """How many answers a node writes or reads; 0 where it does neither."""
        stage = node.stage
        if isinstance(stage, Generate):
            if stage.side is Side.train:
                return stage.samples * len(Grid(stage.rows, stage.shard_rows).positions(stage.shard))
            return stage.rows + (stage.samples - 1) * min(stage.subset, stage.rows)
        if isinstance(stage, Vectors) or (isinstance(stage, Likelihood) and stage.target is Target.own):
            return self.answers(node.inputs[0 if isinstance(stage, Vectors) else 2])
        if isinstance(stage, Likelihood):
            rows = min(stage.limit or math.inf, self.answers(node.inputs[0]))
            return int(rows) * (SUPPORT if stage.target is Target.support else 1)
        return stage.test if isinstance(stage, Prompts) else 0

    def units(self, node: Node) -> float:
        """What rates of a stage are for one of: tokens of a training, answers, or the node itself."""
        if isinstance(node.stage, Train | Pretrain):
            return self.trained(node)
        return self.answers(node) if isinstance(node.stage, Generate | Likelihood | Vectors) else 1

    def length(self, node: Node) -> float:
        """New tokens of an answer."""
        stage = node.stage
        assert isinstance(stage, Generate)
        model = node.inputs[1].key if len(node.inputs) > 1 else ""
        return min(
            stage.sampling.max_new_tokens, self.history.ratio(node.stage.kind, "tokens", "rows", model) or ANSWER
        )

    def written(self, node: Node) -> int:
        stage = node.stage
        assert isinstance(stage, Generate)
        return 0 if stage.backend is Backend.recorded else round(self.answers(node) * self.length(node))

    def price(self, node: Node) -> float:
        """USD of a paid source: facts.price_in and price_out, for a million tokens. Recorded answers are paid for."""
        facts, stage = self.facts.get(node.key), node.stage
        assert isinstance(stage, Generate)
        if facts is None or stage.backend is Backend.recorded:
            return 0.0
        asked = self.answers(node) * self.asked()
        return (asked * (facts.price_in or 0.0) + self.written(node) * (facts.price_out or 0.0)) / 1e6

    def unpriced(self, node: Node) -> list[str]:
        """The name of a hosted source that costs nobody knows what."""
        facts = self.facts.get(node.key)
        known = facts and None not in (facts.price_in, facts.price_out)
        return [] if known or node.stage.kind != "api" else [node.stage.source]  # type: ignore[attr-defined]

    def asked(self) -> float:
        """Tokens of a prompt."""
        read, said = (self.history.ratio("train", name, "rows_seen") for name in ("tokens", "supervised_tokens"))
        return read - said if read and said and read > said else PROMPT

    def trained(self, node: Node) -> int:
        """Tokens that pass through a training, prompts included."""
        stage = node.stage
        share = self.history.ratio(stage.name, "tokens", "supervised_tokens")
        if isinstance(stage, Pretrain):
            return round(stage.tokens * (share or (2 if stage.toy else 1)))
        assert isinstance(stage, Train)
        if stage.match is Match.supervised_tokens:
            return round((stage.budget or 0) * (share or (PROMPT + ANSWER) / ANSWER))
        mix = node.inputs[1].stage
        assert isinstance(mix, Mix)
        row = min(stage.max_tokens, self.history.ratio("train", "tokens", "rows_seen") or self.row(node.inputs[1]))
        if stage.match is Match.steps:
            return round((stage.budget or 0) * stage.batch_rows * row)
        return round((mix.rows - math.ceil(mix.rows * stage.validation)) * stage.epochs * row)

    def row(self, mix: Node) -> float:
        """Tokens of a prompt and its answer in a mix that nothing alike was trained on."""
        lengths = [self.length(node) for node in mix.inputs[1:] if self.written(node)]
        return PROMPT + (sum(lengths) / len(lengths) if lengths else ANSWER)

    def seconds(self, node: Node) -> tuple[float | None, bool]:
        """Seconds on one device, None where a model's size is unknown; and whether the rate was measured."""
        stage, size, units = node.stage, self.size(node), self.units(node)
        if node.stage.kind == "api":
            return 0.0, True  # of devices of ours
        rate = self.history.seconds(node.stage.kind, size, self.device)
        if rate is not None:
            return units * rate * (self.devices if node.stage.kind == "vllm" else 1), True
        if self.model(node) is None:
            return SMALL, False
        if size is None:
            return None, False
        tokens = 3 * units  # backwards is twice forwards
        if isinstance(stage, Generate):
            tokens = 10 * self.written(node) + units * self.asked()
        elif isinstance(stage, Likelihood):
            tokens = units * (self.asked() + ANSWER)
        return 2 * size * tokens / OPERATIONS[self.device], False

    def disk(self, node: Node) -> float:
        """Bytes of the artifact: measured, or by weights and rows."""
        stage, size = node.stage, self.size(node)
        trains = isinstance(stage, Train | Pretrain)
        known = self.history.bytes(node.stage.kind, size)
        if known is not None:
            return known * (1 if trains else self.units(node))
        if trains:
            return (size or 0.0) * (0.08 if adapts(node) else 4)
        rows = stage.rows if isinstance(stage, Prompts | Mix) else self.units(node)
        return BYTES[stage.name] * rows if stage.name in BYTES else 3e5

    def checkpoints(self, node: Node) -> float:
        """Bytes of a training's checkpoints while it runs: two and one being written, of weights and two moments."""
        return 3 * 12 * (self.size(node) or 0.0) * (0.02 if adapts(node) else 1)


def adapts(node: Node) -> bool:
    return isinstance(node.stage, Train) and node.stage.method is Method.lora


def facts_of(frozen: Frozen) -> dict[str, Facts]:
    """Facts by the key of the model they speak of, and by the shards that a source writes."""
    found: dict[str, Facts] = {}
    for point, graph in zip(frozen.points, frozen.graphs, strict=True):
        if graph is None:
            continue
        found[graph.student.key] = point.cell.student.facts
        sources = {source.name: source.facts for source in point.cell.generators.models}
        for node in graph.mix.inputs[1:] if graph.mix else ():
            assert isinstance(node.stage, Generate)
            found[node.key] = sources[node.stage.source]
            found |= {model.key: sources[node.stage.source] for model in node.inputs[1:]}
    return found


def device_of(asked: str, history: History) -> str:
    """The kind of device that is planned for: the one asked for, else that of the newest artifact, else any here."""
    if asked != "auto":
        return asked.split(":")[0]
    return history.device or ("cuda" if Path("/dev/nvidiactl").exists() else "cpu")
