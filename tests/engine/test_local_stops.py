"""Signals to the local engine: workers stop at a step, or now, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from synthdiv.core.ledger import Ledger
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node
from synthdiv.engine.job import Job
from synthdiv.study.config import Track
from tests.conftest import FILES, warm, write_files
from tests.engine.evidence import WAIT, orphans, wait_for
from tests.engine.stages import Act, Given, knowing
from tests.warm import Process

LOCAL = ["hydra/launcher=local", "hydra.launcher.jobs=2"]
LONG = [*FILES, "mix=human", "train.epochs=100000", "sweep=s", "runtime.threads=1", "runtime.checkpoint_seconds=0.2"]


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Workers know the stages of tests."""
    for name, value in knowing(tmp_path / "site").items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def begun(tmp_path):
    """Starts a sweep whose training never ends; returns once a worker has a checkpoint of it."""
    write_files(tmp_path)
    place, processes = tmp_path / "outputs/artifacts/train", []

    def start(*more: str) -> Process:
        with (tmp_path / "log").open("w") as log:
            process = warm().start([*LONG, *LOCAL, *more], tmp_path, log)
        processes.append(process)
        before = set(place.glob(".*/*.partial"))
        wait_for(lambda: any(list(new.glob("*/*.ckpt")) for new in set(place.glob(".*/*.partial")) - before), process)
        assert orphans(tmp_path), "its workers"
        return process

    yield start
    for one in [*(process.pid for process in processes if process.poll() is None), *orphans(tmp_path)]:
        os.kill(one, signal.SIGKILL)
    for process in processes:
        process.wait(WAIT)


def ended(process: subprocess.Popen | Process) -> int:
    try:
        return process.wait(timeout=WAIT)
    finally:
        process.kill()


@pytest.mark.parametrize(("number", "devices"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_workers_stop_at_a_step_and_the_same_command_goes_on(begun, tmp_path, number, devices):
    """They stop at a signal to the engine, and when their launcher is killed. Where torchrun is killed, the launcher
    starts another."""
    words = [f"hydra.launcher.devices={devices}", f"hydra.launcher.jobs={3 - devices}"]
    words += ["runtime.strategy=fsdp2"] if devices == 2 else []
    process = begun(*words)
    process.send_signal(number)
    assert ended(process) == 130
    log = (tmp_path / "log").read_text()
    reason = "interrupted" if number == signal.SIGINT else "terminated"
    assert f"{reason}; unfinished work is kept, the same command goes on" in log
    assert "Traceback" not in log
    assert "failed" not in log
    assert not orphans(tmp_path)
    kept = newest(tmp_path)
    assert not list((tmp_path / "outputs/artifacts/train").glob(".*/claim.*"))
    ends = states(tmp_path)
    assert ends["train"][0] == "stopped"
    assert {state for state, _ in ends.values()} <= {"built", "reused", "stopped"}
    again = begun(*words)
    wait_for(lambda: f"continuing at step {kept + 1} of" in logs(tmp_path), again)
    if devices == 2:
        before = set(orphans(tmp_path))
        (torchrun,) = [pid for pid in before if "torch.distributed.run" in psutil.Process(pid).cmdline()]
        os.kill(torchrun, signal.SIGKILL)
        wait_for(lambda: not before & set(orphans(tmp_path)), again)
        wait_for(lambda: logs(tmp_path).count("continuing at step") == 2, again)
    again.kill()
    again.wait(WAIT)
    wait_for(lambda: not orphans(tmp_path))
    assert not list((tmp_path / "outputs/artifacts").glob("*/.*/claim.*")), "released"
    assert states(tmp_path)["train"] == ("stopped", "its launcher has ended")


def newest(folder: Path) -> int:
    """The step of the newest checkpoint."""
    return max(int(path.stem) for path in folder.glob("outputs/artifacts/train/.*/*.partial/checkpoints/*.ckpt"))


def states(folder: Path) -> dict[str, tuple[str, str]]:
    """The last state and note of each stage."""
    ledger = Ledger(folder / "outputs", "s")
    stages = {node.key: node.stage for node in ledger.nodes()}
    return {stages[key]: (event.state, event.note) for key, event in ledger.states().items()}


def logs(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.glob("outputs/sweeps/s/logs/*.log"))


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.usefixtures("known")
def test_a_second_ctrl_c_kills_the_workers(tmp_path, devices):
    """They are in a step that takes for ever; those of torchrun are in sessions of their own."""
    script = f"""
import signal, sys
from tests.engine.evidence import WAIT, orphans, wait_for
from tests.engine.stages import Act, Given, Node, cell
from synthdiv.engine.local import Local
nodes = [Node(Act(number=number, deed="hang", marks={str(tmp_path)!r})) for number in range({3 - devices})]
try:
    sys.exit(Local(Given(nodes), cell({str(tmp_path / "out")!r}), {3 - devices}, {devices}).run())
except KeyboardInterrupt:
    sys.exit(130)
"""
    (tmp_path / "script.py").write_text(script)
    log = tmp_path / "log"
    with log.open("w") as handle:
        process = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, stderr=handle)
    try:
        wait_for(lambda: len(list(tmp_path.glob("act-*"))) == 3 - devices, process)
        assert len(orphans(tmp_path)) == (2 if devices == 1 else 3), "two workers; or torchrun and its ranks"
        process.send_signal(signal.SIGINT)
        wait_for(lambda: "Ctrl-C again stops now" in log.read_text(), process)
        process.send_signal(signal.SIGINT)
        assert ended(process) == 130
    finally:
        process.kill()
    wait_for(lambda: not orphans(tmp_path))


@pytest.mark.usefixtures("known")
def test_a_worker_whose_step_never_ends_exits_after_its_launcher(tmp_path, monkeypatch):
    site = tmp_path / "site" / "sitecustomize.py"
    site.write_text(site.read_text() + "import synthdiv.engine.job_worker as it\nit.GRACE = 1\n")
    node = Node(Act(deed="hang", marks=str(tmp_path)))
    path = tmp_path / "out/sweeps/s/jobs/job.json"
    given = Given([node])
    Ledger(tmp_path / "out", "s", "job").add(given.records(), given.graph())
    Job("job", "s", Runtime(str(tmp_path / "out"), device="cpu"), Track(), None, given.graph()).write(path)
    process = subprocess.Popen([sys.executable, "-m", "synthdiv.worker", str(path)], stdin=subprocess.PIPE)
    process.stdin.write(f"0 {node.key} 1\n".encode())
    process.stdin.flush()
    try:
        wait_for(lambda: (tmp_path / "act-0").exists(), process)
        process.communicate(timeout=WAIT)
    finally:
        process.kill()
    assert process.returncode == 75
