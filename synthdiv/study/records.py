"""A cell and a node as rows of the ledger: axes, seeds, arm."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from synthdiv.core.ledger import NOT_APPLICABLE, CellRecord, NodeRecord
from synthdiv.core.stage import Node, canonical
from synthdiv.generate.spec import Backend
from synthdiv.study.config import Cell, Generator
from synthdiv.study.expand import Point
from synthdiv.study.match import unmatched
from synthdiv.study.pipeline import Graph, graph, shares

SEEDS = (
    "prompts.seed",
    "generators.seed",
    "mix.rotation",
    "mix.sample",
    "student.pretrain.seed",
    "train.seed",
    "evaluate.respond.seed",
)
SHOWN = ("mix.rows", "mix.real_share", "mix.source", "mix.kind")  # axes of every cell, under a shorter name
NOT_IDENTITY = ("runtime", "track", "report", "sweep", "rerun", "experiment", "hydra")


def cell_record(point: Point, item: Graph) -> CellRecord:
    """The row of `cells.jsonl` for one point."""
    return CellRecord(
        key=item.key,
        arm=arm(point.cell),
        overrides=list(point.overrides),
        axes=axes(point, item),
        seeds=seeds(point.cell, item),
        suites={name: node.key for name, node in item.suites.items()},
        vanilla={name: node.key for name, node in item.vanilla.items()},
        nodes=list(item.nodes()),
        train=item.train.key if item.train else None,
        prompts=item.prompts.key,
        config=list(point.config),
        unmatched=unmatched(item, point.cell.report.unmatched),
    )


def node_record(node: Node) -> NodeRecord:
    """The row of `graph.jsonl`: all fields, locators included, so that a worker can build it."""
    return NodeRecord(node.key, node.stage.name, [inner.key for inner in node.inputs], plain(node.stage))


def plain(value: Any) -> Any:
    """A stage as JSON data."""
    if dataclasses.is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return canonical(value, Any)


def used_sources(cell: Cell, item: Graph) -> list[Generator]:
    return shares(cell)[0] if item.mix else []


def axes(point: Point, item: Graph) -> dict[str, Any]:
    """Flat axes of a cell, `n/a` where the graph shows that an axis made no difference."""
    cell, sources = point.cell, used_sources(point.cell, item)
    chosen = {
        group: point.choices.get(group, "") for group in ("prompts", "generators", "student", "train", "evaluate")
    }
    found: dict[str, Any] = {
        **chosen,
        "mix": "human" if item.mix and not sources else cell.mix.kind.value,
        "source": sources[0].name if len(sources) == 1 else NOT_APPLICABLE,
        "rows": cell.mix.rows or cell.prompts.train_rows,
        "real_share": shares(cell)[2] if item.mix else NOT_APPLICABLE,
    }
    for override in point.overrides:
        key, value = override.split("=", 1)
        if "." in key and key not in SEEDS + SHOWN and key.split(".")[0] not in NOT_IDENTITY:
            found[key] = value
    return {key: value if matters(key, cell, item) else NOT_APPLICABLE for key, value in found.items()}


def matters(key: str, cell: Cell, item: Graph) -> bool:
    """Whether the axis `key` can make a difference to this cell."""
    group, sources = key.split(".")[0], used_sources(cell, item)
    if key.startswith("generators.models."):
        return cell.generators.models[int(key.split(".")[2])].name in [source.name for source in sources]
    if group == "generators":
        return bool(sources)
    if key in ("mix.weights", "mix.rotation"):
        return len(sources) > 1
    if group in ("train", "rows") or key.startswith("mix."):
        return item.train is not None
    return True


def seeds(cell: Cell, item: Graph) -> dict[str, Any]:
    """What tells the replicates of an arm apart."""
    sampled = any(source.backend is not Backend.recorded for source in used_sources(cell, item))
    return {
        "prompts.seed": cell.prompts.seed,
        "generators.seed": cell.generators.seed if sampled else NOT_APPLICABLE,
        "mix.rotation": cell.mix.rotation if matters("mix.rotation", cell, item) else NOT_APPLICABLE,
        "mix.sample": cell.mix.sample if sampled else NOT_APPLICABLE,
        "student.pretrain.seed": cell.student.pretrain.seed if cell.student.pretrain else NOT_APPLICABLE,
        "train.seed": cell.train.seed if item.train else NOT_APPLICABLE,
        "evaluate.respond.seed": cell.evaluate.respond.seed,
    }


def arm(cell: Cell) -> str:
    """The key of a cell without its seeds: the cells of one arm differ in seeds and rotation alone."""
    bare = copy.deepcopy(cell)
    bare.prompts.seed = bare.generators.seed = bare.train.seed = bare.evaluate.respond.seed = 0
    bare.mix.rotation = bare.mix.sample = 0
    for part in (bare.student.pretrain, *(source.pretrain for source in bare.generators.models)):
        if part:
            part.seed = 0
    return graph(bare).key
