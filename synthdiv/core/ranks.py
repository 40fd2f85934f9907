"""The ranks that work on one node together: rank 0 decides and the others follow. A single rank needs no torch."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from typing import Any

WAIT = timedelta(days=7)  # the others wait while rank 0 waits for another builder


class Ranks:
    """Rank 0 of one, or what the environment says: torchrun's variables, or those of a job step of Slurm."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @classmethod
    def of_environment(cls, slurm: bool = True) -> Ranks:
        """Join the process group, if there is one. Without `slurm`, the variables of an enclosing Slurm step are
        ignored."""
        several = int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_NODELIST" in os.environ
        if slurm and several and "RANK" not in os.environ:
            os.environ.update(of_slurm())
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return cls()
        import torch
        from torch import distributed

        backend = "gloo"
        if torch.cuda.is_available():
            backend = "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())  # what `cuda` means here
        distributed.init_process_group(backend, timeout=WAIT)
        return cls(distributed.get_rank(), size)

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


def of_slurm() -> dict[str, str]:
    """torchrun's variables from those of a job step: the first node of the job is where the ranks meet."""
    step = os.environ
    names = ["scontrol", "show", "hostnames", step["SLURM_STEP_NODELIST"]]
    first = subprocess.run(names, capture_output=True, text=True, check=True).stdout.split()[0]
    return {
        "RANK": step["SLURM_PROCID"],
        "LOCAL_RANK": step["SLURM_LOCALID"],
        "WORLD_SIZE": step["SLURM_NTASKS"],
        "MASTER_ADDR": step.get("MASTER_ADDR", first),
        "MASTER_PORT": step.get("MASTER_PORT", str(20000 + int(step["SLURM_JOB_ID"]) % 20000)),
    }
