"""The ledger of a sweep: plain records in `<outputs>/sweeps/<name>/`. Each worker appends to its own file of events.

`graph.jsonl` holds every node, `cells.jsonl` every cell, `events/<job>.jsonl` one line per transition. No event means
queued; blocked follows from the graph. A second launch of a name adds its cells.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.types import ConfigError

NOT_APPLICABLE = "n/a"  # an axis that made no difference to the cell


@dataclass(frozen=True)
class NodeRecord:
    """A node as a row: enough to build it again, locators included."""

    key: str
    stage: str
    inputs: list[str]
    fields: dict[str, Any]


@dataclass(frozen=True)
class CellRecord:
    """A cell as a row. `axes` are flat, `n/a` where an axis made no difference; `suites` and `vanilla` name the suite
    nodes by suite; `seeds` are what tells the cells of one arm apart."""

    key: str
    arm: str
    overrides: list[str]
    axes: dict[str, Any]
    seeds: dict[str, Any]
    suites: dict[str, str]
    vanilla: dict[str, str]
    nodes: list[str]
    train: str | None
    prompts: str
    launch: str = ""


@dataclass(frozen=True)
class Event:
    """One transition of a node: running, built, reused or failed. `at` is seconds since the epoch, for people."""

    node: str
    state: str
    at: float
    host: str = ""
    process: int = 0
    seconds: float = 0.0
    note: str = ""


@dataclass
class Ledger:
    """Reads and writes the records of one sweep."""

    root: Path
    name: str
    job: str = field(default_factory=lambda: f"inline-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}")

    @property
    def folder(self) -> Path:
        return self.root / "sweeps" / self.name

    def add(self, cells: list[CellRecord], nodes: list[NodeRecord]) -> None:
        """Add what is not there yet; several writers are safe because a line is written whole."""
        (self.folder / "events").mkdir(parents=True, exist_ok=True)
        known_nodes = {record.key for record in self.nodes()}
        known_cells = {(record.key, tuple(record.overrides)) for record in self.cells()}
        self._append("graph.jsonl", [record for record in nodes if record.key not in known_nodes])
        fresh = [cell for cell in cells if (cell.key, tuple(cell.overrides)) not in known_cells]
        self._append("cells.jsonl", [dataclasses.replace(cell, launch=self.job) for cell in fresh])

    def event(self, node: str, state: str, seconds: float = 0.0, note: str = "") -> None:
        event = Event(node, state, round(time.time(), 3), platform.node(), os.getpid(), round(seconds, 3), note)
        self._append(f"events/{self.job}.jsonl", [event])

    def _append(self, name: str, records: list[Any]) -> None:
        if records:
            text = "".join(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n" for record in records)
            with (self.folder / name).open("ab+") as handle:
                if handle.tell():
                    handle.seek(-1, os.SEEK_END)
                    text = text if handle.read(1) == b"\n" else f"\n{text}"  # a crash cut the last line
                handle.write(text.encode())

    def _read(self, path: Path) -> Iterator[dict[str, Any]]:
        """Whole lines only: the last one of a live or crashed writer may be cut."""
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    try:
                        yield json.loads(line)
                    except json.JSONDecodeError:
                        continue

    def nodes(self) -> list[NodeRecord]:
        return [NodeRecord(**row) for row in self._read(self.folder / "graph.jsonl")]

    def cells(self) -> list[CellRecord]:
        return [CellRecord(**row) for row in self._read(self.folder / "cells.jsonl")]

    def unique_cells(self) -> list[CellRecord]:
        """Each cell once, as it was first launched: only these enter a statistic."""
        found: dict[str, CellRecord] = {}
        for cell in self.cells():
            found.setdefault(cell.key, cell)
        return list(found.values())

    def events(self) -> list[Event]:
        rows = [row for path in sorted((self.folder / "events").glob("*.jsonl")) for row in self._read(path)]
        return sorted((Event(**row) for row in rows), key=lambda event: event.at)

    def states(self) -> dict[str, Event]:
        """The newest event of every node that has one."""
        return {event.node: event for event in self.events()}

    def require(self) -> None:
        """Refuse a name that was never launched, with the names that were."""
        if not (self.folder / "cells.jsonl").exists():
            there = sorted(path.parent.name for path in (self.root / "sweeps").glob("*/cells.jsonl"))
            told = (
                f"there are: {', '.join(there)}"
                if there
                else "nothing was launched yet; start with `synthdiv -m experiment=demo`"
            )
            raise ConfigError(f"no sweep {self.name!r} in {self.root / 'sweeps'}; {told}")
