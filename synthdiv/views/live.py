"""What a launch shows on a terminal: one view that is redrawn, while a log file has the lines."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core import terminal
from synthdiv.core.types import SynthdivError
from synthdiv.views.layout import console, duration, plural, text
from synthdiv.views.show import COLOURS, one_line
from synthdiv.views.status import STATES, Observer, Status

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY, COST = 1.0, 20  # seconds between two looks, or this many times as long as a look takes
MAX_RUNNING, MAX_FAILED = 4, 3  # rows


@contextlib.contextmanager
def live_view(root: Path, sweep: str) -> Iterator[None]:
    """While the block runs, redraw the state of the sweep and write log lines to a file. Without a terminal nothing
    changes: lines go where they always go."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.live import Live

    logger, stopped = logging.getLogger("synthdiv"), threading.Event()
    log = root / "sweeps" / sweep / "logs" / f"launch-{time.strftime('%Y%m%dT%H%M%S')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    handlers, logger.handlers = logger.handlers, [terminal.log_handler(log)]
    live = Live(console=console(error=True), auto_refresh=False, transient=True)
    drawing = threading.Thread(target=redraw, args=(live, root, sweep, log, stopped), daemon=True)

    def end() -> None:
        stopped.set()
        drawing.join()
        live.stop()
        logger.handlers[0].close()
        logger.handlers, terminal.end_live = handlers, None

    live.start()
    drawing.start()
    terminal.end_live = end
    try:
        yield
    finally:
        if not stopped.is_set():
            end()
        terminal.echo(f"log: {log}", error=True)


def redraw(live: Any, root: Path, sweep: str, log: Path, stopped: threading.Event) -> None:
    """Look and draw until it is `stopped`. A look that fails is left out: the view is only a picture."""
    from rich.console import Group

    observer, pause = None, EVERY
    while not stopped.wait(pause):
        begun = time.monotonic()
        with contextlib.suppress(SynthdivError, OSError):
            observer = observer or Observer(root, sweep)
            live.update(Group(*compact(observer.look(), log)), refresh=True)
        pause = max(EVERY, COST * (time.monotonic() - begun))


def compact(status: Status, log: Path) -> Iterator[RenderableType]:
    """Cells and nodes by state, time left, tokens a second, what runs now, and the newest failures."""
    yield text(one_line(status), "bold")
    counts = Counter(status.node_states.values())
    line = text(f"{plural(sum(counts.values()), 'node')}: ")
    for state in STATES:
        if counts[state]:
            line += text(f"{counts[state]:,} {state}  ", COLOURS.get(state, ""))
    if rate := sum(row["rate"] or 0 for row in status.running if row["what"] == "tokens"):
        line += text(f"{rate:,.0f} tokens/s")
    yield line
    for row in status.running[:MAX_RUNNING]:
        progress = f" {row['done']:,}/{row['total']:,} {row['what']}" if row["total"] else ""
        left = f", {duration(row['seconds_left'])} left" if row["seconds_left"] is not None else ""
        yield text(f"  {row['stage']} {row['node'][:8]}{progress}, {duration(row['seconds'] or None)}{left}")
    if len(status.running) > MAX_RUNNING:
        yield text(f"  and {len(status.running) - MAX_RUNNING} more", "dim")
    for row in status.failed[-MAX_FAILED:]:
        yield text(
            f"failed: {row['stage']} {row['node'][:8]}: {row['reason'].splitlines()[0][:120]}", COLOURS["failed"]
        )
    yield text(f"log: {log}", "dim")
