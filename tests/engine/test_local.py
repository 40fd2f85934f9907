"""The local engine: the same artifacts as inline, workers that die, Ctrl-C, several ranks, two sweeps at once."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections import Counter

import pytest

from synthdiv.core.ledger import Ledger
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.core.types import ConfigError
from synthdiv.engine.failure import INPUT, LOST, MEMORY
from synthdiv.engine.local import Local, LocalWorker, accelerators, environments, torchrun
from tests.conftest import FILES, sources, synthdiv, warm, write_files
from tests.engine.evidence import WAIT, built, manifests, orphans, transitions
from tests.engine.stages import STEPS, Act, Both, Given, cell, knowing
from tests.graphs import taking

LOCAL = ["hydra/launcher=local", "hydra.launcher.jobs=2"]
GRID = ["-m", *FILES, sources("one", "two"), "mix=human,single,multi", "sweep=s", "runtime.threads=1"]


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Runs nodes by the local engine, whose workers know the stages of tests; returns the engine and its exit code."""
    for name, value in knowing(tmp_path / "site").items():
        monkeypatch.setenv(name, value)

    def run(*ends: Node, jobs: int = 2, devices: int = 1, **runtime) -> tuple[Local, int]:
        local = Local(Given(list(ends)), cell(tmp_path / "out", **runtime), jobs, devices)
        return local, local.run()

    return run


@pytest.mark.parametrize(
    ("jobs", "devices", "actual", "wanted"),
    [
        (0, 1, [], [{}]), (3, 1, [], [{}] * 3), (2, 4, [], [{}] * 2),
        (0, 1, ["0", "1"], ["0", "1"]), (1, 1, ["4", "5"], ["4"]), (0, 2, ["0", "1", "2", "3", "4"], ["0,1", "2,3"]),
        (2, 2, ["GPU-a", "GPU-b", "MIG-c", "d"], ["GPU-a,GPU-b", "MIG-c,d"]),
    ],
)  # fmt: skip
def test_each_worker_has_its_own_devices(jobs, devices, actual, wanted):
    assert environments(jobs, devices, actual) == [{"CUDA_VISIBLE_DEVICES": one} if actual else one for one in wanted]


@pytest.mark.parametrize(
    ("jobs", "devices", "actual", "says"),
    [
        (3, 1, ["0", "1"], "need 3 accelerators and this process may use 2"), (0, 4, ["0", "1"], "need 4 accelerators"),
        (2, 2, ["0", "1", "2"], "need 4 accelerators and this process may use 3"),
    ],
)  # fmt: skip
def test_more_devices_than_available_are_refused(jobs, devices, actual, says):
    with pytest.raises(ConfigError, match=says) as caught:
        environments(jobs, devices, actual)
    assert f"hydra.launcher.jobs={jobs}, hydra.launcher.devices={devices}" in str(caught.value)


@pytest.mark.parametrize(("given", "actual"), [("", []), ("-1", []), ("0", ["0"]), ("2,GPU-a", ["2", "GPU-a"])])
def test_the_accelerators_are_those_that_this_process_may_use(monkeypatch, given, actual):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert accelerators() == actual


