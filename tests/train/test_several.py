"""Several ranks give what one gives, however the model is spread over them, and go on from one another's checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
import torch

from synthdiv.ranks import Ranks
from synthdiv.train.fit import CHECKPOINTS, newest_checkpoint
from tests.train.several import STEPS, train

PROGRAM = Path(__file__).with_name("several.py")
CURVE = ["loss", "gradient_norm", "loss/a", "loss/b"]


def launch(folder: Path, ranks: int, jobs: list[dict]) -> None:
    """All jobs by the same processes: to start them takes longer than to train."""
    path = folder / f"jobs{ranks}.json"
    path.write_text(json.dumps([job | {"out": str(folder / job["out"])} for job in jobs]))
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(PROGRAM), str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-6000:]


def curve(folder: Path) -> torch.Tensor:
    table = pyarrow.parquet.read_table(folder / "metrics.parquet").to_pylist()
    assert [point["step"] for point in table] == list(range(1, STEPS + 1))
    return torch.tensor([[point[name] for name in CURVE] for point in table])


def same(one: Path, other: Path, near: float) -> None:
    """Losses and weights, and what the optimizer remembers."""
    torch.testing.assert_close(curve(one), curve(other), rtol=0, atol=near, equal_nan=True)
    states = [torch.load(folder / "weights.pt") for folder in (one, other)]
    for kind in ("state_dict", "optimizer"):
        torch.testing.assert_close(states[0][kind], states[1][kind], rtol=0, atol=near)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The same in one process: full, and an adapter."""
    folder = tmp_path_factory.mktemp("alone")
    for name, lora in (("full", False), ("lora", True)):
        (folder / name).mkdir()
        train({"out": str(folder / name), "lora": lora}, Ranks())
    return folder


WAYS = {"ddp": ["ddp"], "fsdp": ["fsdp"], "zero": ["zero1", "zero2", "zero3"]}


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_give_what_one_gives_and_each_goes_on_for_the_other(alone, tmp_path, way):
    """One stops after two steps and two ranks go on; two stop, and one goes on."""
    jobs = []
    for strategy in WAYS[way]:
        for method in ("full", "lora"):
            job = {"strategy": strategy, "lora": method == "lora"}
            name = f"{strategy}-{method}"
            jobs.append(job | {"out": f"{name}-whole", "micro": 2})
            jobs.append(job | {"out": f"{name}-two-one", "stop": 2})
            (tmp_path / f"{name}-one-two").mkdir()
            train(job | {"out": str(tmp_path / f"{name}-one-two"), "stop": 2}, Ranks())
            jobs.append(job | {"out": f"{name}-one-two"})
    launch(tmp_path, 2, jobs)
    for strategy in WAYS[way]:
        for method in ("full", "lora"):
            name = f"{strategy}-{method}"
            same(tmp_path / f"{name}-whole", alone / method, 1e-5)
            same(tmp_path / f"{name}-one-two", alone / method, 1e-5)
            kept = newest_checkpoint(tmp_path / f"{name}-two-one" / CHECKPOINTS)
            assert len(kept["curve"]) == 2
            assert all("lora_" in weight for weight in kept["state_dict"]) == (method == "lora"), "no frozen base"
            train({"out": str(tmp_path / f"{name}-two-one"), "lora": method == "lora"}, Ranks())
            same(tmp_path / f"{name}-two-one", alone / method, 1e-5)
