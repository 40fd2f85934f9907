"""The facts of `status`: what is done, running, failed and why, and what is blocked by it. The picture: `show.py`."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from synthdiv.core.events import DONE, Event
from synthdiv.core.follow import Follow, Step
from synthdiv.core.ledger import CellRecord
from synthdiv.core.liveness import Pulse, Pulses
from synthdiv.core.tail import Tail
from synthdiv.generate.spend import Totals

STATES = ("done", "running", "queued", "failed", "blocked", "stopped")


@dataclass(frozen=True)
class Running:
    """A node that is being built. Times are seconds; None where nobody can tell. `seen_seconds_ago` is 0 on this
    machine, and elsewhere counted since we saw it live."""

    node: str
    stage: str
    cells: int
    host: str
    process: int
    job: str
    attempt: int
    seconds: float
    done: int
    total: int
    what: str
    rate: float | None
    seconds_left: float | None
    seen_seconds_ago: float | None
    late: bool
    log: str


@dataclass(frozen=True)
class Failed:
    """A node that failed: its class and message, the nodes that wait for it in vain, and the command to repeat it."""

    node: str
    stage: str
    cells: int
    failure: str
    reason: str
    attempt: int
    seconds: float
    host: str
    blocks: int
    log: str
    again: str

    def plain(self) -> dict[str, Any]:
        row = asdict(self)
        return {"class" if name == "failure" else name: value for name, value in row.items()}


@dataclass
class Status:
    """A sweep at one moment. `states` and `cells` are by key; `blocked` counts nodes by whom they wait for in vain."""

    sweep: str
    states: dict[str, str]
    cells: dict[str, str]
    stages: dict[str, Counter[str]]
    mean_seconds: dict[str, float]
    running: list[Running]
    failed: list[Failed]
    blocked: dict[str, int]
    cut_lines: int
    seconds_left: float | None = None
    not_timed: list[str] = field(default_factory=list)
    spent: tuple[float, int] = (0.0, 0)  # USD and tokens, on hosted models, of all sweeps of these outputs

    @property
    def over(self) -> bool:
        """Whether nothing is left that somebody may still do."""
        return not {"queued", "running", "stopped"} & set(self.states.values())

    def counts(self) -> dict[str, int]:
        count = Counter(self.cells.values())
        return {state: count[state] for state in STATES if count[state]}

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "sweep": self.sweep,
            "cells": self.counts(),
            "nodes": {stage: {s: count[s] for s in STATES if count[s]} for stage, count in self.stages.items()},
            "running": [asdict(item) for item in self.running],
            "failed": [item.plain() for item in self.failed],
            "blocked_by": self.blocked,
            "mean_seconds": self.mean_seconds,
            "cut_lines": self.cut_lines,
            "seconds_left": self.seconds_left,
            "not_timed": self.not_timed,
            "spent": dict(zip(("usd", "tokens"), self.spent, strict=True)),
        }


@dataclass
class Observer:
    """Looks at one sweep again and again; what it remembers are the places in files and when who was seen."""

    follow: Follow
    pulses: Pulses
    bills: Tail
    since: dict[str, tuple[Event, float]] = field(default_factory=dict)  # when each running event came to us
    totals: Totals = field(default_factory=Totals)

    def look(self) -> Status:
        """One look; on 100,000 nodes without news a fraction of a second."""
        self.follow.refresh()
        follow, events = self.follow, self.follow.newest()
        going = [(step.stage, event) for key, step in follow.steps.items()
                 if (event := events.get(key)) and event.state == "running"]  # fmt: skip
        pulses = self.pulses.look(going)
        states, causes = node_states(follow.steps, events, pulses)
        stages: dict[str, Counter[str]] = {}
        for key, step in follow.steps.items():
            stages.setdefault(step.stage, Counter())[states[key]] += 1
        status = Status(
            follow.ledger.name,
            states,
            {key: cell_state(cell.nodes, states) for key, cell in follow.cells.items()},
            stages,
            mean_seconds(follow),
            [],
            [],
            dict(Counter(causes.values())),
            follow.cut_lines,
        )
        uses, first = users(follow.cells, {key for key, state in states.items() if state in ("running", "failed")})
        for key, step in follow.steps.items():
            if states[key] == "running":
                status.running.append(self._running(step, events[key], pulses[key], uses[key], status.mean_seconds))
            elif states[key] == "failed":
                again = first[key].command(status.sweep) if key in first else ""
                status.failed.append(failed(step, events[key], uses[key], status.blocked.get(key, 0), again))
        status.seconds_left, status.not_timed = seconds_left(status)
        for line in self.bills.read():
            self.totals.take(line)
        status.spent = self.totals.total
        return status

    def _running(self, step: Step, event: Event, pulse: Pulse, cells: int, means: dict[str, float]) -> Running:
        before, since = self.since.get(step.key, (event, time.monotonic()))
        if before != event or step.key not in self.since:
            self.since[step.key] = (event, since := time.monotonic())
        seconds = max(event.seconds + (0.0 if pulse.late else time.monotonic() - since), pulse.seconds)
        rate, left = self.follow.rate(event), None
        if rate:
            left = max((event.total - event.done) / rate - (seconds - event.seconds), 0.0)
        elif step.stage in means:
            left = max(means[step.stage] - seconds, 0.0)
        told = (event.done, event.total, event.what.partition(",")[0])
        place = (event.host, event.process, event.job, event.attempt)
        spent, left = round(seconds, 1), None if left is None else round(left, 1)
        silent = None if pulse.silent is None else round(pulse.silent, 1)
        return Running(step.key, step.stage, cells, *place, spent, *told, rate, left, silent, pulse.late, event.log)


def failed(step: Step, event: Event, cells: int, blocks: int, again: str) -> Failed:
    said = (event.failure, event.note, event.attempt, event.seconds, event.host, blocks, event.log, again)
    return Failed(step.key, step.stage, cells, *said)


def node_states(
    steps: dict[str, Step], events: dict[str, Event], pulses: dict[str, Pulse]
) -> tuple[dict[str, str], dict[str, str]]:
    """The state of each node, and of each blocked one whom it waits for in vain; nodes come inputs first."""
    states: dict[str, str] = {}
    causes: dict[str, str] = {}
    for key, step in steps.items():
        event = events.get(key)
        said = event.state if event else "queued"
        if said == "running" and key in pulses:
            said = pulses[key].state
        if said in ("queued", "blocked"):
            waits = ("done", "running") if said == "blocked" else ("done", "running", "queued", "stopped")
            cause = next((inner for inner in step.inputs if states.get(inner, "queued") not in waits), None)
            said = (
                "blocked" if cause else "queued"
            )  # a job that found an input missing has ended; repaired, it is queued
            if cause:
                causes[key] = causes.get(cause, cause)
        states[key] = "done" if said in DONE else said
    return states, causes


def cell_state(keys: list[str], states: dict[str, str]) -> str:
    """The state of a cell from those of its nodes."""
    have = {states.get(key, "queued") for key in keys}
    worst = next((state for state in ("failed", "blocked", "running", "stopped") if state in have), None)
    return worst or ("done" if have == {"done"} else "queued")


def users(cells: dict[str, CellRecord], keys: set[str]) -> tuple[Counter[str], dict[str, CellRecord]]:
    """How many cells stand on each of `keys`, and the first that does."""
    count: Counter[str] = Counter()
    first: dict[str, CellRecord] = {}
    for cell in cells.values():
        for key in keys.intersection(cell.nodes):
            count[key] += 1
            first.setdefault(key, cell)
    return count, first


def mean_seconds(follow: Follow) -> dict[str, float]:
    """Mean building time of each stage, over all nodes that this sweep built."""
    total: dict[str, list[float]] = {}
    for key, seconds in follow.seconds.items():
        if key in follow.steps:
            total.setdefault(follow.steps[key].stage, []).append(seconds)
    return {stage: round(sum(all_) / len(all_), 3) for stage, all_ in total.items()}


def seconds_left(status: Status) -> tuple[float | None, list[str]]:
    """Seconds until all that is queued or running is done if as many nodes run at once as now, and the stages whose
    time nobody knows yet: these are not in it."""
    queued = {stage: count["queued"] for stage, count in status.stages.items() if count["queued"]}
    parts = [count * status.mean_seconds[stage] for stage, count in queued.items() if stage in status.mean_seconds]
    lasting = [item.seconds_left for item in status.running if item.seconds_left is not None]
    unknown = {stage for stage in queued if stage not in status.mean_seconds}
    unknown |= {item.stage for item in status.running if item.seconds_left is None}
    if unknown and not parts and not lasting:
        return None, sorted(unknown)
    together = sum(parts + lasting) / max(1, len(status.running))
    return round(max([together, *lasting]), 1), sorted(unknown)
