"""The worker as a process: with a list of nodes, with nodes it is sent, and as one of several ranks under torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synthdiv.core.ledger import Ledger
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.engine.failure import INPUT
from synthdiv.engine.job import Job
from synthdiv.engine.local import torchrun
from synthdiv.study.config import Track
from tests.conftest import free_port
from tests.engine.evidence import WAIT, transitions, wait_for
from tests.engine.stages import STEPS, Act, Both, Given, knowing
from tests.graphs import taking


def written(root: Path, nodes: list[Node], keys: list[str] | None, **fields) -> Path:
    """A launched sweep of these nodes and the job file of one worker."""
    given = Given(nodes)
    Ledger(root, "s", "launch").add(given.records(), given.graph())
    path = root / "sweeps" / "s" / "jobs" / "job.json"
    Job("job", "s", Runtime(str(root), device="cpu"), Track(), keys, given.graph(), **fields).write(path)
    return path


def started(folder: Path, path: Path, ranks: int = 1, **more) -> subprocess.Popen:
    environment = {**os.environ, **knowing(folder / "site"), **more}
    words = ["-m", *(torchrun(ranks, free_port()) if ranks > 1 else []), "synthdiv.worker", str(path)]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, *words], env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log
        )


def done(folder: Path, process: subprocess.Popen, message: bytes = b"") -> tuple[int, str]:
    """Its exit code and log; `message` goes to its standard input, which then ends."""
    try:
        process.communicate(message, timeout=WAIT)
    finally:
        process.kill()
    return process.returncode, (folder / "log").read_text()


def states(root: Path) -> dict[str, str]:
    return {key: event.state for key, event in Ledger(root, "s").states().items()}


def test_a_failure_and_a_missing_input_cost_only_what_depends_on_them(tmp_path):
    bad, good, absent = Node(Act(number=1, deed="data")), Node(Act(number=2)), Node(Act(number=3))
    after = [taking(Act(number=4), bad), taking(Act(number=5), good), taking(Act(number=6), absent)]
    nodes = [bad, good, *after]
    path = written(tmp_path, nodes, [node.key for node in nodes], attempts={good.key: 7})
    code, log = done(tmp_path, started(tmp_path, path, SYNTHDIV_LOG=str(tmp_path / "log")))
    assert code == 1
    actual = states(tmp_path)
    assert [actual[node.key] for node in nodes] == ["failed", "built", "blocked", "built", "blocked"]
    assert f"{bad.label} failed: row 3 of it is no row" in log
    assert f"{after[2].label} blocked: {absent.label} is missing" in log
    assert "printed by the stage" in log, "what a stage prints is in the log"
    events = Ledger(tmp_path, "s").states()
    assert events[good.key].attempt == 7, "the launch counts"
    assert events[bad.key].failure == INPUT
    assert events[bad.key].log == str(tmp_path / "log")
    assert events[after[0].key].note == f"{bad.label} is missing"
    code, log = done(tmp_path, started(tmp_path, path))
    assert code == 1
    assert f"{good.label} reused" in log


def order(process: subprocess.Popen, node: Node, rows: int = 0) -> None:
    process.stdin.write(f"{rows} {node.key} 1\n".encode())
    process.stdin.flush()


def test_a_worker_builds_what_it_is_sent_until_its_input_ends(tmp_path):
    one, two, bad = Node(Act(number=1)), Node(Act(number=2, deed="memory 2")), Node(Act(number=4, deed="data"))
    process = started(tmp_path, written(tmp_path, [one, two, bad, Node(Act(number=5))], None))
    for node in (one, bad, two):
        order(process, node)
    wait_for(lambda: list(states(tmp_path).values()).count("built") == 2, process)
    assert process.poll() is None
    code, log = done(tmp_path, process)
    assert code in (1, 75), log
    assert sorted(states(tmp_path).values()) == ["built", "built", "failed"]
    assert {event.job for event in Ledger(tmp_path, "s").states().values()} == {"job-1"}
    assert Store(tmp_path).artifact(two).manifest["summary"]["rows"] == 2, "less memory is tried at once"


@pytest.mark.parametrize("message", [b"stop\n", b""], ids=["asked", "launcher gone"])
def test_a_worker_stops_at_a_step_when_its_launcher_asks_or_is_gone(tmp_path, message):
    node = Node(Act(number=1, steps=100000))
    process = started(tmp_path, written(tmp_path, [node], None))
    order(process, node)
    wait_for(lambda: any(rows(partial) > 3 for partial in Store(tmp_path).partials()), process)
    code, log = done(tmp_path, process, message)
    assert code == 75, log
    assert states(tmp_path) == {node.key: "stopped"}
    assert not list((tmp_path / "artifacts" / "act").glob(".*/claim.*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_ends_a_worker_with_75_and_keeps_its_work(tmp_path, number):
    first, long = Node(Act(number=1)), Node(Act(number=2, steps=100000))
    path = written(tmp_path, [first, long], [first.key, long.key])
    process = started(tmp_path, path)
    wait_for(lambda: any(rows(partial) > 3 for partial in Store(tmp_path).partials()), process)
    process.send_signal(number)
    code, log = done(tmp_path, process)
    assert code == 75, log
    assert states(tmp_path) == {first.key: "built", long.key: "stopped"}
    (partial,) = Store(tmp_path).partials()
    assert 3 < rows(partial) < 100000
    assert not list(partial.parent.glob(".*/claim.*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_while_a_worker_exits_does_not_change_its_code(tmp_path, number):
    """Slurm's, near the time limit of a job whose work has just ended: the job would be FAILED."""
    node = Node(Act(number=1, deed=f"exit {int(number)}"))
    code, log = done(tmp_path, started(tmp_path, written(tmp_path, [node], [node.key])))
    assert "a signal while Python exits" in log
    assert code == 0, log
    assert states(tmp_path) == {node.key: "built"}


