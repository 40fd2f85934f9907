"""The facts of `synthdiv status`: what is done, running, failed and why, and what each failure blocks."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.events import DONE, Event
from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.core.liveness import Heartbeats, Liveness
from synthdiv.core.tail import Tail
from synthdiv.engine.cluster import JobWatch
from synthdiv.generate.spend import FILE, Totals

STATES = ("done", "running", "queued", "failed", "blocked", "stopped")


@dataclass(frozen=True)
class Status:
    """A sweep at one moment: the object of `--json`, then the records that it summarises. Times are in seconds."""

    sweep: str
    cells: dict[str, int]
    """Their number by state."""
    nodes: dict[str, dict[str, int]]
    """Their number by stage and state."""
    running: list[dict[str, Any]]
    """A row a node, as `running_row` describes it."""
    failed: list[dict[str, Any]]
    """A row a node, as `failed_row` describes it."""
    blocked_by: dict[str, int]
    """How many nodes each failed or stopped one blocks."""
    mean_seconds: dict[str, float]
    """The building time by stage."""
    waiting: dict[str, int]
    """Queued nodes by the reason that Slurm gives."""
    cut_lines: int
    """Lines of the ledger that could not be read."""
    seconds_left: float | None
    """The time until all is done if as many nodes run at once as now; None: unknown."""
    not_timed: list[str]
    """Stages that `seconds_left` does not include, because none was built yet."""
    spent: dict[str, float]
    """`usd` and `tokens` on hosted models, of all sweeps of these outputs."""

    graph: dict[str, NodeRecord]
    records: dict[str, CellRecord]
    node_states: dict[str, str]
    cell_states: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        hidden = ("graph", "records", "node_states", "cell_states")
        return {name: value for name, value in vars(self).items() if name not in hidden}

    @property
    def finished(self) -> bool:
        """Whether no node is left that may still be built."""
        return not {"queued", "running", "stopped"} & set(self.node_states.values())


class Observer:
    """Looks at one sweep repeatedly. Refuses a name that was never launched."""

    def __init__(self, root: Path, name: str):
        self.ledger, self.heartbeats, self.spending = Ledger(root, name), Heartbeats(root), Tail(root / FILE)
        self.jobs = JobWatch()
        self.ledger.require()
        self.totals = Totals()
        self.read_at: dict[str, tuple[Event, float]] = {}  # the last event of each running node, and when it was read

    def look(self) -> Status:
        """The sweep now. Only what was written since the last look is read."""
        graph = {node.key: node for node in self.ledger.nodes()}
        cells = {cell.key: cell for cell in self.ledger.unique_cells()}
        events = self.ledger.states()
        events |= self.jobs.check(events)
        last = [(node.stage, events[key]) for key, node in graph.items() if key in events]
        liveness = self.heartbeats.check((stage, event) for stage, event in last if event.state == "running")
        states, causes = states_of(graph, events, liveness)
        waiting = Counter(event.note for event in events.values() if event.state == "queued" and event.note)
        blocked_by, means = dict(Counter(causes.values())), mean_seconds(graph, self.ledger.seconds)
        running, failed = [], []
        for key, users in users_of(cells.values(), states).items():
            row = {"node": key, "stage": graph[key].stage, "cells": len(users)}
            if states[key] == "running":
                running.append(row | self.running_row(events[key], liveness[key], means.get(graph[key].stage)))
            else:
                again = users[0].command(self.ledger.name) if users else ""
                failed.append(row | failed_row(events[key], blocked_by.get(key, 0), again))
        nodes: dict[str, Counter[str]] = defaultdict(Counter)
        for key, node in graph.items():
            nodes[node.stage][states[key]] += 1
        for line in self.spending.read():
            self.totals.take(line)
        cell_states = {key: cell_state(cell.nodes, states) for key, cell in cells.items()}
        return Status(
            self.ledger.name, by_state(Counter(cell_states.values())),
            {stage: by_state(count) for stage, count in nodes.items()}, running, failed, blocked_by, means,
            dict(waiting), self.ledger.cut_lines, *time_left(nodes, means, running),
            dict(zip(("usd", "tokens"), self.totals.total, strict=True)), graph, cells, states, cell_states,
        )  # fmt: skip

    def running_row(self, event: Event, liveness: Liveness, mean: float | None) -> dict[str, Any]:
        """`seconds` since the attempt began, `done` of `total` units of `what` (total 0: the stage reports none),
        `rate` in units per second, `seen_seconds_ago` since the last sign of life of the builder (0 on this machine),
        `late` if its heartbeat has not changed for five intervals. None: unknown."""
        before = self.read_at.get(event.node)
        if before is None or before[0] != event:
            before = self.read_at[event.node] = (event, time.monotonic())
        since = 0.0 if liveness.late else time.monotonic() - before[1]
        seconds, rate, left = max(event.seconds + since, liveness.seconds), self.ledger.rate(event), None
        if rate:
            left = max((event.total - event.done) / rate - (seconds - event.seconds), 0.0)
        elif mean is not None:
            left = max(mean - seconds, 0.0)
        row = {name: getattr(event, name) for name in ("host", "process", "job", "attempt", "done", "total", "log")}
        times = {"seconds": seconds, "seconds_left": left, "seen_seconds_ago": liveness.seen_seconds_ago}
        row |= {name: None if value is None else round(value, 1) for name, value in times.items()}
        return row | {"what": event.what.partition(",")[0], "rate": rate, "late": liveness.late}


def failed_row(event: Event, blocks: int, again: str) -> dict[str, Any]:
    """The `class` of the failure, its message as `reason`, how many nodes it `blocks`, and the command that runs a cell
    with this node `again`."""
    row = {name: getattr(event, name) for name in ("host", "attempt", "seconds", "log")}
    return row | {"class": event.failure, "reason": event.note, "blocks": blocks, "again": again}


def by_state(count: Mapping[str, int]) -> dict[str, int]:
    return {state: count[state] for state in STATES if count.get(state)}


def states_of(
    graph: dict[str, NodeRecord], events: dict[str, Event], liveness: dict[str, Liveness]
) -> tuple[dict[str, str], dict[str, str]]:
    """The state of each node, and for each blocked node the failed or stopped one that blocks it. `graph` lists inputs
    first."""
    states: dict[str, str] = {}
    causes: dict[str, str] = {}
    for key, node in graph.items():
        state = events[key].state if key in events else "queued"
        if state == "running" and key in liveness:
            state = liveness[key].state
        if state in ("queued", "blocked"):
            # A job that found an input missing has ended: its node is blocked until the input is built or running.
            harmless = ("done", "running") if state == "blocked" else ("done", "running", "queued", "stopped")
            cause = next((inner for inner in node.inputs.values() if states.get(inner, "queued") not in harmless), None)
            state = "blocked" if cause else "queued"
            if cause:
                causes[key] = causes.get(cause, cause)
        states[key] = "done" if state in DONE else state
    return states, causes


def cell_state(keys: Iterable[str], states: dict[str, str]) -> str:
    """The state of a cell from those of its nodes."""
    present = {states.get(key, "queued") for key in keys}
    worst = next((state for state in ("failed", "blocked", "running", "stopped") if state in present), None)
    return worst or ("done" if present == {"done"} else "queued")


def users_of(cells: Iterable[CellRecord], states: dict[str, str]) -> dict[str, list[CellRecord]]:
    """The cells that need each running or failed node."""
    users: dict[str, list[CellRecord]] = {key: [] for key, state in states.items() if state in ("running", "failed")}
    for cell in cells:
        for key in users.keys() & set(cell.nodes):
            users[key].append(cell)
    return users


def mean_seconds(graph: dict[str, NodeRecord], seconds: dict[str, float]) -> dict[str, float]:
    """The mean building time by stage, given that of each node."""
    times: dict[str, list[float]] = defaultdict(list)
    for key in seconds.keys() & graph.keys():
        times[graph[key].stage].append(seconds[key])
    return {stage: round(sum(values) / len(values), 3) for stage, values in times.items()}


def time_left(
    nodes: Mapping[str, Counter[str]], means: dict[str, float], running: list[dict[str, Any]]
) -> tuple[float | None, list[str]]:
    """`Status.seconds_left` and `Status.not_timed`."""
    queued = {stage: count["queued"] for stage, count in nodes.items() if count["queued"]}
    waiting = [count * means[stage] for stage, count in queued.items() if stage in means]
    left = [row["seconds_left"] for row in running if row["seconds_left"] is not None]
    unknown = sorted(queued.keys() - means.keys() | {row["stage"] for row in running if row["seconds_left"] is None})
    if unknown and not waiting and not left:
        return None, unknown
    return round(max([sum(waiting + left) / max(1, len(running)), *left]), 1), unknown