def test_workers_on_the_processor_need_no_accelerator(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert Local(Given([Node(Act())]), cell(tmp_path), 3, 1).environments == [{}] * 3


@pytest.mark.parametrize(("jobs", "devices", "threads"), [(1, 1, "8"), (2, 1, "4"), (2, 2, "2"), (3, 4, "1")])
def test_the_cores_are_shared_by_all_ranks_of_all_workers(monkeypatch, tmp_path, jobs, devices, threads):
    """torchrun passes the variable on to each of its ranks."""
    local = Local(Given([Node(Act())]), cell(tmp_path / "out"), jobs, devices)
    (local.ledger.folder / "logs").mkdir(parents=True)
    environment: dict[str, str] = {}
    monkeypatch.setattr(subprocess, "Popen", lambda words, env, **_: environment.update(env))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    worker = local._start(1)
    if worker.port:
        worker.port.close()
    assert environment["OMP_NUM_THREADS"] == threads


@pytest.mark.parametrize(("setting", "needs"), [("devices=0", "1 or more"), ("jobs=-1", "0 or more")])
def test_a_refused_setting_starts_nothing(setting, needs, typed, tmp_path):
    write_files(tmp_path)
    done = typed(*GRID, "hydra/launcher=local", f"hydra.launcher.{setting}")
    assert done.code == 2
    assert done.err == f"error: hydra.launcher.{setting}: needs {needs}\n"
    assert not list((tmp_path / "outputs").glob("sweeps/*/jobs/*"))


def test_a_worker_that_has_built_a_node_is_sent_the_next_without_a_pause(engine, monkeypatch):
    """A pause for each node was a sixth of the wall time of a study with hundreds of small ones."""
    order: list[str] = []
    pause, sent, became = time.sleep, LocalWorker.send, Local.became
    monkeypatch.setattr("synthdiv.engine.local.time.sleep", lambda seconds: (order.append("pause"), pause(seconds)))
    monkeypatch.setattr(LocalWorker, "send", lambda *given: (order.append("sent"), sent(*given)))
    monkeypatch.setattr(Local, "became", lambda *given: (order.append("became"), became(*given)))
    assert engine(*(Node(Act(number=number)) for number in range(4)), jobs=1)[1] == 0
    assert [after for before, after in itertools.pairwise(order) if before == "became"] == ["sent"] * 3 + ["pause"]


def test_two_workers_build_the_artifacts_of_one_process_each_once(tmp_path):
    folders = [tmp_path / "inline", tmp_path / "local"]
    for folder in folders:
        folder.mkdir()
        write_files(folder)
    synthdiv(*GRID, cwd=folders[0])
    done = synthdiv(*GRID, *LOCAL, cwd=folders[1])
    one, other = (manifests(folder) for folder in folders)
    assert {key: each["files"] for key, each in one.items()} == {key: each["files"] for key, each in other.items()}
    root = folders[1] / "outputs"
    assert built(root, "s") == Counter(dict.fromkeys(one, 1))
    assert {event.job.rpartition("-")[2] for event in Ledger(root, "s").events() if event.state == "built"} == {
        "1",
        "2",
    }
    assert f"{len(one)} nodes built, 0 reused" in done.stderr
    assert not orphans(folders[1])
    again = synthdiv(*GRID, *LOCAL, cwd=folders[1])
    assert f"0 nodes built, {len(one)} reused" in again.stderr
    assert len(list(root.glob("sweeps/s/jobs/*.json"))) == 1, "nothing is left to build: no worker starts"


def test_another_worker_continues_the_node_of_a_killed_one(engine, tmp_path):
    marks = str(tmp_path)
    long = Node(Act(number=1, deed="SIGKILL", steps=4, marks=marks))
    ends = [taking(Act(number=2), long), Node(Act(number=3)), Node(Act(number=4))]
    _, code = engine(*ends)
    assert code == 0
    root = tmp_path / "out"
    assert built(root, "s") == Counter({node.key: 1 for node in (long, *ends)})
    assert transitions(root, long) == [("running", 1), ("stopped", 1), ("running", 2), ("built", 2)]
    (stopped,) = [event for event in Ledger(root, "s").events() if event.state == "stopped"]
    assert stopped.failure == LOST
    assert "killed by SIGKILL" in stopped.note
    assert (Store(root).path(long) / STEPS).read_text() == "0\n1\n2\n3\n", "it went on where the first was killed"
    assert len(Store(root).artifact(long).manifest["sessions"]) == 2


def test_a_stage_that_kills_its_worker_each_time_fails_and_all_others_are_built(engine, tmp_path, capfd):
    bad = Node(Act(number=1, deed="SIGKILL always"))
    blocked, others = taking(Act(number=2), bad), [Node(Act(number=number)) for number in (3, 4, 5)]
    local, code = engine(blocked, *others)
    assert code == 1
    assert local.states == {bad.key: "failed", blocked.key: "blocked"} | {node.key: "built" for node in others}
    root = tmp_path / "out"
    event = Ledger(root, "s").states()[bad.key]
    assert (event.state, event.failure, event.attempt) == ("failed", LOST, 3)
    assert "given up after 3 attempts" in event.note
    output = capfd.readouterr().err
    assert f"failed: {bad.label} ({LOST}; 1 cells depend on it): its process was killed by SIGKILL" in output
    assert "  again: synthdiv mix.rows=0 sweep=s" in output
    assert re.search(r"its log is \S+\.log", output)
    assert not Store(root).has(bad)


def test_the_summary_of_failures_has_the_class_the_end_of_the_log_and_a_command(engine, tmp_path, capfd):
    """The end of the log as it was when the node failed: the worker goes on and writes more into it."""
    wrong, bug = Node(Act(number=1, deed="data")), Node(Act(number=2, deed="bug"))
    later = [Node(Act(number=number)) for number in range(3, 12)]
    _, code = engine(wrong, bug, *later, jobs=1)
    assert code == 1
    output = capfd.readouterr().err
    words = output[output.index("failed: ") :].splitlines()
    first, second = (number for number, line in enumerate(words) if line.startswith("failed: "))
    assert words[first] == f"failed: {wrong.label} ({INPUT}; 1 cells depend on it): row 3 of it is no row"
    assert words[first + 1 : second - 1][-1] == f"  | {wrong.label} failed: row 3 of it is no row"
    assert words[second - 1] == "  again: synthdiv mix.rows=0 sweep=s"
    assert (
        words[second]
        == f"failed: {bug.label} (unexpected error; 1 cells depend on it): ValueError: nobody thought of this"
    )
    assert "  | ValueError: nobody thought of this" in words[second:]
    assert any('raise ValueError("nobody thought of this")' in line for line in words[second:])
    assert words[-1] == "  again: synthdiv mix.rows=1 sweep=s"


def test_failures_for_one_reason_are_one_line_with_their_number(engine, capfd):
    _, code = engine(*(Node(Act(number=number, deed="data")) for number in range(5)), Node(Act(number=9, deed="bug")))
    output = capfd.readouterr().err
    assert (code, output.count("\nfailed: "), output.count("  again: ")) == (1, 2, 2)
    assert "row 3 of it is no row (and 4 more nodes like this)\n" in output


def test_a_stopped_worker_is_replaced_a_bounded_number_of_times(engine, tmp_path):
    once = Node(Act(number=1, deed="SIGTERM", steps=4, marks=str(tmp_path)))
    always = Node(Act(number=2, deed="SIGTERM always", steps=40))
    others = [Node(Act(number=number)) for number in (3, 4)]
    local, code = engine(once, always, *others)
    assert code == 1
    assert local.states == {node.key: "built" for node in (once, *others)} | {always.key: "failed"}
    assert transitions(tmp_path / "out", once) == [("running", 1), ("stopped", 1), ("running", 2), ("built", 2)]
    assert "given up after 3 attempts" in local.failures[always.key].note


def test_attempts_are_counted_over_workers_and_launches(engine, tmp_path):
    node = Node(Act(number=1, deed="memory 3", steps=2))
    assert engine(node)[1] == 0
    assert transitions(tmp_path / "out", node)[-1] == ("built", 3)
    wrong = Node(Act(number=2, deed="data"))
    assert [engine(wrong)[1], engine(wrong)[1]] == [1, 1]
    assert [state for state in transitions(tmp_path / "out", wrong) if state[0] == "failed"] == [
        ("failed", 1),
        ("failed", 2),
    ]


def test_ranks_meet_at_a_static_rendezvous_that_unpickles_nothing():
    """`--standalone` means that of c10d, as `--rdzv-backend` can."""
    from torch.distributed.run import config_from_args, get_args_parser

    words = torchrun(2, 29500)
    assert words[0] == "torch.distributed.run"
    options = get_args_parser().parse_args([*words[1:], "synthdiv.worker"])
    assert not options.standalone
    config = config_from_args(options)[0]
    assert (config.rdzv_backend, config.min_nodes, config.max_nodes, config.nproc_per_node) == ("static", 1, 1, 2)
    assert config.rdzv_endpoint == "127.0.0.1:29500"


def test_torchrun_starts_several_ranks_and_a_stage_of_one_rank_gets_one(engine, tmp_path):
    alone, marks = Node(Act(number=1)), str(tmp_path)
    ends = [taking(Both(number=2), alone), Node(Both(number=3, deed="SIGKILL", marks=marks))]
    ends += [
        Node(Both(number=4, deed="memory 2")),
        Node(Both(number=5, deed="data")),
        Node(Act(number=6, deed="memory 4")),
    ]
    local, code = engine(*ends, jobs=1, devices=2)
    store = Store(tmp_path / "out")
    assert code == 1
    assert {local.nodes[key].label: state for key, state in local.states.items() if state != "built"} == {
        ends[3].label: "failed"
    }
    assert (store.path(alone) / "world.txt").read_text() == "0 1"
    assert store.artifact(ends[0]).manifest["summary"]["world"] == 2
    assert transitions(tmp_path / "out", ends[1])[-1] == ("built", 2), "a rank was killed, and the job was begun again"
    assert store.artifact(ends[2]).manifest["summary"]["rows"] == 2, "of 8 rows a rank takes 4, and then 2"
    failures = [e.failure for e in Ledger(tmp_path / "out", "s").events() if e.node == ends[2].key and e.failure]
    assert failures.count(MEMORY) == 1
    assert set(failures) <= {MEMORY, LOST}, "rank 0 sees only that another is gone"
    failure = local.failures[ends[3].key]
    assert (failure.failure, failure.note) == (INPUT, "row 3 of it is no row")
    assert store.artifact(ends[4]).manifest["summary"]["rows"] == 4


def test_a_study_is_the_same_under_torchrun(tmp_path):
    """Lightning and the models stand in a process that is one of two ranks. Both train the student, whose weights are
    then equal but for the last bits, and what stands on them may be any sample."""
    folders = [tmp_path / "inline", tmp_path / "ranks"]
    for folder in folders:
        folder.mkdir()
        write_files(folder)
    words = [*FILES, "mix=human", "sweep=s", "runtime.threads=1"]
    synthdiv(*words, cwd=folders[0])
    ranks = ["hydra/launcher=local", "hydra.launcher.devices=2", "runtime.strategy=deepspeed_stage_3"]
    synthdiv(*words, *ranks, cwd=folders[1])
    one, other = (manifests(folder) for folder in folders)
    assert one.keys() == other.keys()
    (trained,) = (key for key, each in one.items() if each["stage"] == "train")
    assert other[trained]["sessions"][0]["ranks"] == 2
    tuned = {trained}
    while (
        more := {key for key, each in one.items() if tuned & {inner["key"] for inner in each["inputs"].values()}}
        - tuned
    ):
        tuned |= more
    assert len(tuned) < len(one) - 3
    for key, each in one.items():
        assert (each["files"] == other[key]["files"]) or key in tuned
        assert each["files"].keys() == other[key]["files"].keys()
    assert not orphans(folders[1])


def test_launches_at_once_build_what_they_share_once(tmp_path):
    """Of one sweep or of two."""
    write_files(tmp_path)
    words = ["-m", *FILES, sources("one", "two"), "runtime.heartbeat_seconds=2", "runtime.threads=1"]
    launches = [
        warm().start([*words, f"mix={mix}", f"sweep={name}", "hydra/launcher=local", "hydra.launcher.jobs=1"], tmp_path)
        for name, mix in (("one", "human,single"), ("two", "human,multi"), ("one", "human,single"))
    ]
    output = [process.communicate(timeout=WAIT)[1] for process in launches]
    assert [process.returncode for process in launches] == [0, 0, 0], output
    root = tmp_path / "outputs"
    assert set(built(root, "one", "two").values()) == {1}
    nodes = [{node.key for node in Ledger(root, name).nodes()} for name in ("one", "two")]
    assert nodes[0] & nodes[1]
    assert set(built(root, "one", "two")) == nodes[0] | nodes[1]
    assert not list((root / "artifacts").glob("*/.*"))
    assert not orphans(tmp_path)
