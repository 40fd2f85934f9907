"""Several ranks give what one gives, however the model is spread over them, and go on from others' checkpoints."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from synthdiv.core.ledger import Ledger
from synthdiv.core.ranks import Ranks
from synthdiv.core.runtime import Runtime
from synthdiv.core.store import Store
from synthdiv.core.strategy import Strategy
from synthdiv.engine.job import Job
from synthdiv.study.config import Track
from synthdiv.train.checkpoints import CHECKPOINTS, newest_checkpoint
from synthdiv.train.recipe import Lora, Method
from synthdiv.train.train import Train
from tests.engine.stages import Given
from tests.models.small import build, node_of, tiny_model
from tests.train.pool import POOLS, launch
from tests.train.several import STEPS, train

STAGE_3 = "deepspeed_stage_3"
FILES = {Method.full: "model/model.safetensors", Method.lora: "adapter/adapter_model.safetensors"}
SAME = ["steps", "rows_seen", "supervised_tokens", "tokens", "trained_parameters", "budget", "sources"]
CURVE = ["loss", "gradient_norm", "loss/a", "loss/b"]


@pytest.fixture(scope="module", autouse=True)
def _no_rank_stays():
    yield
    codes = [POOLS.popitem()[1].end() for _ in range(len(POOLS))]
    assert not any(itertools.chain(*codes))


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
    jobs, cases = [], [(strategy, lora) for strategy in strategies for lora in (False, True)]
    for strategy, lora in cases:
        job, name = {"strategy": strategy, "lora": lora}, f"{strategy}-{lora}"
        in_one(tmp_path / f"{name}-one-two", lora=lora, stop=2)
        jobs.append(job | {"out": f"{name}-whole", "micro": 2})
        jobs.append(job | {"out": f"{name}-two-one", "stop": 2})
        jobs.append(job | {"out": f"{name}-one-two"})
    launch(tmp_path, 2, jobs)
    for strategy, lora in cases:
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
    cases = [(strategy, lora) for strategy in ("fsdp2", "deepspeed_stage_1", STAGE_3) for lora in (False, True)]
    jobs = [
        {"strategy": f"{strategy}_offload", "lora": lora, "out": f"{strategy}-{lora}", "stop": stop}
        for strategy, lora in cases
        for stop in (2, None)
    ]
    launch(tmp_path, 1, jobs)
    for strategy, lora in cases:
        same(tmp_path / f"{strategy}-{lora}", alone / ("lora" if lora else "full"), 1e-5)


def test_ranks_stop_early_together_and_save_the_best_step(tmp_path):
    """And so they do after a stop right behind the best step, and behind the last."""
    jobs, cases = [], [("ddp", True), ("fsdp2", False), ("fsdp2", True), ("deepspeed_stage_2", False), (STAGE_3, False)]
    for lora in (False, True):
        in_one(tmp_path / f"alone-{lora}", lora=lora, early=True)
    for strategy, lora in cases:
        job = {"strategy": strategy, "lora": lora, "early": True}
        jobs.append(job | {"out": f"{strategy}-{lora}"})
        jobs += [job | {"out": f"{strategy}-{lora}-cut", "stop": stop} for stop in (3, None)]
    launch(tmp_path, 2, jobs)
    for strategy, lora in cases:
        for name in (f"{strategy}-{lora}", f"{strategy}-{lora}-cut"):
            same(tmp_path / name, tmp_path / f"alone-{lora}", 1e-5, steps=4)


def test_a_row_that_breaks_the_loss_is_named_by_all_ranks_and_the_state_before_it_is_kept(tmp_path):
    cases = ["ddp", "fsdp2", "deepspeed_stage_2", STAGE_3]
    launch(tmp_path, 2, [{"strategy": strategy, "lora": True, "spoilt": True, "out": strategy} for strategy in cases])
    for strategy in cases:
        one, other = ((tmp_path / strategy / f"error{rank}").read_text() for rank in range(2))
        assert one == other
        assert one.startswith("the loss is nan at step 4; its rows with the highest loss are ")
        assert one.count("(nan)") == 1
        assert "the last good checkpoint is that of step 3 in" in one
        kept = newest_checkpoint(tmp_path / strategy / CHECKPOINTS)
        assert len(kept["curve"]) == 3
        assert all(value.isfinite().all() for value in kept["state_dict"].values())
        assert all(len(memory) == 3 for memory in kept["optimizer"].values()), "of every weight"


def test_four_ranks_go_on_for_two_in_another_way(alone, tmp_path):
    """Of the last step, which has three rows, one of four gets none."""
    cases = [("ddp", STAGE_3, False), (STAGE_3, "fsdp2", True), ("fsdp2", "ddp", True)]
    jobs = [{"strategy": two, "lora": lora, "stop": 3, "out": two} for two, _, lora in cases]
    launch(tmp_path, 2, jobs)
    launch(tmp_path, 4, [{"strategy": four, "lora": lora, "out": two} for two, four, lora in cases])
    for two, _, lora in cases:
        same(tmp_path / two, alone / ("lora" if lora else "full"), 1e-5)


def test_what_is_kept_in_main_memory_or_packed_or_computed_twice_changes_nothing(alone, tmp_path):
    cases = [("deepspeed_stage_1", True), ("deepspeed_stage_2", False), (STAGE_3, False), ("fsdp2", False)]
    jobs = [{"strategy": f"{strategy}_offload", "lora": lora, "micro": 2, "out": strategy} for strategy, lora in cases]
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
    cases = [(strategy, lora) for strategy in ("ddp", "fsdp2", STAGE_3) for lora in (False, True)]
    jobs = [
        {"strategy": strategy, "lora": lora, "precision": "bf16", "out": f"{strategy}-{lora}"}
        for strategy, lora in cases
    ]
    launch(tmp_path, 2, jobs)
    for strategy, lora in cases:
        actual, wanted = curve(tmp_path / f"{strategy}-{lora}"), curve(alone / ("lora" if lora else "full"))
        torch.testing.assert_close(actual, wanted, rtol=0.1, atol=0.02, equal_nan=True)
        state = torch.load(tmp_path / f"{strategy}-{lora}" / "weights.pt")
        for kind in ("state_dict", "saved"):
            assert {value.dtype for value in state[kind].values()} <= {torch.float32}


@pytest.mark.parametrize(
    "cases",
    [
        [("auto", False)],
        pytest.param([("auto", True)], marks=pytest.mark.slow),
        *(
            pytest.param([(name, False), (name, True)], marks=pytest.mark.slow)
            for name in ("ddp", "fsdp2", "deepspeed_stage_1", STAGE_3)
        ),
    ],
    ids=lambda cases: "-".join(map(str, cases[0])),
)
def test_a_compiled_training_is_the_same_and_goes_on(alone, tmp_path, cases):
    jobs = [
        {"strategy": strategy, "lora": lora, "compile": True, "out": f"{lora}", "stop": stop}
        for strategy, lora in cases
        for stop in (2, None)
    ]
    launch(tmp_path, 1 if cases[0][0] == "auto" else 2, jobs)
    for _, lora in cases:
        same(tmp_path / f"{lora}", alone / ("lora" if lora else "full"), 1e-5)


@pytest.fixture(scope="module")
def inputs(root, prompts, human):
    return build(root, tiny_model(layers=2)), human, prompts


@pytest.fixture(scope="module")
def trained(root, inputs):
    return {stage.method: build(root, stage, *inputs) for stage in (recipe(method) for method in FILES)}


def recipe(method):
    """AdamW divides by the size of a gradient: with seed 0 one gradient is rounding, and its weight is 4e-5 apart."""
    lora = Lora(r=3, dropout=0.0)  # ranks draw their own dropout
    return Train(method=method, lora=lora, epochs=1, batch_rows=14, lr=1e-2, validation=0.1, seed=1)


@pytest.mark.parametrize("strategy", [Strategy.auto, Strategy.fsdp2, Strategy.deepspeed_stage_3])
def test_two_ranks_save_and_validate_what_one_does(tmp_path, root, trained, strategy):
    here = tmp_path / "store"
    here.mkdir()
    (here / "artifacts").mkdir()
    for folder in (root / "artifacts").iterdir():
        if folder.name != "train":
            (here / "artifacts" / folder.name).symlink_to(folder)
    nodes = [node_of(trained[method]) for method in FILES]
    given = Given(nodes)
    Ledger(here, "s", "launch").add(given.records(), given.graph())
    runtime = Runtime(str(here), device="cpu", strategy=strategy, micro_batch=3)
    path = here / "sweeps" / "s" / "jobs" / "job.json"
    Job("job", "s", runtime, Track(), [node.key for node in nodes], given.graph()).write(path)
    launch(tmp_path, 2, [{"job": str(path), "out": "job"}])
    for method, node in zip(FILES, nodes, strict=True):
        actual = Store(here).artifact(node)
        assert actual.manifest["sessions"][0]["ranks"] == 2
        one, two = trained[method].manifest["summary"], actual.manifest["summary"]
        assert [one[name] for name in SAME] == [two[name] for name in SAME]
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        for when in ("validation_before", "validation"):
            assert two[when] == pytest.approx(one[when], abs=2e-5)
        weights = [load_file(artifact.path / FILES[method]) for artifact in (trained[method], actual)]
        torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-5)
        paths = [{str(p.relative_to(a.path)) for p in a.path.rglob("*")} for a in (trained[method], actual)]
        assert paths[0] == paths[1]
        name = "config.json" if method is Method.full else "adapter_config.json"
        texts = [(artifact.path / FILES[method]).with_name(name).read_text() for artifact in (trained[method], actual)]
        assert texts[0] == texts[1]
