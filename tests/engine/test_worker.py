"""The worker as a process: alone with a job file, fed line by line, and as one of several ranks under torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synthdiv.core.ledger import Ledger
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.engine.failure import INPUT, LOST, MEMORY
from synthdiv.engine.job import Job
from synthdiv.study.config import Track
from tests.engine.stages import STEPS, Act, Both, Given, knowing
from tests.graphs import taking

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
WAIT = 120


def written(root: Path, nodes: list[Node], keys: list[str] | None, **fields) -> Path:
    """A launched sweep of these nodes and the job file of one worker."""
    given = Given(nodes)
    Ledger(root, "s", "launch").add(given.records(), given.graph())
    path = root / "sweeps" / "s" / "jobs" / "job.json"
    Job("job", "s", Runtime(str(root), device="cpu"), Track(), keys, given.graph(), **fields).write(path)
    return path


def started(folder: Path, path: Path, ranks: int = 1, **more) -> subprocess.Popen:
    environment = {**os.environ, **knowing(folder / "site"), **more}
    words = [*(TORCHRUN if ranks > 1 else []), "-m", "synthdiv.worker", str(path)]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, *words],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )


def done(folder: Path, process: subprocess.Popen, said: str = "") -> tuple[int, str, str]:
    """Its exit code, standard output and log."""
    try:
        out = process.communicate(said, timeout=WAIT)[0]
    finally:
        process.kill()
    return process.returncode, out, (folder / "log").read_text()


def states(root: Path) -> dict[str, str]:
    return {key: event.state for key, event in Ledger(root, "s").states().items()}


def test_a_failure_and_a_missing_input_cost_what_stands_on_them_and_nothing_else(tmp_path):
    bad, good, absent = Node(Act(number=1, deed="data")), Node(Act(number=2)), Node(Act(number=3))
    after = [taking(Act(number=4), bad), taking(Act(number=5), good), taking(Act(number=6), absent)]
    nodes = [bad, good, *after]
    path = written(tmp_path, nodes, [node.key for node in nodes], attempts={good.key: 7})
    code, out, log = done(tmp_path, started(tmp_path, path, SYNTHDIV_LOG=str(tmp_path / "log")))
    assert code == 1
    found = states(tmp_path)
    assert [found[node.key] for node in nodes] == ["failed", "built", "blocked", "built", "blocked"]
    assert out == ""
    assert f"{bad.label} failed: row 3 of it is no row" in log
    assert f"{after[2].label} blocked: {absent.label} is missing" in log
    assert "said by the stage" in log, "what a stage prints is in the log"
    events = Ledger(tmp_path, "s").states()
    assert events[good.key].attempt == 7, "the launch counts"
    assert events[bad.key].failure == INPUT
    assert events[bad.key].log == str(tmp_path / "log")
    assert events[after[0].key].note == f"{bad.label} is missing"
    code, _, log = done(tmp_path, started(tmp_path, path))
    assert code == 1
    assert f"{good.label} reused" in log


def test_keys_come_in_line_by_line_and_only_answers_go_out(tmp_path):
    one, two = Node(Act(number=1)), Node(Act(number=2, deed="memory 2"))
    path = written(tmp_path, [one, two], None)
    process = started(tmp_path, path)
    process.stdin.write(f"{one.key} 3 0\n")
    process.stdin.flush()
    first = json.loads(process.stdout.readline())
    assert process.poll() is None, "it waits for the next"
    code, out, log = done(tmp_path, process, f"{two.key} 1 2\n{one.key} 4 0\n")
    assert code == 0
    answers = [first, *map(json.loads, out.splitlines())]
    assert [(row["node"], row["state"], row["attempt"]) for row in answers] == [
        (one.key, "built", 4), (two.key, "built", 2), (one.key, "reused", 5)
    ]  # fmt: skip
    assert Store(tmp_path).artifact(two).manifest["summary"]["rows"] == 2, "it was told to take two rows at once"
    assert "said by the stage" in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_ends_it_with_75_and_another_goes_on(tmp_path, number):
    first, long = Node(Act(number=1)), Node(Act(number=2, steps=100000))
    path = written(tmp_path, [first, long], [first.key, long.key])
    process = started(tmp_path, path)
    wait_for(lambda: any(rows(partial) > 3 for partial in Store(tmp_path).partials()))
    process.send_signal(number)
    code, _, log = done(tmp_path, process)
    assert code == 75, log
    assert states(tmp_path) == {first.key: "built", long.key: "stopped"}
    (partial,) = Store(tmp_path).partials()
    assert 3 < rows(partial) < 100000
    assert not list(partial.parent.glob(".*.claim.*"))


def rows(partial: Path) -> int:
    file = partial / STEPS
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for(true) -> None:
    until = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.01)


def test_of_two_ranks_one_builds_what_takes_one_and_both_what_takes_many(tmp_path):
    alone, together = Node(Act(number=1)), Node(Both(number=2))
    later = taking(Act(number=3), together)
    nodes = [alone, together, later]
    path = written(tmp_path, nodes, [node.key for node in nodes])
    code, out, log = done(tmp_path, started(tmp_path, path, 2))
    assert code == 0, log
    assert out == ""
    store = Store(tmp_path)
    assert (store.path(alone) / "world.txt").read_text() == "0 1"
    assert (store.path(together) / STEPS).read_text() == "3.0\n" * 6
    assert store.artifact(together).manifest["summary"] == {"rows": 0, "sum": 18.0, "world": 2}
    assert store.artifact(together).manifest["sessions"][0]["ranks"] == 2
    assert store.artifact(alone).manifest["sessions"][0]["ranks"] == 1
    assert states(tmp_path) == {node.key: "built" for node in nodes}
    assert log.count(f"{together.label} built") == 1, "rank 0 alone tells"
    assert not list((tmp_path / "sweeps/s/events").glob("*.rank*"))


@pytest.mark.parametrize("guilty", [0, 1])
def test_one_rank_that_is_asked_to_stop_stops_both_at_the_same_step(tmp_path, guilty):
    nodes = [Node(Both(number=1, deed="SIGTERM", guilty=guilty, marks=str(tmp_path))), Node(Act(number=2))]
    path = written(tmp_path, nodes, [node.key for node in nodes])
    code, _, log = done(tmp_path, started(tmp_path, path, 2))
    assert code != 0
    assert [log.count(f"rank {rank} did step 2") for rank in (0, 1)] == [1, 1], log
    assert "did step 3" not in log
    assert states(tmp_path) == {nodes[0].key: "stopped"}, "and nothing else is begun"
    code, _, log = done(tmp_path, started(tmp_path, path, 2))
    assert code == 0, log
    assert states(tmp_path) == {node.key: "built" for node in nodes}


@pytest.mark.parametrize("guilty", [0, 1])
def test_an_exception_on_one_rank_ends_the_job_and_has_its_own_class(tmp_path, guilty):
    """The other rank only sees that its neighbour is gone, which is no cause."""
    node = Node(Both(number=1, deed="data", guilty=guilty))
    path = written(tmp_path, [node], [node.key])
    code, _, log = done(tmp_path, started(tmp_path, path, 2))
    assert code != 0
    event = Ledger(tmp_path, "s").states()[node.key]
    assert (event.state, event.failure, event.note) == ("failed", INPUT, "row 3 of it is no row"), log
    assert not list((tmp_path / "artifacts" / "both").glob("*/manifest.json"))


def test_a_rank_that_is_killed_ends_the_job(tmp_path):
    node = Node(Both(number=1, deed="SIGKILL", marks=str(tmp_path)))
    path = written(tmp_path, [node], [node.key])
    code, _, log = done(tmp_path, started(tmp_path, path, 2))
    assert code != 0
    assert Ledger(tmp_path, "s").states()[node.key].failure in (LOST, ""), log
    code, _, log = done(tmp_path, started(tmp_path, path, 2))
    assert code == 0, log


def test_several_ranks_take_fewer_rows_when_they_are_told(tmp_path):
    """Out of memory on one rank ends the job; the next is told to take half."""
    node = Node(Both(number=1, deed="memory 2"))
    path = written(tmp_path, [node], None)
    code, out, _ = done(tmp_path, started(tmp_path, path, 2), f"{node.key} 1 0\n")
    assert code != 0
    event = Ledger(tmp_path, "s").states()[node.key]
    assert (event.state, event.failure, event.attempt) == ("stopped", MEMORY, 1)
    code, out, log = done(tmp_path, started(tmp_path, path, 2), f"{node.key} 2 2\n")
    assert code == 0, log
    assert json.loads(out)["state"] == "built"
    assert Store(tmp_path).artifact(node).manifest["summary"]["rows"] == 2


@pytest.mark.parametrize("guilty", [0, 1, -1])
def test_a_job_that_ran_out_of_memory_takes_half_when_it_is_started_again(tmp_path, guilty):
    """However many of its ranks ran out of it; one of Slurm queues itself again for that."""
    node = Node(Both(number=1, deed="memory 2", guilty=guilty))
    path = written(tmp_path, [node], [node.key])
    code, _, log = done(tmp_path, started(tmp_path, path, 2))
    assert code != 0
    event = Ledger(tmp_path, "s").states()[node.key]
    assert (event.state, event.attempt) == ("stopped", 1), log
    code, _, log = done(tmp_path, started(tmp_path, path, 2))
    assert code == 0, log
    event = Ledger(tmp_path, "s").states()[node.key]
    assert (event.state, event.attempt) == ("built", 2)
    assert Store(tmp_path).artifact(node).manifest["summary"]["rows"] == 2, "of 8 rows a rank takes 4, and then 2"
