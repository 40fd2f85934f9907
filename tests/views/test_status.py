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
from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.core.liveness import Heartbeats, Liveness
from synthdiv.generate.spend import Spending
from synthdiv.views.show import one_line
from synthdiv.views.status import Observer, Status, cell_state, states_of

GRAPH = {
    key: NodeRecord(key, "train", {name: name for name in inputs}, {})
    for key, inputs in {"a": "", "b": "a", "c": "b", "d": "a"}.items()
}
ELSEWHERE = "node-9"
GONE = 2**22 + 1  # a process id that Linux never gives


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    """Three cells: p ← g, h ← t ← s, p ← u."""
    ledger = Ledger(tmp_path, "s", job="launch")
    stages = {"p": ("prompts", ""), "g": ("generate", "p"), "h": ("generate", "p"), "t": ("train", "gh"),
              "s": ("collapse", "t"), "u": ("train", "p")}  # fmt: skip
    nodes = [NodeRecord(key, stage, {name: name for name in inputs}, {}) for key, (stage, inputs) in stages.items()]
    rows = {"one": "pghts", "two": "pght", "three": "pu"}
    ledger.add(
        [CellRecord(key, key, [f"x={key}", "y=a b"], {"x": key}, {}, {}, {}, {}, list(of), None, "p")
         for key, of in rows.items()],
        nodes,
    )  # fmt: skip
    return ledger


def write(ledger: Ledger, node: str, state: str, job: str = "job", **fields) -> None:
    row = Event(node, state, **{"host": platform.node(), "process": os.getpid()} | fields).row()
    Ledger(ledger.root, ledger.name, job)._append(f"events/{job}.jsonl", [row])


def look(ledger: Ledger) -> Status:
    return Observer(ledger.root, ledger.name).look()


def states(liveness: dict[str, Liveness] | None = None, **events: str) -> dict[str, str]:
    return states_of(GRAPH, {key: Event(key, state, 0.0) for key, state in events.items()}, liveness or {})[0]


def test_only_nodes_that_need_a_failed_node_are_blocked():
    assert states() == dict.fromkeys("abcd", "queued")
    assert states(a="reused", b="failed") == {"a": "done", "b": "failed", "c": "blocked", "d": "queued"}
    assert states(a="failed") == {"a": "failed", "b": "blocked", "c": "blocked", "d": "blocked"}
    assert states(a="built", b="running")["c"] == "queued"


def test_a_job_with_missing_inputs_is_blocked_until_they_exist():
    assert states(a="stopped")["b"] == "queued", "the same command builds it"
    assert states(a="stopped", b="blocked") == {"a": "stopped", "b": "blocked", "c": "blocked", "d": "queued"}
    assert states(a="built", b="blocked")["b"] == "queued"
    assert states_of(GRAPH, {"a": Event("a", "failed")}, {})[1] == {"b": "a", "c": "a", "d": "a"}


def test_liveness_overrides_the_last_event():
    assert states({"a": Liveness("stopped")}, a="running")["a"] == "stopped"
    assert states({"a": Liveness("done")}, a="running")["a"] == "done"


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


def test_the_json_object(ledger):
    for key, state in (("p", "built"), ("g", "reused")):
        write(ledger, key, state, seconds=2.0)
    write(ledger, "h", "failed", note="no such key", failure="a bad value", seconds=3.0, attempt=2, log="logs/h.log")
    write(ledger, "u", "running")
    plain = json.loads(json.dumps(look(ledger).as_json(), allow_nan=False))
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


def test_the_cost_of_hosted_models_is_shown(ledger):
    """What is reserved counts, as it does for the budget."""
    observer = Observer(ledger.root, "s")
    assert "USD" not in one_line(observer.look())
    with Spending(ledger.root, budget_usd=1.0, price_in=1000.0, price_out=2000.0) as spending:
        spending.reserve(100, 0)
        spending.settle(spending.reserve(100, 100), 80, 10)
        assert observer.look().as_json()["spent"] == {"usd": pytest.approx(0.2), "tokens": 190}
    assert "0.20 USD for 190 tokens of hosted models" in one_line(observer.look())


def test_rate_and_time_left_come_from_two_figures_of_the_same_work(ledger):
    observer = Observer(ledger.root, "s")

    def row(seconds: float, done: int, total: int, **more):
        write(ledger, "t", "running", seconds=seconds, done=done, total=total, what="steps, loss 2.1", **more)
        (item,) = observer.look().running
        return item

    assert row(2.0, 1000, 3000)["rate"] is None, "what a resumed node found finished is no speed"
    item = row(12.0, 1100, 3000)
    assert (item["rate"], item["what"], round(item["seconds_left"])) == (10.0, "steps", 190)
    assert row(14.0, 5, 80)["rate"] is None, "another phase"
    assert row(16.0, 45, 80)["rate"] == 20.0
    assert row(17.0, 10, 80)["rate"] is None, "from the beginning again"
    assert row(18.0, 50, 80, attempt=2)["rate"] is None, "another attempt"


