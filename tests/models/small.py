"""Small real things that several tests stand on: stages built in a store, 48 toy train prompts, a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch

from synthdiv.core.local_run import LocalRun, isolated
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node, Stage
from synthdiv.core.store import Store
from synthdiv.core.types import Artifact
from synthdiv.generate.answer import LOG
from synthdiv.mix.mix import Mix, shard_input
from synthdiv.models.load import OpenModel, open_model
from synthdiv.prompts.prompt_set import Prompts, ToyPrompts
from synthdiv.prompts.toy_world import World
from synthdiv.train.meter import VARYING
from synthdiv.train.pretrain import Pretrain, ToyCorpus
from synthdiv.train.rows import Row
from synthdiv.train.tokens import Tokens
from synthdiv.train.train import Train

torch.set_num_threads(1)  # with 16 units a second thread only waits
WORLD = World(entities=24, values=6, prompt_phrasings=8)


def cpu_run(**runtime: Any) -> LocalRun:
    return LocalRun(Runtime(device="cpu", **runtime), open_model)


def node_of(artifact: Artifact) -> Node:
    return Node(artifact.stage, {name: node_of(item) for name, item in artifact.inputs.items()})


def named(stage: Stage, inputs: Sequence[Any]) -> dict[str, Any]:
    """Inputs (artifacts or nodes) by the names of a stage, in their order; a mix takes the shards it needs."""
    names = list(stage.input_names())
    if isinstance(stage, Mix) and not stage.level:
        shards = {shard_input(item.stage.source, item.stage.shard): item for item in inputs[1:]}
        return {"prompts": inputs[0], **{name: shards[name] for name in names[1:]}}
    return dict(zip(names, inputs, strict=True))


def build(root: Path, stage: Stage, *inputs: Artifact, run: LocalRun | None = None) -> Artifact:
    """The artifact of `stage`, built in the store below `root` as the engine builds it. A training without
    `tokens` gets them built."""
    if isinstance(stage, Train) and len(inputs) == 3:
        inputs = (*inputs, build(root, Tokens(), *inputs))
    node = Node(stage, {name: node_of(item) for name, item in named(stage, inputs).items()})
    with isolated(0):
        return Store(root).obtain(node, run or cpu_run())[0]  # type: ignore[arg-type]


def toy_prompts(**fields: Any) -> Prompts:
    return Prompts(**{"toy": ToyPrompts(60, WORLD), "test": 12} | fields)


def tiny_model(family: int | None = None, **fields: Any) -> Pretrain:
    """A model of 16 units that has seen 3,000 tokens of toy speech."""
    corpus = ToyCorpus(family, rows=200, overlap=0.0, shift=0.0, world=WORLD)
    return Pretrain(
        **{"toy": corpus, "hidden": 16, "layers": 1, "heads": 2, "vocabulary": 400, "tokens": 3000, "lr": 1e-2} | fields
    )


def some_rows(
    count: int = 23, tokens: int = 40, sources: Sequence[str] = ("",), least: int = 1, seed: int = 1
) -> list[Row]:
    """Rows of 4 to 29 token ids below `tokens`; the prompt has at least `least` of them."""
    random = torch.Generator().manual_seed(1)
    rows = []
    for number in range(count):
        length = int(torch.randint(4, 30, (), generator=random))
        prompt = int(torch.randint(least, length - 1, (), generator=random))
        ids = torch.randint(3, tokens, (length,), generator=random).tolist()
        rows.append(Row(tuple(ids), prompt, sources[number % len(sources)]))
    return rows


def opened(artifact: Artifact, precision: str = "fp32") -> OpenModel:
    return open_model(artifact, precision, "cpu")


def files(artifact: Artifact) -> dict[str, bytes]:
    """Every output file but the manifest, and without what tells of the day: the log of requests, rates of steps."""
    actual = sorted(path for path in artifact.path.rglob("*") if path.is_file())
    actual = [path for path in actual if path.name not in ("manifest.json", LOG)]
    return {str(path.relative_to(artifact.path)): _bytes(path) for path in actual}


def _bytes(path: Path) -> bytes:
    if path.name != "metrics.parquet":
        return path.read_bytes()
    return repr(pyarrow.parquet.read_table(path).drop_columns(list(VARYING)).to_pylist()).encode()
