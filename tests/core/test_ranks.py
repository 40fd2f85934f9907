"""Ranks that are processes: what rank 0 says all hear, and one that is asked to stop stops all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from synthdiv.core.local_run import LocalRun, Stop
from synthdiv.core.ranks import Ranks, of_slurm
from synthdiv.core.runtime import Runtime
from synthdiv.core.types import Stopped
from tests.engine.stages import ROOT

SCRIPT = """
import json, sys
from synthdiv.core.ranks import Ranks
ranks = Ranks.of_environment()
heard = [ranks.share({"from": ranks.rank}), ranks.agree(""), ranks.agree(f"rank {ranks.rank}" if ranks.rank else "")]
print(json.dumps([ranks.rank, ranks.size, *heard]))
ranks.leave()
"""


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def processes(environments: list[dict[str, str]]) -> list[list]:
    """What each rank says in the end."""
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **more},
        )
        for more in environments
    ]  # fmt: skip
    result = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started)
    return [json.loads(text) for text in result]


def heard(ranks: int) -> list[list]:
    return [[rank, ranks, {"from": 0}, "", "rank 1"] for rank in range(ranks)]


def test_two_processes_started_as_torchrun_starts_them():
    result = processes([{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)])
    assert result == heard(2)


@pytest.fixture
def hostnames(tmp_path, monkeypatch):
    """A machine on which `scontrol show hostnames` knows two nodes."""
    tool = tmp_path / "scontrol"
    tool.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames node-[7-8]" ] && printf "node-7\\nnode-8\\n"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    step = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "41234"}
    return step | {"SLURM_STEP_NODELIST": "node-[7-8]"}


def test_a_job_step_of_slurm_says_the_same(hostnames, monkeypatch):
    for name, value in hostnames.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    actual = of_slurm()
    assert actual.pop("MASTER_PORT") == "21234", "the job's own: two jobs on one node do not meet"
    assert actual == {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node-7"}


def test_two_processes_of_a_job_step(hostnames):
    both = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NTASKS": "2"} for rank in range(2)]
    assert processes([hostnames | more for more in both]) == heard(2)


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1"}, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}])
def test_one_process_is_rank_0_and_needs_no_others(environment, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ranks = Ranks.of_environment()
    assert (ranks.rank, ranks.size) == (0, 1)
    assert ranks.share({"a": 1}) == {"a": 1}
    assert ranks.agree("stop") == "stop"


class Listening(Ranks):
    """Counts how often the ranks would meet."""

    met = 0

    def agree(self, text: str) -> str:
        self.met += 1
        return text


def test_ranks_meet_inside_a_build_alone(tmp_path):
    """Rank 0 that waits for another builder, or builds what takes one rank, must not wait for the others."""
    stop, ranks, kept = Stop(), Listening(), []
    run = LocalRun(Runtime(device="cpu"), lambda *_: None, stop, ranks)
    run.boundary()
    assert ranks.met == 0
    run.begin(tmp_path)
    run.progress(1, 2, "steps")
    assert ranks.met == 1
    stop.reason = "terminated"
    run.progress(2, 2, "steps")
    assert ranks.met == 1, "what is finished needs no stop"
    with pytest.raises(Stopped, match="terminated"):
        run.boundary(lambda: kept.append(1))
    assert kept == [1]
    run.end()
    with pytest.raises(Stopped):
        run.boundary()
    assert ranks.met == 3
