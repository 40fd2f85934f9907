"""What `synthdiv status` prints of a sweep: a line, its stages, running and failed nodes, and its cells or arms."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from synthdiv.core.ledger import NOT_APPLICABLE
from synthdiv.views.status import STATES, Status, by_state

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

MAX_CELLS = 24  # cells that are listed one by one; more are grouped by arm
MAX_ROWS = 12  # rows of a list; `--json` has all
MAX_REASON = 600  # characters of a failure's message
COLOURS = {"done": "green", "running": "cyan", "failed": "red", "blocked": "yellow", "stopped": "magenta"}


def table(status: Status) -> RenderableType:
    """Everything, most urgent first, because a low terminal cuts the end."""
    from rich.console import Group

    means = {stage: duration(seconds) for stage, seconds in status.mean_seconds.items()}
    parts: list[RenderableType] = [text(one_line(status), "bold"), count_table("stage", status.nodes, means)]
    parts += running_table(status.running)
    parts += [line for row in status.failed[:MAX_ROWS] for line in failed_lines(row)]
    parts += remainder(len(status.failed), "failed nodes; `--json` has all of them")
    stopped = status.blocked_by.keys() - {row["node"] for row in status.failed}
    parts += [text(f"\nblocked: {status.blocked_by[key]:,} nodes by {key[:8]}, which was stopped")
              for key in sorted(stopped)[:MAX_ROWS]]  # fmt: skip
    groups = cells_by_arm(status) if len(status.records) > MAX_CELLS else nodes_by_cell(status)
    name = "arm" if len(status.records) > MAX_CELLS else "cell"
    parts += [count_table(name, dict(list(groups.items())[: MAX_CELLS if name == "cell" else MAX_ROWS]))]
    parts += remainder(len(groups), "arms") if name == "arm" else []
    return Group(*parts)


def one_line(status: Status) -> str:
    """A sweep in a line: cells by state, time left, money spent, and lines that could not be read."""
    line = ", ".join(f"{plural(count, 'cell')} {state}" for state, count in status.cells.items())
    if not status.over and status.seconds_left is not None:
        line += f"; {'at least' if status.not_timed else 'about'} {duration(status.seconds_left)} left"
        line += f" (no {' or '.join(status.not_timed)} was timed yet)" if status.not_timed else ""
    usd, tokens = status.spent.values()
    if tokens:
        line += f"; {usd:,.2f} USD for {tokens:,} tokens of hosted models, by all sweeps of these outputs"
    if status.cut_lines:
        line += f"; {plural(status.cut_lines, 'cut line')} ignored"
    return f"{status.sweep}: {line}"


def count_table(name: str, counts: Mapping[str, Mapping[str, int]], means: Mapping[str, str] | None = None) -> Table:
    """A row per stage, cell or arm: how many of its nodes or cells are in each state, and the mean time if given."""
    shown = [state for state in STATES if any(state in count for count in counts.values())]
    table = plain_table(name, *(f">{state}" for state in shown), *[">mean time"] * (means is not None))
    for label, count in counts.items():
        row = [text(f"{count[state]:,}", COLOURS.get(state, "")) if state in count else "." for state in shown]
        table.add_row(text(label), *row, *([] if means is None else [means.get(label, ".")]))
    return table


def nodes_by_cell(status: Status) -> dict[str, dict[str, int]]:
    """By the start of a cell's key and the overrides that not all cells have, its nodes by state."""
    words = [set(cell.overrides) for cell in status.records.values()]
    common = set.intersection(*words) if len(words) > 1 else set()
    return {
        " ".join([key[:8], *(word for word in cell.overrides if word not in common)]): by_state(
            Counter(status.node_states.get(node, "queued") for node in cell.nodes)
        )
        for key, cell in status.records.items()
    }


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


def running_table(running: list[dict[str, Any]]) -> list[RenderableType]:
    """How far each running node is and when its builder was last seen; below, the logs of their jobs."""
    if not running:
        return []
    table = plain_table("running", "on", ">time", "progress", ">left", "last seen")
    for column in (0, -1, -2):
        table.columns[column].no_wrap = True
    logs = []
    for row in running[:MAX_ROWS]:
        label = f"{row['stage']} {row['node'][:8]}"
        progress = f"{row['done']:,}/{row['total']:,} {row['what']}" if row["total"] else ""
        rate, seen = row["rate"], row["seen_seconds_ago"]
        progress += f", {rate:,.0f}/s" if rate and rate >= 100 else f", {rate:.3g}/s" if rate else ""
        table.add_row(
            text(label + (f" attempt {row['attempt']}" if row["attempt"] > 1 else ""), COLOURS["running"]),
            text(row["host"].partition(".")[0]),
            duration(row["seconds"] or None),
            text(progress),
            duration(row["seconds_left"]),
            text("?" if seen is None else f"{duration(seen)} ago", COLOURS["failed"] if row["late"] else ""),
        )
        logs += [unbroken(f"log of {label}: {row['log']}", "dim")] if row["log"] else []
    if any(row["seen_seconds_ago"] is None for row in running[:MAX_ROWS]):
        logs.append(text("last seen ?: on another machine; `--watch` shows whether its heartbeat changes", "dim"))
    return [table, *remainder(len(running), "running nodes; `--json` has all of them"), *logs]


def failed_lines(row: dict[str, Any]) -> list[Text]:
    """One failure: what and why, what it blocks, where its log is, and the command that repeats it."""
    from rich.text import Text

    why = f"{row['class']}: {row['reason']}" if row["class"] else row["reason"]
    why = why if len(why) <= MAX_REASON else f"{why[:MAX_REASON]}…"
    effect = f"  needed by {plural(row['cells'], 'cell')}"
    effect += f"; blocks {plural(row['blocks'], 'node')}" if row["blocks"] else ""
    effect += f"; attempt {row['attempt']} on {row['host']} ended after {duration(row['seconds'])}"
    lines = [Text.assemble(("\nfailed", "red"), f": {row['stage']} {row['node'][:8]}: {why}"), text(effect, "dim")]
    return lines + [unbroken(f"  {name}: {row[name]}") for name in ("log", "again") if row[name]]


def plain_table(*names: str) -> Table:
    """A table without rules; a name that begins with `>` makes a column that is aligned to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        justify = "right" if name.startswith(">") else "left"
        table.add_column("\n" + name.removeprefix(">"), justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table


def text(words: str, style: str = "") -> Text:
    """Text in which brackets are no markup."""
    from rich.text import Text

    return Text(words, style)


def unbroken(line: str, style: str = "") -> Text:
    """A line that users copy into a shell: it stays one line, however narrow the terminal is."""
    from rich.text import Text

    return Text(line, style, no_wrap=True, overflow="ignore")


def remainder(count: int, what: str) -> list[RenderableType]:
    """The line below a list that was cut."""
    more = count - MAX_ROWS
    return [text(f"and {more:,} more {what}", "dim")] if more > 0 else []


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float | None) -> str:
    """Seconds as text: `12.3 s`, from a minute on `0:12:40` or `4 days, 3:00:00`; `?` if unknown."""
    if seconds is None:
        return "?"
    return f"{seconds:.1f} s" if seconds < 59.95 else str(timedelta(seconds=round(seconds)))
