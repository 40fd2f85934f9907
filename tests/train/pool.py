"""Processes of several ranks that train for tests: forked, and with the variables of torchrun."""

from __future__ import annotations

import atexit
import itertools
import json
import shutil
import tempfile
import time
from pathlib import Path

from tests.conftest import ROOT, free_port, warm

PROGRAM = "tests.train.several"


class Pool:
    """Processes that do one list of jobs after another: to start them takes longer than to train. One rank is a process
    as any other."""

    def __init__(self, ranks: int, accelerator: str) -> None:
        self.ranks, self.lists = ranks, itertools.count()
        self.queue = Path(tempfile.mkdtemp(prefix="ranks-"))
        environments: list[dict[str, str]] = [{}]
        if ranks > 1:
            meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
            environments = [meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
        with (self.queue / "log").open("w") as log:
            self.processes = [
                warm().start([str(self.queue)], ROOT, log, PROGRAM, DS_ACCELERATOR=accelerator, **environment)
                for environment in environments
            ]
        atexit.register(self.end)

    def put(self, jobs: list[dict]) -> Path:
        path = self.queue / f"{next(self.lists)}.json"
        path.with_suffix(".new").write_text(json.dumps(jobs))
        return path.with_suffix(".new").rename(path)

    def do(self, jobs: list[dict]) -> None:
        path, last = self.put(jobs), time.monotonic() + 400
        while not all(path.with_suffix(f".{rank}").exists() for rank in range(self.ranks)):
            going = time.monotonic() < last and not any(each.poll() is not None for each in self.processes)
            assert going, (self.queue / "log").read_text()[-6000:]
            time.sleep(0.02)

    def end(self) -> list[int]:
        """The exit code of each rank. Those that wait for one that is gone are killed."""
        if all(each.poll() is None for each in self.processes):
            self.put([])
        else:
            for each in self.processes:
                each.kill()
        codes = [each.wait(60) for each in self.processes]
        shutil.rmtree(self.queue, ignore_errors=True)
        return codes


POOLS: dict[tuple[int, str], Pool] = {}


def launch(folder: Path, ranks: int, jobs: list[dict], accelerator: str = "cpu") -> None:
    if (ranks, accelerator) not in POOLS:
        POOLS[ranks, accelerator] = Pool(ranks, accelerator)
    POOLS[ranks, accelerator].do([job | {"out": str(folder / job["out"])} for job in jobs])
