"""The facts of `status`: states, causes, rates and times, from the ledger and the claims alone."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from pathlib import Path

import pytest

from synthdiv.core import claim
from synthdiv.core.events import Event
from synthdiv.core.follow import Step
from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.core.liveness import Pulse, Pulses
from synthdiv.generate.spend import Spending
from synthdiv.views.show import one_line
from synthdiv.views.status import Status, cell_state, node_states
from synthdiv.views.watch import observer

STEPS = {key: Step(key, "train", tuple(inputs)) for key, inputs in {"a": "", "b": "a", "c": "b", "d": "a"}.items()}
ELSEWHERE = "node-9"
GONE = 2**22 + 1  # a process id that Linux never gives


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    """Three cells: p ← g, h ← t ← s, p ← u."""
    ledger = Ledger(tmp_path, "s", job="launch")
    stages = {"p": ("prompts", ""), "g": ("generate", "p"), "h": ("generate", "p"), "t": ("train", "gh"),
              "s": ("collapse", "t"), "u": ("train", "p")}  # fmt: skip
    nodes = [NodeRecord(key, stage, list(inputs), {}) for key, (stage, inputs) in stages.items()]
    rows = {"one": "pghts", "two": "pght", "three": "pu"}
    ledger.add(
        [CellRecord(key, key, [f"x={key}", "y=a b"], {"x": key}, {}, {}, {}, list(of), None, "p")
         for key, of in rows.items()],
        nodes,
    )  # fmt: skip
    return ledger


def write(ledger: Ledger, node: str, state: str, job: str = "job", **fields) -> None:
    row = Event(node, state, **{"host": platform.node(), "process": os.getpid()} | fields).row()
    Ledger(ledger.root, ledger.name, job)._append(f"events/{job}.jsonl", [row])


def look(ledger: Ledger) -> Status:
    return observer(ledger.root, ledger.name).look()


def states(pulses: dict[str, Pulse] | None = None, **given: str) -> dict[str, str]:
    return node_states(STEPS, {key: Event(key, state, 0.0) for key, state in given.items()}, pulses or {})[0]


def test_what_stands_on_a_failure_is_blocked_and_nothing_else():
    assert states() == dict.fromkeys("abcd", "queued")
    assert states(a="reused", b="failed") == {"a": "done", "b": "failed", "c": "blocked", "d": "queued"}
    assert states(a="failed") == {"a": "failed", "b": "blocked", "c": "blocked", "d": "blocked"}
    assert states(a="built", b="running")["c"] == "queued"


def test_a_job_that_found_its_inputs_missing_is_blocked_until_they_are_there():
    assert states(a="stopped")["b"] == "queued", "the same command builds it"
    assert states(a="stopped", b="blocked") == {"a": "stopped", "b": "blocked", "c": "blocked", "d": "queued"}
    assert states(a="built", b="blocked")["b"] == "queued"
    assert node_states(STEPS, {"a": Event("a", "failed")}, {})[1] == {"b": "a", "c": "a", "d": "a"}


def test_a_pulse_says_more_than_the_last_event():
    assert states({"a": Pulse("stopped")}, a="running")["a"] == "stopped"
    assert states({"a": Pulse("done")}, a="running")["a"] == "done"


@pytest.mark.parametrize(
    ("nodes", "state"),
    [
        ("done done", "done"),
        ("done queued", "queued"),
        ("done running queued", "running"),
        ("done failed blocked", "failed"),
        ("done blocked running", "blocked"),
        ("done stopped queued", "stopped"),
    ],
)
def test_the_state_of_a_cell(nodes, state):
    named = {str(number): each for number, each in enumerate(nodes.split())}
    assert cell_state(list(named), named) == state


def test_the_one_object_of_json(ledger):
    for key, state in (("p", "built"), ("g", "reused")):
        write(ledger, key, state, seconds=2.0)
    write(ledger, "h", "failed", note="no such key", failure="a bad value", seconds=3.0, attempt=2, log="logs/h.log")
    write(ledger, "u", "running")
    plain = json.loads(json.dumps(look(ledger).plain(), allow_nan=False))
    assert plain["cells"] == {"running": 1, "failed": 2}
    assert plain["nodes"] == {
        "prompts": {"done": 1}, "generate": {"done": 1, "failed": 1}, "train": {"running": 1, "blocked": 1},
        "collapse": {"blocked": 1},
    }  # fmt: skip
    assert plain["failed"] == [
        {"node": "h", "stage": "generate", "cells": 2, "class": "a bad value", "reason": "no such key", "attempt": 2,
         "seconds": 3.0, "host": platform.node(), "blocks": 2, "log": "logs/h.log",
         "again": "synthdiv x=one 'y=a b' sweep=s"}
    ]  # fmt: skip
    assert [(item["node"], item["cells"], item["job"]) for item in plain["running"]] == [("u", 1, "job")]
    assert (plain["blocked_by"], plain["mean_seconds"], plain["cut_lines"]) == ({"h": 2}, {"prompts": 2.0}, 0)
    assert (plain["sweep"], plain["not_timed"]) == ("s", ["train"])


def test_what_hosted_models_cost_is_told(ledger):
    """What is reserved counts, as it does for the budget."""
    seer = observer(ledger.root, "s")
    assert "USD" not in one_line(seer.look())
    with Spending(ledger.root, budget_usd=1.0, price_in=1000.0, price_out=2000.0) as spending:
        spending.reserve(100, 0)
        spending.settle(spending.reserve(100, 100), 80, 10)
        assert seer.look().plain()["spent"] == {"usd": pytest.approx(0.2), "tokens": 190}
    assert "0.20 USD for 190 tokens of hosted models" in one_line(seer.look())


def test_rate_and_time_left_come_from_two_figures_of_the_same_work(ledger):
    seer = observer(ledger.root, "s")

    def told(seconds: float, done: int, total: int, **more):
        write(ledger, "t", "running", seconds=seconds, done=done, total=total, what="steps, loss 2.1", **more)
        (item,) = seer.look().running
        return item

    assert told(2.0, 1000, 3000).rate is None, "what a resumed node found finished is no speed"
    item = told(12.0, 1100, 3000)
    assert (item.rate, item.what, round(item.seconds_left)) == (10.0, "steps", 190)
    assert told(14.0, 5, 80).rate is None, "another phase"
    assert told(16.0, 45, 80).rate == 20.0
    assert told(17.0, 10, 80).rate is None, "from the beginning again"
    assert told(18.0, 50, 80, attempt=2).rate is None, "another attempt"


def test_time_left_of_the_sweep_is_that_of_what_is_queued_by_its_stage(ledger):
    assert (look(ledger).seconds_left, look(ledger).not_timed) == (
        None, ["collapse", "generate", "prompts", "train"]
    )  # fmt: skip
    write(ledger, "p", "built", seconds=10.0)
    write(ledger, "g", "built", seconds=30.0)
    status = look(ledger)
    assert (status.seconds_left, status.not_timed) == (30.0, ["collapse", "train"])
    write(ledger, "u", "built", seconds=100.0)
    write(ledger, "h", "failed")
    assert (look(ledger).seconds_left, look(ledger).not_timed) == (0.0, []), "what is blocked costs no time"
    write(ledger, "h", "running", attempt=2)
    status = look(ledger)
    assert status.seconds_left == pytest.approx(130.0, abs=1)
    assert status.not_timed == ["collapse"]


def claimed(ledger: Ledger, stage: str, key: str, host: str, beat: int, **fields) -> Path:
    """A claim on a node and its builder's heartbeat, as the store writes them."""
    folder = ledger.root / "artifacts" / stage
    (folder / f".{key}.tok.partial").mkdir(parents=True, exist_ok=True)
    (folder / f".{key}.tok.partial" / "heartbeat").write_text(str(beat))
    row = {"token": "tok", "host": host, "boot": "b", "pid": 1, "started": 1.0, "interval": 10.0} | fields
    (folder / f".{key}.claim.3").write_text(json.dumps(row))
    return folder


