"""The verb `status`: what it prints of a sweep, once or until no node is left to build."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.events import alike
from synthdiv.core.ledger import NOT_APPLICABLE, Ledger, launched
from synthdiv.core.terminal import echo
from synthdiv.core.types import ConfigError
from synthdiv.views.layout import common_words, duration, plural, show, table, text, unbroken
from synthdiv.views.status import STATES, Observer, Status, by_state

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY = 2.0  # seconds between two looks
MAX_CELLS = 24  # cells that are listed one by one; more are grouped by arm
MAX_ROWS = 12  # rows of a list; `--json` has all
MAX_REASON = 600  # characters of a failure's message
COLOURS = {"done": "green", "running": "cyan", "failed": "red", "blocked": "yellow", "stopped": "magenta"}


def show_status(root: Path, name: str | None, as_json: bool = False, watched: bool = False) -> int:
    """Print one sweep, or a line for each sweep below `root`. The exit code is 1 if a sweep was watched to its end and
    a node had failed."""
    if name and watched:
        return watch(Observer(root, name), as_json)
    if name:
        print_status(Observer(root, name).look(), as_json)
        return 0
    names = launched(root)
    if not names:
        Ledger(root, "").require()
    if watched:
        raise ConfigError(f"status --watch: needs the name of a sweep; there are: {', '.join(names)}")
    sweeps = [Observer(root, each).look() for each in names]
    if as_json:
        keys = ("sweep", "cells", "cut_lines", "seconds_left")
        echo(json.dumps({"sweeps": [{key: sweep.as_json()[key] for key in keys} for sweep in sweeps]}))
    else:
        echo("\n".join(map(one_line, sweeps)))
    return 0


def print_status(status: Status, as_json: bool = False) -> None:
    """Print one look as a JSON object, or as tables as wide as the terminal."""
    if as_json:
        echo(json.dumps(status.as_json(), ensure_ascii=False))
    else:
        show(*overview(status))


def watch(observer: Observer, as_json: bool) -> int:
    """Redraw the tables of a sweep on a terminal until no node is left to build. The last look stays, in full or as
    JSON, and is all that a file or a pipe gets. Ctrl-C ends it with exit code 0."""
    from rich.console import Group
    from rich.live import Live

    status = observer.look()
    try:
        with Live(Group(*overview(status)), auto_refresh=False, transient=True) as live:
            while not status.finished:
                live.update(Group(*overview(status)), refresh=True)
                time.sleep(EVERY)
                status = observer.look()
    except KeyboardInterrupt:
        return 0
    finally:
        print_status(status, as_json)
    return 1 if status.failed else 0


def one_line(status: Status) -> str:
    """A sweep in a line: cells by state, time left, money spent, and lines that could not be read."""
    line = ", ".join(f"{plural(count, 'cell')} {state}" for state, count in status.cells.items())
    if not status.finished and status.seconds_left is not None:
        line += f"; {'at least' if status.not_timed else 'about'} {duration(status.seconds_left)} left"
        line += f" (no {' or '.join(status.not_timed)} was timed yet)" if status.not_timed else ""
    usd, tokens = status.spent.values()
    if tokens:
        line += f"; {usd:,.2f} USD for {tokens:,} tokens of hosted models, by all sweeps of these outputs"
    if status.cut_lines:
        line += f"; {plural(status.cut_lines, 'cut line')} ignored"
    return f"{status.sweep}: {line}"


def overview(status: Status) -> Iterator[RenderableType]:
    """A line, stages, running and failed nodes, cells or arms: most urgent first, as a low terminal cuts the end."""
    yield text(one_line(status), "bold")
    means = {stage: duration(seconds) for stage, seconds in status.mean_seconds.items()}
    yield count_table("stage", status.nodes, means)
    if status.running:
        yield from running_part(status.running)
    groups = alike(status.failed, lambda row: (row["stage"], row["class"], row["reason"]))
    for row, *others in groups[:MAX_ROWS]:
        yield from failed_lines(row)
        if others:
            yield text(f"  and {plural(len(others), 'more node')} like this; `--json` has all of them")
    yield from remainder(len(groups), "reasons of failed nodes; `--json` has all of them")
    for reason, count in status.waiting.items():
        yield text(f"\nwaiting: {count:,} nodes; Slurm's reason is {reason}")
    stopped = status.blocked_by.keys() - {row["node"] for row in status.failed}
    for key in sorted(stopped)[:MAX_ROWS]:
        yield text(f"\nblocked: {status.blocked_by[key]:,} nodes by {key[:8]}, which was stopped")
    if len(status.records) <= MAX_CELLS:
        yield count_table("cell", nodes_by_cell(status))
    else:
        arms = cells_by_arm(status)
        yield count_table("arm", dict(list(arms.items())[:MAX_ROWS]))
        yield from remainder(len(arms), "arms")


def count_table(
    name: str, counts: Mapping[str, Mapping[str, int]], means: Mapping[str, str] | None = None
) -> RenderableType:
    """A row per stage, cell or arm: how many of its nodes or cells are in each state, and the mean time if given."""
    states = [state for state in STATES if any(state in count for count in counts.values())]
    rows = [
        [label, *(text(f"{count[state]:,}", COLOURS.get(state, "")) if state in count else "." for state in states)]
        + ([] if means is None else [means.get(label, ".")])
        for label, count in counts.items()
    ]
    return table([name, *(f">{state}" for state in states), *[">mean time"] * (means is not None)], rows)


def nodes_by_cell(status: Status) -> dict[str, dict[str, int]]:
    """By the start of a cell's key and the overrides that not all cells have, its nodes by state."""
    common = common_words([cell.overrides for cell in status.records.values()])
    counts = {}
    for key, cell in status.records.items():
        label = " ".join([key[:8], *(word for word in cell.overrides if word not in common)])
        counts[label] = by_state(Counter(status.node_states.get(node, "queued") for node in cell.nodes))
    return counts


