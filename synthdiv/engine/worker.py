"""The worker: builds the nodes of a job file. Every job of every engine is `python -m synthdiv.worker JOB.json`.

Exit code 0: all nodes are done. 1: a node failed or was blocked, and the others are done. 75: stopped half way, what is
done is kept. 2: the job file is of no use.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from synthdiv.core.events import DONE
from synthdiv.core.ledger import Ledger
from synthdiv.core.ranks import Ranks
from synthdiv.core.runtime import REASONS, Stop
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.core.tail import Tail
from synthdiv.core.types import ConfigError, SynthdivError
from synthdiv.engine.build import Builder, Outcome, halved
from synthdiv.engine.failure import MEMORY, TIME
from synthdiv.engine.job import Job
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Track

LOGGER = logging.getLogger("synthdiv")
STOPPED = 75  # EX_TEMPFAIL: the same again goes on
NEAR_LIMIT = REASONS[signal.SIGUSR2]


class Worker:
    """One process of a job; its ranks share what rank 0 reads and decides."""

    def __init__(self, job: Job, stop: Stop, ranks: Ranks, watcher: Watcher):
        self.job, self.stop, self.ranks, self.watcher = job, stop, ranks, watcher
        root = Path(job.runtime.outputs)
        self.store = Store(root, job.runtime.heartbeat_seconds)
        name = f"{job.name}.rank{ranks.rank}" if ranks.rank else job.name  # they write what only they know
        self.ledger = Ledger(root, job.sweep, name, dict(job.attempts), os.environ.get("SYNTHDIV_LOG", ""))
        self.builder = Builder(self.store, self.ledger, job.runtime, stop, ranks, watcher)
        self.nodes = job.rebuilt()
        self.micro = self._before()

    def work(self, keys: Iterator[str], answer: Callable[[dict[str, Any]], None]) -> int:
        """Build node after node; a failure costs what stands on it and nothing else."""
        code = 0
        while key := self.ranks.share(None if self.ranks.rank else next(keys, None)):
            outcome = self._one(self.nodes[key])
            if self.ranks.rank == 0:
                said = {"node": key, "opened": self.builder.opened, "attempt": self.ledger.attempt(key)}
                log(self.nodes[key], outcome)
                answer(said | {"broken": self.builder.broken} | dataclasses.asdict(outcome))
            if outcome.state == "stopped":
                return self._stopped(self.nodes[key], outcome)
            if self.builder.broken:
                return 1  # the other ranks are inside the build; whoever started them ends them
            if outcome.state not in DONE:
                code = 1
        return code

    def _one(self, node: Node) -> Outcome:
        """An input that is missing now will not come: what builds it has ended before this job began."""
        if reason := self.ranks.agree(self.stop.reason):
            return Outcome("stopped", message=reason)
        missing = [inner.label for inner in node.inputs.values() if not self.store.has(inner)]
        missing = self.ranks.share(missing)
        if missing:
            if self.ranks.rank == 0:
                self.ledger.event(node.key, "blocked", note=f"{', '.join(missing)} is missing")
            return Outcome("blocked", message=f"{', '.join(missing)} is missing")
        return self.builder.build(node, self.micro.get(node.key, 0))

    def _before(self) -> dict[str, int]:
        """Rows at once, of nodes that ran out of memory before this job was queued again: half each time."""
        short = {(event.node, event.attempt) for event in self.ledger.events(self.job.name)
                 if event.state == "stopped" and event.failure == MEMORY}  # fmt: skip
        rows: dict[str, int] = {}
        for key, _ in short:
            rows[key] = halved(self.nodes[key].stage, rows.get(key, self.job.runtime.micro_batch), self.ranks.size)
        return rows

    def _stopped(self, node: Node, outcome: Outcome) -> int:
        """Near its time limit, and where a rank of several ran out of memory, a job of Slurm queues itself again; a
        preempted one is queued by Slurm."""
        job = slurm_job() if self.job.nodes is not None else ""  # a local worker may run inside an allocation
        if job and outcome.failure == MEMORY:
            return self._queued(node, job, outcome.message, MEMORY)
        if self.ranks.rank or outcome.message != NEAR_LIMIT or not job:
            return STOPPED
        rows = Tail(self.ledger.folder / "events" / f"{self.job.name}.jsonl").read()
        times = sum(row.get("state") == "stopped" and row.get("note") == NEAR_LIMIT for row in rows)
        if times <= self.job.requeues:
            return self._queued(node, job, NEAR_LIMIT, TIME, f" ({times} of {self.job.requeues})")
        told = f"ran into the time limit {times} times, hydra.launcher.requeues={self.job.requeues}; give it more time"
        self.ledger.event(node.key, "failed", note=told, failure=TIME)
        return 1

    def _queued(self, node: Node, job: str, why: str, failure: str, which: str = "") -> int:
        """Queue this job again. Slurm ends what runs of it, scontrol too; and another rank may have been faster."""
        LOGGER.info("%s: %s; queued again%s", node.label, why, which)
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        if done.returncode <= 0 or "Job is pending" in done.stderr:
            return STOPPED
        told = f"{why}, and Slurm does not queue it again: {done.stderr.strip()}"
        self.ledger.event(node.key, "failed", note=told, failure=failure)
        return 1


def log(node: Node, outcome: Outcome) -> None:
    if outcome.state == "built":
        LOGGER.info("%s built in %.1f s%s", node.label, outcome.seconds, outcome.told)
    elif outcome.state == "reused":
        LOGGER.info("%s reused", node.label)
    else:
        LOGGER.error("%s %s: %s", node.label, outcome.state, outcome.message)
    if outcome.trace:
        LOGGER.error("  the traceback is in %s", outcome.trace)


def slurm_job() -> str:
    """This job, or this element of an array, as scontrol names it; empty where there is no Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def typed_in(stream: TextIO, worker: Worker) -> Iterator[str]:
    """Keys as they come, each with the number of its attempt and the rows to take at once (0: as the runtime says); the
    end of the stream ends the job."""
    while line := stream.readline():
        key, attempt, micro = line.split()
        worker.ledger.number(key, int(attempt))
        worker.micro[key] = int(micro)
        yield key


def main(arguments: list[str], watch: Callable[[Track, Path, str], Watcher]) -> int:
    """`watch` makes the watcher from the tracker's settings, the outputs and the name of the sweep."""
    stop = Stop()
    stop.listen()
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    LOGGER.setLevel(logging.INFO)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not come between the answers

    def answer(row: dict[str, Any]) -> None:
        answers.write(json.dumps(row) + "\n")

    try:
        if len(arguments) != 1:
            raise ConfigError("python -m synthdiv.worker JOB.json: needs the path of one job file")
        job = Job.read(Path(arguments[0]))
        watcher = watch(job.track, Path(job.runtime.outputs), job.sweep)
        worker = Worker(job, stop, Ranks.of_environment(slurm=job.nodes is not None), watcher)
    except SynthdivError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    keys = typed_in(sys.stdin, worker) if job.nodes is None else iter(job.nodes)
    code = worker.work(keys, answer if job.nodes is None else lambda row: None)
    if not worker.builder.broken:
        worker.ranks.leave()
    if worker.ranks.rank == 0 and job.nodes is not None:
        mine = set(job.nodes)
        records = [record for record in worker.ledger.unique_cells() if mine & set(record.nodes)]
        states = worker.ledger.states()
        watcher.cells(records, lambda key: key in states and states[key].state in DONE)
    if worker.ranks.size > 1:  # all is written, and threads of gloo that outlive their group abort now and then
        answers.close()
        logging.shutdown()
        os._exit(code)
    return code
