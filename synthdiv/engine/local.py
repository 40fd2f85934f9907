"""The local engine: worker processes on this machine, each with devices of its own, that share one graph."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from synthdiv.core.events import DONE, Event
from synthdiv.core.local_run import Stop
from synthdiv.core.ranks import reserve_port
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError, SynthdivError
from synthdiv.engine.build import companions, halved
from synthdiv.engine.engine import POLL, RETRIES, Engine
from synthdiv.engine.failure import LOST, MEMORY
from synthdiv.engine.job import Job
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen

ORDER = 500  # more nodes sent to a worker at once: their line, 70 bytes each, has room in a pipe that is not read yet


@dataclass
class LocalWorker:
    """A process that builds the nodes it is sent until its standard input ends; torchrun, if it has several ranks."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    nodes: list[Node] = field(default_factory=list)  # what it builds: several that are built together, or one
    opened: str | None = None  # the model that it has open, as far as this process knows
    began: bool = False  # whether it ever began a node
    port: socket.socket | None = None  # where its ranks meet, held until it ends

    def send(self, line: str) -> None:
        """How many rows to take at once, then nodes, each by key and attempt; or `stop`, at the next step or batch."""
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin
            self.process.stdin.write(f"{line}\n".encode())

    def end(self) -> None:
        """Nothing is left to build: it ends by itself."""
        assert self.process.stdin
        self.process.stdin.close()
        if self.port:
            self.port.close()

    def kill(self) -> None:
        """End it now, with its children: the ranks of torchrun are in sessions of their own."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process.pid)
            for member in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        self.process.wait()
        self.end()

    @property
    def death(self) -> str:
        """How it ended, as a clause."""
        code = self.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"its process {how}; its log is {self.log}"


class Local(Engine):
    """`jobs` workers with `devices` accelerators each; 0 jobs: as many as fit, or one without an accelerator.

    This process chooses what each builds, reads in the ledger what becomes of it, and queues again what a worker that
    died left unfinished.
    """

    name = "local"

    def __init__(self, frozen: Frozen, cell: Cell, jobs: int, devices: int, watcher: Watcher | None = None):
        super().__init__(frozen, cell, watcher)
        self.devices = devices
        self.environments = environments(jobs, devices, [] if cell.runtime.device == "cpu" else accelerators())
        self.job = self.ledger.folder / "jobs" / f"{self.ledger.job}.json"
        self.workers: dict[int, LocalWorker] = {}
        self.rows: dict[str, int] = {}  # by node whose ranks ran out of memory: how many to take at once
        self.idle_deaths = 0  # of workers that began no node

    def work(self, stop: Stop) -> None:
        self.reuse()
        self.fetch()
        if self.frontier.ready:
            self._prepare()
        try:
            while self.frontier.ready and not stop.reason:
                begun = time.thread_time()
                self._assign()
                time.sleep(max(POLL, 10 * (time.thread_time() - begun)))
                self._look(stop)  # what it settles is followed by the next node at once
            for worker in self.workers.values():
                worker.send("stop") if stop.reason else worker.end()
            while self.workers:
                self._look(stop)
                time.sleep(POLL)
        finally:
            for worker in self.workers.values():
                worker.kill()

    def _prepare(self) -> None:
        """Write what workers read."""
        common = (self.ledger.job, self.cell.sweep, self.cell.runtime, self.cell.track)
        Job(*common, None, list(self.node_records.values()), suites=self.suites).write(self.job)
        (self.ledger.folder / "logs").mkdir(exist_ok=True)

    def _assign(self) -> None:
        """Send a node, with those that are built together with it, to each worker that has none, and start those that
        are missing."""
        for number in range(1, len(self.environments) + 1):
            worker = self.workers.get(number) or self._start(number)
            if worker.nodes:
                continue
            busy = {node.key for other in self.workers.values() for node in other.nodes}
            elsewhere = frozenset(other.opened for other in self.workers.values() if other.nodes and other.opened)
            if node := self.next_node(worker.opened, elsewhere, busy):
                idle = (item for key, item in self.frontier.ready.items() if key not in busy)
                others = companions(node, idle, self.cell.runtime) if self.devices == 1 else []
                worker.nodes = [node, *(item for item in others[:ORDER] if not self.store.claimed(item))]
                worker.opened = next((each.key for each in node.inputs.values() if each.stage.model), worker.opened)
                attempts = (f"{item.key} {self.ledger.attempt(item.key)}" for item in worker.nodes)
                worker.send(f"{self.rows.get(node.key, 0)} {' '.join(attempts)}")

    def _start(self, number: int) -> LocalWorker:
        """Start worker `number` in a session of its own: Ctrl-C reaches this process only, which stops the workers."""
        name = f"{self.ledger.job}-{number}"
        log = self.ledger.folder / "logs" / f"{name}.log"
        ranks = len(self.environments) * self.devices
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // ranks))
        settings = {"SYNTHDIV_LOG": str(log), "OMP_NUM_THREADS": threads, **self.environments[number - 1]}
        port = reserve_port() if self.devices > 1 else None
        launcher = torchrun(self.devices, port.getsockname()[1]) if port else []
        with log.open("a") as handle:
            process = subprocess.Popen(
                [sys.executable, "-m", *launcher, "synthdiv.worker", str(self.job), str(number)],
                stdin=subprocess.PIPE, stdout=handle, stderr=handle, bufsize=0, env=os.environ | settings,
                start_new_session=True,
            )  # fmt: skip
        return self.workers.setdefault(number, LocalWorker(name, process, log, port=port))

    def _look(self, stop: Stop) -> None:
        """Settle what the workers have built or failed to build, and what those that ended left unfinished."""
        for number, worker in list(self.workers.items()):
            ended = worker.process.poll() is not None  # then all its events are written
            for node, event in self._events(worker):
                worker.began = True
                if event.state in (*DONE, "failed"):
                    worker.nodes.remove(node)
                    self.became(node, event)
            if ended:
                del self.workers[number]
                worker.end()
                if not stop.reason and self.frontier.ready:
                    self._died(worker)

    def _events(self, worker: LocalWorker) -> list[tuple[Node, Event]]:
        """Of what a worker builds the nodes that it began in the attempt of this launch, each with its last event."""
        events = self.ledger.states(worker.name, [node.key for node in worker.nodes])
        begun = [(node, events[node.key]) for node in worker.nodes if node.key in events]
        return [(node, event) for node, event in begun if event.attempt >= self.ledger.attempt(node.key)]

    def _died(self, worker: LocalWorker) -> None:
        """Queue again what a worker had begun, and give up where workers die before they begin anything."""
        self.idle_deaths = 0 if worker.began else self.idle_deaths + 1
        if self.idle_deaths > RETRIES:
            raise SynthdivError(
                f"{self.idle_deaths} workers ended before they began a node; of the last {worker.death}"
            )
        for node, event in self._events(worker):
            if event.failure == MEMORY:
                rows = self.rows.get(node.key) or self.cell.runtime.micro_batch
                self.rows[node.key] = halved(node.stage, rows, self.devices)
            message = event.note if event.state == "stopped" else worker.death
            self.ended_before(node, event, message, LOST, str(worker.log), final=False)


def torchrun(ranks: int, port: int) -> list[str]:
    """Its module and options. The rendezvous is static, at a port of this machine: c10d's, which `--standalone` takes,
    unpickles what any user of the machine sends to it."""
    options = ["--nnodes=1", "--node-rank=0", "--master-addr=127.0.0.1", f"--master-port={port}"]
    return ["torch.distributed.run", *options, f"--nproc-per-node={ranks}", "-m"]


def accelerators() -> list[str]:
    """The accelerators that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listing.splitlines()) if line.startswith("GPU ")]


def environments(jobs: int, devices: int, names: list[str]) -> list[dict[str, str]]:
    """The environment variables of each worker: which of the accelerators `names` it has."""
    setting = f"hydra.launcher.jobs={jobs}, hydra.launcher.devices={devices}"
    if not names:
        return [{} for _ in range(jobs or 1)]
    most = len(names) // devices
    if max(jobs, 1) > most:
        raise ConfigError(
            f"{setting}: need {max(jobs, 1) * devices} accelerators and this process may use {len(names)}; "
            "lower them, or set CUDA_VISIBLE_DEVICES"
        )
    shares = [names[number * devices : (number + 1) * devices] for number in range(jobs or most)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]
