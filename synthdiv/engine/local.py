"""The local engine: worker processes on this machine, each with devices of its own, that share one graph."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from synthdiv.core.events import DONE, Event
from synthdiv.core.local_run import Stop
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError, SynthdivError
from synthdiv.engine.build import Outcome
from synthdiv.engine.engine import Engine
from synthdiv.engine.failure import LOST, MEMORY
from synthdiv.engine.job import Job
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen
from synthdiv.study.records import node_record

RETRIES = 2  # of a node whose worker was killed or stopped: twice may be chance, three times is not
POLL = 0.1  # seconds between two looks at workers and ledger, or ten times as long as a look takes


@dataclass
class LocalWorker:
    """A process that builds nodes of the graph until its standard input ends; torchrun, where it has several ranks."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    events: Path
    size: int  # bytes of its events before it started

    def stop(self) -> None:
        """Ask it to stop at the next step or batch."""
        with contextlib.suppress(BrokenPipeError):
            assert self.process.stdin
            self.process.stdin.write(b"stop\n")

    def end(self) -> None:
        """Nothing is left to build: it ends by itself."""
        assert self.process.stdin
        self.process.stdin.close()

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

    The workers choose nodes themselves, kept apart by claims. This process starts them, reads in the ledger what
    becomes of the nodes, and queues again what a worker that died left unfinished.
    """

    name = "local"

    def __init__(self, frozen: Frozen, cell: Cell, jobs: int, devices: int, watcher: Watcher | None = None):
        super().__init__(frozen, cell, watcher)
        self.devices = devices
        self.environments = environments(jobs, devices, [] if cell.runtime.device == "cpu" else accelerators())
        self.workers: dict[int, LocalWorker] = {}
        self.losses: Counter[str] = Counter()  # by node: how often its worker died
        self.idle_deaths = 0  # of workers that began no node

    def work(self, stop: Stop) -> None:
        self.reuse()
        self.fetch()
        if self.frontier.pending():
            self._prepare()
        try:
            while self.frontier.pending() and not stop.reason:
                for number in range(1, len(self.environments) + 1):
                    if number not in self.workers:
                        self.workers[number] = self._start(number)
                begun = time.thread_time()
                self._look(stop)
                time.sleep(max(POLL, 10 * (time.thread_time() - begun)))
            for worker in self.workers.values():
                worker.stop() if stop.reason else worker.end()
            while self.workers:
                self._look(stop)
                time.sleep(POLL)
        finally:
            for worker in self.workers.values():
                worker.kill()

    def _prepare(self) -> None:
        """Queue the nodes that were done before and whose artifacts are gone or damaged; write what workers read."""
        events = self.ledger.states()
        pending = [node.key for node in self.frontier.pending()]
        self.ledger.mark([key for key in pending if key in events and events[key].state in DONE], "queued")
        attempts = {key: self.ledger.attempt(key) for key in pending if key in events}
        graph = [node_record(node) for node in self.nodes.values()]
        job = Job(
            self.ledger.job, self.cell.sweep, self.cell.runtime, self.cell.track, None, graph, attempts, 0, self.suites
        )
        job.write(self._job)
        (self.ledger.folder / "logs").mkdir(exist_ok=True)

    @property
    def _job(self) -> Path:
        return self.ledger.folder / "jobs" / f"{self.ledger.job}.json"

    def _start(self, number: int) -> LocalWorker:
        """Start worker `number` in a session of its own: Ctrl-C reaches this process only, which stops the workers."""
        name = f"{self.ledger.job}-{number}"
        log, events = self.ledger.folder / "logs" / f"{name}.log", self.ledger.folder / "events" / f"{name}.jsonl"
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // len(self.environments)))
        settings = {"SYNTHDIV_LOG": str(log), "OMP_NUM_THREADS": threads, **self.environments[number - 1]}
        launcher = torchrun(self.devices) if self.devices > 1 else []
        with log.open("a") as handle:
            process = subprocess.Popen(
                [sys.executable, "-m", *launcher, "synthdiv.worker", str(self._job), str(number)],
                stdin=subprocess.PIPE, stdout=handle, stderr=handle, bufsize=0, env=os.environ | settings,
                start_new_session=True,
            )  # fmt: skip
        return LocalWorker(name, process, log, events, size_of(events))

    def _look(self, stop: Stop) -> None:
        """Settle the nodes that are built or failed by now, and what workers that ended left unfinished."""
        ended = [number for number, worker in self.workers.items() if worker.process.poll() is not None]
        events = self.ledger.states()  # after the look at the processes: all events of those that ended are written
        for node in self.frontier.pending():
            self.settled(node, events.get(node.key))
        for number in ended:
            worker = self.workers.pop(number)
            worker.end()
            if not stop.reason and self.frontier.pending():
                self._died(worker, events)

    def _died(self, worker: LocalWorker, events: dict[str, Event]) -> None:
        """Queue again what a worker had begun, and give up where workers die before they begin anything."""
        for node in self.frontier.pending():
            event = events.get(node.key)
            if event and event.job.split(".")[0] == worker.name and event.state in ("running", "stopped"):
                self._requeue(node, event, worker)
        self.idle_deaths = self.idle_deaths + 1 if size_of(worker.events) == worker.size else 0
        if self.idle_deaths > RETRIES:
            raise SynthdivError(
                f"{self.idle_deaths} workers ended before they began a node; of the last {worker.death}"
            )

    def _requeue(self, node: Node, event: Event, worker: LocalWorker) -> None:
        """Queue a node again, a bounded number of times; where ranks ran out of memory, with half the rows at once."""
        killed = event.state == "running"
        message = worker.death if killed else event.note
        if event.failure != MEMORY:
            self.losses[node.key] += 1
        self.ledger.number(node.key, event.attempt)
        if self.losses[node.key] > RETRIES:
            message = f"{message}; given up after {RETRIES + 1} attempts"
            self.ledger.event(node.key, "failed", event.seconds, message, LOST, str(worker.log))
            self.became(node, Outcome("failed", event.seconds, message, LOST, log=str(worker.log)))
            return
        if killed:
            self.ledger.event(node.key, "stopped", event.seconds, message, LOST, str(worker.log))
        self.ledger.number(node.key, event.attempt + 1)
        self.ledger.mark([node.key], "queued")


def torchrun(ranks: int) -> list[str]:
    """Its module and options. The rendezvous is static, at a free port of this machine: c10d's, which `--standalone`
    takes, unpickles what any user of the machine sends to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--nnodes=1", "--node-rank=0", "--master-addr=127.0.0.1", f"--master-port={port}"]
    return ["torch.distributed.run", *options, f"--nproc-per-node={ranks}", "-m"]


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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
    if jobs < 0 or devices < 1:
        raise ConfigError(f"{setting}: jobs needs 0 or more, devices 1 or more")
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
