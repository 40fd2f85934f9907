"""The ledger: plain lines that several processes append to, and which of them count."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.events import ORDER, Event, newest
from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.core.tail import Tail
from synthdiv.core.types import ConfigError


def node(key: str, *inputs: str, stage: str = "train") -> NodeRecord:
    return NodeRecord(key, stage, {name: name for name in inputs}, {})


def cell(key: str, *nodes: str, overrides: tuple[str, ...] = (), arm: str = "arm", **axes: object) -> CellRecord:
    return CellRecord(key, arm, list(overrides), axes, {}, {}, {}, {}, list(nodes), None, nodes[0])


CHAIN = [node("a"), node("b", "a"), node("c", "b"), node("d", "a")]


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path, "s", job="job-1")
    ledger.add([cell("one", "a", "b", "c"), cell("two", "a", "d")], CHAIN)
    return ledger


def job(ledger: Ledger, name: str, **more) -> Ledger:
    return Ledger(ledger.root, ledger.name, name, **more)


def events_file(ledger: Ledger):
    return ledger.folder / "events" / f"{ledger.job}.jsonl"


def test_a_second_launch_adds_its_cells_and_repeats_none(ledger):
    later = job(ledger, "job-2")
    later.add([cell("two", "a", "d"), cell("three", "a", "e")], [*CHAIN, node("e", "a")])
    assert [(row.key, row.launch) for row in later.cells()] == [("one", "job-1"), ("two", "job-1"), ("three", "job-2")]
    assert [row.key for row in later.nodes()] == ["a", "b", "c", "d", "e"]


def test_equal_cells_are_kept_as_launched_and_unique_once(ledger):
    ledger.add([cell("one", "a", "b", "c", overrides=("x=1",))], [])
    assert [row.key for row in ledger.cells()] == ["one", "two", "one"]
    assert [row.overrides for row in ledger.unique_cells() if row.key == "one"] == [[]]


def test_an_axis_that_once_does_not_apply_to_a_cell_applies_to_none_of_its_arm(ledger):
    """So one seed that is launched again at another value leaves its arm whole."""
    ledger.add([cell("far", "a", "d", arm="other", shift="0.5")], [])
    ledger.add([cell("one", "a", "b", "c", overrides=("shift=0.5",), arm="again", shift="n/a")], [])
    assert [row.axes for row in ledger.unique_cells()] == [{"shift": "n/a"}, {"shift": "n/a"}, {"shift": "0.5"}]


def test_rows_that_two_launches_wrote_twice_are_read_once(ledger):
    for name in ("graph.jsonl", "cells.jsonl"):
        file = ledger.folder / name
        file.write_text(file.read_text() * 2)
    assert [row.key for row in ledger.nodes()] == ["a", "b", "c", "d"]
    assert [row.key for row in ledger.cells()] == ["one", "two"]


def test_an_event_writes_only_fields_that_differ_from_their_default(ledger):
    writer = job(ledger, "job-9", log="logs/job-9.log")
    writer.event("b", "failed", 1.23456, "no memory\nleft\u2028at all \udcff", failure="out of memory")
    (row,) = map(json.loads, events_file(writer).read_text().split("\n")[:1])
    assert row.keys() == {"node", "state", "at", "host", "process", "seconds", "note", "failure", "log"}
    (event,) = writer.events()
    assert (event.job, event.attempt, event.seconds, event.failure) == ("job-9", 1, 1.235, "out of memory")
    assert event.note == "no memory\nleft\u2028at all \udcff"
    assert (event.log, event.process) == ("logs/job-9.log", os.getpid())


def test_a_cut_line_is_ignored_and_counted_and_hides_no_other(ledger):
    ledger.event("a", "running")
    file = events_file(ledger)
    file.write_text(file.read_text() + '{"node": "a", "state": "bui')
    reader = Ledger(ledger.root, ledger.name)
    assert (reader.states()["a"].state, reader.cut_lines) == ("running", 1)
    assert [event.state for event in ledger.events()] == ["running"]
    ledger.event("a", "built")  # a writer that goes on does not glue its line to the cut one
    assert (reader.states()["a"].state, reader.cut_lines) == ("built", 1)
    strange = (b'[1]', b'{"state": "built"}', b'{"node": 3, "state": "built"}', b'{"node": "a"}', b"\xff\xfe",
               b'{"node": "a", "state": "flying"}', b'{"node": "a", "state": "built", "attempt": "2"}')  # fmt: skip
    file.write_bytes(file.read_bytes() + b"".join(line + b"\n" for line in strange))
    assert (reader.states()["a"].state, reader.cut_lines) == ("built", 8)


def test_a_launch_after_a_cut_line_is_read_completely(ledger):
    """A launch that appends to a cut line must not lose its own first record."""
    file = ledger.folder / "cells.jsonl"
    file.write_text(file.read_text() + '{"key": "thr')
    assert [row.key for row in ledger.cells()] == ["one", "two"]
    job(ledger, "job-2").add([cell("three", "a", "e"), cell("four", "a", "e")], [])
    assert [row.key for row in ledger.cells()] == ["one", "two", "three", "four"]


def test_unknown_fields_of_a_later_version_are_dropped(ledger):
    events_file(ledger).write_text('{"node": "a", "state": "built", "seconds": 3, "mood": "good"}\n')
    assert ledger.states()["a"] == Event("a", "built", seconds=3, job="job-1")


def test_only_new_bytes_are_read(tmp_path):
    file = tmp_path / "x.jsonl"
    tail = Tail(file)
    assert tail.read() == []
    file.write_bytes(b'{"n": 1}\n{"n"')
    assert (tail.read(), tail.cut) == ([{"n": 1}], 1)
    file.write_bytes(b'{"broken?": 1}'[:8] + b'\n{"n": 2}\n{"n": 3}\n')
    assert (tail.read(), tail.cut) == ([{"n": 2}, {"n": 3}], 0), "what was read is not read again"
    file.write_bytes(b'{"n": 4}\n')
    assert tail.read() == [{"n": 4}], "a file that became shorter is another file"


def test_a_clock_that_jumps_back_a_day_restores_no_old_state(ledger, monkeypatch):
    day, clock = 86400.0, time.time()
    monkeypatch.setattr(time, "time", lambda: clock)
    first = job(ledger, "zz-first-launch")
    first.event("a", "running")
    first.event("a", "failed", note="the cause")
    clock -= day  # the machine of the second launch is a day behind
    second = job(ledger, "aa-second-launch")
    second.add([], CHAIN)
    assert ledger.states()["a"].state == "queued", "what had failed is queued again"
    second.event("a", "running")
    assert ledger.states()["a"].state == "running"
    clock -= day  # and is set back while it works
    second.event("a", "built", 3.0)
    assert ledger.states()["a"].state == "built"
    clock += 3 * day
    job(ledger, "mm-third-launch", attempts={"a": 3}).event("a", "failed", note="damaged")
    assert ledger.states()["a"].note == "damaged"
    assert [event.attempt for event in ledger.events()] == [2, 2, 2, 3, 1, 1]


def test_a_restarted_job_continues_the_attempts_of_its_own_file(ledger):
    """A requeued job has the same file and the attempts that its launch knew."""
    for _ in range(3):
        writer = job(ledger, "job-7", attempts={"b": 5})
        writer.event("b", "running")
        writer.event("b", "stopped", note="preempted")
    writer = job(ledger, "job-7", attempts={"b": 5})
    writer.event("b", "running")
    del writer  # killed
    writer = job(ledger, "job-7", attempts={"b": 5})
    writer.event("b", "running")
    writer.event("b", "built")
    assert [event.attempt for event in ledger.events()] == [5, 5, 6, 6, 7, 7, 8, 9, 9]
    assert ledger.states()["b"].state == "built"


def test_retries_in_one_job_count_up(ledger):
    for state in ("running", "failed", "running", "built"):
        ledger.event("c", state)
    assert [event.attempt for event in ledger.events()] == [1, 1, 2, 2]


def test_a_node_that_is_only_queued_again_has_not_used_its_attempt(ledger):
    ledger.event("b", "failed")
    job(ledger, "launch-2").add([], CHAIN)
    for state in ("running", "failed"):
        job(ledger, f"job-of-2-{state}").event("b", state)
    assert [(event.state, event.attempt) for event in ledger.events()] == [
        ("failed", 1), ("failed", 3), ("running", 2), ("queued", 2),
    ]  # fmt: skip


def test_a_job_that_waits_for_a_builder_and_is_interrupted_writes_no_stop(ledger):
    job(ledger, "builder").event("a", "running")
    job(ledger, "waiter").event("a", "stopped")
    assert ledger.states()["a"].state == "running"


def test_simultaneous_launches_with_equal_attempts_agree_on_the_state(ledger):
    """Both read an empty ledger: their attempts have one number."""
    one, two = job(ledger, "one", attempts={}), job(ledger, "two", attempts={})
    for writer, state in ((one, "running"), (two, "running"), (two, "failed"), (one, "built")):
        writer.event("a", state)
    assert ledger.states()["a"].state == "built"


EVENTS = [Event("n", state, attempt=1, at=9.0 - place, job=f"{state}1") for place, state in enumerate(ORDER)]
EVENTS += [Event("n", state, attempt=2, at=0.0, job=f"{state}2") for state in ("queued", "running", "failed")]


@given(st.permutations(EVENTS))
def test_the_event_that_counts_does_not_depend_on_the_order_of_reading(events):
    assert newest({event.job: event for event in events}).job == "failed2"


def test_progress_is_written_at_most_every_few_seconds(ledger, monkeypatch):
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    ledger.event("a", "running")
    for step in range(3600):
        clock += 1
        ledger.progress("a", step, 3600, "steps")
    lines = [event for event in ledger.events() if event.total]
    assert (lines[0].seconds, lines[1].seconds) == (2.0, 4.0)
    assert 200 < len(lines) < 500
    assert max(b.seconds - a.seconds for a, b in itertools.pairwise(lines)) <= 31
    assert {event.attempt for event in ledger.events()} == {1}


def test_progress_that_cannot_be_written_raises_nothing(ledger, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    ledger.event("a", "running")
    monkeypatch.setattr(Ledger, "_append", full)
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    ledger.progress("a", 1, 2, "steps")
    with pytest.raises(OSError, match="No space"):
        ledger.event("a", "built")


def test_mark_writes_many_nodes_at_once(ledger):
    ledger.mark(["a", "b"], "reused")
    assert {key: event.state for key, event in ledger.states().items()} == {"a": "reused", "b": "reused"}


WRITER = """
import sys
from pathlib import Path
from synthdiv.core.ledger import Ledger, NodeRecord
name = sys.argv[2]
ledger = Ledger(Path(sys.argv[1]), "s", job=name, attempts={})
for number in range(int(sys.argv[3])):
    ledger.add([], [NodeRecord(f"{name}{number}", "train", {"x": "x" * 3000}, {})])
    ledger.event(f"{name}{number}", "built", note="y" * 500)
    print(number, flush=True)