def test_a_process_that_is_gone_stopped(ledger):
    write(ledger, "p", "running", process=GONE)
    assert look(ledger).states["p"] == "stopped"
    write(ledger, "p", "running")
    assert look(ledger).states["p"] == "running"
    claimed(ledger, "prompts", "p", platform.node(), 4)
    assert look(ledger).states["p"] == "stopped", "its number is another process now: the claim knows"
    claimed(ledger, "prompts", "p", platform.node(), 4, boot=claim.boot_id(), pid=os.getpid(),
            started=claim.process_start(os.getpid()))  # fmt: skip
    (item,) = look(ledger).running
    assert (item.seconds, item.seen_seconds_ago) == (30.0, 0.0)
    folder = ledger.root / "artifacts" / "prompts"
    for number in (1, 2, 10, 9):  # the claims of builders that died before, and of one that took over and died
        row = {"token": f"t{number}", "host": platform.node(), "boot": "b", "pid": 1, "started": 1.0}
        (folder / f".p.claim.{number}").write_text(json.dumps(row))
    assert look(ledger).states["p"] == "stopped", "the claim with the highest number counts"


def test_killed_between_the_manifest_and_the_event_is_done(ledger):
    write(ledger, "p", "running", host=ELSEWHERE)
    folder = claimed(ledger, "prompts", "p", ELSEWHERE, 4)
    (folder / "p").mkdir()
    assert look(ledger).states["p"] == "running"
    (folder / "p" / "manifest.json").write_text("{}")
    assert look(ledger).states["p"] == "done"


