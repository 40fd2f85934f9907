"""The ledger of a sweep: plain records in `<outputs>/sweeps/<name>/`. Each worker appends to its own file of events.

`graph.jsonl` holds every node, `cells.jsonl` every cell, `events/<job>.jsonl` one line per transition. No event means
queued; blocked follows from the graph. A second launch of a name adds its cells. Which of several events about a node
counts, and why no clock has a say in it: `event.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import secrets
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.events import Event, event_of, newest, next_attempts, record
from synthdiv.core.liveness import Pulses
from synthdiv.core.tail import Tail
from synthdiv.core.types import ConfigError

EARLY, LEFT_OUT = "stops early", "less up to"  # these words are in how much such a cell trains
NOT_APPLICABLE = "n/a"  # an axis that made no difference to the cell
NOTE = 4000  # characters of a message that an event keeps; the log has all


@dataclass(frozen=True)
class NodeRecord:
    """A node as a row: enough to build it again, locators included. `inputs` are keys by name."""

    key: str
    stage: str
    inputs: dict[str, str]
    fields: dict[str, Any]


@dataclass(frozen=True)
class CellRecord:
    """A cell as a row.

    `axes` are flat, `n/a` where an axis made no difference; `seeds` are what tells the cells of one arm apart.
    `responses` are the student's answers by decoding, `suites` and `vanilla` the end nodes by suite. `config` are the
    words that say where the presets are; `unmatched` is how much the cell trains, where it was launched with
    `report.unmatched` or stops early.
    """

    key: str
    arm: str
    overrides: list[str]
    axes: dict[str, Any]
    seeds: dict[str, Any]
    responses: dict[str, str]
    suites: dict[str, str]
    vanilla: dict[str, str]
    nodes: list[str]
    train: str | None
    prompts: str
    launch: str = ""
    config: list[str] = field(default_factory=list)
    unmatched: str = ""

    def command(self, sweep: str) -> str:
        """What a person types to run this cell alone, in the same sweep."""
        named = [] if any(word.startswith("sweep=") for word in self.overrides) else [f"sweep={sweep}"]
        return shlex.join(["synthdiv", *self.config, *self.overrides, *named])


def problem_of_name(name: str) -> str | None:
    """What is wrong with the name of a sweep: it is a folder's name."""
    if not name or "/" in name or os.sep in name or name.startswith("."):
        return f"sweep={name!r}: needs a name without a slash and without a leading dot"
    return None


def new_job(engine: str = "inline") -> str:
    return f"{engine}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{secrets.token_hex(2)}"


