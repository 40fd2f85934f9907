"""Ranks that are processes: what rank 0 says all hear, and one that is asked to stop stops all."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from synthdiv.core.local_run import LocalRun, Stop
from synthdiv.core.ranks import Ranks, of_slurm, reserve_port
from synthdiv.core.runtime import Runtime
from synthdiv.core.types import Stopped
from tests.conftest import free_port
from tests.engine.stages import ROOT

SCRIPT = """
import json, sys
from synthdiv.core.ranks import Ranks
ranks = Ranks.of_environment('secret', sys.argv[1])
heard = [ranks.share({"from": ranks.rank}), ranks.agree(""), ranks.agree(f"rank {ranks.rank}" if ranks.rank else "")]
print(json.dumps([ranks.rank, ranks.size, *heard]))
ranks.leave()
"""


def processes(environments: list[dict[str, str]], meeting: Path | str = "") -> list[list]:
    """What each rank says in the end."""
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(meeting)], stdout=subprocess.PIPE, text=True,
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


STEP = {"SLURM_STEP_NODELIST": "node-[7-8]", "SLURMD_NODENAME": "node-7", "SLURM_JOB_ID": "41234", "SLURM_NTASKS": "2"}


def step(rank: int, **more: str) -> dict[str, str]:
    """The variables of one rank of a job step of Slurm."""
    return STEP | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} | more


def test_ranks_of_a_job_step_meet_where_nobody_can_guess(tmp_path, monkeypatch):
    places = []
    for run in range(4):
        for rank in (0, 1):
            for name, value in step(rank, SLURM_RESTART_COUNT=str(run)).items():
                monkeypatch.setenv(name, value)
            monkeypatch.delenv("MASTER_ADDR", raising=False)
            with contextlib.ExitStack() as held:
                actual = of_slurm(tmp_path / "job", held)
            places.append((actual.pop("MASTER_ADDR"), int(actual.pop("MASTER_PORT"))))
            assert actual == {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    assert places[::2] == places[1::2], "both ranks go to one place"
    assert {address for address, _ in places} == {"node-7"}
    assert len(set(places)) > 1, "a job that was queued again meets elsewhere"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_reserved_port_is_handed_to_nobody_and_one_server_can_listen_on_it():
    with contextlib.ExitStack() as stack:
        reserved = [stack.enter_context(reserve_port()) for _ in range(200)]
        ports = {each.getsockname()[1] for each in reserved}
        assert len(ports) == 200
        for options in ((), (socket.SO_REUSEADDR,)):
            for _ in range(500):
                assert stack.enter_context(bound(("127.0.0.1", 0), *options)).getsockname()[1] not in ports
        address = reserved[0].getsockname()
        with pytest.raises(OSError, match="in use"):
            bound(address)
        with bound(address, socket.SO_REUSEADDR) as server:
            server.listen()
            socket.create_connection(address).close()
            with pytest.raises(OSError, match="in use"):
                bound(address, socket.SO_REUSEADDR)


def bound(address: tuple[str, int], *options: int) -> socket.socket:
    one = socket.socket()
    try:
        for option in options:
            one.setsockopt(socket.SOL_SOCKET, option, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def test_two_processes_of_a_job_step(tmp_path):
    assert processes([step(rank) for rank in range(2)], tmp_path / "job") == heard(2)


def test_keys_that_another_user_of_the_host_sets_are_not_those_of_the_ranks(tmp_path):
    """PyTorch's store lets anyone who reaches its port set any key: the ranks' begin with their job's secret."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name in ("default_pg/0//0//cuda//rank_0", "0/0", "worker_count"):
        store.set(name, b"cos\nsystem\n(S'true'\ntR.")
    environment = {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "2"}
    ranks = [environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    assert processes(ranks) == heard(2)
    assert store.num_keys() > 4


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
