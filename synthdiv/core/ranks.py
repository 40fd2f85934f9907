"""The ranks that work on one node together: rank 0 decides and the others follow. A single rank needs no torch."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from synthdiv.core.types import ConfigError

MEETING_SECONDS = 600.0  # until rank 0 must have written where the ranks meet
WAIT = timedelta(days=7)  # the others wait while rank 0 waits for another builder


class Ranks:
    """Rank 0 of one, or what the environment says: torchrun's variables, or those of a job step of Slurm."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @classmethod
    def of_environment(cls, secret: str = "", meeting: Path | None = None) -> Ranks:
        """Join the process group, if there is one. Those of a Slurm step find each other by a file that begins with
        `meeting`; without it, the variables of an enclosing step are ignored. The keys by which they meet begin with
        `secret`: PyTorch's store answers anyone who can reach its port."""
        several = int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_NODELIST" in os.environ
        with contextlib.ExitStack() as held:
            if meeting and several and "RANK" not in os.environ:
                os.environ.update(of_slurm(meeting, held))
            size = int(os.environ.get("WORLD_SIZE", 1))
            return cls() if size == 1 else cls._joined(secret)

    @classmethod
    def _joined(cls, secret: str) -> Ranks:
        """Join the process group that the environment describes."""
        import torch
        from torch import distributed
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        backend = "gloo"
        if torch.cuda.is_available():
            backend = "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())  # what `cuda` means here
        store, rank, size = next(iter(rendezvous("env://", timeout=WAIT)))
        store = PrefixStore(secret, store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WAIT)
        return cls(rank, size)

    def share(self, value: Any) -> Any:
        """The value of rank 0, on every rank. A collective call."""
        if self.size == 1:
            return value
        import torch
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def agree(self, text: str) -> str:
        """The first text of any rank that is not empty, on every rank. A collective call."""
        if self.size == 1:
            return text
        from torch import distributed

        every: list[str] = [""] * self.size
        distributed.all_gather_object(every, text)
        return next((one for one in every if one), "")

    def leave(self) -> None:
        """At the end, all together: a process that exits earlier is sometimes aborted by threads of gloo."""
        if self.size > 1:
            from torch import distributed

            self.agree("")
            distributed.destroy_process_group()


def reserve_port(address: str = "127.0.0.1") -> socket.socket:
    """Return a socket that holds a free port until it is closed. The system then gives the port to nobody else, and one
    server that sets SO_REUSEADDR, as servers do, can still listen on it."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((address, 0))
    return reserved


def of_slurm(meeting: Path, held: contextlib.ExitStack) -> dict[str, str]:
    """torchrun's variables from those of a job step. Rank 0 takes a free port of its host, which nobody can guess, and
    writes it into a file that only the user may read; each run of a requeued job has its own. `held` keeps the port."""
    step = os.environ
    file = Path(f"{meeting}.{step['SLURM_JOB_ID']}-{step.get('SLURM_RESTART_COUNT', '0')}.meeting")
    if step["SLURM_PROCID"] == "0":
        port = held.enter_context(reserve_port("")).getsockname()[1]
        host = step.get("MASTER_ADDR") or step.get("SLURMD_NODENAME") or socket.gethostname()
        draft = file.with_suffix(".draft")
        draft.touch(mode=0o600)
        draft.write_text(f"{host} {port}", encoding="utf-8")
        draft.rename(file)
    until = time.monotonic() + MEETING_SECONDS
    while not file.exists():
        if time.monotonic() > until:
            raise ConfigError(
                f"{file}: rank 0 did not write it within {MEETING_SECONDS:.0f} s; is it on a shared disk?"
            )
        time.sleep(0.2)
    address, port = file.read_text(encoding="utf-8").split()
    return {
        "RANK": step["SLURM_PROCID"],
        "LOCAL_RANK": step["SLURM_LOCALID"],
        "WORLD_SIZE": step["SLURM_NTASKS"],
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }
