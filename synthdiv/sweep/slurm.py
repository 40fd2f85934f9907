"""The slurm engine: arrays of jobs, element after element, each a worker; then it looks on until all are over.

The jobs need nobody who looks on: with `detach` the launch returns once all is queued.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.config import Cell
from synthdiv.runtime import Stop
from synthdiv.stage import Node
from synthdiv.sweep import cluster
from synthdiv.sweep.build import Outcome
from synthdiv.sweep.engine import Engine
from synthdiv.sweep.event import DONE, Event
from synthdiv.sweep.failure import LOST, MEMORY, TIME
from synthdiv.sweep.follow import Follow
from synthdiv.sweep.job import Job
from synthdiv.sweep.ledger import Ledger
from synthdiv.sweep.pack import arrays, pack
from synthdiv.sweep.prepare import Frozen
from synthdiv.sweep.records import node_record
from synthdiv.types import ConfigError

LOGGER = logging.getLogger("synthdiv")
TEMPLATE = "slurm/job.sbatch"
LOOK = 2.0  # seconds between two looks at the ledger; the queue is asked every fifth time
ENDED = {"TIMEOUT": TIME, "OUT_OF_MEMORY": MEMORY}  # Slurm's words for classes of ours


@dataclass
class Profile:
    """What a cluster needs said. `options` are further ones of sbatch; `stages` those of single stages, beyond these or
    instead; `setup` are lines of the script before the work; `template` replaces `launchers/slurm/job.sbatch`."""

    partition: str | None = None
    account: str | None = None
    time: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)
    template: str | None = None

    @classmethod
    def of(cls, path: str | None, said: dict[str, Any]) -> Profile:
        """A profile's file, and above it what the command or an experiment said."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        told = {name: value for name, value in said.items() if value}
        try:
            base = OmegaConf.structured(cls)
            found = OmegaConf.to_object(OmegaConf.merge(base, OmegaConf.load(path) if path else {}, told))
        except FileNotFoundError:
            raise ConfigError(
                f"hydra.launcher.profile={path}: no such file; launchers/slurm/example.yaml is one"
            ) from None
        except OmegaConfBaseException as error:
            names = ", ".join(item.name for item in dataclasses.fields(cls))
            raise ConfigError(f"hydra.launcher.profile={path}: {str(error).splitlines()[0]}; it has {names}") from None
        assert isinstance(found, cls)
        return found

    def shape(self, node: Node) -> tuple[tuple[str, Any], ...]:
        """What the stage of a node needs, as options of sbatch."""
        plain = {"partition": self.partition, "account": self.account, "time": self.time}
        every = {name: value for name, value in plain.items() if value is not None}
        return tuple((every | self.options | self.stages.get(node.stage.name, {})).items())


