"""The slurm engine: submits arrays of jobs, each element a worker, and watches until all have ended.

The jobs do not need the watch: with `detach` the launch returns once all are submitted.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from synthdiv.core import terminal
from synthdiv.core.events import DONE, Event
from synthdiv.core.local_run import Stop
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError
from synthdiv.engine import cluster
from synthdiv.engine.engine import Engine
from synthdiv.engine.failure import LOST, MEMORY, TIME
from synthdiv.engine.job import Job
from synthdiv.engine.pack import Packed, arrays, pack
from synthdiv.engine.profile import Profile, template
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen

LOGGER = logging.getLogger("synthdiv")
POLL = 2.0  # seconds between two looks at the ledger; the queue is read every fifth time
MISSED = 2  # times that a job must be missing in the queue: a shared disk shows its last events later
SILENT = 30  # times, 5 minutes, that a job known to the accounting alone must be missing and build nothing
EXCLUDE = "exclude"  # the option of sbatch that names hosts to leave out
CLASSES = {"TIMEOUT": TIME, "OUT_OF_MEMORY": MEMORY}  # of failure, by Slurm's job state


class Slurm(Engine):
    """Submits all nodes that are not built. A job holds up to `group` nodes and queues itself again at the time limit
    up to `requeues` times."""

    name = "slurm"

    def __init__(
        self, frozen: Frozen, cell: Cell, profile: Profile, group: int, requeues: int, detach: bool,
        watcher: Watcher | None = None,
    ):  # fmt: skip
        super().__init__(frozen, cell, watcher)
        self.profile, self.group, self.requeues, self.detach = profile, group, requeues, detach
        names = {name for node in self.nodes.values() for name in (node.stage.name, node.stage.kind)}
        if unknown := set(profile.stages) - names:
            LOGGER.info("hydra.launcher.stages: this sweep has no %s", ", ".join(sorted(unknown)))
        self.array = cluster.largest_array()
        for name, path in (("runtime.outputs", self.ledger.root), ("the working folder", Path.cwd())):
            if any(letter < " " or letter in "\\\x7f" for letter in str(path.absolute())):
                raise ConfigError(f"{name}={str(path)!r}: Slurm's scripts bear no control characters or backslashes")
        self.folder = self.ledger.folder / "jobs" / self.ledger.job
        self.jobs: dict[str, list[Node]] = {}  # by the id of the element: its nodes without a final state
        self.arrays = 0
        self.missed: Counter[str] = Counter()  # by job: how often in a row it was not in the queue
        self.bad_hosts: dict[str, set[str]] = {}  # by node: hosts on which its job ended without an event
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
        packed = pack(nodes, self._shape, self.group, cluster.room(self.profile.account))
        ids: dict[int, str] = {}
        for members in arrays(packed, self.array):
            if stop.reason:
                return
            number, self.arrays = self.arrays, self.arrays + 1
            for task, member in enumerate(members):
                self._job(f"{number}-{task}", packed[member].nodes)
            after = {ids[other] for other in packed[members[0]].after}
            job = self._send(str(number), packed[members[0]], len(members), after)
            for task, member in enumerate(members):
                ids[member] = f"{job}_{task}"
                self.jobs[f"{job}_{task}"] = list(packed[member].nodes)
                self.ledger.mark([node.key for node in packed[member].nodes], "queued", self._log(f"{job}_{task}"))

    def _shape(self, node: Node) -> tuple[tuple[str, Any], ...]:
        """The options of sbatch for a node; hosts on which its job ended without an event are left out."""
        shape = dict(self.profile.shape(node))
        if hosts := self.bad_hosts.get(node.key):
            shape[EXCLUDE] = ",".join(sorted({*hosts, *str(shape.get(EXCLUDE, "")).split(",")} - {""}))
        return tuple(sorted(shape.items()))

    def _send(self, number: str, job: Packed, elements: int, after: set[str]) -> str:
        """Write and submit the script of an array. Returns its id."""
        script = self.folder / f"{number}.sbatch"
        script.write_text(self._script(number, job.shape), encoding="utf-8")
        try:
            return cluster.submit(str(script), elements, after)
        except ConfigError:
            if not self.bad_hosts.pop(job.nodes[0].key, None):
                raise
            job.shape = self._shape(job.nodes[0])  # no other host is left
            return self._send(number, job, elements, after)

    def _log(self, job: str) -> str:
        return str(self.ledger.folder / "logs" / f"{job}.log")

    def _job(self, name: str, nodes: list[Node]) -> None:
        """Write the file of one job: its nodes and all that they depend on."""
        graph: dict[str, Node] = {}
        for node in nodes:
            node.gather(graph)
        keys = [node.key for node in nodes]
        attempts = {key: self.ledger.attempt(key) for key in keys}
        job = Job(
            f"{self.ledger.job}-{name}", self.cell.sweep, self.cell.runtime, self.cell.track, keys,
            [self.node_records[key] for key in graph], attempts, self.requeues, self.suites,
        )  # fmt: skip
        job.write(self.folder / f"{name}.json")

    def _script(self, number: str, shape: Any) -> str:
        """The template with its placeholders filled in, each value quoted for where it stands."""
        options = [(name, "" if value is True else f"={for_sbatch(value)}") for name, value in shape]
        logs = str((self.ledger.folder / "logs").absolute())
        values = {
            "name": self.cell.sweep,
            "output": for_sbatch(f"{logs.replace('%', '%%')}/%A_%a.log"),
            "options": "\n".join(f"#SBATCH --{name}{value}" for name, value in options),
            "setup": "\n".join(self.profile.setup),
            "logs": shlex.quote(logs),
            "jobs": shlex.quote(str((self.folder / number).absolute())),
            "here": shlex.quote(str(Path.cwd())),
            "python": shlex.quote(sys.executable),
        }
        text = template(self.profile.template).read_text(encoding="utf-8")
        return re.sub(f"@({'|'.join(values)})@", lambda match: values[match.group(1)], text)

    def _watch(self, stop: Stop) -> None:
        """Report what becomes of the nodes until no job is left."""
        looks = 0
        while self.jobs and not stop.reason:
            ended = self._ended_jobs() if looks % 5 == 0 else {}
            events = self.ledger.states()  # after the queue: all events of a job that is missing there are written
            for job, nodes in list(self.jobs.items()):
                self.jobs[job] = [node for node in nodes if not self._settled(node, events.get(node.key))]
                if not self.jobs[job]:
                    del self.jobs[job]
                elif job in ended:
                    self._settle_ended(job, ended[job], events)
            looks += 1
            time.sleep(POLL if self.jobs else 0)
        if stop.reason and self.jobs:
            if not self._confirm_cancel():
                LOGGER.info("the jobs continue; watch them with `synthdiv status %s --watch`", self.cell.sweep)
                return
            cluster.cancel(self.jobs)
            while self._queued():
                time.sleep(POLL)

    def _settled(self, node: Node, event: Event | None) -> bool:
        """Whether the final state of a node is known, after `event`, the one that counts in the ledger."""
        if node.key in self.states:
            return True
        if event is None or event.state not in (*DONE, "failed"):
            return False
        if event.attempt < self.ledger.attempt(node.key) and not (event.state in DONE and self.store.has(node)):
            return False  # of an earlier launch
        self.became(node, event)
        return True

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

    def _ended_jobs(self) -> dict[str, cluster.JobState]:
        """The jobs that have ended: missing in the queue several times in a row, not alive by the controller, nor by
        the accounting, unless for a long time it alone knows the job and no heartbeat of its nodes moves."""
        queued = self._queued()
        self.missed = Counter({job: self.missed[job] + 1 for job in self.jobs if job not in queued})
        ended: dict[str, cluster.JobState] = {}
        for job in [job for job, times in self.missed.items() if times >= MISSED]:
            try:
                state = cluster.state(job)
            except ConfigError as error:
                LOGGER.warning("%s; asking again", error)
                break
            silent = state.forgotten and not any(self.store.claimed(node) for node in self.jobs[job])
            if state.ended or (silent and self.missed[job] >= SILENT):
                ended[job] = state
            elif not silent:
                del self.missed[job]
        return ended

    def _settle_ended(self, job: str, state: cluster.JobState, events: dict[str, Event]) -> None:
        """Settle the nodes of a job that ended before it recorded what became of them: it was cancelled or killed. The
        node that it was building, and those it did not begin, are submitted again when all other jobs have ended."""
        failure = CLASSES.get(state.name, LOST)
        for node in self.jobs.pop(job):
            if node.key in self.states:
                continue
            if self.store.has(node) or state.name == "COMPLETED":
                self.became(node, Event(node.key, "built"))
                continue
            event = events.get(node.key)
            message = state.note(job, self._log(job))
            if event and event.attempt >= self.ledger.attempt(node.key) and event.state == "blocked":
                message = f"{event.note}; {message}"
            if failure == LOST and state.host and state.ended:
                self.bad_hosts.setdefault(node.key, set()).add(state.host)
            final = state.name == "CANCELLED" or failure == MEMORY
            self.ended_before(node, event, message, failure, self._log(job), final)

    def _confirm_cancel(self) -> bool:
        """Whether to cancel the jobs: asked at a terminal, else yes."""
        question = f"cancel the {len(self.jobs)} jobs of this launch that have not ended? [Y/n] "
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            if terminal.end_live:
                terminal.end_live()
            return not (sys.stdin.isatty() and input(question).strip().lower().startswith("n"))
        return True


def for_sbatch(value: Any) -> str:
    """A value in a line `#SBATCH --name=value`: sbatch splits it as a shell does, but escapes in quotes too."""
    return shlex.quote(str(value).replace("\\", "\\\\"))
