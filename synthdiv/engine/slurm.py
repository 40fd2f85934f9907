"""The slurm engine: submits arrays of jobs, each element a worker, and watches until all have ended.

The jobs do not need the watch: with `detach` the launch returns once all are submitted.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from synthdiv.core.events import Event
from synthdiv.core.local_run import Stop
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError
from synthdiv.engine import cluster
from synthdiv.engine.build import Outcome
from synthdiv.engine.engine import Engine
from synthdiv.engine.failure import LOST, MEMORY, TIME
from synthdiv.engine.job import Job
from synthdiv.engine.pack import arrays, pack
from synthdiv.engine.profile import Profile, template
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen
from synthdiv.study.records import node_record

LOGGER = logging.getLogger("synthdiv")
POLL = 2.0  # seconds between two looks at the ledger; the queue is read every fifth time
MISSED = 2  # times that a job must be missing in the queue: a shared disk shows its last events later
RETRIES = 2  # of a node whose job ended without an event: twice may be chance, three times is not
CLASSES = {"TIMEOUT": TIME, "OUT_OF_MEMORY": MEMORY}  # of failure, by Slurm's job state


class Slurm(Engine):
    """Submits all nodes that are not built. A job holds up to `group` nodes and queues itself again at the time limit
    up to `requeues` times."""

    name = "slurm"

    def __init__(
        self,
        frozen: Frozen,
        cell: Cell,
        profile: Profile,
        group: int,
        requeues: int,
        detach: bool,
        watcher: Watcher | None = None,
    ):
        super().__init__(frozen, cell, watcher)
        self.profile, self.group, self.requeues, self.detach = profile, group, requeues, detach
        if group < 1 or requeues < 0:
            setting = f"hydra.launcher.group={group}, hydra.launcher.requeues={requeues}"
            raise ConfigError(f"{setting}: group needs 1 or more, requeues 0 or more")
        names = {name for node in self.nodes.values() for name in (node.stage.name, node.stage.kind)}
        if unknown := set(profile.stages) - names:
            LOGGER.info("hydra.launcher.stages: this sweep has no %s", ", ".join(sorted(unknown)))
        self.array = cluster.largest_array()
        self.folder = self.ledger.folder / "jobs" / self.ledger.job
        self.jobs: dict[str, list[Node]] = {}  # by the id of the element: its nodes without a final state
        self.arrays = 0
        self.missed: Counter[str] = Counter()  # by job: how often it was not in the queue
        self.losses: Counter[str] = Counter()  # by node: how often its job ended without an event
        self.warned: set[str] = set()

    def work(self, stop: Stop) -> None:
        self.reuse()
        self.fetch()
        while (nodes := self.frontier.pending()) and not stop.reason:
            try:
                self._submit(nodes, stop)
            except BaseException:
                cluster.cancel(self.jobs)
                raise
            LOGGER.info("%s: %d nodes submitted in %d jobs of Slurm", self.cell.sweep, len(nodes), len(self.jobs))
            if self.detach and not stop.reason:
                LOGGER.info("watch them with `synthdiv status %s --watch`", self.cell.sweep)
                return
            self._watch(stop)

    def _submit(self, nodes: list[Node], stop: Stop) -> None:
        (self.ledger.folder / "logs").mkdir(parents=True, exist_ok=True)
        packed = pack(nodes, self.profile.shape, self.group, cluster.room(self.profile.account))
        ids: dict[int, str] = {}
        for members in arrays(packed, self.array):
            if stop.reason:
                return
            number, self.arrays = self.arrays, self.arrays + 1
            for task, member in enumerate(members):
                self._job(f"{number}-{task}", packed[member].nodes)
            script = self.folder / f"{number}.sbatch"
            script.write_text(self._script(str(number), packed[members[0]].shape), encoding="utf-8")
            after = {ids[other] for other in packed[members[0]].after}
            job = cluster.submit(str(script), len(members), after)
            for task, member in enumerate(members):
                ids[member] = f"{job}_{task}"
                self.jobs[f"{job}_{task}"] = list(packed[member].nodes)

    def _job(self, name: str, nodes: list[Node]) -> None:
        """Write the file of one job: its nodes and all that they depend on."""
        graph: dict[str, Node] = {}
        for node in nodes:
            node.gather(graph)
        keys = [node.key for node in nodes]
        attempts = {key: self.ledger.attempt(key) for key in keys}
        job = Job(
            f"{self.ledger.job}-{name}", self.cell.sweep, self.cell.runtime, self.cell.track, keys,
            [node_record(node) for node in graph.values()], attempts, self.requeues, self.suites,
        )  # fmt: skip
        job.write(self.folder / f"{name}.json")

    def _script(self, number: str, shape: Any) -> str:
        """The template with its placeholders filled in."""
        options = [(name, "" if value is True else f"={shlex.quote(str(value))}") for name, value in shape]
        values = {
            "name": self.cell.sweep,
            "logs": str((self.ledger.folder / "logs").absolute()),
            "jobs": str((self.folder / number).absolute()),
            "options": "\n".join(f"#SBATCH --{name}{value}" for name, value in options),
            "setup": "\n".join(self.profile.setup),
            "here": str(Path.cwd()),
            "python": shlex.quote(sys.executable),
        }
        text = template(self.profile.template).read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        return text

    def _watch(self, stop: Stop) -> None:
        """Report what becomes of the nodes until no job is left."""
        looks = 0
        while self.jobs and not stop.reason:
            self.missed.update([] if looks % 5 else set(self.jobs) - self._queued())
            events = self.ledger.states()  # after the queue: all events of a job that is missing there are written
            for job, nodes in list(self.jobs.items()):
                self.jobs[job] = [node for node in nodes if not self.settled(node, events.get(node.key))]
                if not self.jobs[job]:
                    del self.jobs[job]
                elif self.missed[job] >= MISSED:
                    self._ended(job, events)
            looks += 1
            time.sleep(POLL if self.jobs else 0)
        if stop.reason and self.jobs:
            if not self._confirm_cancel():
                LOGGER.info("the jobs continue; watch them with `synthdiv status %s --watch`", self.cell.sweep)
                return
            cluster.cancel(self.jobs)
            while self._queued():
                time.sleep(POLL)

    def _queued(self) -> set[str]:
        """The jobs that have not ended; all of them while Slurm does not answer. Warns once of each reason for which a
        job may wait for ever."""
        try:
            reasons = cluster.queued(self.jobs)
        except ConfigError as error:
            LOGGER.warning("%s; asking again", error)
            return set(self.jobs)
        for job, reason in reasons.items():
            if reason not in (*cluster.TEMPORARY, *self.warned):
                self.warned.add(reason)
                LOGGER.warning("job %s of Slurm waits, perhaps for ever: %s", job, reason)
        return set(reasons)

    def _ended(self, job: str, events: dict[str, Event]) -> None:
        """Settle the nodes of a job that ended before it recorded what became of them: it was cancelled or killed. The
        node that it was building, and those it did not begin, are submitted again when all other jobs have ended."""
        state, log = cluster.state(job), str(self.ledger.folder / "logs" / f"{job}.log")
        failure = CLASSES.get(state.split(",")[0].split(" ")[0], LOST)
        for node in self.jobs.pop(job):
            if node.key in self.states:
                continue
            if self.store.has(node) or state.startswith("COMPLETED"):
                self.became(node, Outcome("built"))
                continue
            event = events.get(node.key)
            number = self.ledger.attempt(node.key)
            begun = event is not None and event.attempt >= number and event.state in ("running", "stopped")
            if begun and event:  # after a requeue the worker is at a later attempt than this process knows
                self.ledger.number(node.key, event.attempt + (event.state != "running"))
            message = f"its job {job} of Slurm has ended: {state or 'no state known'}"
            if event and event.attempt >= number and event.state == "blocked":
                message = f"{event.note}; {message}"
            self.losses[node.key] += 1
            final = state.startswith("CANCELLED") or failure == MEMORY or self.losses[node.key] > RETRIES
            if begun or final:
                self.ledger.event(node.key, "failed", note=message, failure=failure, log=log)
            if final:
                self.became(node, Outcome("failed", message=message, failure=failure, log=log))

    def _confirm_cancel(self) -> bool:
        """Whether to cancel the jobs: asked at a terminal, else yes."""
        if not sys.stdin.isatty():
            return True
        try:
            answer = input(f"cancel the {len(self.jobs)} jobs of this launch that have not ended? [Y/n] ")
        except (EOFError, KeyboardInterrupt):
            answer = ""
        return not answer.strip().lower().startswith("n")
