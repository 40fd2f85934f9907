"""The verb `status`: one look, or one every two seconds until nothing is left to do."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from synthdiv.core.follow import Follow
from synthdiv.core.ledger import Ledger, launched
from synthdiv.core.liveness import Pulses
from synthdiv.core.tail import Tail
from synthdiv.core.types import ConfigError
from synthdiv.generate.spend import FILE
from synthdiv.views.show import duration, one_line, picture
from synthdiv.views.status import Observer, Status

EVERY = 2.0  # seconds between two looks
WIDTH = 160  # columns of a picture that no terminal shows


def observer(root: Path, name: str) -> Observer:
    """Who looks at one sweep; refuses a name that was never launched."""
    ledger = Ledger(root, name)
    ledger.require()
    return Observer(Follow(ledger), Pulses(root), Tail(root / FILE))


def show_status(root: Path, name: str | None, as_json: bool = False, watched: bool = False) -> int:
    """Print one sweep, or a line for each; the exit code is 1 if it was watched to its end and a cell had failed."""
    if name is None:
        return show_all(root, as_json, watched)
    seer = observer(root, name)
    if not watched:
        status = seer.look()
        if as_json:
            print(json.dumps(status.plain(), ensure_ascii=False))
        else:
            draw(status, seer)
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        follow = lines if as_json or not sys.stdout.isatty() else live
        status = follow(seer, as_json)
        return 1 if status.failed else 0
    return 0


def show_all(root: Path, as_json: bool, watched: bool) -> int:
    names = launched(root)
    if not names:
        Ledger(root, "").require()
    if watched:
        raise ConfigError(f"status --watch: needs the name of a sweep; there are: {', '.join(names)}")
    looks = [observer(root, name).look() for name in names]
    if as_json:
        brief = ("sweep", "cells", "cut_lines", "seconds_left")
        print(json.dumps({"sweeps": [{key: look.plain()[key] for key in brief} for look in looks]}, ensure_ascii=False))
    else:
        print("\n".join(map(one_line, looks)))
    return 0


def draw(status: Status, seer: Observer) -> None:
    """The picture, as wide as the terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    console.print(picture(status, seer.follow.cells), crop=False)


def looks(seer: Observer) -> Iterator[Status]:
    """A look every two seconds, the last one when nothing is left to do."""
    while not (status := seer.look()).over:
        yield status
        time.sleep(EVERY)
    yield status


def live(seer: Observer, _: bool) -> Status:
    """The picture in its place on the terminal; the last one stays, whole."""
    from rich.live import Live

    status = seer.look()
    try:
        with Live(picture(status, seer.follow.cells), auto_refresh=False, transient=True) as place:
            for status in looks(seer):
                place.update(picture(status, seer.follow.cells), refresh=True)
    finally:
        draw(status, seer)
    return status


def lines(seer: Observer, as_json: bool) -> Status:
    """A line for each change of a node, or one JSON object for each look that found one; first and last the sum."""
    before: dict[str, str] | None = None
    said = ""
    for status in looks(seer):
        if as_json:
            if status.states != before:
                print(json.dumps(status.plain(), ensure_ascii=False), flush=True)
        elif before is None:
            said = one_line(status)
            print(said, flush=True)
        else:
            for line in changes(seer, status, before):
                print(line, flush=True)
        before = status.states
    if not as_json and one_line(status) != said:
        print(one_line(status), flush=True)
    return status


def changes(seer: Observer, status: Status, before: dict[str, str]) -> Iterator[str]:
    """What happened since the look before, a line each."""
    running = {item.node: item for item in status.running}
    failed = {item.node: item for item in status.failed}
    for key, state in status.states.items():
        if state == before.get(key):
            continue
        told = f"{seer.follow.steps[key].label} {state}"
        if key in running:
            told += f" on {running[key].host}"
        elif key in failed:
            told += f": {failed[key].failure or 'error'}: {failed[key].reason}"
        elif state == "done" and key in seer.follow.seconds:
            told += f" in {duration(seer.follow.seconds[key])}"
        yield told
