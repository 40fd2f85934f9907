"""What `status` prints: the tables, once or until the end, and the refusals."""

from __future__ import annotations

import json
import os
import platform
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from synthdiv.core.events import Event
from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.core.store import require_format
from synthdiv.views import show
from synthdiv.views.layout import duration
from synthdiv.views.show import one_line, show_status
from synthdiv.views.status import Observer
from tests.conftest import ROOT, command

MESSAGE = "CUDA out of memory [of device 0]. Tried to allocate 2.50 GiB and there were 1.00 GiB left in all of it"
LOG = "outputs/sweeps/eggs/logs/a-job-with-quite-a-long-name-on-a-cluster-4711_3.log"


def sweep(root: Path, count: int = 6) -> Ledger:
    """`count` cells, each a training and a suite on one set of prompts; the trainings 0 to 2 are done, failed and
    running, the suite of 0 runs on another machine."""
    require_format(root, create=True)
    ledger = Ledger(root, "eggs", job="launch")
    nodes, cells = [NodeRecord("p" * 64, "prompts", {}, {})], []
    for index in range(count):
        train, suite = f"{index:08d}{'t' * 56}", f"{index:08d}{'s' * 56}"
        nodes.append(NodeRecord(train, "train", {"prompts": "p" * 64}, {}))
        nodes.append(NodeRecord(suite, "collapse", {"student": train}, {}))
        axes = {"mix": f"mix{index // 5}", "student": "big", "rows": "n/a" if index < 5 else 7}
        words = [f"mix=mix{index // 5}", "student=big", f"train.seed={index % 5}"]
        of = ["p" * 64, train, suite]
        cells.append(CellRecord(f"{index:08d}", f"arm{index // 5}", words, axes, {}, {}, {}, {}, of, train, "p"))
    ledger.add(cells, nodes)
    here = {"host": platform.node(), "process": os.getpid()}
    for place, state, more in (
        (0, "built", {"seconds": 1.0}),
        (1, "built", {"seconds": 4000.0}),
        (3, "failed", {"note": MESSAGE, "failure": "out of memory", "attempt": 3, "seconds": 61.0, "log": LOG} | here),
        (5, "running", {"seconds": 10.0, "done": 0, "total": 4000, "what": "steps, loss 3.2"} | here),
        (5, "running", {"seconds": 250.0, "done": 960, "total": 4000, "what": "steps, loss 2.1", "log": LOG} | here),
        (2, "running", {"host": "node-9.cluster.example.org", "job": "other"}),
    ):
        job = more.pop("job", "job")
        ledger = Ledger(root, "eggs", job)
        ledger._append(f"events/{job}.jsonl", [Event(nodes[place].key, state, **more).row()])
    return ledger


