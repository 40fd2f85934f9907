"""Stages for tests: each does what its fields name. A worker imports them through a `sitecustomize` on its path."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.ledger import CellRecord
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.generate.generate import Generate
from synthdiv.study.config import Cell, Track
from synthdiv.study.records import node_record
from tests.graphs import Taking

ROOT = Path(__file__).resolve().parents[2]
STEPS = "steps.txt"


def once(stage: Any) -> bool:
    """Whether this is the first time that a stage asks."""
    mark = Path(stage.marks) / f"{stage.name}-{stage.number}"
    actual = mark.exists()
    mark.touch()
    return not actual


def signalled(deed: str) -> None:
    """The deed of a stage that is named after a signal."""
    if deed in ("SIGKILL", "SIGTERM"):
        os.kill(os.getpid(), getattr(signal, deed))
        time.sleep(0.01)


class Late:
    """Sends its process a signal when Python takes its modules apart, the last that it does before it exits."""

    def __init__(self, number: int):
        self.number = number

    def __del__(self, write=os.write, kill=os.kill, process=os.getpid) -> None:  # `os` itself may be gone by then
        write(2, b"a signal while Python exits\n")
        kill(process(), self.number)


LATE: list[Late] = []


@dataclass
class Act(Taking):
    """Writes a line for each of its `steps`, and half way, or where it goes on behind that, does its `deed`."""

    name = "act"
    kept = (STEPS,)

    number: int = 0
    deed: str = ""
    steps: int = 1
    batch_rows: int = 8
    marks: str = setting("", locator=True)

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        file = out / STEPS
        print("printed by the stage")
        done = len(file.read_text().splitlines()) if file.exists() else 0
        for step in range(done, self.steps):
            if step == max(done, self.steps // 2):
                self.act(run)
            with file.open("a") as handle:
                handle.write(f"{step}\n")
            run.progress(step + 1, self.steps, "steps")
        (out / "world.txt").write_text(f"{run.rank} {run.world_size}")
        return {"rows": run.micro_batch}

    def act(self, run: Run) -> None:
        if self.deed == "data":
            raise DataError("row 3 of it is no row")
        if self.deed == "bug":
            raise ValueError("nobody thought of this")
        if self.deed == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.deed.startswith("memory") and not 0 < run.micro_batch <= int(self.deed.split()[1]):
            raise MemoryError
        if self.deed == "hang":
            once(self)
            while True:
                time.sleep(1)
        if self.deed.startswith("SIG") and (self.deed.endswith(" always") or once(self)):
            signalled(self.deed.split()[0])
        if self.deed.startswith("exit"):
            LATE.append(Late(int(self.deed.split()[1])))


@dataclass
class Batched(Act):
    """As a stage whose batches are part of its identity."""

    name = "batched"
    less_memory = Generate.less_memory
    batch_tokens: int = 100


@dataclass
class Both(Taking):
    """Of several ranks: each adds its number at each of `steps`; rank `guilty` (-1: each) does the `deed` at the
    third."""

    name = "both"
    ranks = "many"
    kept = (STEPS,)

    number: int = 0
    deed: str = ""
    guilty: int = 1
    steps: int = 6
    batch_rows: int = 8
    marks: str = setting("", locator=True)

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        import torch
        from torch import distributed

        sums, file = [], out / STEPS
        for step in range(self.steps):
            if step == 2 and self.guilty in (run.rank, -1):
                self.act(run)
            number = torch.tensor([run.rank + 1.0])
            distributed.all_reduce(number)
            sums.append(number.item())
            if run.rank == 0:
                file.write_text("".join(f"{value}\n" for value in sums))
            print(f"rank {run.rank} did step {step}")
            run.progress(step + 1, self.steps, "steps")
        return {"rows": run.micro_batch, "sum": sum(sums), "world": run.world_size}

    def act(self, run: Run) -> None:
        if self.deed == "data":
            raise DataError("row 3 of it is no row")
        if self.deed.startswith("memory") and not 0 < run.micro_batch <= int(self.deed.split()[1]):
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        if self.deed.startswith("SIG") and once(self):
            signalled(self.deed)


@dataclass(frozen=True)
class Given:
    """A frozen sweep of these nodes: each that no other takes is the end of a cell."""

    ends: list[Node]

    def nodes(self) -> dict[str, Node]:
        actual: dict[str, Node] = {}
        for node in self.ends:
            node.gather(actual)
        return actual

    def records(self) -> list[CellRecord]:
        return [
            CellRecord(node.key, "arm", [f"mix.rows={number}"], {}, {}, {}, {}, {}, list(node.ancestry()), None, "")
            for number, node in enumerate(self.ends)
        ]

    def graph(self) -> list[Any]:
        return [node_record(node) for node in self.nodes().values()]


def cell(root: Path, **runtime: Any) -> Cell:
    return Cell(sweep="s", track=Track(), runtime=Runtime(str(root), device="cpu", **runtime))


KNOWING = f"""
import {__name__}
from synthdiv.core.local_run import LocalRun

LocalRun.prepare = lambda run: None  # a single rank needs no torch for these stages
"""


def knowing(folder: Path) -> dict[str, str]:
    """The environment of a process that knows these stages."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(KNOWING)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
