"""The stage itself under a worker of two ranks: what is saved, and what is validated, is what one process gives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from synthdiv.core.ledger import Ledger
from synthdiv.core.runtime import Runtime
from synthdiv.core.store import Store
from synthdiv.core.strategy import Strategy
from synthdiv.engine.job import Job
from synthdiv.mix.mix import Mix
from synthdiv.study.config import Track
from synthdiv.train.recipe import Lora, Method
from synthdiv.train.train import Train
from tests.engine.stages import Given
from tests.models.small import build, node_of, tiny_model

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
FILES = {Method.full: "model/model.safetensors", Method.lora: "adapter/adapter_model.safetensors"}
SAME = ["steps", "rows_seen", "supervised_tokens", "tokens", "trained_parameters", "budget", "sources"]


@pytest.fixture(scope="module")
def inputs(root, prompts):
    student = build(root, tiny_model(layers=2))
    return student, build(root, Mix(48, real_share=1.0, train_rows=48, shard_rows=4), prompts), prompts


@pytest.fixture(scope="module")
def alone(root, inputs):
    return {stage.method: build(root, stage, *inputs) for stage in (recipe(method) for method in FILES)}


def recipe(method):
    """AdamW divides by the size of a gradient: with seed 0 one gradient is rounding, and its weight is 4e-5 apart."""
    lora = Lora(r=3, dropout=0.0)  # ranks draw their own dropout
    return Train(method=method, lora=lora, epochs=1, batch_rows=14, lr=1e-2, validation=0.1, seed=1)


@pytest.mark.parametrize("strategy", [Strategy.auto, Strategy.fsdp2, Strategy.deepspeed_stage_3])
def test_two_ranks_save_and_validate_what_one_does(tmp_path, root, alone, strategy):
    here = tmp_path / "store"
    here.mkdir()
    (here / "artifacts").mkdir()
    for folder in (root / "artifacts").iterdir():
        if folder.name != "train":
            (here / "artifacts" / folder.name).symlink_to(folder)
    nodes = [node_of(alone[method]) for method in FILES]
    given = Given(nodes)
    Ledger(here, "s", "launch").add(given.records(), given.graph())
    runtime = Runtime(str(here), device="cpu", strategy=strategy, micro_batch=3)
    path = here / "sweeps" / "s" / "jobs" / "job.json"
    Job("job", "s", runtime, Track(), [node.key for node in nodes], given.graph()).write(path)
    command = [sys.executable, *TORCHRUN, "-m", "synthdiv.worker", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-6000:]
    for method, node in zip(FILES, nodes, strict=True):
        actual = Store(here).artifact(node)
        assert actual.manifest["sessions"][0]["ranks"] == 2
        one, two = alone[method].manifest["summary"], actual.manifest["summary"]
        assert [one[name] for name in SAME] == [two[name] for name in SAME]
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        for when in ("validation_before", "validation"):
            assert two[when] == pytest.approx(one[when], abs=2e-5)
        weights = [load_file(artifact.path / FILES[method]) for artifact in (alone[method], actual)]
        assert_close(weights[0], weights[1], rtol=0, atol=1e-5)
        paths = [{str(p.relative_to(a.path)) for p in a.path.rglob("*")} for a in (alone[method], actual)]
        assert paths[0] == paths[1]
        name = "config.json" if method is Method.full else "adapter_config.json"
        texts = [(artifact.path / FILES[method]).with_name(name).read_text() for artifact in (alone[method], actual)]
        assert texts[0] == texts[1]
