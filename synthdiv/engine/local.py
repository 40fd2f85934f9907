"""The local engine: worker processes on this machine, kept alive over their nodes, each with devices of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from synthdiv.core.runtime import Stop
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError
from synthdiv.engine.build import Outcome, halved
from synthdiv.engine.engine import Engine
from synthdiv.engine.failure import LOST, MEMORY
from synthdiv.engine.job import Job
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen
from synthdiv.study.records import node_record

RETRIES = 2  # of a node whose worker was killed or told to stop: twice may be chance, three times is not


@dataclass
class Worker:
    """A process and what it is at; `several`: it is torchrun, and its children are the ranks. Its answers come through
    `told`: pairs of the worker and a row, None at its end."""

    name: str
    process: subprocess.Popen[str]
    several: bool
    log: Path
    told: queue.Queue[tuple[Worker, dict[str, Any] | None]]
    node: Node | None = None
    opened: str | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        assert self.process.stdout
        with self.process.stdout:
            for line in self.process.stdout:
                with contextlib.suppress(ValueError):  # what torchrun itself may say
                    if isinstance(row := json.loads(line), dict):
                        self.told.put((self, row))
        self.process.wait()
        self.told.put((self, None))

    def give(self, node: Node, attempt: int, micro: int) -> None:
        """A worker that just died is noticed by its listener."""
        self.node = node
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin
            self.process.stdin.write(f"{node.key} {attempt} {micro}\n")
            self.process.stdin.flush()

    def end(self) -> None:
        """No more nodes: it ends by itself."""
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin
            self.process.stdin.close()

    def stop(self) -> None:
        """At the next boundary. torchrun would pass it on, and kill its ranks 30 seconds later."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            for one in (self.several and process.children()) or [process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.terminate()

    def kill(self) -> None:
        """Now, and whatever it started: the ranks of torchrun are in sessions of their own."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()

    @property
    def death(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        return (
            f"its process was killed by {signal.Signals(-code).name}" if code < 0 else f"its process ended with {code}"
        )


class Local(Engine):
    """`jobs` workers, one for each `devices` accelerators; 0 jobs: as many as fit, or one without an accelerator."""

    name = "local"

    def __init__(self, frozen: Frozen, cell: Cell, jobs: int, devices: int, watcher: Watcher | None = None):
        super().__init__(frozen, cell, watcher)
        self.devices = devices
        self.slots = slots(jobs, devices, [] if cell.runtime.device == "cpu" else accelerators())
        self.told: queue.Queue[tuple[Worker, dict[str, Any] | None]] = queue.Queue()
        self.workers: list[Worker | None] = [None] * len(self.slots)
        self.leaving: list[Worker] = []
        self.lost: Counter[str] = Counter()
        self.micro: dict[str, int] = {}  # rows at once, of nodes that ran out of memory on several ranks
        self.started = 0
        self.asked = False  # the workers were told to stop

    def work(self, stop: Stop) -> None:
        self.reuse()
        try:
            while (self.open and not stop.reason) or self._busy():
                if not stop.reason:
                    self._hand_out()
                self._hear(stop)
        finally:
            stopped_now = bool(self._busy())  # nobody waits for a boundary
            there = [*filter(None, self.workers), *self.leaving]
            for worker in there:
                worker.end()
                if stopped_now:
                    worker.kill()
            for worker in there:
                worker.thread.join()  # until the process has ended

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker and worker.node]

    def _hand_out(self) -> None:
        """Give each idle worker a node that is ready."""
        for slot, worker in enumerate(self.workers):
            if self.open and not (worker and worker.node):
                node = self._choice(worker.opened if worker else None)
                del self.open[node.key]
                if worker is None:
                    worker = self.workers[slot] = self._start(slot)
                worker.give(node, self.ledger.attempt(node.key), self.micro.get(node.key, 0))

    def _choice(self, opened: str | None) -> Node:
        """A node that takes the model which the worker has open, else one whose model no other worker has open."""
        others = {worker.opened for worker in self.workers if worker and worker.opened}

        def cost(node: Node) -> int:
            keys = {inner.key for inner in node.inputs.values()}
            return 0 if opened in keys else 2 if keys & others else 1

        return min(self.open.values(), key=cost)

    def _start(self, slot: int) -> Worker:
        """A process of a session of its own: Ctrl-C comes to the engine alone, which tells the workers to stop."""
        self.started += 1
        name = f"{self.ledger.job}-{self.started}"
        path = self.ledger.folder / "jobs" / f"{name}.json"
        graph = [node_record(node) for node in self.nodes.values()]
        Job(name, self.cell.sweep, self.cell.runtime, self.cell.track, None, graph, suites=self.suites).write(path)
        log = self.ledger.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // len(self.slots)))
        environment = {**os.environ, "SYNTHDIV_LOG": str(log), "OMP_NUM_THREADS": threads, **self.slots[slot]}
        many = ["torch.distributed.run", "--standalone", f"--nproc-per-node={self.devices}", "-m"]
        command = [sys.executable, "-m", *(many if self.devices > 1 else []), "synthdiv.worker", str(path)]
        with log.open("a") as handle:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=handle, text=True, bufsize=1,
                env=environment, start_new_session=True,
            )  # fmt: skip
        return Worker(name, process, self.devices > 1, log, self.told)

    def _hear(self, stop: Stop) -> None:
        """Wait for the next answer, and pass on what we are asked meanwhile."""
        try:
            worker, row = self.told.get(timeout=0.1)
        except queue.Empty:
            if stop.reason and not self.asked:
                self.asked = True
                for worker in self._busy():
                    worker.stop()
            return
        node = worker.node
        if row is None:
            worker.end()
            if worker in self.leaving:
                self.leaving.remove(worker)
            else:
                self.workers[self.workers.index(worker)] = None
            if node:
                self._died(node, worker, stop)
        elif node and row.pop("node") == node.key:
            worker.opened, worker.node = row.pop("opened"), None
            self.ledger.number(node.key, row.pop("attempt"))
            if row.pop("broken") or row["state"] == "stopped":
                self._leaves(worker)
            outcome = Outcome(**row)
            if outcome.failure == LOST:  # rank 0 saw that another is gone, which may have said why
                outcome = self._last_words(node, worker) or outcome
            self._settle(node, outcome, stop)

    def _leaves(self, worker: Worker) -> None:
        """It ends by itself, and gets no other node."""
        self.workers[self.workers.index(worker)] = None
        self.leaving.append(worker)
        worker.end()

    def _died(self, node: Node, worker: Worker, stop: Stop) -> None:
        """Its work is kept: another worker goes on with it, but not for ever."""
        if stop.reason:  # before it could listen to us, or on its way out
            return self.became(node, Outcome("stopped", message=stop.reason))
        said, death = self._last_words(node, worker), f"{worker.death}; its log is {worker.log}"
        outcome = said or Outcome("failed", message=death, failure=LOST, log=str(worker.log))
        if not said and self.lost[node.key] < RETRIES:  # else as given up
            self.ledger.event(node.key, "failed", note=death, failure=LOST, log=outcome.log)
        return self._settle(node, outcome, stop)

    def _last_words(self, node: Node, worker: Worker) -> Outcome | None:
        """What a worker, or one of its ranks, wrote about the end of a node; the next attempt is counted from it."""
        event = self.ledger.states(worker.name).get(node.key)
        if event is None:
            return None
        self.ledger.number(node.key, max(self.ledger.attempt(node.key), event.attempt + (event.state != "running")))
        if not event.failure or event.failure == LOST:
            return None
        return Outcome(event.state, event.seconds, event.note, event.failure, log=event.log or str(worker.log))

    def _settle(self, node: Node, outcome: Outcome, stop: Stop) -> None:
        """Try again what is worth it, a bounded number of times; all else is the fate of the node."""
        again = not stop.reason and (outcome.state == "stopped" or outcome.failure == LOST)
        if again and outcome.failure == MEMORY:
            rows = self.micro.get(node.key, self.cell.runtime.micro_batch)
            self.micro[node.key] = halved(node.stage, rows, self.devices)
            self.open[node.key] = node
        elif again and self.lost[node.key] < RETRIES:
            self.lost[node.key] += 1
            self.open[node.key] = node
        elif again:
            told = f"{outcome.message}; given up after {RETRIES + 1} attempts"
            self.ledger.event(node.key, "failed", outcome.seconds, told, LOST, log=outcome.log)
            self.became(node, Outcome("failed", outcome.seconds, told, LOST, log=outcome.log))
        else:
            self.became(node, outcome)


def accelerators() -> list[str]:
    """The accelerators that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() and name.strip() != "-1"]
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(found.splitlines()) if line.startswith("GPU ")]


def slots(jobs: int, devices: int, found: list[str]) -> list[dict[str, str]]:
    """The environment of each worker."""
    if jobs < 0 or devices < 1:
        raise ConfigError(f"hydra.launcher.jobs={jobs}, hydra.launcher.devices={devices}: need 0, and 1, or more")
    if not found:
        return [{} for _ in range(jobs or 1)]
    most = len(found) // devices
    if max(jobs, 1) > most:
        raise ConfigError(
            f"hydra.launcher.jobs={jobs}, hydra.launcher.devices={devices}: need {max(jobs, 1) * devices} accelerators "
            f"and there are {len(found)}; CUDA_VISIBLE_DEVICES says which"
        )
    shares = [found[slot * devices : (slot + 1) * devices] for slot in range(jobs or most)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]
