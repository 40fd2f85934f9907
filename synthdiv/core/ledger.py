"""The ledger of a sweep: files of JSON lines in `<outputs>/sweeps/<name>/`, appended to and never rewritten.

`graph.jsonl` holds every node, `cells.jsonl` every cell, `events/<job>.jsonl` one line per transition, written by that
job alone. A node without an event is queued; whether it is blocked follows from the graph. A second launch adds cells.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import secrets
import shlex
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthdiv.core.events import Event, Record, event_of, newest, next_attempts, record, same_work
from synthdiv.core.liveness import Heartbeats
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
    """A cell as a row. `axes` are flat, `n/a` where an axis made no difference; `seeds` are what tells the cells of one
    arm apart. `responses` are the student's answers by decoding, `suites` and `vanilla` the end nodes by suite.
    `config` are the words that say where the presets are; `unmatched` is how much the cell trains, where it was
    launched with `report.unmatched` or stops early. `relations` and `licences` are those known."""

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
    relations: list[str] = field(default_factory=list)
    licences: dict[str, str] = field(default_factory=dict)

    def command(self, sweep: str) -> str:
        """What a person types to run this cell alone, in the same sweep."""
        named = [] if any(word.startswith("sweep=") for word in self.overrides) else [f"sweep={sweep}"]
        return shlex.join(["synthdiv", *self.config, *self.overrides, *named])


def problem_of_name(name: str) -> str | None:
    """What is wrong with the name of a sweep: it is a folder's name, and a word in scripts of shells."""
    problem = f"sweep={name!r}: needs a name of up to 100 letters, digits, '.', '_' and '-', a letter or digit first"
    return None if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) else problem


def new_job(engine: str = "inline") -> str:
    return f"{engine}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{secrets.token_hex(2)}"


