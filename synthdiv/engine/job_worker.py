"""Building nodes of a job file: what `python -m synthdiv.worker JOB.json` runs, for every process of every engine.

Exit code 0: all nodes are done. 1: a node failed or was blocked, the others are done. 75: stopped half way, finished
work is kept. 2: the job file cannot be used.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from synthdiv.core.events import DONE, Event
from synthdiv.core.ledger import Ledger
from synthdiv.core.local_run import REASONS, Stop
from synthdiv.core.ranks import Ranks
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.core.terminal import echo, log_handler
from synthdiv.core.types import ConfigError, SynthdivError
from synthdiv.engine.build import Builder, halved, log_event
from synthdiv.engine.failure import MEMORY, TIME
from synthdiv.engine.job import Job
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Track, TrackerName

LOGGER = logging.getLogger("synthdiv")
STOPPED = 75  # EX_TEMPFAIL: the same command continues
NEAR_LIMIT = REASONS[signal.SIGUSR2]
GRACE = 20.0  # seconds for a step or a batch to end once the launcher is gone: the next launch needs the devices


class JobWorker:
    """One process of a job; its ranks share what rank 0 reads and decides. `number` is its place among the workers of
    a launch, whose `orders` it follows where the job has no nodes of its own."""

    def __init__(self, job: Job, number: int, stop: Stop, ranks: Ranks, watcher: Watcher, orders: queue.Queue[str]):
        self.job, self.stop, self.ranks, self.watcher, self.orders = job, stop, ranks, watcher, orders
        root = Path(job.runtime.outputs)
        self.store = Store(root, job.runtime.heartbeat_seconds)
        self.name = f"{job.name}-{number}" if job.nodes is None else job.name
        name = f"{self.name}.rank{ranks.rank}" if ranks.rank else self.name  # for errors that only this rank knows
        self.ledger = Ledger(root, job.sweep, name, dict(job.attempts), os.environ.get("SYNTHDIV_LOG", ""))
        self.builder = Builder(self.store, self.ledger, job.runtime, stop, ranks, watcher)
        self.nodes, self.ended = job.rebuilt(), set[str]()

    def work(self) -> int:
        """Build node after node; a failure costs only what depends on it. Returns the exit code."""
        code = 0
        orders = iter(()) if self.ranks.rank else self._orders()
        while order := self.ranks.share(next(orders, None)):
            stopped: list[tuple[Node, Event]] = []
            for node, event in self._build(*order):
                self.ended.add(node.key)
                if self.ranks.rank == 0:
                    log_event(self.store, node, event)
                stopped += [(node, event)] if event.state == "stopped" else []
                code = code if event.state in DONE else 1
                if self.builder.broken:
                    break
            if stopped:
                return self._stopped(*stopped[0])
            if self.builder.broken:
                return 1  # the other ranks are inside the build: the program that started them ends them
        return code

    def _orders(self) -> Iterator[tuple[list[str], int]]:
        """Nodes of which to build the first, and those that are built together with it, each time with the rows to take
        at once (0: as the runtime says): what is left of the job in order, or what the launcher sends."""
        if self.job.nodes is not None:
            while keys := [key for key in self.job.nodes if key not in self.ended]:
                yield keys, self._rows(self.nodes[keys[0]])
            return
        self.builder.run.prepare()  # loads torch while nothing waits for it
        while order := self.orders.get():
            rows, *words = order.split()
            for key, attempt in zip(words[::2], words[1::2], strict=True):
                self.ledger.set_attempt(key, int(attempt))
            yield words[::2], int(rows)

    def _build(self, keys: list[str], rows: int) -> Iterator[tuple[Node, Event]]:
        """Build the first of these nodes, and the others that are built together with it. In a job with a list of nodes
        a missing input will not come: the jobs before have ended."""
        node, *others = (self.nodes[key] for key in keys)
        if reason := self.ranks.agree(self.stop.reason):
            yield node, Event(node.key, "stopped", note=reason)
            return
        missing = [inner.label for inner in node.inputs.values() if not self.store.has(inner)]
        if missing := self.ranks.share(missing if self.job.nodes is not None else []):
            note = f"{', '.join(missing)} is missing"
            record = Event if self.ranks.rank else self.ledger.event
            yield node, record(node.key, "blocked", note=note)
            return
        ready = (item for item in others if all(self.store.has(inner) for inner in item.inputs.values()))
        yield from self.builder.build_group(node, ready, rows)

    def _rows(self, node: Node) -> int:
        """Half for each attempt of this job that ran out of memory: one of several ranks is started again for that."""
        rows = 0
        if self.ledger.attempt(node.key) > 1:
            events = [event for event in self.ledger.events(self.name) if event.node == node.key]
            for _ in {event.attempt for event in events if (event.state, event.failure) == ("stopped", MEMORY)}:
                rows = halved(node.stage, rows or self.job.runtime.micro_batch, self.ranks.size)
        return rows

    def _stopped(self, node: Node, event: Event) -> int:
        """A job of Slurm queues itself again near its time limit, and where one of several ranks ran out of memory; a
        preempted one is queued by Slurm."""
        slurm_job = slurm_job_id() if self.job.nodes is not None else ""  # a local worker may run in an allocation
        if slurm_job and event.failure == MEMORY:
            return self._requeue(node, slurm_job, event.note, MEMORY)
        if self.ranks.rank or event.note != NEAR_LIMIT or not slurm_job:
            return STOPPED
        times = sum((each.state, each.note) == ("stopped", NEAR_LIMIT) for each in self.ledger.events(self.name))
        if times <= self.job.requeues:
            return self._requeue(node, slurm_job, NEAR_LIMIT, TIME, f" ({times} of {self.job.requeues})")
        message = (
            f"reached its time limit {times} times, hydra.launcher.requeues={self.job.requeues}; raise its time or the "
            "requeues"
        )
        self.ledger.event(node.key, "failed", note=message, failure=TIME)
        return 1

    def _requeue(self, node: Node, slurm_job: str, reason: str, failure: str, count: str = "") -> int:
        """Queue this job again. Slurm ends its processes, `scontrol` included; and another rank may have been first."""
        LOGGER.info("%s: %s; queued again%s", node.label, reason, count)
        done = subprocess.run(["scontrol", "requeue", slurm_job], capture_output=True, text=True)
        if done.returncode <= 0 or "Job is pending" in done.stderr:
            return STOPPED
        message = f"{reason}, and Slurm does not queue it again: {done.stderr.strip()}"
        self.ledger.event(node.key, "failed", note=message, failure=failure)
        return 1

    def show_cells(self) -> None:
        """Show the cells of this job to the tracker: a detached launch has no other process that does."""
        if self.job.track.name is TrackerName.none:
            return
        keys = set(self.job.nodes or ())
        records = [record for record in self.ledger.unique_cells() if keys & set(record.nodes)]
        states = self.ledger.states()
        self.watcher.cells(records, lambda key: key in states and states[key].state in DONE)


def slurm_job_id() -> str:
    """This job, or this element of an array, as scontrol names it; empty where there is no Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def follow_launcher(stop: Stop, orders: queue.Queue[str]) -> None:
    """Pass on the launcher's lines: nodes to build, or `stop`. Their end, which SIGKILL of the launcher also gives,
    ends this process.

    Reads the file descriptor: a thread that waits in `sys.stdin` would abort the interpreter when it exits.
    """
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line == b"stop":
                stop.reason = stop.reason or "stopped by its launcher"
            orders.put("" if line == b"stop" else line.decode())
    orders.put("")
    leave_soon(stop)


