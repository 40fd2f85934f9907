"""Several ranks give what one gives, however the model is spread over them, and go on from others' checkpoints."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet
import pytest
import torch

from synthdiv.core.ranks import Ranks
from synthdiv.train.checkpoints import CHECKPOINTS, newest_checkpoint
from tests.train.several import STEPS, train

PROGRAM = Path(__file__).with_name("several.py")
STAGE_3 = "deepspeed_stage_3"
CURVE = ["loss", "gradient_norm", "loss/a", "loss/b"]


class Pool:
    """Processes that do one list of jobs after another: to start them takes longer than to train. One rank is a process
    as any other."""

    def __init__(self, ranks: int, accelerator: str) -> None:
        self.ranks, self.lists = ranks, itertools.count()
        self.queue = Path(tempfile.mkdtemp(prefix="ranks-"))
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": accelerator}
        with (self.queue / "log").open("w") as log:
            command = [sys.executable, *torchrun, str(PROGRAM), str(self.queue)]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        atexit.register(self.end)

    def put(self, jobs: list[dict]) -> Path:
        path = self.queue / f"{next(self.lists)}.json"
        path.with_suffix(".new").write_text(json.dumps(jobs))
        return path.with_suffix(".new").rename(path)

    def do(self, jobs: list[dict]) -> None:
        path, last = self.put(jobs), time.monotonic() + 400
        while not all(path.with_suffix(f".{rank}").exists() for rank in range(self.ranks)):
            going = self.process.poll() is None and time.monotonic() < last
            assert going, (self.queue / "log").read_text()[-6000:]
            time.sleep(0.02)

    def end(self) -> int:
        """Its exit code, of all ranks."""
        if self.process.poll() is None:
            self.put([])
        code = self.process.wait(timeout=60)
        shutil.rmtree(self.queue, ignore_errors=True)
        return code


POOLS: dict[tuple[int, str], Pool] = {}


@pytest.fixture(scope="module", autouse=True)
def _no_rank_stays():
    yield
    codes = [POOLS.popitem()[1].end() for _ in range(len(POOLS))]
    assert not any(codes)


def launch(folder: Path, ranks: int, jobs: list[dict], accelerator: str = "cpu") -> None:
    if (ranks, accelerator) not in POOLS:
        POOLS[ranks, accelerator] = Pool(ranks, accelerator)
    POOLS[ranks, accelerator].do([job | {"out": str(folder / job["out"])} for job in jobs])


def curve(folder: Path, steps: int = STEPS) -> torch.Tensor:
    table = pyarrow.parquet.read_table(folder / "metrics.parquet").to_pylist()
    assert [point["step"] for point in table] == list(range(1, steps + 1))
    return torch.tensor([[point[name] for name in CURVE] for point in table])


def same(one: Path, other: Path, near: float, steps: int = STEPS) -> None:
    """Losses and weights, what the optimizer remembers, and what was seen on held-out rows."""
    torch.testing.assert_close(curve(one, steps), curve(other, steps), rtol=0, atol=near, equal_nan=True)
    states = [torch.load(folder / "weights.pt") for folder in (one, other)]
    for kind in ("state_dict", "optimizer", "looks"):
        torch.testing.assert_close(states[0][kind], states[1][kind], rtol=0, atol=near)
    torch.testing.assert_close(states[0]["saved"] or states[0]["state_dict"], states[0]["state_dict"], rtol=0, atol=0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The same in one process: full, and an adapter."""
    folder = tmp_path_factory.mktemp("alone")
    for name, lora in (("full", False), ("lora", True)):
        (folder / name).mkdir()
        train({"out": str(folder / name), "lora": lora}, Ranks())
    return folder


def in_one(folder: Path, **job) -> None:
    folder.mkdir(exist_ok=True)
    train(job | {"out": str(folder)}, Ranks())


@pytest.mark.parametrize(
    "strategies", [["ddp"], ["fsdp2"], [f"deepspeed_stage_{n}" for n in (1, 2, 3)]], ids=["ddp", "fsdp2", "zero"]
)
def test_two_ranks_give_what_one_gives_and_each_goes_on_for_the_other(alone, tmp_path, strategies):
    """One stops after two steps and two ranks go on; two stop, and one goes on."""
    jobs, ways = [], [(strategy, lora) for strategy in strategies for lora in (False, True)]
    for strategy, lora in ways:
        job, name = {"strategy": strategy, "lora": lora}, f"{strategy}-{lora}"
        in_one(tmp_path / f"{name}-one-two", lora=lora, stop=2)
        jobs.append(job | {"out": f"{name}-whole", "micro": 2})
        jobs.append(job | {"out": f"{name}-two-one", "stop": 2})
        jobs.append(job | {"out": f"{name}-one-two"})
    launch(tmp_path, 2, jobs)
    for strategy, lora in ways:
        name, one = f"{strategy}-{lora}", alone / ("lora" if lora else "full")
        same(tmp_path / f"{name}-whole", one, 1e-5)
        same(tmp_path / f"{name}-one-two", one, 1e-5)
        kept = newest_checkpoint(tmp_path / f"{name}-two-one" / CHECKPOINTS)
        assert len(kept["curve"]) == 2
        assert all("lora_" in weight for weight in kept["state_dict"]) == lora, "no frozen base"
        in_one(tmp_path / f"{name}-two-one", lora=lora)
        same(tmp_path / f"{name}-two-one", one, 1e-5)