def rows(partial: Path) -> int:
    file = partial / STEPS
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_two_ranks_build_stages_of_many_together_and_rank_0_those_of_one(tmp_path):
    alone, together = Node(Act(number=1)), Node(Both(number=2))
    later = taking(Act(number=3), together)
    nodes = [alone, together, later]
    path = written(tmp_path, nodes, [node.key for node in nodes])
    code, log = done(tmp_path, started(tmp_path, path, 2))
    assert code == 0, log
    store = Store(tmp_path)
    assert (store.path(alone) / "world.txt").read_text() == "0 1"
    assert (store.path(together) / STEPS).read_text() == "3.0\n" * 6
    assert store.artifact(together).manifest["summary"] == {"rows": 0, "sum": 18.0, "world": 2}
    assert store.artifact(together).manifest["sessions"][0]["ranks"] == 2
    assert store.artifact(alone).manifest["sessions"][0]["ranks"] == 1
    assert states(tmp_path) == {node.key: "built" for node in nodes}
    assert log.count(f"{together.label} built") == 1, "rank 0 alone tells"
    assert not list((tmp_path / "sweeps/s/events").glob("*.rank*"))


def test_ranks_stop_at_the_same_step_and_the_job_goes_on_when_it_is_started_again(tmp_path):
    """Whichever rank has the signal, and however many of them run out of memory: then with half of the rows. A job of
    Slurm queues itself again for that."""
    signals = [Node(Both(number=guilty, deed="SIGTERM", guilty=guilty, marks=str(tmp_path))) for guilty in (0, 1)]
    memory = [Node(Both(number=guilty, deed="memory 2", guilty=guilty)) for guilty in (0, 1, -1)]
    nodes = [*signals, *memory, Node(Act(number=2))]
    path = written(tmp_path, nodes, [node.key for node in nodes])
    for place, node in enumerate(nodes):
        code, log = done(tmp_path, started(tmp_path, path, 2))
        last = place == len(nodes) - 1
        assert (code == 0) == last, log
        actual = states(tmp_path)
        assert [*actual] == [each.key for each in nodes[: place + 1]], "nothing behind it is begun"
        assert actual[node.key] == ("built" if last else "stopped")
        assert set([*actual.values()][:place]) <= {"built", "reused"}
        if node in signals:
            for rank in (0, 1):
                assert log.count(f"rank {rank} did step 2") == log.count(f"rank {rank} did step 3") + 1, log
    for node in (*signals, *memory):
        assert [each for each in transitions(tmp_path, node) if each[0] in ("stopped", "built")] == [
            ("stopped", 1),
            ("built", 2),
        ]
    for node in memory:
        assert Store(tmp_path).artifact(node).manifest["summary"]["rows"] == 2, "of 8 rows a rank takes 4, and then 2"


@pytest.mark.parametrize("guilty", [0, 1])
def test_an_exception_on_one_rank_ends_the_job_with_its_class(tmp_path, guilty):
    """The other rank only sees that its neighbour is gone, which is no cause."""
    node = Node(Both(number=1, deed="data", guilty=guilty))
    path = written(tmp_path, [node], [node.key])
    code, log = done(tmp_path, started(tmp_path, path, 2))
    assert code != 0
    event = Ledger(tmp_path, "s").states()[node.key]
    assert (event.state, event.failure, event.note) == ("failed", INPUT, "row 3 of it is no row"), log
    assert not list((tmp_path / "artifacts" / "both").glob("*/manifest.json"))