def follow_parent(stop: Stop, parent: int) -> None:
    """End with the process that started this one: ranks do not see that torchrun was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    leave_soon(stop)


def leave_soon(stop: Stop) -> None:
    """Stop at the next step or batch; exit where none ends within `GRACE` seconds."""
    stop.reason = stop.reason or "its launcher has ended"
    time.sleep(GRACE)
    os._exit(STOPPED)


def main(arguments: list[str], watch: Callable[[Track, Path, str], Watcher]) -> int:
    """`arguments` are the path of the job file and the number of the worker; `watch` makes the watcher from the
    tracker's settings, the outputs and the name of the sweep."""
    stop = Stop()
    stop.listen()
    logging.basicConfig(handlers=[log_handler()], level=logging.WARNING)
    LOGGER.setLevel(logging.INFO)
    try:
        if len(arguments) not in (1, 2):
            raise ConfigError("python -m synthdiv.worker JOB.json [NUMBER]: needs the path of a job file")
        path, orders = Path(arguments[0]), queue.Queue[str]()
        job, number = Job.read(path), int(arguments[1]) if len(arguments) == 2 else 1
        if job.nodes is None:
            if os.environ.get("RANK", "0") == "0":
                threading.Thread(target=follow_launcher, args=[stop, orders], daemon=True).start()
            threading.Thread(target=follow_parent, args=[stop, os.getppid()], daemon=True).start()
        watcher = watch(job.track, Path(job.runtime.outputs), job.sweep)
        meeting = path.with_suffix("") if job.nodes is not None else None
        worker = JobWorker(job, number, stop, Ranks.of_environment(job.secret, meeting), watcher, orders)
    except SynthdivError as error:
        echo(f"error: {error}", error=True)
        return 2
    code = worker.work()
    if not worker.builder.broken:
        worker.ranks.leave()
    if worker.ranks.rank == 0 and job.nodes is not None:
        worker.show_cells()
    stop.ignore()
    if worker.ranks.size > 1:  # all is written, and gloo's threads that outlive their group abort now and then
        logging.shutdown()
        os._exit(code)
    return code
