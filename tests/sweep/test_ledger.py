"""The ledger: plain lines that several processes append to, and what `status` makes of them."""

from __future__ import annotations

import pytest

from synthdiv.sweep.ledger import CellRecord, Event, Ledger, NodeRecord
from synthdiv.sweep.status import cell_state, node_states, show_status
from synthdiv.types import ConfigError


def node(key: str, *inputs: str) -> NodeRecord:
    return NodeRecord(key, "train", list(inputs), {})


def cell(key: str, *nodes: str, overrides: tuple[str, ...] = ()) -> CellRecord:
    return CellRecord(key, "arm", list(overrides), {}, {}, {}, {}, list(nodes), None, nodes[0])


CHAIN = [node("a"), node("b", "a"), node("c", "b"), node("d", "a")]


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path, "s", job="job-1")
    ledger.add([cell("one", "a", "b", "c"), cell("two", "a", "d")], CHAIN)
    return ledger


def test_a_second_launch_adds_its_cells_and_repeats_none(ledger, tmp_path):
    later = Ledger(tmp_path, "s", job="job-2")
    later.add([cell("two", "a", "d"), cell("three", "a", "e")], [*CHAIN, node("e", "a")])
    assert [(row.key, row.launch) for row in later.cells()] == [("one", "job-1"), ("two", "job-1"), ("three", "job-2")]
    assert [row.key for row in later.nodes()] == ["a", "b", "c", "d", "e"]


def test_equal_cells_are_kept_as_launched_and_counted_once(ledger):
    ledger.add([cell("one", "a", "b", "c", overrides=("x=1",))], [])
    assert [row.key for row in ledger.cells()] == ["one", "two", "one"]
    assert [row.overrides for row in ledger.unique_cells() if row.key == "one"] == [[]]


def test_a_line_that_a_crash_cut_is_not_read_and_hides_no_other(ledger, tmp_path):
    ledger.event("a", "running")
    file = ledger.folder / "events" / "job-1.jsonl"
    file.write_text(file.read_text() + '{"node": "a", "state": "bui')
    assert [event.state for event in ledger.events()] == ["running"]
    other = Ledger(tmp_path, "s", job="job-2")
    other.event("a", "built")
    assert ledger.states()["a"].state == "built"
    file = ledger.folder / "cells.jsonl"
    file.write_text(file.read_text() + '{"key": "thr')
    assert [row.key for row in ledger.cells()] == ["one", "two"]


def test_after_a_cut_line_the_next_launch_is_read_whole(ledger, tmp_path):
    """A launch that appends to a cut line must not lose its own first record."""
    file = ledger.folder / "cells.jsonl"
    file.write_text(file.read_text() + '{"key": "thr')
    Ledger(tmp_path, "s", job="job-2").add([cell("three", "a", "e"), cell("four", "a", "e")], [])
    assert [row.key for row in ledger.cells()] == ["one", "two", "three", "four"]


def test_the_newest_event_counts_whichever_file_it_is_in(tmp_path):
    for job, state, at in (("b", "failed", 1.0), ("a", "built", 2.0)):
        ledger = Ledger(tmp_path, "s", job=job)
        ledger.add([], [])
        ledger._append(f"events/{job}.jsonl", [Event("n", state, at)])
    assert ledger.states()["n"].state == "built"


def states(**given: str) -> dict[str, str]:
    return node_states(CHAIN, {key: Event(key, state, 0.0) for key, state in given.items()})


def test_what_stands_on_a_failure_is_blocked_and_nothing_else():
    assert states() == dict.fromkeys("abcd", "queued")
    assert states(a="reused", b="failed") == {"a": "done", "b": "failed", "c": "blocked", "d": "queued"}
    assert states(a="failed") == {"a": "failed", "b": "blocked", "c": "blocked", "d": "blocked"}
    assert states(a="built", b="running")["c"] == "queued"


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


def test_status_shows_cells_stages_and_why(ledger, tmp_path, capsys):
    for key, state, note in (("a", "built", ""), ("b", "failed", "loss is [NaN]"), ("d", "reused", "")):
        ledger.event(key, state, 1.5, note)
    assert show_status(tmp_path, "s") == 0
    told = capsys.readouterr().out
    assert "failed: train b: loss is [NaN]" in told
    assert "1 of 3" in told
    assert "2 of 2" in told
    assert show_status(tmp_path, None) == 0
    assert capsys.readouterr().out == "s: 1 cells done, 1 cells failed\n"


def test_an_unknown_name_is_refused_with_the_names_there_are(ledger, tmp_path):
    with pytest.raises(ConfigError, match=r"no sweep 't' in .*; there are: s"):
        show_status(tmp_path, "t")
    with pytest.raises(ConfigError, match="nothing was launched yet"):
        show_status(tmp_path / "elsewhere", None)
