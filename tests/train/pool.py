"""Processes of several ranks that train for tests: `several.py` under torchrun."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(__file__).with_name("several.py")


class Pool:
    """Processes that do one list of jobs after another: to start them takes longer than to train. One rank is a process
    as any other."""

    def __init__(self, ranks: int, accelerator: str) -> None:
        self.ranks, self.lists = ranks, itertools.count()
        self.queue = Path(tempfile.mkdtemp(prefix="ranks-"))
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": accelerator}
        with (self.queue / "log").open("w") as log:
            command = [sys.executable, *torchrun, str(PROGRAM), str(self.queue)]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        atexit.register(self.end)

    def put(self, jobs: list[dict]) -> Path:
        path = self.queue / f"{next(self.lists)}.json"
        path.with_suffix(".new").write_text(json.dumps(jobs))
        return path.with_suffix(".new").rename(path)

    def do(self, jobs: list[dict]) -> None:
        path, last = self.put(jobs), time.monotonic() + 400
        while not all(path.with_suffix(f".{rank}").exists() for rank in range(self.ranks)):
            going = self.process.poll() is None and time.monotonic() < last
            assert going, (self.queue / "log").read_text()[-6000:]
            time.sleep(0.02)

    def end(self) -> int:
        """Its exit code, of all ranks."""
        if self.process.poll() is None:
            self.put([])
        code = self.process.wait(timeout=60)
        shutil.rmtree(self.queue, ignore_errors=True)
        return code


POOLS: dict[tuple[int, str], Pool] = {}


def launch(folder: Path, ranks: int, jobs: list[dict], accelerator: str = "cpu") -> None:
    if (ranks, accelerator) not in POOLS:
        POOLS[ranks, accelerator] = Pool(ranks, accelerator)
    POOLS[ranks, accelerator].do([job | {"out": str(folder / job["out"])} for job in jobs])