def test_one_rank_offloads_and_gives_what_one_without_does(alone, tmp_path):
    """It stops after two steps and goes on."""
    ways = [(way, lora) for way in ("fsdp2", "deepspeed_stage_1", STAGE_3) for lora in (False, True)]
    jobs = [
        {"strategy": f"{way}_offload", "lora": lora, "out": f"{way}-{lora}", "stop": stop}
        for way, lora in ways
        for stop in (2, None)
    ]
    launch(tmp_path, 1, jobs)
    for way, lora in ways:
        same(tmp_path / f"{way}-{lora}", alone / ("lora" if lora else "full"), 1e-5)


def test_ranks_stop_early_together_and_save_the_best_step(tmp_path):
    """And so they do after a stop right behind the best step, and behind the last."""
    jobs, ways = [], [("ddp", True), ("fsdp2", False), ("fsdp2", True), ("deepspeed_stage_2", False), (STAGE_3, False)]
    for lora in (False, True):
        in_one(tmp_path / f"alone-{lora}", lora=lora, early=True)
    for strategy, lora in ways:
        job = {"strategy": strategy, "lora": lora, "early": True}
        jobs.append(job | {"out": f"{strategy}-{lora}"})
        jobs += [job | {"out": f"{strategy}-{lora}-cut", "stop": stop} for stop in (3, None)]
    launch(tmp_path, 2, jobs)
    for strategy, lora in ways:
        for name in (f"{strategy}-{lora}", f"{strategy}-{lora}-cut"):
            same(tmp_path / name, tmp_path / f"alone-{lora}", 1e-5, steps=4)


def test_a_row_that_breaks_the_loss_is_named_by_all_ranks_and_the_state_before_it_is_kept(tmp_path):
    ways = ["ddp", "fsdp2", "deepspeed_stage_2", STAGE_3]
    launch(tmp_path, 2, [{"strategy": way, "lora": True, "spoilt": True, "out": way} for way in ways])
    for way in ways:
        one, other = ((tmp_path / way / f"error{rank}").read_text() for rank in range(2))
        assert one == other
        assert one.startswith("the loss is nan at step 4; its rows with the highest loss are ")
        assert one.count("(nan)") == 1
        assert "the last good checkpoint is that of step 3 in" in one
        kept = newest_checkpoint(tmp_path / way / CHECKPOINTS)
        assert len(kept["curve"]) == 3
        assert all(value.isfinite().all() for value in kept["state_dict"].values())
        assert all(len(memory) == 3 for memory in kept["optimizer"].values()), "of every weight"


def test_four_ranks_go_on_for_two_in_another_way(alone, tmp_path):
    """Of the last step, which has three rows, one of four gets none."""
    ways = [("ddp", STAGE_3, False), (STAGE_3, "fsdp2", True), ("fsdp2", "ddp", True)]
    jobs = [{"strategy": two, "lora": lora, "stop": 3, "out": two} for two, _, lora in ways]
    launch(tmp_path, 2, jobs)
    launch(tmp_path, 4, [{"strategy": four, "lora": lora, "out": two} for two, four, lora in ways])
    for two, _, lora in ways:
        same(tmp_path / two, alone / ("lora" if lora else "full"), 1e-5)


def test_what_is_kept_in_main_memory_or_packed_or_computed_twice_changes_nothing(alone, tmp_path):
    ways = [("deepspeed_stage_1", True), ("deepspeed_stage_2", False), (STAGE_3, False), ("fsdp2", False)]
    jobs = [{"strategy": f"{strategy}_offload", "lora": lora, "micro": 2, "out": strategy} for strategy, lora in ways]
    jobs += [
        {"strategy": strategy, "packed": 64, "out": f"{strategy}-packed"} for strategy in ("ddp", "fsdp2", STAGE_3)
    ]
    jobs += [
        {"strategy": strategy, "recompute": True, "lora": lora, "out": f"{strategy}-recompute-{lora}"}
        for strategy in ("ddp", "fsdp2", "deepspeed_stage_2", STAGE_3)
        for lora in (False, True)
    ]
    launch(tmp_path, 2, jobs)
    for job in jobs:
        same(tmp_path / job["out"], alone / ("lora" if job.get("lora") else "full"), 1e-5)


def test_bf16_is_near_on_two_ranks(alone, tmp_path):
    ways = [(strategy, lora) for strategy in ("ddp", "fsdp2", STAGE_3) for lora in (False, True)]
    jobs = [
        {"strategy": strategy, "lora": lora, "precision": "bf16", "out": f"{strategy}-{lora}"}
        for strategy, lora in ways
    ]
    launch(tmp_path, 2, jobs)
    for strategy, lora in ways:
        actual, wanted = curve(tmp_path / f"{strategy}-{lora}"), curve(alone / ("lora" if lora else "full"))
        torch.testing.assert_close(actual, wanted, rtol=0.1, atol=0.02, equal_nan=True)
        state = torch.load(tmp_path / f"{strategy}-{lora}" / "weights.pt")
        for kind in ("state_dict", "saved"):
            assert {value.dtype for value in state[kind].values()} <= {torch.float32}


@pytest.mark.parametrize(
    "ways",
    [
        [("auto", False)],
        pytest.param([("auto", True)], marks=pytest.mark.slow),
        *(
            pytest.param([(name, False), (name, True)], marks=pytest.mark.slow)
            for name in ("ddp", "fsdp2", "deepspeed_stage_1", STAGE_3)
        ),
    ],
    ids=lambda ways: "-".join(map(str, ways[0])),
)
def test_a_compiled_training_is_the_same_and_goes_on(alone, tmp_path, ways):
    jobs = [
        {"strategy": strategy, "lora": lora, "compile": True, "out": f"{lora}", "stop": stop}
        for strategy, lora in ways
        for stop in (2, None)
    ]
    launch(tmp_path, 1 if ways[0][0] == "auto" else 2, jobs)
    for _, lora in ways:
        same(tmp_path / f"{lora}", alone / ("lora" if lora else "full"), 1e-5)
