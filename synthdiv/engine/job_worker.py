"""Building the nodes of a job file: what `python -m synthdiv.worker JOB.json` runs, for every job of every engine.

Exit code 0: all nodes are done. 1: a node failed or was blocked, the others are done. 75: stopped half way, finished
work is kept. 2: the job file cannot be used.
"""

from __future__ import annotations

import logging
import os
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
from synthdiv.engine.build import Builder, Outcome, halved
from synthdiv.engine.failure import MEMORY, TIME
from synthdiv.engine.job import Job
from synthdiv.engine.shared import SharedGraph
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Track

LOGGER = logging.getLogger("synthdiv")
STOPPED = 75  # EX_TEMPFAIL: the same command continues
NEAR_LIMIT = REASONS[signal.SIGUSR2]
GRACE = 60.0  # seconds for a step or a batch to end once the launcher is gone


class JobWorker:
    """One process of a job; its ranks share what rank 0 reads and decides. `number` is its place among the workers of
    a launch that share the graph."""

    def __init__(self, job: Job, number: int, stop: Stop, ranks: Ranks, watcher: Watcher):
        self.job, self.number, self.stop, self.ranks, self.watcher = job, number, stop, ranks, watcher
        root = Path(job.runtime.outputs)
        self.store = Store(root, job.runtime.heartbeat_seconds)
        self.name = f"{job.name}-{number}" if job.nodes is None else job.name
        name = f"{self.name}.rank{ranks.rank}" if ranks.rank else self.name  # for errors that only this rank knows
        self.ledger = Ledger(root, job.sweep, name, dict(job.attempts), os.environ.get("SYNTHDIV_LOG", ""))
        self.builder = Builder(self.store, self.ledger, job.runtime, stop, ranks, watcher)
        self.nodes = job.rebuilt()

    def work(self) -> int:
        """Build node after node; a failure costs only what depends on it. Returns the exit code."""
        code = 0
        keys = iter(()) if self.ranks.rank else self._keys()
        while key := self.ranks.share(next(keys, None)):
            node = self.nodes[key]
            outcome = self._build(node)
            if self.ranks.rank == 0:
                log(node, outcome)
            if outcome.state == "stopped":
                return self._stopped(node, outcome)
            if self.builder.broken:
                return 1  # the other ranks are inside the build: the program that started them ends them
            if outcome.state not in DONE:
                code = 1
        return code

    def _keys(self) -> Iterator[str]:
        """The nodes to build: those of the job in order; or any that is ready, chosen when the one before is done."""
        if self.job.nodes is not None:
            yield from self.job.nodes
            return
        self.builder.run.prepare()  # loads torch: between choosing a node and claiming it no time should pass
        graph = SharedGraph(self.nodes, self.store, self.ledger, self.job.name, self.number)
        while node := graph.take(self.builder.opened, self.stop):
            yield node.key

    def _build(self, node: Node) -> Outcome:
        """Build one node. In a job with a list of nodes a missing input will not come: the jobs before have ended."""
        if reason := self.ranks.agree(self.stop.reason):
            return Outcome("stopped", message=reason)
        missing = [inner.label for inner in node.inputs.values() if not self.store.has(inner)]
        if missing := self.ranks.share(missing if self.job.nodes is not None else []):
            message = f"{', '.join(missing)} is missing"
            if self.ranks.rank == 0:
                self.ledger.event(node.key, "blocked", note=message)
            return Outcome("blocked", message=message)
        return self.builder.build(node, 0 if self.ranks.rank else self._rows(node))

    def _rows(self, node: Node) -> int:
        """Rows to take at once: half for each attempt of this launch that ran out of memory. 0: as the runtime says."""
        if self.ledger.attempt(node.key) == 1:
            return 0
        events = [event for event in self._events() if event.node == node.key and event.state == "stopped"]
        rows = 0
        for _ in {event.attempt for event in events if event.failure == MEMORY}:
            rows = halved(node.stage, rows or self.job.runtime.micro_batch, self.ranks.size)
        return rows

    def _events(self) -> list[Event]:
        """What this job wrote, its other ranks, and the other workers of its launch."""
        return [
            event
            for event in self.ledger.events()
            if event.job.split(".")[0] == self.job.name or event.job.startswith(f"{self.job.name}-")
        ]

    def _stopped(self, node: Node, outcome: Outcome) -> int:
        """A job of Slurm queues itself again near its time limit, and where one of several ranks ran out of memory; a
        preempted one is queued by Slurm."""
        slurm_job = slurm_job_id() if self.job.nodes is not None else ""  # a local worker may run in an allocation
        if slurm_job and outcome.failure == MEMORY:
            return self._requeue(node, slurm_job, outcome.message, MEMORY)
        if self.ranks.rank or outcome.message != NEAR_LIMIT or not slurm_job:
            return STOPPED
        times = sum(event.state == "stopped" and event.note == NEAR_LIMIT for event in self._events())
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
        keys = set(self.job.nodes or ())
        records = [record for record in self.ledger.unique_cells() if keys & set(record.nodes)]
        states = self.ledger.states()
        self.watcher.cells(records, lambda key: key in states and states[key].state in DONE)


def log(node: Node, outcome: Outcome) -> None:
    if outcome.state == "built":
        LOGGER.info("%s built in %.1f s%s", node.label, outcome.seconds, outcome.summary)
    elif outcome.state == "reused":
        LOGGER.info("%s reused", node.label)
    else:
        LOGGER.error("%s %s: %s", node.label, outcome.state, outcome.message)
    if outcome.trace:
        LOGGER.error("  the traceback is in %s", outcome.trace)


def slurm_job_id() -> str:
    """This job, or this element of an array, as scontrol names it; empty where there is no Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def follow_launcher(stop: Stop) -> None:
    """Stop when the launcher asks for it by a line on standard input, or has ended, even by SIGKILL, which closes it.
    In the second case exit where no step or batch ends within `GRACE` seconds.

    Reads the file descriptor: a thread that waits in `sys.stdin` would abort the interpreter when it exits.
    """
    line = os.read(0, 100)
    stop.reason = stop.reason or ("stopped by its launcher" if line else "its launcher has ended")
    if line:
        os.read(0, 100)
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
        job, number = Job.read(Path(arguments[0])), int(arguments[1]) if len(arguments) == 2 else 1
        if job.nodes is None and os.environ.get("RANK", "0") == "0":
            threading.Thread(target=follow_launcher, args=[stop], daemon=True).start()
        watcher = watch(job.track, Path(job.runtime.outputs), job.sweep)
        worker = JobWorker(job, number, stop, Ranks.of_environment(slurm=job.nodes is not None), watcher)
    except SynthdivError as error:
        echo(f"error: {error}", error=True)
        return 2
    code = worker.work()
    if not worker.builder.broken:
        worker.ranks.leave()
    if worker.ranks.rank == 0 and job.nodes is not None:
        worker.show_cells()
    if worker.ranks.size > 1:  # all is written, and gloo's threads that outlive their group abort now and then
        logging.shutdown()
        os._exit(code)
    return code