class Slurm(Engine):
    """Queues all that is to be built. Jobs hold up to `group` nodes and queue themselves again at the time limit up to
    `requeues` times."""

    name = "slurm"

    def __init__(self, frozen: Frozen, cell: Cell, profile: Profile, group: int, requeues: int, detach: bool):
        super().__init__(frozen, cell)
        self.profile, self.group, self.requeues, self.detach = profile, group, requeues, detach
        if strange := set(profile.stages) - {node.stage.name for node in self.nodes.values()}:
            LOGGER.info("hydra.launcher.stages: this sweep has no %s", ", ".join(sorted(strange)))
        self.array = cluster.largest_array()
        self.folder = self.ledger.folder / "jobs" / self.ledger.job
        self.jobs: dict[str, list[Node]] = {}  # by the id of the element: those of its nodes whose fate is not known

    def work(self, stop: Stop) -> None:
        self.reuse()
        nodes = [node for key, node in self.nodes.items() if key not in self.states and not node.stage.located]
        self._fetched()
        if not nodes:
            return
        try:
            self._submit(nodes)
        except BaseException:
            cluster.cancel(self.jobs)
            raise
        LOGGER.info("%s: %d nodes queued in %d jobs of Slurm", self.cell.sweep, len(nodes), len(self.jobs))
        if self.detach:
            LOGGER.info("look with `synthdiv status %s --watch`", self.cell.sweep)
            return
        self._look_on(stop)

    def _fetched(self) -> None:
        """Models of the hub are brought here once: the nodes of a cluster are often without a network."""
        for node in [node for node in self.nodes.values() if node.stage.located]:
            node.stage.fetch()
            self.open.pop(node.key, None)
            self.known(node, "reused")

    def _submit(self, nodes: list[Node]) -> None:
        (self.ledger.folder / "logs").mkdir(parents=True, exist_ok=True)
        packed = pack(nodes, self.profile.shape, self.group, cluster.room())
        ids: dict[int, str] = {}
        for number, members in enumerate(arrays(packed, self.array)):
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
            [node_record(node) for node in graph.values()], attempts, self.requeues,
        )  # fmt: skip
        job.write(self.folder / f"{name}.json")

    def _script(self, number: str, shape: Any) -> str:
        """The template with its places filled in."""
        lines = [f"#SBATCH --{name}" + ("" if value is True else f"={value}") for name, value in shape]
        places = {
            "name": self.cell.sweep,
            "logs": str((self.ledger.folder / "logs").absolute()),
            "jobs": str((self.folder / number).absolute()),
            "options": "\n".join(lines),
            "setup": "\n".join(self.profile.setup),
            "python": sys.executable,
        }
        text = template(self.profile.template).read_text(encoding="utf-8")
        for place, value in places.items():
            text = text.replace(f"@{place}@", value)
        return text

    def _look_on(self, stop: Stop) -> None:
        """Tell what becomes of the nodes, until all is over."""
        follow, looks = Follow(Ledger(self.ledger.root, self.ledger.name)), 0
        while self.jobs and not stop.reason:
            gone = [] if looks % 5 else sorted(set(self.jobs) - cluster.queued(self.jobs))  # before reading: then the
            follow.refresh()  # last words of a job that is gone are here
            events = follow.newest()
            for job, nodes in list(self.jobs.items()):
                self.jobs[job] = [node for node in nodes if not self._heard(node, events.get(node.key))]
                if not self.jobs[job]:
                    del self.jobs[job]
            for job in gone:
                self._gone(job)
            looks += 1
            time.sleep(LOOK if self.jobs else 0)
        if stop.reason and self.jobs and self._wanted():
            cluster.cancel(self.jobs)
            while cluster.queued(self.jobs):
                time.sleep(LOOK)

    def _heard(self, node: Node, event: Event | None) -> bool:
        """Whether the fate of a node is known now."""
        if node.key in self.states:  # blocked
            return True
        if event is None or event.state not in (*DONE, "failed") or event.attempt < self.ledger.attempt(node.key):
            return False
        self.became(node, Outcome(event.state, event.seconds, event.note, event.failure, log=event.log))
        return True

    def _gone(self, job: str) -> None:
        """A job is over that did not say what became of these nodes: cancelled, or killed."""
        for node in self.jobs.pop(job, []):
            if node.key in self.states:
                continue
            if self.store.has(node):
                self.became(node, Outcome("built"))
                continue
            state = cluster.state(job)
            log = self.ledger.folder / "logs" / f"{job}.log"
            outcome = Outcome(
                "failed", message=f"its job {job} of Slurm is over: {state or 'gone'}",
                failure=ENDED.get(state.split(",")[0].split(" ")[0], LOST), log=str(log),
            )  # fmt: skip
            self.ledger.event(node.key, "failed", note=outcome.message, failure=outcome.failure, log=outcome.log)
            self.became(node, outcome)

    def _wanted(self) -> bool:
        """Whether the jobs are to be cancelled: asked where somebody can answer."""
        if not sys.stdin.isatty():
            return True
        answer = input(f"cancel the {len(self.jobs)} jobs of this launch that are not over? [Y/n] ")
        return not answer.strip().lower().startswith("n")


def template(path: str | None) -> Path:
    """The script's template: the one named, else ours, beside the package or the repository."""
    if path:
        if not Path(path).is_file():
            raise ConfigError(f"hydra.launcher.template={path}: no such file; launchers/slurm/job.sbatch is one")
        return Path(path)
    here = Path(__file__).resolve().parents[1]
    beside = here / "launchers" / TEMPLATE
    return beside if beside.is_file() else here.parent / "launchers" / TEMPLATE
