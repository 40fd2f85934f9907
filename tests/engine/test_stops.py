"""How a person or a cluster stops the building of a node, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from synthdiv.core.ledger import Ledger
from synthdiv.core.local_run import Stop
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.engine.build import Builder
from tests.conftest import FILES, TINY, synthdiv, warm, write_files
from tests.engine.evidence import WAIT, manifests, transitions
from tests.engine.stages import STEPS, Act
from tests.engine.test_build import builder


def test_a_stop_takes_effect_at_the_next_step_and_another_builder_continues_there(tmp_path):
    node, stop = Node(Act(deed="SIGTERM", steps=5, marks=str(tmp_path))), Stop()
    building = builder(tmp_path, [node], stop)
    stop.listen()
    try:
        outcome = building.build(node)
    finally:
        stop.leave()
    assert (outcome.state, outcome.note) == ("stopped", "terminated")
    assert transitions(tmp_path, node) == [("running", 1), ("stopped", 1)]
    (partial,) = Store(tmp_path).partials()
    assert (partial / STEPS).read_text() == "0\n1\n2\n"
    assert Builder(Store(tmp_path), Ledger(tmp_path, "s", "later"), Runtime(), Stop()).build(node).state == "built"
    assert (Store(tmp_path).path(node) / STEPS).read_text() == "0\n1\n2\n3\n4\n"
    assert transitions(tmp_path, node)[2:] == [("running", 2), ("built", 2)]
    assert not Store(tmp_path).partials()


def test_a_stop_after_the_last_step_has_no_effect(tmp_path):
    node = Node(Act(deed="SIGTERM", steps=1, marks=str(tmp_path)))
    stop = Stop()
    stop.listen()
    try:
        assert builder(tmp_path, [node], stop).build(node).state == "built"
    finally:
        stop.leave()


def test_a_second_ctrl_c_interrupts_at_once_after_any_signal(tmp_path):
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
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN, "that of a time limit would kill while Python exits"


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
    was printed, and the partial folders of the stage that are left."""
    ledger, place = Ledger(folder / "outputs", "s"), folder / "outputs" / "artifacts" / stage
    process = warm().start(LONG, folder)
    try:
        until = time.monotonic() + WAIT
        while process.poll() is None and time.monotonic() < until:
            claims = [Path(path) for path in place.glob(".*/claim.*") if str(process.pid) in claimed(path)]
            if claims and max((far(ledger, partial) for partial in partials(place)), default=0) > more:
                break
            time.sleep(0.02)
        process.send_signal(number)
        output = process.communicate(timeout=WAIT)[1]
    finally:
        process.kill()
    return process.returncode, output, partials(place)


def claimed(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["pid"])
    except (OSError, ValueError):
        return ""


def partials(place: Path) -> list[Path]:
    return list(place.glob(".*/*.partial"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder where the study was stopped in training and in answering, and one where it was left alone."""
    folder, calm = tmp_path_factory.mktemp("stopped"), tmp_path_factory.mktemp("calm")
    undisturbed = warm().start(LONG, calm)
    stops = []
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before = max((int(path.stem) for path in folder.rglob("*.ckpt")), default=0)
            code, output, left = stop_when(folder, "train", steps, before, number)
            kept = max(int(path.stem) for partial in left for path in partial.glob("checkpoints/*.ckpt"))
            stops.append(("train", code, output, kept))
        code, output, left = stop_when(folder, "generate", rows, 0, signal.SIGUSR2)
        stops.append(("generate", code, output, max(rows(None, partial) for partial in left)))
        last = synthdiv(*LONG, cwd=folder)
    finally:
        assert undisturbed.wait(timeout=WAIT) == 0
    return folder, calm, stops, last.stderr


def test_a_signal_stops_the_command_and_keeps_what_is_done(stopped):
    folder, _, stops, _ = stopped
    assert [code for _, code, *_ in stops] == [130] * 3
    reasons = ["terminated", "interrupted", "near its time limit"]
    for reason, (_, _, output, kept) in zip(reasons, stops, strict=True):
        assert f"{reason}; unfinished work is kept, the same command goes on" in output
        assert "Traceback" not in output
        assert kept > 0
    assert stops[0][3] < stops[1][3], "the second stop came further"
    ledger = Ledger(folder / "outputs", "s")
    stages = {node.key: node.stage for node in ledger.nodes()}
    events = [event for event in ledger.events() if event.state == "stopped"]
    assert [(stages[event.node], event.note) for event in sorted(events, key=lambda event: event.at)] == [
        ("train", "terminated"), ("train", "interrupted"), ("generate", "near its time limit"),
    ]  # fmt: skip
    assert [event.state for event in ledger.states().values()].count("stopped") == 0


def test_a_stopped_training_continues_at_its_step(stopped):
    """No checkpoint comes by time here: those that were there are of the stops."""
    _, _, stops, last = stopped
    first, second = (kept for stage, *_, kept in stops if stage == "train")
    again = [
        int(line.split()[3]) for *_, output, _ in stops for line in output.splitlines() if "continuing at step" in line
    ]
    assert again == [first + 1, second + 1]
    assert "failed" not in last


def test_a_study_that_was_stopped_has_the_artifacts_of_an_undisturbed_one(stopped):
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


@pytest.mark.parametrize("stage", ["train", "generate"])
def test_a_second_ctrl_c_stops_the_command_at_once(typed, tmp_path, monkeypatch, stage):
    """In the middle of a step or a batch: nothing of it is kept, and the same command goes on."""
    import synthdiv.generate.hf as generate
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

    monkeypatch.setattr(place, name, interrupted)
    words = [*FILES, "mix=human", "sweep=s", "evaluate.batch_tokens=40"]
    done = typed(*words)
    assert done.code == 130
    assert "the same command goes on" in done.err
    assert len(calls) == 3
    folder = tmp_path / "outputs/artifacts"
    (partial,) = folder.glob("*/.*/*.partial")
    assert not list(partial.glob("checkpoints/*"))
    assert not list(folder.glob("*/.*/claim.*")), "released: this process may live on"
    assert [event.state for event in Ledger(tmp_path / "outputs", "s").states().values()].count("stopped") == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert typed(*words).code == 0
