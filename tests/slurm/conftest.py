"""A real Slurm on this machine, of two nodes and with accounting: `cluster.sh` starts it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

SCRIPT = Path(__file__).parent / "cluster.sh"
PROGRAMS = ("sbatch", "sacct", "slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd")
FOLDER = Path(os.environ.get("SYNTHDIV_SLURM", "/tmp/synthdiv-slurm"))


def wait_for(what: str, look: Callable[[], Any], seconds: float = 60) -> Any:
    """What `look` returns once that is true."""
    until = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return seen


@dataclass(frozen=True)
class Cluster:
    environment: dict[str, str]  # for processes that call Slurm's commands

    def run(self, *words: str, input: str | None = None) -> str:
        """What one of Slurm's commands prints, without the last newline."""
        done = subprocess.run(words, env=self.environment, input=input, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout.rstrip()

    def states(self, job: str) -> dict[str, str]:
        """The state of a job, or of every element of an array, as the accounting has it: the last run of each.

        It lags: a row appeared up to 5 s after its submission, start or end, where squeue knew of it at once.
        """
        lines = self.run("sacct", "-X", "-n", "-P", "-o", "jobid,state", "-j", job).splitlines()
        return {name: state.split()[0] for name, state in (line.split("|") for line in lines)}  # "CANCELLED by 0"

    def await_state(self, job: str, *states: str, seconds: float = 60) -> str:
        """Wait until the one job that `job` names is in one of these states."""
        return wait_for(
            f"{job} {' or '.join(states)}",
            lambda: state if (state := self.states(job).get(job)) in states else None,
            seconds,
        )

    def node_state(self, node: str) -> str:
        """As `idle`, `mixed`, `down*`; a star: it does not answer."""
        return self.run("sinfo", "--noheader", f"--nodes={node}", "--format=%T")

    def kill_daemon(self, node: str, jobs: bool = False) -> None:
        """SIGKILL to a node's daemon. Its jobs run on, as behind a cut cable, unless `jobs`: then they die with it."""
        os.kill(int((FOLDER / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
        if not jobs:
            return
        doomed = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURMD_NODENAME") == node:
                    parent = process.parent()
                    keeper = parent is not None and parent.name() == "slurmstepd"
                    doomed += [parent, process] if keeper and parent else [process]
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def start_daemon(self, node: str) -> None:
        """Start a node's daemon again and wait until the node takes jobs."""
        self.run("slurmd", "-N", node)
        wait_for(f"{node} up", lambda: self.node_state(node) in ("idle", "mixed", "allocated", "completing"))


def missing(reason: str) -> None:
    """Skip, or fail where the environment says that Slurm must be here."""
    if "slurm" in os.environ.get("SYNTHDIV_REQUIRE", "").replace(",", " ").split():
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """The cluster; started if it is not up, and then stopped at the end."""
    if not all(map(shutil.which, PROGRAMS)):
        missing("Slurm is not installed; `tests/slurm/cluster.sh install` installs it from Debian's packages")
    if os.geteuid():
        missing("only root can run a Slurm of its own")
    conf = str(FOLDER / "slurm.conf")
    cluster = Cluster({name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))})
    cluster.environment["SLURM_CONF"] = conf
    if os.environ.get("SLURM_CONF", conf) != conf or Path("/etc/slurm/slurm.conf").exists():
        missing("this machine belongs to a Slurm cluster already")
    up = Path(conf).exists()  # without the file Slurm's commands wait for a minute
    up = up and not subprocess.run(["scontrol", "ping"], env=cluster.environment, capture_output=True).returncode
    cluster.run(str(SCRIPT), "start")  # also what a killed test left without a daemon
    yield cluster
    if not up:
        cluster.run(str(SCRIPT), "stop")


@pytest.fixture
def submit(slurm: Cluster, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Submit a bash script with these options of sbatch; returns the job's id. Cancelled at the end of the test."""
    jobs: list[str] = []

    def call(script: str, *options: str) -> str:
        words = ("--parsable", "--mem=100", f"--chdir={tmp_path}", "--output=%A_%a.out", "--open-mode=append", *options)
        jobs.append(slurm.run("sbatch", *words, input=f"#!/usr/bin/env bash\n{script}\n"))
        return jobs[-1]

    yield call
    if jobs:
        slurm.run("scancel", *jobs)