def test_another_machine_is_watched_by_its_counter_on_our_own_clock(ledger, monkeypatch):
    clock = 5000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    write(ledger, "p", "running", host=ELSEWHERE, at=time.time() + 86400)
    folder = claimed(ledger, "prompts", "p", ELSEWHERE, 7)
    seer = observer(ledger.root, "s")

    def told() -> tuple[float, float | None, bool]:
        (item,) = seer.look().running
        return item.seconds, item.seen_seconds_ago, item.late

    assert told() == (60.0, None, False), "one look cannot tell, and its counter says how long it has worked"
    clock += 4
    assert told() == (60.0, 4.0, False)
    (folder / ".p.tok.partial" / "heartbeat").write_text("8")
    clock += 2
    assert told() == (70.0, 0.0, False)
    clock += 51
    assert told() == (70.0, 51.0, True)
    shutil.rmtree(folder / ".p.tok.partial")
    clock += 1
    assert seer.look().states["p"] == "running", "only a machine that knows may say it is dead"


def test_a_hundred_looks_list_a_folder_once_each(ledger, monkeypatch):
    for key in "gh":
        write(ledger, key, "running", host=ELSEWHERE)
        claimed(ledger, "generate", key, ELSEWHERE, 2)
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    events = [("generate", Event(key, "running", host=ELSEWHERE)) for key in "gh"]
    assert {key: pulse.state for key, pulse in Pulses(ledger.root).look(events).items()} == {
        "g": "running", "h": "running",
    }  # fmt: skip
    assert len(listed) == 1


def test_a_second_launch_is_seen_while_watching(ledger):
    seer = observer(ledger.root, "s")
    assert set(seer.look().cells) == {"one", "two", "three"}
    cell = CellRecord("four", "four", [], {}, {}, {}, {}, ["p", "v"], None, "p")
    Ledger(ledger.root, "s", "later").add([cell], [NodeRecord("v", "train", ["p"], {})])
    status = seer.look()
    assert status.cells["four"] == "queued"
    assert status.states["v"] == "queued"