def cells_by_arm(status: Status) -> dict[str, dict[str, int]]:
    """By the axes in which arms differ, the cells by state: first arms with failed cells, then blocked and running."""
    values: dict[str, set[str]] = {}
    for cell in status.records.values():
        for axis, value in cell.axes.items():
            values.setdefault(axis, set()).add(json.dumps(value))
    axes = [axis for axis, several in values.items() if len(several) > 1]
    arms: dict[str, Counter[str]] = {}
    for key, cell in status.records.items():
        label = [f"{axis}={cell.axes[axis]}" for axis in axes if cell.axes.get(axis, NOT_APPLICABLE) != NOT_APPLICABLE]
        arms.setdefault(" ".join(label) or cell.arm[:8], Counter())[status.cell_states[key]] += 1
    urgent = ("failed", "blocked", "running", "stopped", "queued")
    return {arm: by_state(arms[arm]) for arm in sorted(arms, key=lambda arm: [-arms[arm][state] for state in urgent])}


def running_part(running: list[dict[str, Any]]) -> Iterator[RenderableType]:
    """How far each running node is and when its builder was last seen; below, the logs of their jobs."""
    rows, logs = [], []
    for row in running[:MAX_ROWS]:
        label = f"{row['stage']} {row['node'][:8]}"
        progress = f"{row['done']:,}/{row['total']:,} {row['what']}" if row["total"] else ""
        rate, age = row["rate"], row["seen_seconds_ago"]
        progress += f", {rate:,.0f}/s" if rate and rate >= 100 else f", {rate:.3g}/s" if rate else ""
        rows.append([
            text(label + (f" attempt {row['attempt']}" if row["attempt"] > 1 else ""), COLOURS["running"]),
            row["host"].partition(".")[0], duration(row["seconds"] or None), progress, duration(row["seconds_left"]),
            text("?" if age is None else f"{duration(age)} ago", COLOURS["failed"] if row["late"] else ""),
        ])  # fmt: skip
        logs += [unbroken(f"log of {label}: {row['log']}", "dim")] if row["log"] else []
    yield table(["!running", "on", ">time", "progress", "!>left", "!last seen"], rows)
    yield from remainder(len(running), "running nodes; `--json` has all of them")
    yield from logs
    if any(row["seen_seconds_ago"] is None for row in running[:MAX_ROWS]):
        yield text("last seen ?: on another machine; `--watch` shows whether its heartbeat changes", "dim")


def failed_lines(row: dict[str, Any]) -> Iterator[RenderableType]:
    """One failure: what and why, what it blocks, where its log is, and the command that repeats it."""
    why = f"{row['class']}: {row['reason']}" if row["class"] else row["reason"]
    why = why if len(why) <= MAX_REASON else f"{why[:MAX_REASON]}…"
    yield text("\nfailed", "red") + text(f": {row['stage']} {row['node'][:8]}: {why}")
    effect = f"  needed by {plural(row['cells'], 'cell')}"
    effect += f"; blocks {plural(row['blocks'], 'node')}" if row["blocks"] else ""
    yield text(f"{effect}; attempt {row['attempt']} on {row['host']} ended after {duration(row['seconds'])}", "dim")
    yield from (unbroken(f"  {name}: {row[name]}") for name in ("log", "again") if row[name])


def remainder(count: int, noun: str) -> Iterator[RenderableType]:
    """The line below a list that was cut."""
    if count > MAX_ROWS:
        yield text(f"and {count - MAX_ROWS:,} more {noun}", "dim")
