"""Building one node: classes of failure, less memory, attempts, and how a person or a cluster stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from synthdiv.ranks import Ranks
from synthdiv.runtime import Runtime, Stop
from synthdiv.stage import Node
from synthdiv.store import Store
from synthdiv.sweep.build import Builder, halved
from synthdiv.sweep.failure import BUG, DISK, INPUT, LOST, MEMORY, advice, class_of, message_of
from synthdiv.sweep.ledger import Ledger
from synthdiv.train.pretrain import Pretrain
from synthdiv.types import ConfigError, DataError
from tests.conftest import FILES, TINY, command, synthdiv, write_files
from tests.models.small import tiny_model
from tests.sweep.stages import STEPS, Act, Both, Given, Tokens


def builder(root: Path, nodes: list[Node], stop: Stop | None = None, **runtime) -> Builder:
    ledger = Ledger(root, "s", "job")
    ledger.add([], Given(nodes).graph())
    return Builder(Store(root), ledger, Runtime(device="cpu", **runtime), stop or Stop())


def told(root: Path, node: Node) -> list[tuple[str, int]]:
    """The transitions of a node, each with its attempt; progress left out."""
    events = [event for event in Ledger(root, "s").events() if event.node == node.key and event.state != "queued"]
    return list(dict.fromkeys((event.state, event.attempt) for event in events))


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (DataError("a row"), INPUT), (ConfigError("a field"), INPUT), (ValueError("a bug"), BUG),
        (MemoryError(), MEMORY), (torch.OutOfMemoryError("CUDA out of memory"), MEMORY),
        (OSError(12, "Cannot allocate memory"), MEMORY), (OSError(28, "No space left on device"), DISK),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), MEMORY),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"), LOST),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), BUG),
    ],
)  # fmt: skip
def test_the_class_of_an_error(error, failure):
    assert class_of(error) == failure


def test_our_messages_say_all_and_others_have_their_type():
    assert message_of(DataError("row 3")) == "row 3"
    assert message_of(ValueError("row 3")) == "ValueError: row 3"


@pytest.mark.parametrize(
    ("deed", "failure", "says", "trace"),
    [
        ("data", INPUT, "row 3 of it is no row", False), ("bug", BUG, "ValueError: nobody thought of this", True),
        ("full", DISK, "no space left on the disk of", False),
    ],
)  # fmt: skip
def test_a_failure_has_a_class_a_message_and_where_it_helps_a_traceback(tmp_path, deed, failure, says, trace):
    node = Node(Act(deed=deed))
    outcome = builder(tmp_path, [node]).build(node)
    (event,) = [event for event in Ledger(tmp_path, "s").events() if event.state == "failed"]
    assert (outcome.state, outcome.failure) == ("failed", failure)
    assert (event.failure, event.note) == (failure, outcome.message)
    assert outcome.message.startswith(says)
    assert bool(outcome.trace) == trace
    if trace:
        assert "raise ValueError" in Path(outcome.trace).read_text()


def test_a_loss_that_is_no_number_is_bad_input_and_is_not_tried_again(tmp_path):
    node = Node(tiny_model(lr=1e30))
    outcome = builder(tmp_path, [node]).build(node)
    assert (outcome.failure, outcome.trace) == (INPUT, "")
    assert "lower the learning rate" in outcome.message
    assert told(tmp_path, node) == [("running", 1), ("failed", 1)]


def test_memory_that_is_too_small_halves_the_rows_until_they_fit(tmp_path):
    node = Node(Act(deed="memory 3", steps=2))
    building = builder(tmp_path, [node])
    outcome = building.build(node)
    assert outcome.state == "built"
    assert building.store.artifact(node).manifest["summary"]["rows"] == 2, "8, 4, 2"
    assert told(tmp_path, node) == [
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
        (Node(Tokens(deed="memory 0", batch_rows=0)), "lower generators.batch_tokens for the answers of generators"),
    ],
)
def test_where_nothing_is_left_to_halve_it_says_what_to_do(tmp_path, node, says):
    building = builder(tmp_path, [node], micro_batch=3)
    outcome = building.build(node)
    assert (outcome.state, outcome.failure) == ("failed", MEMORY)
    assert says in outcome.message
    assert says in Ledger(tmp_path, "s").states()[node.key].note
    tries = 1 + bool(node.stage.batch_rows) * 2  # 3, 2, 1 rows; or it has no rows to halve
    assert told(tmp_path, node)[-1] == ("failed", tries)


def test_the_stages_of_a_study_have_advice():
    from synthdiv.evaluate.likelihood import Likelihood
    from synthdiv.generate.stage import Generate
    from synthdiv.mix.stage import Mix
    from synthdiv.train.stage import Train

    assert "train.max_tokens" in advice(MEMORY, Train())
    assert "pretrain.context" in advice(MEMORY, Pretrain())
    assert "evaluate.batch_tokens" in advice(MEMORY, Likelihood())
    assert "generators.batch_tokens" in advice(MEMORY, Generate("one"))
    assert "more memory" in advice(MEMORY, Mix(1, [], [], 0.0, 0, 0, 0))
    assert not advice(INPUT, Train())


@pytest.mark.parametrize(
    ("rows", "whole", "half"), [(0, 8, 4), (0, 1, 0), (100, 8, 4), (3, 8, 2), (1, 8, 0), (5, 0, 0)]
)
def test_half_of_the_rows(rows, whole, half):
    assert halved(Act(batch_rows=whole), rows) == half


@pytest.mark.parametrize("fits", [8, 4])
def test_a_training_that_ran_out_of_memory_ends_in_the_weights_of_the_whole_batch(tmp_path, monkeypatch, fits):
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
    assert [number for state, number in told(tmp_path / "cut", node) if state == "running"] == list(
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


def test_what_a_failed_attempt_held_is_let_go_before_the_next(tmp_path, monkeypatch):
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


def test_a_stop_is_heard_at_the_next_step_and_another_builder_goes_on_there(tmp_path):
    node, stop = Node(Act(deed="SIGTERM", steps=5, marks=str(tmp_path))), Stop()
    building = builder(tmp_path, [node], stop)
    stop.listen()
    try:
        outcome = building.build(node)
    finally:
        stop.leave()
    assert (outcome.state, outcome.message) == ("stopped", "terminated")
    assert told(tmp_path, node) == [("running", 1), ("stopped", 1)]
    (partial,) = Store(tmp_path).partials()
    assert (partial / STEPS).read_text() == "0\n1\n2\n"
    assert Builder(Store(tmp_path), Ledger(tmp_path, "s", "later"), Runtime(), Stop()).build(node).state == "built"
    assert (Store(tmp_path).path(node) / STEPS).read_text() == "0\n1\n2\n3\n4\n"
    assert told(tmp_path, node)[2:] == [("running", 2), ("built", 2)]
    assert not Store(tmp_path).partials()


def test_what_is_finished_needs_no_stop(tmp_path):
    node = Node(Act(deed="SIGTERM", steps=1, marks=str(tmp_path)))
    stop = Stop()
    stop.listen()
    try:
        assert builder(tmp_path, [node], stop).build(node).state == "built"
    finally:
        stop.leave()


def test_a_second_ctrl_c_stops_now_whatever_came_before(tmp_path):
    for before in ([], [signal.SIGTERM], [signal.SIGUSR2]):
        stop = Stop()
        stop.listen()
        try:
            for number in (*before, signal.SIGINT):
                os.kill(os.getpid(), number)
            assert stop.reason == {signal.SIGTERM: "terminated", signal.SIGUSR2: "near its time limit"}.get(
                next(iter(before), None), "interrupted"
            )
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        finally:
            stop.leave()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_rank_needs_nobody():
    ranks = Ranks()
    assert ranks.share({"a": 1}) == {"a": 1}
    assert ranks.agree("stop") == "stop"
    assert Both().ranks == "many"


LONG = [  # a tiny study that trains and answers for some seconds; no checkpoint comes by time
    *TINY,
    "mix=human",
    "train.epochs=200",
    "evaluate.batch_tokens=150",
    "evaluate.respond.subset=12",
    "evaluate.respond.samples=10",
    "runtime.threads=1",
    "sweep=s",
]
WAIT = 200  # seconds until a test gives up; nothing is measured by it


def steps(ledger: Ledger, _partial: Path) -> int:
    """Steps of the training that is going on, which the ledger says after two seconds."""
    stages = {node.key: node.stage for node in ledger.nodes()}
    going = [event for event in ledger.states().values() if event.state == "running" and stages[event.node] == "train"]
    return max((event.done for event in going), default=0)


def rows(_ledger: Ledger, partial: Path) -> int:
    file = partial / "rows.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def stop_when(folder: Path, stage: str, far, more: int, number: int) -> tuple[int, str, list[Path]]:
    """Start the study and send the signal while `stage` is half built, with more than `more` done. The exit code, what
    was said, and the partial folders of the stage that are left."""
    ledger, place = Ledger(folder / "outputs", "s"), folder / "outputs" / "artifacts" / stage
    process = subprocess.Popen(command(*LONG), cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        until = time.monotonic() + WAIT
        while process.poll() is None and time.monotonic() < until:
            claims = [Path(path) for path in place.glob(".*.claim.*") if str(process.pid) in claimed(path)]
            if claims and max((far(ledger, partial) for partial in partials(place)), default=0) > more:
                break
            time.sleep(0.02)
        process.send_signal(number)
        said = process.communicate(timeout=WAIT)[1]
    finally:
        process.kill()
        process.wait()
    return process.returncode, said, partials(place)


def claimed(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["pid"])
    except (OSError, ValueError):
        return ""


def partials(place: Path) -> list[Path]:
    return list(place.glob(".*.partial"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder where the study was stopped in training and in answering, and one where it was left alone."""
    folder, calm = tmp_path_factory.mktemp("stopped"), tmp_path_factory.mktemp("calm")
    undisturbed = subprocess.Popen(command(*LONG), cwd=calm, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stops = []
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before = max((int(path.stem) for path in folder.rglob("*.ckpt")), default=0)
            code, said, left = stop_when(folder, "train", steps, before, number)
            kept = max(int(path.stem) for partial in left for path in partial.glob("checkpoints/*.ckpt"))
            stops.append(("train", code, said, kept))
        code, said, left = stop_when(folder, "generate", rows, 0, signal.SIGUSR2)
        stops.append(("generate", code, said, max(rows(None, partial) for partial in left)))
        last = synthdiv(*LONG, cwd=folder)
    finally:
        assert undisturbed.wait(timeout=WAIT) == 0
    return folder, calm, stops, last.stderr


def test_a_signal_stops_the_command_and_keeps_what_is_done(stopped):
    folder, _, stops, _ = stopped
    assert [code for _, code, *_ in stops] == [130] * 3
    reasons = ["terminated", "interrupted", "near its time limit"]
    for reason, (_, _, said, kept) in zip(reasons, stops, strict=True):
        assert f"{reason}; unfinished work is kept, the same command goes on" in said
        assert "Traceback" not in said
        assert kept > 0
    assert stops[0][3] < stops[1][3], "the second stop came further"
    ledger = Ledger(folder / "outputs", "s")
    stages = {node.key: node.stage for node in ledger.nodes()}
    events = [event for event in ledger.events() if event.state == "stopped"]
    assert [(stages[event.node], event.note) for event in sorted(events, key=lambda event: event.at)] == [
        ("train", "terminated"), ("train", "interrupted"), ("generate", "near its time limit"),
    ]  # fmt: skip
    assert [event.state for event in ledger.states().values()].count("stopped") == 0


def test_a_training_goes_on_at_the_step_where_it_stopped(stopped):
    """No checkpoint comes by time here: those that were there are of the stops."""
    _, _, stops, last = stopped
    first, second = (kept for stage, *_, kept in stops if stage == "train")
    again = [
        int(line.split()[3]) for *_, said, _ in stops for line in said.splitlines() if "continuing at step" in line
    ]
    assert again == [first + 1, second + 1]
    assert "failed" not in last


def test_after_all_stops_every_artifact_is_that_of_an_undisturbed_study(stopped):
    folder, calm, *_ = stopped
    one, other = (manifests(each) for each in (folder, calm))
    assert one.keys() == other.keys()
    differ = [key for key in one if one[key]["files"] != other[key]["files"]]
    assert not differ, [other[key]["stage"] for key in differ]
    sessions = {
        manifest["stage"]: len(manifest["sessions"]) for manifest in one.values() if manifest["stage"] == "train"
    }
    assert sessions == {"train": 3}
    assert not list((folder / "outputs" / "artifacts").glob("*/.*")), "no partial, no claim is left"


def manifests(folder: Path) -> dict[str, dict]:
    found = (folder / "outputs" / "artifacts").glob("*/*/manifest.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


@pytest.mark.parametrize("stage", ["train", "generate"])
def test_a_second_ctrl_c_stops_the_command_at_once(typed, tmp_path, monkeypatch, stage):
    """In the middle of a step or a batch: nothing of it is kept, and the same command goes on."""
    import synthdiv.generate.hf as hf
    import synthdiv.generate.stage as generate
    import synthdiv.train.module as module

    write_files(tmp_path)
    place, name = (module, "loss_sum") if stage == "train" else (generate, "answer_batch")
    real, calls = getattr(place, name), []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return real(*given)

    assert hf.answer_batch is generate.answer_batch
    monkeypatch.setattr(place, name, interrupted)
    words = [*FILES, "mix=human", "sweep=s", "evaluate.batch_tokens=40"]
    said = typed(*words)
    assert said.code == 130
    assert "the same command goes on" in said.err
    assert len(calls) == 3
    folder = tmp_path / "outputs/artifacts"
    (partial,) = folder.glob("*/.*.partial")
    assert not list(partial.glob("checkpoints/*"))
    assert not list(folder.glob("*/.*.claim.*")), "released: this process may live on"
    assert [event.state for event in Ledger(tmp_path / "outputs", "s").states().values()].count("stopped") == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert typed(*words).code == 0
