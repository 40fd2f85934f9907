"""The worker: builds the nodes of a job file. Every job of every engine is `python -m synthdiv.sweep.worker JOB.json`.

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

from synthdiv.ranks import Ranks
from synthdiv.runtime import REASONS, Stop
from synthdiv.stage import Node
from synthdiv.store import Store
from synthdiv.sweep.build import Builder, Outcome
from synthdiv.sweep.event import DONE
from synthdiv.sweep.failure import TIME
from synthdiv.sweep.job import Job
from synthdiv.sweep.ledger import Ledger
from synthdiv.sweep.publish import Publisher
from synthdiv.types import SynthdivError

LOGGER = logging.getLogger("synthdiv")
STOPPED = 75  # EX_TEMPFAIL: the same again goes on
NEAR_LIMIT = REASONS[signal.SIGUSR2]


class Worker:
    """One process of a job; its ranks share what rank 0 reads and decides."""

    def __init__(self, job: Job, stop: Stop, ranks: Ranks):
        self.job, self.stop, self.ranks = job, stop, ranks
        root = Path(job.runtime.outputs)
        self.store = Store(root, job.runtime.heartbeat_seconds)
        self.ledger = Ledger(root, job.sweep, job.name, dict(job.attempts), os.environ.get("SYNTHDIV_LOG", ""))
        self.builder = Builder(self.store, self.ledger, job.runtime, stop, ranks)
        self.nodes = job.rebuilt()

    def work(self, keys: Iterator[str], answer: Callable[[dict[str, Any]], None]) -> int:
        """Build node after node; a failure costs what stands on it and nothing else."""
        code = 0
        while key := self.ranks.share(None if self.ranks.rank else next(keys, None)):
            outcome = self._one(self.nodes[key])
            if self.ranks.rank == 0:
                said = {"node": key, "opened": self.builder.opened} | dataclasses.asdict(outcome)
                log(self.nodes[key], outcome)
                answer(said)
            if outcome.state == "stopped":
                return self._stopped(self.nodes[key], outcome)
            if outcome.state not in DONE:
                code = 1
        return code

    def _one(self, node: Node) -> Outcome:
        """An input that is missing now will not come: what builds it has ended before this job began."""
        if self.stop.reason and self.ranks.size == 1:
            return Outcome("stopped", message=self.stop.reason)
        missing = [inner.label for inner in node.inputs if not self.store.has(inner)]
        missing = self.ranks.share(missing)
        if missing:
            if self.ranks.rank == 0:
                self.ledger.event(node.key, "blocked", note=f"{', '.join(missing)} is missing")
            return Outcome("blocked", message=f"{', '.join(missing)} is missing")
        return self.builder.build(node)

    def _stopped(self, node: Node, outcome: Outcome) -> int:
        """Near its time limit a job of Slurm queues itself again; a preempted one is queued by Slurm."""
        restarts, job = int(os.environ.get("SLURM_RESTART_COUNT", 0)), slurm_job()
        if self.ranks.rank or outcome.message != NEAR_LIMIT or not job:
            return STOPPED
        if restarts >= self.job.requeues:
            told = f"ran into the time limit {restarts + 1} times, hydra.launcher.requeues={self.job.requeues}; "
            self.ledger.event(node.key, "failed", note=f"{told}give it more time", failure=TIME)
            return 1
        LOGGER.info("%s: %s; queued again (%d of %d)", node.label, outcome.message, restarts + 1, self.job.requeues)
        subprocess.run(["scontrol", "requeue", job], check=True)
        return STOPPED


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


def typed_in(stream: TextIO, ledger: Ledger) -> Iterator[str]:
    """Keys as they come, each with the number of its attempt; the end of the stream ends the job."""
    while line := stream.readline():
        key, attempt = line.split()
        ledger.number(key, int(attempt))
        yield key


def main(arguments: list[str]) -> int:
    stop = Stop()
    stop.listen()
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    LOGGER.setLevel(logging.INFO)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not come between the answers

    def answer(row: dict[str, Any]) -> None:
        answers.write(json.dumps(row) + "\n")

    try:
        job = Job.read(Path(arguments[0]))
        worker = Worker(job, stop, Ranks.of_environment())
    except SynthdivError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if job.nodes is None:
        return worker.work(typed_in(sys.stdin, worker.ledger), answer)
    code = worker.work(iter(job.nodes), lambda row: None)
    if worker.ranks.rank == 0:
        mine = set(job.nodes)
        records = [record for record in worker.ledger.unique_cells() if mine & set(record.nodes)]
        states = worker.ledger.states()
        Publisher(worker.ledger, job.track).show(records, lambda key: key in states and states[key].state in DONE)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
