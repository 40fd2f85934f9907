"""The ledger of a sweep as it grows: each refresh reads only the bytes that came since the one before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.events import Event, event_of, newest, record
from synthdiv.core.ledger import CellRecord, Ledger
from synthdiv.core.tail import Tail


@dataclass(frozen=True, slots=True)
class Step:
    """A node as far as a picture needs it; its fields are not kept."""

    key: str
    stage: str
    inputs: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.stage} {self.key[:8]}"


@dataclass
class Follow:
    """What the ledger says by now. `seconds` are of built nodes; `first` is where the progress of a node began."""

    ledger: Ledger
    steps: dict[str, Step] = field(default_factory=dict)
    cells: dict[str, CellRecord] = field(default_factory=dict)
    events: dict[str, dict[str, Event]] = field(default_factory=dict)  # by node and job, the last of each
    first: dict[tuple[str, str], Event] = field(default_factory=dict)  # by node and job
    seconds: dict[str, float] = field(default_factory=dict)
    strange: int = 0  # whole lines that are no record of ours
    tails: dict[str, Tail] = field(default_factory=dict)

    @property
    def cut_lines(self) -> int:
        """Lines that were cut by a crash, or make no sense; they are ignored."""
        return self.strange + sum(tail.cut for tail in self.tails.values())

    def refresh(self) -> None:
        """Read what is new."""
        for row in self._new(self.ledger.folder / "graph.jsonl"):
            self._step(row)
        for row in self._new(self.ledger.folder / "cells.jsonl"):
            self._cell(row)
        for path in self._event_files():
            for row in self._new(path):
                event = event_of(row, path.stem)
                if event is None:
                    self.strange += 1
                else:
                    self._event(event)

    def newest(self) -> dict[str, Event]:
        """The event that counts, of every node that has one."""
        return {node: newest(by_job) for node, by_job in self.events.items()}

    def _new(self, path: Path) -> list[dict[str, Any]]:
        return self.tails.setdefault(str(path), Tail(path)).read()

    def _event_files(self) -> Iterator[Path]:
        try:
            with os.scandir(self.ledger.folder / "events") as found:
                names = sorted(entry.name for entry in found if entry.name.endswith(".jsonl"))
        except FileNotFoundError:
            names = []
        return (self.ledger.folder / "events" / name for name in names)

    def _step(self, row: dict[str, Any]) -> None:
        try:
            step = Step(row["key"], row["stage"], tuple(self._known(key) for key in row["inputs"].values()))
        except (KeyError, TypeError, AttributeError):
            self.strange += 1
        else:
            self.steps.setdefault(step.key, step)

    def _cell(self, row: dict[str, Any]) -> None:
        cell = record(CellRecord, row)
        if cell is None:
            self.strange += 1
        elif cell.key not in self.cells:  # as it was first launched
            cell.nodes[:] = [self._known(key) for key in cell.nodes]
            self.cells[cell.key] = cell

    def _known(self, key: str) -> str:
        """The one string for this key: a hundred cells that name it hold it once."""
        step = self.steps.get(key)
        return step.key if step else key

    def _event(self, event: Event) -> None:
        node = self._known(event.node)
        by_job = self.events.setdefault(node, {})
        place, before = (node, event.job), by_job.get(event.job)
        by_job[event.job] = event
        if event.state == "built":
            self.seconds[node] = event.seconds
        if event.state != "running":
            self.first.pop(place, None)
        elif event.total and not (before and same_work(before, event)):
            self.first[place] = event

    def rate(self, event: Event) -> float | None:
        """Units a second of a running node, or None before two figures of the same work are known. What a resumed
        node found finished is no speed, so it counts from the first figure."""
        first = self.first.get((event.node, event.job))
        if not first or not event.total or event.seconds <= first.seconds or event.done <= first.done:
            return None
        return (event.done - first.done) / (event.seconds - first.seconds)


def same_work(one: Event, other: Event) -> bool:
    """Whether two figures count the same: of one attempt, towards one total, not backwards."""
    return (one.attempt, one.total) == (other.attempt, other.total) and one.done <= other.done
