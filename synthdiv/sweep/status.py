"""`status`: what is done, running, failed and why, and what is blocked by it. Reads the ledger and nothing else."""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path

from synthdiv.claim import process_start
from synthdiv.sweep.ledger import Event, Ledger, NodeRecord

DONE = ("built", "reused")


def node_states(nodes: list[NodeRecord], events: dict[str, Event]) -> dict[str, str]:
    """done, running, failed, stopped, blocked or queued for each node; nodes come inputs first."""
    states: dict[str, str] = {}
    for node in nodes:
        event = events.get(node.key)
        state = "done" if event and event.state in DONE else event.state if event else "queued"
        if event and state == "running" and event.host == platform.node() and process_start(event.process) is None:
            state = "stopped"  # its process is gone: killed, or the machine was started again
        if state == "queued" and any(states.get(inner) in ("failed", "blocked") for inner in node.inputs):
            state = "blocked"
        states[node.key] = state
    return states


def cell_state(keys: list[str], states: dict[str, str]) -> str:
    """The state of a cell from those of its nodes."""
    have = {states.get(key, "queued") for key in keys}
    return next(
        (s for s in ("failed", "blocked", "running", "stopped") if s in have), "done" if have == {"done"} else "queued"
    )


def show_status(root: Path, name: str | None) -> int:
    """Print one sweep, or a line for each."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(soft_wrap=True)
    if name is None:
        names = sorted(path.parent.name for path in (root / "sweeps").glob("*/cells.jsonl"))
        if not names:
            Ledger(root, "").require()
        for each in names:
            ledger = Ledger(root, each)
            states = node_states(ledger.nodes(), ledger.states())
            cells = Counter(cell_state(cell.nodes, states) for cell in ledger.unique_cells())
            console.print(f"{each}: " + ", ".join(f"{count} cells {state}" for state, count in sorted(cells.items())))
        return 0
    ledger = Ledger(root, name)
    ledger.require()
    nodes, events = ledger.nodes(), ledger.states()
    states = node_states(nodes, events)
    table = Table("cell", "state", "nodes done", "overrides", title=name, box=SIMPLE)
    for cell in ledger.unique_cells():
        done = sum(states.get(key) == "done" for key in cell.nodes)
        table.add_row(
            cell.key[:8],
            cell_state(cell.nodes, states),
            f"{done} of {len(cell.nodes)}",
            escape(" ".join(cell.overrides)),
        )
    console.print(table)
    stages = Table("stage", "done", "running", "queued", "failed", "blocked", "stopped", "seconds", box=SIMPLE)
    for stage in dict.fromkeys(node.stage for node in nodes):
        keys = [node.key for node in nodes if node.stage == stage]
        count = Counter(states[key] for key in keys)
        seconds = sum(event.seconds for event in ledger.events() if event.state == "built" and event.node in set(keys))
        columns = ("done", "running", "queued", "failed", "blocked", "stopped")
        stages.add_row(stage, *(str(count[column]) for column in columns), f"{seconds:.1f}")
    console.print(stages)
    for node in nodes:
        if states[node.key] == "failed":
            console.print(f"failed: {node.stage} {node.key[:8]}: {events[node.key].note}", markup=False)
    return 0
