"""Building one node: classes of failure, less memory, attempts, and how a person or a cluster stops it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synthdiv.core.ledger import Ledger
from synthdiv.core.local_run import Stop
from synthdiv.core.ranks import Ranks
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.core.types import ConfigError, DataError
from synthdiv.engine.build import Builder, halved
from synthdiv.engine.failure import BUG, DISK, INPUT, LOST, MEMORY, class_of, message_of
from synthdiv.train.pretrain import Pretrain
from tests.engine.evidence import transitions
from tests.engine.stages import Act, Batched, Both, Given
from tests.models.small import tiny_model


def builder(root: Path, nodes: list[Node], stop: Stop | None = None, **runtime) -> Builder:
    ledger = Ledger(root, "s", "job")
    ledger.add([], Given(nodes).graph())
    return Builder(Store(root), ledger, Runtime(device="cpu", **runtime), stop or Stop())


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (DataError("a row"), INPUT), (ConfigError("a field"), INPUT), (ValueError("a bug"), BUG),
        (MemoryError(), MEMORY), (torch.OutOfMemoryError("CUDA out of memory"), MEMORY),
        (OSError(12, "Cannot allocate memory"), MEMORY), (OSError(28, "No space left on device"), DISK),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), MEMORY),
        (torch.distributed.DistBackendError("NCCL error: Cuda failure 2 'out of memory'"), MEMORY),
        (RuntimeError("MPS backend Out Of Memory (MPS allocated: 9 GB)"), MEMORY), (RuntimeError("a bug"), BUG),
        (torch.OutOfMemoryError("none left"), MEMORY), (DataError("it says: out of memory"), INPUT),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"), LOST),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:451] writev [127.0.0.1]:1: Broken pipe"), LOST),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), BUG),
    ],
)  # fmt: skip
def test_the_class_of_an_error(error, failure):
    assert class_of(error) == failure


def test_messages_of_other_libraries_show_the_type_of_the_error():
    assert message_of(DataError("row 3")) == "row 3"
    assert message_of(ValueError("row 3")) == "ValueError: row 3"


@pytest.mark.parametrize(
    ("deed", "failure", "says", "trace"),
    [
        ("data", INPUT, "row 3 of it is no row", False), ("bug", BUG, "ValueError: nobody thought of this", True),
        ("full", DISK, "no space left on the disk of", False),
    ],
)  # fmt: skip
def test_a_failure_has_a_class_a_message_and_for_bugs_a_traceback(tmp_path, deed, failure, says, trace):
    node = Node(Act(deed=deed))
    outcome = builder(tmp_path, [node]).build(node)
    (event,) = [event for event in Ledger(tmp_path, "s").events() if event.state == "failed"]
    assert (outcome.state, outcome.failure) == ("failed", failure)
    assert (event.failure, event.note) == (failure, outcome.note)
    assert outcome.note.startswith(says)
    assert outcome.log.endswith(".traceback") == trace
    if trace:
        assert "raise ValueError" in Path(outcome.log).read_text()


def test_a_loss_that_is_nan_is_bad_input_and_not_retried(tmp_path):
    node = Node(tiny_model(lr=1e30))
    outcome = builder(tmp_path, [node]).build(node)
    assert (outcome.failure, outcome.log) == (INPUT, "")
    assert "Lower train.lr" in outcome.note
    assert transitions(tmp_path, node) == [("running", 1), ("failed", 1)]


def test_out_of_memory_halves_the_rows_until_they_fit(tmp_path):
    node = Node(Act(deed="memory 3", steps=2))
    building = builder(tmp_path, [node])
    outcome = building.build(node)
    assert outcome.state == "built"
    assert building.store.artifact(node).manifest["summary"]["rows"] == 2, "8, 4, 2"
    assert transitions(tmp_path, node) == [
        ("running", 1), ("stopped", 1), ("running", 2), ("stopped", 2), ("running", 3), ("built", 3)
    ]  # fmt: skip
    classes = [event.failure for event in Ledger(tmp_path, "s").events() if event.state == "stopped"]
    assert classes == [MEMORY, MEMORY]
    other = Node(Act(number=1))
    assert building.build(other).state == "built"
    assert building.store.artifact(other).manifest["summary"]["rows"] == 0, "the next node has all rows again"


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node(Act(deed="memory 0")), "it needs a machine with more memory"),
        (Node(Batched(deed="memory 0", batch_rows=0)), "lower generators.batch_tokens for generators"),
    ],
)
def test_out_of_memory_with_one_row_has_a_hint(tmp_path, node, says):
    building = builder(tmp_path, [node], micro_batch=3)
    outcome = building.build(node)
    assert (outcome.state, outcome.failure) == ("failed", MEMORY)
    assert says in outcome.note
    assert says in Ledger(tmp_path, "s").states()[node.key].note
    tries = 1 + bool(node.stage.batch_rows) * 2  # 3, 2, 1 rows; or it has no rows to halve
    assert transitions(tmp_path, node)[-1] == ("failed", tries)


def test_every_stage_of_a_study_has_a_hint_for_less_memory():
    from synthdiv.evaluate.likelihood import Likelihood
    from synthdiv.generate.generate import Generate
    from synthdiv.mix.mix import Mix
    from synthdiv.train.train import Train

    assert "train.max_tokens" in Train().less_memory
    assert "pretrain.context" in Pretrain().less_memory
    assert "evaluate.batch_tokens" in Likelihood().less_memory
    assert "generators.batch_tokens" in Generate("one").less_memory
    assert "more memory" in Mix(1, [], [], 0.0, 0, 0, 0).less_memory


@pytest.mark.parametrize(
    ("rows", "whole", "half"), [(0, 8, 4), (0, 1, 0), (100, 8, 4), (3, 8, 2), (1, 8, 0), (5, 0, 0)]
)
def test_half_of_the_rows(rows, whole, half):
    assert halved(Act(batch_rows=whole), rows) == half


@pytest.mark.parametrize(("rows", "ranks", "half"), [(0, 1, 4), (0, 2, 2), (0, 3, 2), (2, 2, 1), (0, 8, 0)])
def test_half_of_the_rows_of_a_rank(rows, ranks, half):
    """A rank takes its part of the batch, and half of the whole batch would change nothing."""
    assert halved(Both(batch_rows=8), rows, ranks) == half
    assert halved(Act(batch_rows=8), 0, ranks) == 4


@pytest.mark.parametrize("fits", [8, 4])
def test_a_training_with_halved_rows_ends_in_the_weights_of_the_whole_batch(tmp_path, monkeypatch, fits):
    """Memory for so many rows: the real loss, which fails where it gets more."""
    import synthdiv.train.module as module

    node, whole = Node(tiny_model()), Node(tiny_model())
    assert builder(tmp_path / "whole", [whole]).build(whole).state == "built"
    loss, steps = module.loss_sum, []

    def scarce(model, batch):
        if len(batch["input_ids"]) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        steps.append(len(batch["input_ids"]))
        return loss(model, batch)

    monkeypatch.setattr(module, "loss_sum", scarce)
    building = builder(tmp_path / "cut", [node])
    assert building.build(node).state == "built"
    assert max(steps) == fits
    assert [number for state, number in transitions(tmp_path / "cut", node) if state == "running"] == list(
        range(1, 5 - fits // 8)
    )
    one, other = (Store(tmp_path / name).artifact(node) for name in ("whole", "cut"))
    weights = [torch.nn.ParameterDict(safetensors(each)) for each in (one, other)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=2e-4)
    assert one.manifest["summary"]["steps"] == other.manifest["summary"]["steps"]
    assert one.manifest["summary"]["supervised_tokens"] == other.manifest["summary"]["supervised_tokens"]


def safetensors(artifact) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {
        name.replace(".", "_"): value for name, value in load_file(artifact.path / "model/model.safetensors").items()
    }


def test_the_model_of_a_failed_attempt_is_freed_before_the_next(tmp_path, monkeypatch):
    """A model in the frames of the error would take the memory that half the rows were to have."""
    import gc
    import weakref

    import synthdiv.train.module as module

    loss, models, alive = module.loss_sum, [], []

    def scarce(model, batch):
        if not models or models[-1]() is not model:
            alive.append(sum(ref() is not None for ref in models))
            models.append(weakref.ref(model))
        if len(batch["input_ids"]) > 8:
            raise MemoryError
        return loss(model, batch)

    monkeypatch.setattr(module, "loss_sum", scarce)
    node = Node(tiny_model())
    gc.disable()
    try:
        assert builder(tmp_path, [node]).build(node).state == "built"
    finally:
        gc.enable()
    assert alive == [0, 0, 0], "32, 16, 8 rows, and one model at a time"


def test_a_single_rank_shares_and_agrees_without_torch():
    ranks = Ranks()
    assert ranks.share({"a": 1}) == {"a": 1}
    assert ranks.agree("stop") == "stop"
    assert Both().ranks == "many"