"""


def writer(ledger: Ledger, name: str, count: int) -> subprocess.Popen:
    words = [sys.executable, "-c", WRITER, str(ledger.root), name, str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_two_processes_append_at_once_and_nothing_is_lost(ledger):
    processes = [writer(ledger, name, 60) for name in ("p", "q")]
    reader = Ledger(ledger.root, ledger.name)
    while any(process.poll() is None for process in processes):
        reader.nodes(), reader.states()
        assert reader._invalid == 0
        time.sleep(0.01)
    assert [process.wait() for process in processes] == [0, 0]
    assert len(reader.nodes()) == len(CHAIN) + 120
    assert len(reader.states()) == len(ledger.states()) == 120
    assert reader.cut_lines == 0
    for process in processes:
        process.stdout.close()


def test_a_writer_that_is_killed_loses_at_most_its_last_line(ledger):
    """Killed wherever it is; then its last line is cut in the middle, and the job is started again."""
    process = writer(ledger, "p", 10**6)
    while int(process.stdout.readline()) < 20:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    whole = len(ledger.states())
    assert whole >= 20
    file = ledger.folder / "events" / "p.jsonl"
    file.write_bytes(file.read_bytes()[:-200])
    reader = Ledger(ledger.root, ledger.name)
    assert (len(reader.states()), reader.cut_lines) == (whole - 1, 1)
    job(ledger, "p", attempts={}).event("a", "built")
    assert (len(reader.states()), reader.cut_lines) == (whole, 1)


def test_an_unknown_sweep_is_refused_with_the_known_names(ledger, tmp_path):
    with pytest.raises(ConfigError, match=r"no sweep 't' in .*; there are: s"):
        Ledger(tmp_path, "t").require()
    for name in ("../s", "s/", "a/b", "..", ".s", "/s", "-s", "$(touch x)", "a\nb", "a b", "'", '"', "%j", "s" * 101):
        with pytest.raises(ConfigError, match=r"needs a name of up to 100 letters.*`synthdiv status` lists"):
            Ledger(tmp_path, name).require()
    with pytest.raises(ConfigError, match="nothing was launched yet"):
        Ledger(tmp_path / "elsewhere", "s").require()