@pytest.fixture
def drawn(monkeypatch, capsys):
    def run(root: Path, width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        assert show_status(root, "eggs") == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit_the_terminal_and_break_no_command(tmp_path, width, drawn):
    sweep(tmp_path)
    output = drawn(tmp_path, width)
    whole = [line for line in output.splitlines() if line.startswith(("  log: ", "  again: ", "log of "))]
    assert whole == [
        f"log of train 00000002: {LOG}",
        f"  log: {LOG}",
        "  again: synthdiv mix=mix0 student=big train.seed=1 sweep=eggs",
    ]
    assert max(len(line) for line in output.splitlines() if line not in whole) <= width
    words = " ".join(output.split())
    assert words.startswith("eggs: 2 cells running, 3 cells queued, 1 cell failed; at least ")
    assert "failed: train 00000001: out of memory: CUDA out of memory [of device 0]." in words
    assert f"needed by 1 cell; blocks 1 node; attempt 3 on {platform.node()} ended after 0:01:01" in words
    progress = "960/4,000 steps, 4/s 0:12:40 0.0 s ago"
    assert f"train 00000002 {platform.node()} 0:04:10 {progress}" in words
    assert "node-9" in words
    assert "last seen ?: on another machine" in words
    assert "00000001 mix=mix0 train.seed=1 1 . . 1 1" in words, "all cells have student=big"


def test_a_thousand_cells_are_grouped_by_arm_failed_ones_first(tmp_path, drawn):
    sweep(tmp_path, 1000)
    lines = drawn(tmp_path, 80).splitlines()
    assert len(lines) < 50
    arms = [line.split() for line in lines if line.startswith("mix=")]
    assert arms[0] == ["mix=mix0", "2", "2", "1"]
    assert arms[1] == ["mix=mix1", "rows=7", ".", "5", "."]
    assert len(arms) == 12
    assert lines[-1] == "and 188 more arms"


def test_forty_failures_for_one_reason_are_one_failure_with_their_number(tmp_path, drawn):
    ledger = sweep(tmp_path, 50)
    for node in [record.key for record in ledger.nodes() if record.stage == "train"][3:]:
        ledger.event(node, "failed", note=f"refuses {node[:8]} (400): no", failure="bad input")
    words = " ".join(drawn(tmp_path, 80).split())
    assert words.count("failed: train ") == 2, "the other one is out of memory"
    assert "refuses 00000003 (400): no" in words
    assert "and 46 more nodes like this; `--json` has all of them" in words


def test_the_summary_line(tmp_path):
    ledger = sweep(tmp_path)
    (ledger.folder / "events" / "cut.jsonl").write_text('{"no')
    line = one_line(Observer(tmp_path, "eggs").look())
    assert line.startswith("eggs: 2 cells running, 3 cells queued, 1 cell failed; at least ")
    assert line.endswith(" left (no collapse was timed yet); 1 cut line ignored")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (12.34, "12.3 s"), (59.96, "0:01:00"), (185, "0:03:05"), (7800, "2:10:00"), (3599.9, "1:00:00"),
     (356400, "4 days, 3:00:00"), (None, "?")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_verb_and_its_options(typed, tmp_path):
    sweep(tmp_path / "outputs")
    result = typed("status", "eggs", "--json")
    assert (result.code, json.loads(result.out)["sweep"]) == (0, "eggs")
    every = json.loads(typed("status", "--json").out)
    assert every["sweeps"][0]["cells"] == {"running": 2, "queued": 3, "failed": 1}
    assert typed("status").out.startswith("eggs: 2 cells running")
    for words, part in {
        ("a/b",): "a letter or digit first; `synthdiv status` lists",
        ("../outputs",): "needs a name of up to",
        ("egg",): "no sweep 'egg' in outputs/sweeps; there are: eggs",
        ("--watch",): "status --watch: needs the name of a sweep; there are: eggs",
        ("eggs", "--wacht"): "`synthdiv status` takes the name of a sweep, runtime.outputs=, --json, --watch",
        ("eggs", "more"): "takes the name of a sweep",
    }.items():
        result = typed("status", *words)
        assert result.code == 2
        assert part in result.err


def finish(ledger: Ledger) -> None:
    """Build all that is not failed or blocked."""
    job = Ledger(ledger.root, ledger.name, "last", attempts={node.key: 9 for node in ledger.nodes()})
    bad = {f"{1:08d}{'t' * 56}", f"{1:08d}{'s' * 56}"}
    for node in ledger.nodes():
        if node.key not in bad:
            job.event(node.key, "built", 2.0)


@pytest.mark.parametrize("as_json", [False, True])
def test_without_a_terminal_a_watch_waits_for_the_end_and_prints_it_once(tmp_path, capsys, monkeypatch, as_json):
    ledger = sweep(tmp_path, 3)
    monkeypatch.setattr(show, "EVERY", 0.02)
    later = threading.Timer(0.3, finish, [ledger])
    later.start()
    assert show_status(tmp_path, "eggs", as_json, watched=True) == 1, "a cell failed"
    later.join()
    watched = capsys.readouterr().out
    assert show_status(tmp_path, "eggs", as_json) == 0
    assert watched == capsys.readouterr().out
    assert watched.startswith(
        '{"sweep": "eggs", "cells": {"done": 2, "failed": 1}' if as_json else "eggs: 2 cells done, 1 cell failed\n"
    )


def test_on_a_terminal_the_tables_are_redrawn_and_an_interrupt_ends_it(tmp_path):
    """A real terminal of 80 columns: the tables are drawn again when events come, and Ctrl-C is no error."""
    ledger = sweep(tmp_path / "outputs", 3)
    master, slave = pty.openpty()
    code = "import sys; from synthdiv.views import show; show.EVERY = .1; import synthdiv.__main__ as m; m.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "status", "eggs", "--watch"],
        cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave,
        env=os.environ | {"COLUMNS": "80", "LINES": "40", "TERM": "xterm"},
    )  # fmt: skip
    os.close(slave)
    shown = ""

    def until(part: str) -> None:
        nonlocal shown
        end = time.monotonic() + 60
        while part not in shown:
            assert time.monotonic() < end, shown
            if select.select([master], [], [], 0.1)[0]:
                shown += os.read(master, 65536).decode()

    until("train 00000002")
    Ledger(ledger.root, "eggs", "new", attempts={}).event(f"{2:08d}{'s' * 56}", "running")
    until("collapse 00000002")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    while select.select([master], [], [], 0.1)[0]:
        try:
            shown += os.read(master, 65536).decode()
        except OSError:  # Linux says so when the other end is closed
            break
    os.close(master)
    assert "Traceback" not in shown
    assert "again: synthdiv mix=mix0 student=big train.seed=1 sweep=eggs" in shown.rpartition("stage")[2]


def test_the_benchmark_on_a_small_sweep(tmp_path):
    """All nodes are counted and the limits hold, as with 100,000 nodes."""
    words = [sys.executable, str(ROOT / "benchmarks" / "ledger.py"), "3000"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["write", "status", "both", "memory", "news", "none", "store"]


def test_status_follows_a_real_run_from_another_process(tmp_path):
    """A sweep that is being built, seen by the command: something runs with a figure, then all is done."""
    words = command("mix=none", "sweep=one", "prompts.toy.rows=60", "prompts.test=12", "evaluate.suites.0.words=100",
                    "evaluate.suites.1.prompts=2", "student.pretrain.tokens=1000000", "student.pretrain.toy.rows=200",
                    "evaluate.respond.subset=2", "evaluate.respond.samples=2")  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log)
    try:
        end, item = time.monotonic() + 120, None
        while item is None and time.monotonic() < end and process.poll() is None:
            time.sleep(0.2)
            if (tmp_path / "outputs/sweeps/one/cells.jsonl").exists():
                running = Observer(tmp_path / "outputs", "one").look().running
                item = next((each for each in running if each["rate"]), None)
        assert item, (tmp_path / "log").read_text()
        assert (item["stage"], item["host"], item["seen_seconds_ago"]) == ("pretrain", platform.node(), 0.0)
        assert 0 < item["done"] < item["total"]
    finally:
        process.kill()
        process.wait()
    status = Observer(tmp_path / "outputs", "one").look()
    assert status.nodes["pretrain"] == {"stopped": 1}
    assert status.cells == {"stopped": 1}
