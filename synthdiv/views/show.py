"""The verb `status`: one look at a sweep, or one every two seconds until no node is left to build."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from synthdiv.core.ledger import Ledger, launched
from synthdiv.core.types import ConfigError
from synthdiv.views.status import Observer, Status
from synthdiv.views.status_table import duration, one_line, table

EVERY = 2.0  # seconds between two looks
WIDTH = 160  # columns where the output is no terminal


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
        print(json.dumps({"sweeps": [{key: sweep.as_json()[key] for key in keys} for sweep in sweeps]}))
    else:
        print("\n".join(map(one_line, sweeps)))
    return 0


def print_status(status: Status, as_json: bool = False) -> None:
    """Print one look as a JSON object, or as tables as wide as the terminal."""
    from rich.console import Console

    if as_json:
        print(json.dumps(status.as_json(), ensure_ascii=False), flush=True)
        return
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    console.print(table(status), crop=False)


def watch(observer: Observer, as_json: bool) -> int:
    """Show a sweep until no node is left to build; Ctrl-C ends it with exit code 0."""
    show = show_lines if as_json or not sys.stdout.isatty() else show_live
    with contextlib.suppress(KeyboardInterrupt):
        return 1 if show(observer, as_json).failed else 0
    return 0


def looks(observer: Observer) -> Iterator[Status]:
    """A look every two seconds; the last one when no node is left to build."""
    while not (status := observer.look()).over:
        yield status
        time.sleep(EVERY)
    yield status


def show_live(observer: Observer, _: bool) -> Status:
    """Redraw the tables in place; the last ones stay in full."""
    from rich.live import Live

    status = observer.look()
    try:
        with Live(table(status), auto_refresh=False, transient=True) as live:
            for status in looks(observer):
                live.update(table(status), refresh=True)
    finally:
        print_status(status)
    return status


def show_lines(observer: Observer, as_json: bool) -> Status:
    """Print the summary first and last and a line for each change of a node, or a JSON object after each change."""
    before: Status | None = None
    for status in looks(observer):
        if as_json and (before is None or status.node_states != before.node_states):
            print_status(status, as_json)
        elif before is None:
            print(one_line(status), flush=True)
        elif not as_json:
            lines = [*changes(observer, status, before), *[one_line(status)] * status.over]
            print("".join(f"{line}\n" for line in lines), end="", flush=True)
        before = status
    return status


def changes(observer: Observer, status: Status, before: Status) -> Iterator[str]:
    """A line for each node whose state changed since the look before."""
    details = {row["node"]: f" on {row['host']}" for row in status.running}
    details |= {row["node"]: f": {row['class'] or 'error'}: {row['reason']}" for row in status.failed}
    for key, state in status.node_states.items():
        if state != before.node_states.get(key):
            built = state == "done" and key in observer.ledger.seconds
            detail = f" in {duration(observer.ledger.seconds[key])}" if built else details.get(key, "")
            yield f"{status.graph[key].stage} {key[:8]} {state}{detail}"
