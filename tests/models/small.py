"""Small real things that several tests stand on: stages built in a store, 48 toy train prompts, a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet
import torch

from synthdiv.core.runtime import LocalRun, Runtime, isolated
from synthdiv.core.stage import Node, Stage
from synthdiv.core.store import Store
from synthdiv.core.types import Artifact
from synthdiv.generate.answer import LOG
from synthdiv.models.load import OpenModel, open_model
from synthdiv.prompts.prompt_set import Prompts, ToyPrompts
from synthdiv.prompts.toy_world import World
from synthdiv.train.meter import VARYING
from synthdiv.train.pretrain import Pretrain, ToyCorpus

torch.set_num_threads(1)  # with 16 units a second thread only waits
WORLD = World(entities=24, values=6, prompt_phrasings=8)


def cpu_run(**runtime: Any) -> LocalRun:
    return LocalRun(Runtime(device="cpu", **runtime), open_model)


def node_of(artifact: Artifact) -> Node:
    return Node(artifact.stage, tuple(map(node_of, artifact.inputs)))


def build(root: Path, stage: Stage, *inputs: Artifact, run: LocalRun | None = None) -> Artifact:
    """The artifact of `stage`, built in the store below `root` as the engine builds it."""
    with isolated(0):
        return Store(root).obtain(Node(stage, tuple(map(node_of, inputs))), run or cpu_run())[0]  # type: ignore[arg-type]


def toy_prompts(**fields: Any) -> Prompts:
    return Prompts(**{"toy": ToyPrompts(60, WORLD), "test": 12} | fields)


def tiny_model(family: int | None = None, **fields: Any) -> Pretrain:
    """A model of 16 units that has seen 3,000 tokens of toy speech."""
    corpus = ToyCorpus(family, rows=200, overlap=0.0, shift=0.0, world=WORLD)
    return Pretrain(
        **{"toy": corpus, "hidden": 16, "layers": 1, "heads": 2, "vocabulary": 400, "tokens": 3000, "lr": 1e-2} | fields
    )


def opened(artifact: Artifact, precision: str = "fp32") -> OpenModel:
    return open_model(artifact, precision, "cpu")


def files(artifact: Artifact) -> dict[str, bytes]:
    """Every output file but the manifest, and without what tells of the day: the log of requests, rates of steps."""
    found = sorted(path for path in artifact.path.rglob("*") if path.is_file())
    found = [path for path in found if path.name not in ("manifest.json", LOG)]
    return {str(path.relative_to(artifact.path)): _bytes(path) for path in found}


def _bytes(path: Path) -> bytes:
    if path.name != "metrics.parquet":
        return path.read_bytes()
    return repr(pyarrow.parquet.read_table(path).drop_columns(list(VARYING)).to_pylist()).encode()