@dataclass
class Ledger:
    """Reads and writes the records of one sweep. A writer is one job; only one process writes under its name."""

    root: Path
    """The folder of outputs."""
    name: str
    """The name of the sweep."""
    job: str = field(default_factory=new_job)
    """The job that this object writes for."""
    attempts: dict[str, int] | None = None
    """Each node's next attempt, 1 where it is not listed. A launch hands it to its jobs, which so need not read the
    whole ledger; None: it is read before the first event is written."""
    log: str = ""
    """The path of the job's log."""
    seconds: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    """The building time of every node that was built, as far as `states` has read."""
    _begun: dict[str, tuple[float, float]] = field(default_factory=dict, init=False, repr=False)
    """When each attempt began and when its last line was written, on the monotonic clock."""
    _opened: bool = field(default=False, init=False, repr=False)
    _nodes: dict[str, NodeRecord] = field(default_factory=dict, init=False, repr=False)
    _cells: dict[tuple[str, ...], CellRecord] = field(default_factory=dict, init=False, repr=False)
    _events: dict[str, dict[str, Event]] = field(default_factory=dict, init=False, repr=False)
    """The last event of each node in the file of each job."""
    _first: dict[tuple[str, str], Event] = field(default_factory=dict, init=False, repr=False)
    """The first figure of the work that a node does now, by node and job."""
    _tails: dict[Path, Tail] = field(default_factory=dict, init=False, repr=False)
    _invalid: int = field(default=0, init=False, repr=False)

    @property
    def folder(self) -> Path:
        return self.root / "sweeps" / self.name

    def add(self, cells: list[CellRecord], nodes: list[NodeRecord]) -> None:
        """Add what is not there yet, and queue again what failed, was stopped or died before. Several launches at once
        are safe: records are written in one piece, and the reader takes equal ones once."""
        (self.folder / "events").mkdir(parents=True, exist_ok=True)
        self.nodes(), self.cells()  # read what is there
        self._append("graph.jsonl", [vars(node) for node in nodes if node.key not in self._nodes])
        fresh = [cell for cell in cells if (cell.key, *cell.overrides) not in self._cells]
        self._append("cells.jsonl", [vars(cell) | {"launch": self.job} for cell in fresh])
        states = self.states()
        self.attempts, self._opened = next_attempts(states), True
        stages = {node.key: node.stage for node in nodes if node.key in states}
        again = [key for key in stages if states[key].state in ("failed", "stopped", "blocked")]
        going = [(stage, states[key]) for key, stage in stages.items() if states[key].state == "running"]
        again += [key for key, alive in Heartbeats(self.root).check(going).items() if alive.state == "stopped"]
        self.mark(sorted(again), "queued")

    def event(
        self, node: str, state: str, seconds: float = 0.0, note: str = "", failure: str = "", log: str = ""
    ) -> Event:
        """Append one transition; `seconds` are those of the attempt. What never ran in this job was not stopped in it,
        unless by an error: whoever waits for the builder of a node and is interrupted says nothing about the node."""
        more = dict[str, Any](seconds=round(seconds, 3), note=note[:NOTE], failure=failure, log=log or self.log)
        if state == "stopped" and not failure and node not in self._begun:
            return Event(node, state, **more)
        event = self._event(node, state, **more)
        self._write([event])
        return event

    def mark(self, nodes: Iterable[str], state: str, log: str = "") -> None:
        """The same transition of many nodes in one piece: 100,000 that are `reused` cost one write."""
        self._write([self._event(node, state, log=log) for node in nodes])

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

    def set_attempt(self, node: str, attempt: int) -> None:
        """Say which attempt the next one is: another process counts."""
        self._numbers()[node] = attempt

    def _numbers(self) -> dict[str, int]:
        """Attempts as they go on: a job that was started again finds its own lines and goes on behind them."""
        if self.attempts is None:
            self.attempts = next_attempts(self.states())
        elif not self._opened:
            for node, number in next_attempts(self.states(self.job)).items():
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
        """Every node once, inputs first. This method, `cells` and `states` parse only lines that are new to this
        object; lines cut by a crash are skipped and counted in `cut_lines`."""
        for row in self._new_rows(self.folder / "graph.jsonl"):
            if node := self._valid(record(NodeRecord, row)):
                self._nodes.setdefault(node.key, node)
        return list(self._nodes.values())

    def cells(self) -> list[CellRecord]:
        """Every cell as it was launched: once for each list of overrides."""
        for row in self._new_rows(self.folder / "cells.jsonl"):
            if cell := self._valid(record(CellRecord, row)):
                self._cells.setdefault((cell.key, *cell.overrides), cell)
        return list(self._cells.values())

    def unique_cells(self) -> list[CellRecord]:
        """Every key once, as it was first launched: only these enter a statistic. An axis that does not apply to a cell
        under one of its lists of overrides applies under none, to no cell of its arm: it is compared at all values."""
        first, absent = dict[str, CellRecord](), defaultdict[str, dict[str, Any]](dict)
        for cell in self.cells():
            arm = first.setdefault(cell.key, cell).arm
            absent[arm] |= {axis: value for axis, value in cell.axes.items() if value == NOT_APPLICABLE}
        return [replace(cell, axes=cell.axes | absent[cell.arm]) for cell in first.values()]

    def states(self, job: str = "", nodes: Iterable[str] | None = None) -> dict[str, Event]:
        """The event that counts for each node that has one, or for `nodes`: among all jobs, or the ranks of one job."""
        files = self.event_files(job)
        for path in files:
            for row in self._new_rows(path):
                if event := self._valid(event_of(row, path.stem)):
                    self._add_event(event)
        events = self._events if nodes is None else {node: self._events.get(node, {}) for node in nodes}
        if job:
            names = [path.stem for path in files]
            events = {node: {name: jobs[name] for name in names if name in jobs} for node, jobs in events.items()}
        return {node: newest(by_job) for node, by_job in events.items() if by_job}

    def events(self, job: str = "") -> list[Event]:
        """Every transition ever written, file by file: of all jobs, or of the ranks of one job."""
        rows = ((row, path.stem) for path in self.event_files(job) for row in Tail(path).read())
        return [event for row, name in rows if (event := event_of(row, name))]

    def event_files(self, job: str = "") -> list[Path]:
        """The files of all jobs, or those of one: rank 0 writes one, and other ranks only what rank 0 cannot know."""
        folder = self.folder / "events"
        if job:
            return [folder / f"{job}.jsonl", *sorted(folder.glob(f"{job}.rank*.jsonl"))]
        return sorted(folder.glob("*.jsonl"))

    def rate(self, event: Event) -> float | None:
        """Units per second of a running node; None until two figures of the same work are read. It counts from the
        first figure, because what a resumed node finds finished took no time."""
        first = self._first.get((event.node, event.job))
        if not first or not event.total or event.seconds <= first.seconds or event.done <= first.done:
            return None
        return (event.done - first.done) / (event.seconds - first.seconds)

    @property
    def cut_lines(self) -> int:
        """Lines read so far that a crash cut or that are no record; they are ignored."""
        return self._invalid + sum(tail.cut for tail in self._tails.values())

    def _new_rows(self, path: Path) -> list[dict[str, Any]]:
        return self._tails.setdefault(path, Tail(path)).read()

    def _valid(self, parsed: Record | None) -> Record | None:
        self._invalid += parsed is None
        return parsed

    def _add_event(self, event: Event) -> None:
        by_job, place = self._events.setdefault(event.node, {}), (event.node, event.job)
        before, by_job[event.job] = by_job.get(event.job), event
        if event.state == "built":
            self.seconds[event.node] = event.seconds
        if event.state != "running":
            self._first.pop(place, None)
        elif event.total and not (before and same_work(before, event)):
            self._first[place] = event

    def require(self) -> None:
        """Refuse a name that was never launched, with the names that were."""
        if self.name and (problem := problem_of_name(self.name)):
            raise ConfigError(f"{problem}; `synthdiv status` lists the sweeps there are")
        if not (self.folder / "cells.jsonl").exists():
            hint = "nothing was launched yet; start with `synthdiv -m experiment=demo`"
            if names := launched(self.root):
                hint = f"there are: {', '.join(names)}"
            name = self.name and f" {self.name!r}"
            raise ConfigError(f"no sweep{name} in {self.root / 'sweeps'}; {hint}")


def launched(root: Path) -> list[str]:
    """The names of all sweeps below `root`."""
    return sorted(path.parent.name for path in (root / "sweeps").glob("*/cells.jsonl"))
