"""Launching again: what is queued once more, and the command that repeats one cell."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex

import pytest

from synthdiv.core.events import Event
from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.study.pipeline import graph
from synthdiv.study.records import cell_record

CHAIN = [
    NodeRecord(key, "train", {name: name for name in inputs}, {})
    for key, inputs in (("a", ""), ("b", "a"), ("c", "b"), ("d", "a"))
]


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path, "s", job="first")
    ledger.add([CellRecord("one", "arm", [], {}, {}, {}, {}, {}, list("abcd"), None, "a")], CHAIN)
    return ledger


def running(ledger: Ledger, key: str, process: int, host: str) -> None:
    row = Event(key, "running", host=host, process=process).row()
    ledger._append("events/killed.jsonl", [row])


def test_a_node_left_running_by_a_dead_process_is_queued_again_but_not_one_that_may_be_alive(ledger):
    gone = 2**22 + 1  # a process id that Linux never gives
    here = platform.node()
    for key, process, host in (("a", gone, here), ("b", os.getpid(), here), ("c", gone, "node-9"), ("d", gone, here)):
        running(ledger, key, process, host)
    (ledger.root / "artifacts" / "train" / "d").mkdir(parents=True)
    (ledger.root / "artifacts" / "train" / "d" / "manifest.json").write_text("{}")  # finished, without an event
    later = Ledger(ledger.root, "s", "later")
    later.add([], CHAIN)
    assert {key: event.state for key, event in ledger.states().items()} == {
        "a": "queued", "b": "running", "c": "running", "d": "running",
    }  # fmt: skip
    later.event("a", "running")
    assert ledger.states()["a"] == dataclasses.replace(ledger.states()["a"], state="running", attempt=2, job="later")


def test_a_reused_process_id_is_told_from_the_builder_by_its_claim(ledger):
    running(ledger, "a", os.getpid(), platform.node())
    folder = ledger.root / "artifacts" / "train" / ".a"
    folder.mkdir(parents=True)
    row = {"token": "t", "host": platform.node(), "boot": "another boot", "pid": os.getpid(), "started": 1.0}
    (folder / "claim.0").write_text(json.dumps(row))
    Ledger(ledger.root, "s", "other").add([], CHAIN[1:])
    assert ledger.states()["a"].state == "running", "this launch does not want it"
    Ledger(ledger.root, "s", "later").add([], CHAIN)
    assert ledger.states()["a"].state == "queued"


@pytest.mark.parametrize("chosen", [["--config-dir=mine"], ["--config-dir", "mine", "--config-name", "other"]])
def test_the_command_of_a_cell_gives_that_cell_wherever_it_is_typed(chosen, typed, tmp_path, monkeypatch):
    points = []
    monkeypatch.setattr("synthdiv.launch.launch", lambda given, *_: points.extend(given) or 0)
    own, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    (own / "train").mkdir(parents=True)
    elsewhere.mkdir()
    (own / "train" / "slow.yaml").write_text("lr: 1e-6\n")
    (own / "other.yaml").write_text("defaults: [config, _self_]\nmix: {rows: 48}\n")
    assert typed("-m", *chosen, "train=slow", "train.seed=0,3", "sweep=s").code == 0
    first, second = points
    assert second.cell.train.lr == 1e-6
    assert second.cell.mix.rows == (48 if "other" in chosen else None)
    words = shlex.split(cell_record(second, graph(second.cell)).command("s"))
    assert str(own) in words, "absolute: the next command may be typed elsewhere"
    monkeypatch.chdir(elsewhere)
    assert typed(*words[1:]).code == 0
    assert points[2].cell == second.cell != first.cell
