"""The picture of `status`: the sweep in a line, its stages, what runs, what failed and how to repeat it, its cells."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from synthdiv.core.ledger import NOT_APPLICABLE, CellRecord
from synthdiv.views.status import STATES, Failed, Running, Status

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

EACH_CELL = 24  # up to so many cells are listed one by one, more by arm
MOST = 12  # rows of one list; `--json` has them all
REASON = 600  # characters of a message
COLOURS = {"done": "green", "running": "cyan", "failed": "red", "blocked": "yellow", "stopped": "magenta"}


def picture(status: Status, cells: dict[str, CellRecord]) -> RenderableType:
    """All of it, most urgent first: a terminal that is too low cuts the end."""
    from rich.console import Group

    parts: list[RenderableType] = [heading(status), stage_table(status)]
    if status.running:
        parts += [running_table(status.running), *logs(status.running)]
    parts += [line for item in status.failed[:MOST] for line in told_failed(item)]
    parts += rest(len(status.failed), "failed nodes")
    parts += blocked_otherwise(status)
    parts.append(cell_table(status, cells) if len(cells) <= EACH_CELL else arm_table(status, cells))
    parts += rest(len(arms(cells)), "arms") if len(cells) > EACH_CELL else []
    return Group(*parts)


def one_line(status: Status) -> str:
    """A sweep in a line: cells by state, time left, and what is odd."""
    told = ", ".join(f"{count:,} cells {state}" for state, count in status.counts().items())
    if not status.over and status.seconds_left is not None:
        least = "at least " if status.not_timed else "about "
        told += f"; {least}{duration(status.seconds_left)} left"
        told += f" (no {' or '.join(status.not_timed)} was timed yet)" if status.not_timed else ""
    if status.spent[1]:
        usd, tokens = status.spent
        told += f"; {usd:,.2f} USD for {tokens:,} tokens of hosted models, all sweeps here together"
    if status.cut_lines:
        told += f"; {status.cut_lines:,} cut line{'s' * (status.cut_lines > 1)} ignored"
    return f"{status.sweep}: {told}"


def heading(status: Status) -> Text:
    from rich.text import Text

    return Text(one_line(status), style="bold")


def plain_table(*names: str) -> Table:
    """Text to the left and, under names that begin with `>`, numbers to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return table


def coloured(state: str, word: str | None = None) -> Text:
    from rich.text import Text

    return Text(state if word is None else word, style=COLOURS.get(state, ""))


def stage_table(status: Status) -> Table:
    shown = [state for state in STATES if any(count[state] for count in status.stages.values())]
    table = plain_table("\nstage", *(f">\n{state}" for state in shown), ">\nmean time")
    for stage, count in status.stages.items():
        numbers = [coloured(state, f"{count[state]:,}") if count[state] else "." for state in shown]
        mean = status.mean_seconds.get(stage)
        table.add_row(stage, *numbers, "." if mean is None else duration(mean))
    return table


def running_table(running: list[Running]) -> RenderableType:
    from rich.console import Group

    shown = running[:MOST]
    retried = any(item.attempt > 1 for item in shown)
    table = plain_table("\nrunning", *[">\ntry"] * retried, "\non", ">\ntime", "\nprogress", ">\nleft", "\nlast seen")
    for column in (0, -1, -2):
        table.columns[column].no_wrap = True
    for item in shown:
        figures = f"{item.done:,}/{item.total:,} {item.what}" if item.total else ""
        figures += f", {number(item.rate)}/s" if item.rate else ""
        spent = duration(item.seconds) if item.seconds >= 0.05 else "?"
        left = "?" if item.seconds_left is None else duration(item.seconds_left)
        label, attempt = coloured("running", f"{item.stage} {item.node[:8]}"), [str(item.attempt)] * retried
        place = coloured("", item.host.partition(".")[0])
        table.add_row(label, *attempt, place, spent, coloured("", figures), left, seen(item))
    return Group(table, *rest(len(running), "running nodes"))


def seen(item: Running) -> Text:
    """When a builder was seen last: on this machine its process is looked up, elsewhere its counter is watched."""
    if item.seen_seconds_ago is None:
        return coloured("", "?")
    ago = "now" if item.seen_seconds_ago < 1 else f"{duration(item.seen_seconds_ago)} ago"
    return coloured("failed" if item.late else "", ago)


def logs(running: list[Running]) -> list[RenderableType]:
    """A log is that of a job, which may run several nodes one after another."""
    from rich.text import Text

    shown = running[:MOST]
    found = [whole(f"log of {item.stage} {item.node[:8]}: {item.log}", "dim") for item in shown if item.log]
    if any(item.seen_seconds_ago is None for item in shown):
        found.append(Text("last seen ?: on another machine; `--watch` shows whether its counter moves", style="dim"))
    return list(found)


