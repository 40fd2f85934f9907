"""Launches on the real Slurm: in the background, slowed down where a test must come in between, and looked at after."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.events import Event
from synthdiv.core.ledger import Ledger
from tests.conftest import warm
from tests.slurm.conftest import Cluster, wait_for
from tests.warm import Process

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
SLOWLY = """
import os, time
from synthdiv.core.local_run import LocalRun

progress, over = LocalRun.progress, os.path.join(os.path.dirname(__file__), "over")

def slowly(run, done, total, what, keep=None):
    first = "SLURM_RESTART_COUNT" not in os.environ and not os.path.exists(over)
    if done < total and what.startswith(("steps", "answers")) and first:
        time.sleep({seconds})
    progress(run, done, total, what, keep)

LocalRun.progress = slowly
"""


def slowed(folder: Path, seconds: float) -> dict[str, str]:
    """The environment in which the first run of a job waits so long after each step and batch; later runs do not, nor
    does any once there is a file `over` in the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SLOWLY.format(seconds=seconds))
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@dataclass
class Launch:
    """One sweep in its folder: `name` is its and that of its jobs."""

    slurm: Cluster
    folder: Path
    name: str
    process: Process | None = None

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "outputs", self.name)

    @property
    def artifacts(self) -> Path:
        return self.folder / "outputs" / "artifacts"

    def start(self, *words: str, **env: str) -> None:
        """The command as a user types it, in the background."""
        with (self.folder / "output").open("a") as log:
            words = (*words, f"sweep={self.name}", "hydra/launcher=slurm")
            self.process = warm().start([*words], self.folder, log, environment=self.slurm.environment, **env)

    def wait(self, code: int = 0, seconds: float = 300) -> str:
        """The output of the command, once it has ended."""
        assert self.process
        assert self.process.wait(seconds) == code, self.output
        return self.output

    def run(self, *words: str, code: int = 0, **env: str) -> str:
        self.start(*words, **env)
        return self.wait(code)

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text()

    def events(self, state: str) -> list[Event]:
        return [event for event in self.ledger.events() if event.state == state]

    def built(self) -> Counter[str]:
        """How often each node was built."""
        return Counter(event.node for event in self.events("built"))

    def nodes(self, stage: str) -> list[str]:
        """The keys of a stage's nodes."""
        return [node.key for node in self.ledger.nodes() if node.stage == stage]

    def job_of(self, node: str) -> str | None:
        """The element that builds a node, once it does: its log is named after it."""
        return next((Path(event.log).stem for event in self.events("running") if event.node == node), None)

    def queued(self) -> list[str]:
        return self.slurm.run("squeue", "-h", "-r", f"--name={self.name}", "-o", "%i %T").splitlines()

    def accounts(self, *fields: str) -> dict[str, list[str]]:
        """What the accounting knows of each job that is over, by its element; waits until that is all of them, those
        included that have a log and that the accounting does not know yet."""
        wait_for("the queue is empty", lambda: not self.queued())
        asked = ["sacct", "-X", "-n", "-P", "-S", "now-2hours", f"--name={self.name}", "-o"]

        def look() -> dict[str, list[str]] | None:
            rows = [line.split("|") for line in self.slurm.run(*asked, ",".join(["jobid,state", *fields])).splitlines()]
            begun = {path.stem for path in (self.ledger.folder / "logs").glob("*_*.log")}
            ended = rows and all(row[1].split()[0] in ENDED for row in rows) and begun <= {row[0] for row in rows}
            return {row[0]: [row[1].split()[0], *row[2:]] for row in rows} if ended else None

        return wait_for("the accounting has all", look, 30)

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        with contextlib.suppress(RuntimeError):
            self.slurm.run("scancel", f"--name={self.name}")


@contextlib.contextmanager
def launching(slurm: Cluster, folder: Path, name: str) -> Iterator[Launch]:
    folder.mkdir(exist_ok=True)
    launch = Launch(slurm, folder, f"{name}-{secrets.token_hex(3)}")
    try:
        yield launch
    finally:
        launch.close()


def manifest(path: Path) -> dict[str, Any]:
    return json.loads((path / "manifest.json").read_text())


def prepared(calm: Path, folder: Path, *stages: str) -> None:
    """Copy a finished study, but of its artifacts only those of `stages`: the others are to be built again."""
    folder.mkdir(exist_ok=True)
    for path in calm.iterdir():
        if path.is_file():
            shutil.copy2(path, folder)
    (folder / "outputs").mkdir()
    shutil.copy2(calm / "outputs" / "format.json", folder / "outputs")
    for stage in stages:
        shutil.copytree(calm / "outputs" / "artifacts" / stage, folder / "outputs" / "artifacts" / stage)
