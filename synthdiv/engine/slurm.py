"""The slurm engine: arrays of jobs, element after element, each a worker; then it looks on until all are over.

The jobs need nobody who looks on: with `detach` the launch returns once all is queued.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from synthdiv.core.events import DONE, Event
from synthdiv.core.runtime import Stop
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError, SynthdivError
from synthdiv.engine import cluster
from synthdiv.engine.build import Outcome
from synthdiv.engine.engine import Engine
from synthdiv.engine.failure import INPUT, LOST, MEMORY, TIME
from synthdiv.engine.job import Job
from synthdiv.engine.pack import arrays, pack
from synthdiv.engine.profile import Profile, template
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen
from synthdiv.study.records import node_record

LOGGER = logging.getLogger("synthdiv")
LOOK = 2.0  # seconds between two looks at the ledger; the queue is asked every fifth time
MISSED = 2  # times that a job must be missing in the queue: a shared disk shows its last words later
RETRIES = 2  # of a node whose job ended without a word: twice may be chance, three times is not
ENDED = {"TIMEOUT": TIME, "OUT_OF_MEMORY": MEMORY}  # Slurm's words for classes of ours


class Slurm(Engine):
    """Queues all that is to be built. Jobs hold up to `group` nodes and queue themselves again at the time limit up to
    `requeues` times."""

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
            told = f"hydra.launcher.group={group}, hydra.launcher.requeues={requeues}"
            raise ConfigError(f"{told}: need 1, and 0, or more")
        known = {name for node in self.nodes.values() for name in (node.stage.name, node.stage.kind)}
        if strange := set(profile.stages) - known:
            LOGGER.info("hydra.launcher.stages: this sweep has no %s", ", ".join(sorted(strange)))
        self.array = cluster.largest_array()
        self.folder = self.ledger.folder / "jobs" / self.ledger.job
        self.jobs: dict[str, list[Node]] = {}  # by the id of the element: those of its nodes whose fate is not known
        self.arrays = 0
        self.missed: Counter[str] = Counter()  # by job: how often it was not in the queue
        self.lost: Counter[str] = Counter()  # by node: how often its job ended without a word about it
        self.warned: set[str] = set()

    def work(self, stop: Stop) -> None:
        self.reuse()
        self._fetch()
        while (nodes := [node for key, node in self.nodes.items() if key not in self.states]) and not stop.reason:
            try:
                self._submit(nodes, stop)
            except BaseException:
                cluster.cancel(self.jobs)
                raise
            LOGGER.info("%s: %d nodes queued in %d jobs of Slurm", self.cell.sweep, len(nodes), len(self.jobs))
            if self.detach and not stop.reason:
                LOGGER.info("look with `synthdiv status %s --watch`", self.cell.sweep)
                return
            self._look_on(stop)

    def _fetch(self) -> None:
        """Models of the hub that will be opened are brought here once: the nodes of a cluster often have no network."""
        wanted = {
            inner.key for key, node in self.nodes.items() if key not in self.states for inner in node.inputs.values()
        }
        there = []
        for node in [node for node in self.nodes.values() if node.stage.located]:
            self.open.pop(node.key, None)
            try:
                if node.key in wanted:
                    node.stage.fetch()
            except SynthdivError as error:
                self.ledger.event(node.key, "failed", note=str(error), failure=INPUT)
                self.became(node, Outcome("failed", message=str(error), failure=INPUT))
                continue
            self.known(node, "reused")
            there.append(node.key)
        self.ledger.mark(there, "reused")

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
        """Write the file of one job: its nodes and all that they stand on."""
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
        """The template with its places filled in."""
        options = [(name, "" if value is True else f"={shlex.quote(str(value))}") for name, value in shape]
        places = {
            "name": self.cell.sweep,
            "logs": str((self.ledger.folder / "logs").absolute()),
            "jobs": str((self.folder / number).absolute()),
            "options": "\n".join(f"#SBATCH --{name}{value}" for name, value in options),
            "setup": "\n".join(self.profile.setup),
            "here": str(Path.cwd()),
            "python": shlex.quote(sys.executable),
        }
        text = template(self.profile.template).read_text(encoding="utf-8")
        for place, value in places.items():
            text = text.replace(f"@{place}@", value)
        return text

    def _look_on(self, stop: Stop) -> None:
        """Tell what becomes of the nodes, until all is over."""
        looks = 0
        while self.jobs and not stop.reason:
            self.missed.update([] if looks % 5 else set(self.jobs) - self._queued())
            events = self.ledger.states()  # read after asking: the last events of a job that is gone are here
            for job, nodes in list(self.jobs.items()):
                self.jobs[job] = [node for node in nodes if not self._heard(node, events.get(node.key))]
                if not self.jobs[job]:
                    del self.jobs[job]
                elif self.missed[job] >= MISSED:
                    self._gone(job, events)
            looks += 1
            time.sleep(LOOK if self.jobs else 0)
        if stop.reason and self.jobs:
            if not self._wanted():
                LOGGER.info("they go on; look with `synthdiv status %s --watch`", self.cell.sweep)
                return
            cluster.cancel(self.jobs)
            while self._queued():
                time.sleep(LOOK)

    def _queued(self) -> set[str]:
        """The jobs that are not over; all of them while Slurm does not answer. What may wait for ever is told once."""
        try:
            found = cluster.queued(self.jobs)
        except ConfigError as error:
            LOGGER.warning("%s; asking again", error)
            return set(self.jobs)
        for job, reason in found.items():
            if reason not in (*cluster.PASSING, *self.warned):
                self.warned.add(reason)
                LOGGER.warning("job %s of Slurm waits, and may do so for ever: %s", job, reason)
        return set(found)

    def _heard(self, node: Node, event: Event | None) -> bool:
        """Whether the fate of a node is known now."""
        if node.key in self.states:  # blocked
            return True
        if event is None or event.state not in (*DONE, "failed") or event.attempt < self.ledger.attempt(node.key):
            return False
        self.became(node, Outcome(event.state, event.seconds, event.note, event.failure, log=event.log))
        return True

    def _gone(self, job: str, events: dict[str, Event]) -> None:
        """A job is over that did not say what became of these nodes: it was cancelled, or killed with the node that it
        was at. That one, and those behind it that never began, are queued again when all jobs are over."""
        state, log = cluster.state(job), str(self.ledger.folder / "logs" / f"{job}.log")
        failure = ENDED.get(state.split(",")[0].split(" ")[0], LOST)
        for node in self.jobs.pop(job):
            if node.key in self.states:
                continue
            if self.store.has(node) or state.startswith("COMPLETED"):
                self.became(node, Outcome("built"))
                continue
            event = events.get(node.key)
            number = self.ledger.attempt(node.key)
            begun = event is not None and event.attempt >= number and event.state in ("running", "stopped")
            if begun and event:  # the worker counts on: after a requeue it is at a later attempt than we know
                self.ledger.number(node.key, event.attempt + (event.state != "running"))
            message = f"its job {job} of Slurm is over: {state or 'gone'}"
            if event and event.attempt >= number and event.state == "blocked":
                message = f"{event.note}; {message}"
            self.lost[node.key] += 1
            final = state.startswith("CANCELLED") or failure == MEMORY or self.lost[node.key] > RETRIES
            if begun or final:
                self.ledger.event(node.key, "failed", note=message, failure=failure, log=log)
            if final:
                self.became(node, Outcome("failed", message=message, failure=failure, log=log))

    def _wanted(self) -> bool:
        """Whether the jobs are to be cancelled: asked where somebody can answer."""
        if not sys.stdin.isatty():
            return True
        try:
            answer = input(f"cancel the {len(self.jobs)} jobs of this launch that are not over? [Y/n] ")
        except (EOFError, KeyboardInterrupt):
            answer = ""
        return not answer.strip().lower().startswith("n")