@dataclass
class Ledger:
    """Reads and writes the records of one sweep. A writer is one job; only one process writes under its name.

    `attempts` has the number of each node's next attempt, 1 where it is silent. A launch hands it to its jobs, so
    that none of them reads the whole ledger; None reads it at the first event. `log` is the path of the job's log.
    """

    root: Path
    name: str
    job: str = field(default_factory=new_job)
    attempts: dict[str, int] | None = None
    log: str = ""
    _begun: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)  # attempt and last line, monotonic
    _opened: bool = field(default=False, repr=False)

    @property
    def folder(self) -> Path:
        return self.root / "sweeps" / self.name

    def add(self, cells: list[CellRecord], nodes: list[NodeRecord]) -> None:
        """Add what is not there yet, and queue again what failed, was stopped or died before. Several launches at once
        are safe: records are written in one piece, and the reader takes equal ones once."""
        (self.folder / "events").mkdir(parents=True, exist_ok=True)
        known_nodes = {record.key for record in self.nodes()}
        known_cells = {(record.key, tuple(record.overrides)) for record in self.cells()}
        self._append("graph.jsonl", [dataclasses.asdict(node) for node in nodes if node.key not in known_nodes])
        fresh = [cell for cell in cells if (cell.key, tuple(cell.overrides)) not in known_cells]
        self._append("cells.jsonl", [dataclasses.asdict(cell) | {"launch": self.job} for cell in fresh])
        states = self.states()
        self.attempts, self._opened = next_attempts(states), True
        stages = {node.key: node.stage for node in nodes if node.key in known_nodes and node.key in states}
        again = [key for key in stages if states[key].state in ("failed", "stopped", "blocked")]
        going = [(stage, states[key]) for key, stage in stages.items() if states[key].state == "running"]
        again += [key for key, pulse in Pulses(self.root).look(going).items() if pulse.state == "stopped"]
        self.mark(sorted(again), "queued")

    def event(
        self, node: str, state: str, seconds: float = 0.0, note: str = "", failure: str = "", log: str = ""
    ) -> None:
        """Append one transition; `seconds` are those of the attempt. What never ran in this job was not stopped in it,
        unless by an error: whoever waits for the builder of a node and is interrupted says nothing about the node."""
        if state != "stopped" or failure or node in self._begun:
            more = {"seconds": round(seconds, 3), "note": note[:NOTE], "failure": failure, "log": log or self.log}
            self._write([self._event(node, state, **more)])

    def mark(self, nodes: Iterable[str], state: str) -> None:
        """The same transition of many nodes in one piece: 100,000 that are `reused` cost one write."""
        self._write([self._event(node, state) for node in nodes])

    def progress(self, node: str, done: int, total: int, what: str) -> None:
        """How far a running node is, written every 2 seconds, later every hundredth of its time and at least every
        30 s. Only for the picture: where it cannot be written, the work goes on."""
        now = time.monotonic()
        begun, last = self._begun.setdefault(node, (now, now))
        if now - last >= min(max(2.0, (now - begun) / 100), 30.0):
            self._begun[node] = (begun, now)
            figures = {"seconds": round(now - begun, 3), "done": int(done), "total": int(total), "what": what}
            with contextlib.suppress(OSError):
                self._write([self._event(node, "running", **figures)])

    def _event(self, node: str, state: str, **more: Any) -> Event:
        attempts = self._numbers()
        number = attempts.get(node, 1)
        if state == "running":
            self._begun.setdefault(node, (time.monotonic(), time.monotonic()))
        elif state != "queued":  # ended: what comes next is another attempt
            attempts[node] = number + 1
            self._begun.pop(node, None)
        at, host = round(time.time(), 3), platform.node()
        return Event(node, state, at, host, os.getpid(), number, **{"log": self.log} | more)

    def attempt(self, node: str) -> int:
        """The number of the next attempt of a node."""
        return self._numbers().get(node, 1)

    def number(self, node: str, attempt: int) -> None:
        """Say which attempt the next one is: another process counts."""
        self._numbers()[node] = attempt

    def _numbers(self) -> dict[str, int]:
        """Attempts as they go on: a job that was started again finds its own lines and goes on behind them."""
        if self.attempts is None:
            self.attempts = next_attempts(self.states())
        elif not self._opened:
            mine = self._newest([self.folder / "events" / f"{self.job}.jsonl"])
            for node, number in next_attempts(mine).items():
                self.attempts[node] = max(number, self.attempts.get(node, 1))
        self._opened = True
        return self.attempts

    def _write(self, events: list[Event]) -> None:
        self._append(f"events/{self.job}.jsonl", [event.row() for event in events])

    def _append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """All rows in one piece: what another process appends does not come between them."""
        if not rows:
            return
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with (self.folder / name).open("ab+", buffering=0) as handle:
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                text = text if handle.read(1) == b"\n" else f"\n{text}"  # a crash cut the last line
            data = text.encode(errors="backslashreplace")  # half of a pair, as file names have: an escape of JSON
            while data:
                data = data[handle.write(data) or 0 :]

    def nodes(self) -> list[NodeRecord]:
        """Every node once, inputs first."""
        rows = (record(NodeRecord, row) for row in Tail(self.folder / "graph.jsonl").read())
        return _first((row.key, row) for row in rows if row)

    def cells(self) -> list[CellRecord]:
        rows = (record(CellRecord, row) for row in Tail(self.folder / "cells.jsonl").read())
        return _first(((row.key, *row.overrides), row) for row in rows if row)

    def unique_cells(self) -> list[CellRecord]:
        """Each cell once, as it was first launched: only these enter a statistic."""
        return _first((cell.key, cell) for cell in self.cells())

    def files_of(self, job: str) -> list[Path]:
        """The events of a job: of its rank 0, and of others that had something to say."""
        folder = self.folder / "events"
        return [folder / f"{job}.jsonl", *sorted(folder.glob(f"{job}.rank*.jsonl"))]

    def event_files(self) -> list[Path]:
        return sorted((self.folder / "events").glob("*.jsonl"))

    def events(self) -> list[Event]:
        """Every event, job by job in the order of names, as it stands in the files; which one counts: `states`."""
        return [
            event for path in self.event_files() for row in Tail(path).read() if (event := event_of(row, path.stem))
        ]

    def states(self) -> dict[str, Event]:
        """The event that counts, of every node that has one."""
        return self._newest(self.event_files())

    def _newest(self, files: Iterable[Path]) -> dict[str, Event]:
        found: dict[str, dict[str, Event]] = {}
        for path in files:
            for row in Tail(path).read():
                if event := event_of(row, path.stem):
                    found.setdefault(event.node, {})[event.job] = event
        return {node: newest(by_job) for node, by_job in found.items()}

    def require(self) -> None:
        """Refuse a name that was never launched, with the names that were."""
        if self.name and (problem := problem_of_name(self.name)):
            raise ConfigError(f"{problem}; `synthdiv status` lists the sweeps there are")
        if not (self.folder / "cells.jsonl").exists():
            there = launched(self.root)
            told = (
                f"there are: {', '.join(there)}"
                if there
                else "nothing was launched yet; start with `synthdiv -m experiment=demo`"
            )
            raise ConfigError(f"no sweep {self.name!r} in {self.root / 'sweeps'}; {told}")


def _first(named: Iterable[tuple[Any, Any]]) -> list[Any]:
    """What comes first under each name."""
    found: dict[Any, Any] = {}
    for name, item in named:
        found.setdefault(name, item)
    return list(found.values())


def launched(root: Path) -> list[str]:
    """The names of all sweeps below `root`."""
    return sorted(path.parent.name for path in (root / "sweeps").glob("*/cells.jsonl"))