def test_time_left_of_the_sweep_uses_the_mean_time_of_each_stage(ledger):
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
    folder = ledger.root / "artifacts" / stage / f".{key}"
    (folder / "tok.partial").mkdir(parents=True, exist_ok=True)
    (folder / "tok.partial" / "heartbeat").write_text(str(beat))
    row = {"token": "tok", "host": host, "boot": "b", "pid": 1, "started": 1.0, "interval": 10.0} | fields
    (folder / "claim.3").write_text(json.dumps(row))
    return folder


def test_a_node_whose_process_is_gone_is_stopped(ledger):
    write(ledger, "p", "running", process=GONE)
    assert look(ledger).node_states["p"] == "stopped"
    write(ledger, "p", "running")
    assert look(ledger).node_states["p"] == "running"
    claimed(ledger, "prompts", "p", platform.node(), 4)
    assert look(ledger).node_states["p"] == "stopped", "its number is another process now: the claim knows"
    claimed(ledger, "prompts", "p", platform.node(), 4, boot=claim.boot_id(), pid=os.getpid(),
            started=claim.process_start(os.getpid()))  # fmt: skip
    (item,) = look(ledger).running
    assert (item["seconds"], item["seen_seconds_ago"]) == (30.0, 0.0)
    folder = ledger.root / "artifacts" / "prompts" / ".p"
    for number in (1, 2, 10, 9):  # the claims of builders that died before, and of one that took over and died
        row = {"token": f"t{number}", "host": platform.node(), "boot": "b", "pid": 1, "started": 1.0}
        (folder / f"claim.{number}").write_text(json.dumps(row))
    assert look(ledger).node_states["p"] == "stopped", "the claim with the highest number counts"


def test_a_builder_killed_between_manifest_and_event_is_done(ledger):
    write(ledger, "p", "running", host=ELSEWHERE)
    folder = claimed(ledger, "prompts", "p", ELSEWHERE, 4)
    final = folder.with_name("p")
    final.mkdir()
    assert look(ledger).node_states["p"] == "running"
    (final / "manifest.json").write_text("{}")
    assert look(ledger).node_states["p"] == "done"


def test_a_builder_on_another_machine_is_watched_by_its_heartbeat_on_our_clock(ledger, monkeypatch):
    clock = 5000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    write(ledger, "p", "running", host=ELSEWHERE, at=time.time() + 86400)
    folder = claimed(ledger, "prompts", "p", ELSEWHERE, 7)
    observer = Observer(ledger.root, "s")

    def seen() -> tuple[float, float | None, bool]:
        (item,) = observer.look().running
        return item["seconds"], item["seen_seconds_ago"], item["late"]

    assert seen() == (60.0, None, False), "one look cannot tell, and its counter says how long it has worked"
    clock += 4
    assert seen() == (60.0, 4.0, False)
    (folder / "tok.partial" / "heartbeat").write_text("8")
    clock += 2
    assert seen() == (70.0, 0.0, False)
    clock += 51
    assert seen() == (70.0, 51.0, True)
    shutil.rmtree(folder / "tok.partial")
    clock += 1
    assert observer.look().node_states["p"] == "running", "only a machine that knows may say it is dead"


def test_a_look_at_running_nodes_never_lists_the_folder_of_a_stage(ledger, monkeypatch):
    for key in "gh":
        write(ledger, key, "running", host=ELSEWHERE)
        claimed(ledger, "generate", key, ELSEWHERE, 2)
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    events = [("generate", Event(key, "running", host=ELSEWHERE)) for key in "gh"]
    assert {key: alive.state for key, alive in Heartbeats(ledger.root).check(events).items()} == {
        "g": "running", "h": "running",
    }  # fmt: skip
    assert {path.name for path in listed} == {".g", ".h"}


def test_a_second_launch_is_seen_while_watching(ledger):
    observer = Observer(ledger.root, "s")
    assert set(observer.look().cell_states) == {"one", "two", "three"}
    cell = CellRecord("four", "four", [], {}, {}, {}, {}, {}, ["p", "v"], None, "p")
    Ledger(ledger.root, "s", "later").add([cell], [NodeRecord("v", "train", {"prompts": "p"}, {})])
    status = observer.look()
    assert status.cell_states["four"] == "queued"
    assert status.node_states["v"] == "queued"