def told_failed(item: Failed) -> list[Text]:
    """One failure: what, why, what waits for it, where its log is and how to repeat it."""
    from rich.text import Text

    why = f"{item.failure}: {item.reason}" if item.failure else item.reason
    why = why if len(why) <= REASON else f"{why[:REASON]}…"
    used = f"{item.cells:,} cell{'s' * (item.cells != 1)} stand{'s' * (item.cells == 1)} on it"
    used += f"; blocks {item.blocks:,} node{'s' * (item.blocks > 1)}" if item.blocks else ""
    used += f"; on {item.host} after {duration(item.seconds)}"
    used += f", attempt {item.attempt}" if item.attempt > 1 else ""
    lines = [Text.assemble(("\nfailed", "red"), f": {item.stage} {item.node[:8]}: {why}"), Text(f"  {used}", "dim")]
    return lines + [whole(f"  {name}: {value}") for name, value in (("log", item.log), ("again", item.again)) if value]


def whole(line: str, style: str = "") -> Text:
    """A line that is copied into a shell: never broken by us, however narrow the terminal."""
    from rich.text import Text

    return Text(line, style, no_wrap=True, overflow="ignore")


def blocked_otherwise(status: Status) -> list[RenderableType]:
    """Nodes that wait in vain for what did not fail: it was stopped."""
    from rich.text import Text

    told = {item.node for item in status.failed}
    causes = [(key, count) for key, count in status.blocked.items() if key not in told]
    return [Text(f"\nblocked: {count:,} nodes by {key[:8]}, which was stopped") for key, count in causes[:MOST]]


def cell_table(status: Status, cells: dict[str, CellRecord]) -> Table:
    """Every cell, with what only it was given."""
    from rich.text import Text

    every = [set(cell.overrides) for cell in cells.values()]
    common = set.intersection(*every) if len(every) > 1 else set()
    table = plain_table("\ncell", "\nstate", ">\nnodes", "\noverrides")
    for key, cell in cells.items():
        state, done = status.cells[key], sum(status.states.get(node) == "done" for node in cell.nodes)
        own = " ".join(word for word in cell.overrides if word not in common)
        table.add_row(key[:8], coloured(state), f"{done}/{len(cell.nodes)}", Text(own))
    return table


def arms(cells: dict[str, CellRecord]) -> dict[str, list[CellRecord]]:
    """The cells of each arm."""
    found: dict[str, list[CellRecord]] = {}
    for cell in cells.values():
        found.setdefault(cell.arm, []).append(cell)
    return found


def arm_table(status: Status, cells: dict[str, CellRecord]) -> Table:
    """A line per arm: those first in which something failed, runs or waits in vain."""
    from rich.text import Text

    grouped, own = arms(cells), own_axes(cells)
    counts = {arm: Counter(status.cells[cell.key] for cell in members) for arm, members in grouped.items()}
    urgent = ("failed", "blocked", "running", "stopped", "queued")
    order = sorted(grouped, key=lambda arm: tuple(-counts[arm][state] for state in urgent))
    shown = [state for state in STATES if any(count[state] for count in counts.values())]
    table = plain_table("\narm", *(f">\n{state}" for state in shown))
    for arm in order[:MOST]:
        axes = grouped[arm][0].axes
        named = " ".join(f"{axis}={axes[axis]}" for axis in own if axes.get(axis, NOT_APPLICABLE) != NOT_APPLICABLE)
        numbers = [coloured(state, f"{counts[arm][state]:,}") if counts[arm][state] else "." for state in shown]
        table.add_row(Text(named or arm[:8]), *numbers)
    return table


def own_axes(cells: dict[str, CellRecord]) -> list[str]:
    """The axes in which the cells differ."""
    values: dict[str, set[str]] = {}
    for cell in cells.values():
        for axis, value in cell.axes.items():
            values.setdefault(axis, set()).add(json.dumps(value))
    return [axis for axis, found in values.items() if len(found) > 1]


def rest(count: int, what: str) -> list[Any]:
    """The line under a list that was cut."""
    from rich.text import Text

    return [Text(f"and {count - MOST:,} {what} more: `--json` has all of them", style="dim")] if count > MOST else []


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 12.3 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 59.95 else "1 min"
    minutes, left = divmod(round(seconds), 60)
    for small, big, size in (("s", "min", 60), ("min", "h", 24)):
        if minutes < size:
            return f"{minutes} {big} {left} {small}" if left else f"{minutes} {big}"
        minutes, left = divmod(minutes, size)
    return f"{minutes} d {left} h" if left else f"{minutes} d"
