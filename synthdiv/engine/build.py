"""Building one node in this process, for every engine. The ledger records what happens."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from synthdiv.core.events import Event
from synthdiv.core.ledger import Ledger
from synthdiv.core.local_run import LocalRun, Stop, isolated
from synthdiv.core.ranks import Ranks
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node, Stage
from synthdiv.core.store import Store
from synthdiv.core.types import Artifact, Stopped, SynthdivError
from synthdiv.engine.failure import BUG, LOST, MEMORY, class_of, message_of
from synthdiv.engine.watcher import Watcher

LOGGER = logging.getLogger("synthdiv")
SHOWN = {  # of a summary in a log line
    "rows": "{:,} rows", "rows_seen": "{:,} rows", "parameters": "{:,} parameters",
    "trained_parameters": "{:,} trained parameters", "steps": "{:,} steps", "tokens": "{:,} tokens",
    "tokens_per_second": "{:,.0f} tokens/s", "loss": "loss {:.3f}",
}  # fmt: skip


def open_model(artifact: Artifact, precision: str, device: str) -> Any:
    from synthdiv.models import load

    return load.open_model(artifact, precision, device)


def serve(artifact: Artifact, precision: str, runtime: Runtime, boundary: Callable[[], None]) -> Any:
    from synthdiv.generate import vllm

    return vllm.VllmServer(artifact, precision, runtime, boundary)


class ReportingRun(LocalRun):
    """A run that also records the progress of its node in the ledger and shows points to the watcher."""

    ledger: Ledger | None = None
    watcher: Watcher | None = None
    node = ""

    def begin(self, out: Path) -> None:
        """Share with the other ranks where to write, how many rows to take at once, and the number of the attempt."""
        if self.ledger and self.ranks.size > 1:
            self.ranks.share((out, self.micro_batch, self.ledger.attempt(self.node)))
        super().begin(out)

    def show(self, point: dict[str, float]) -> None:
        if self.watcher:
            self.watcher.point(point)

    def progress(self, done: int, total: int, what: str, keep: Callable[[], None] | None = None) -> None:
        if self.ledger:
            self.ledger.progress(self.node, done, total, what)
        super().progress(done, total, what, keep)


class Builder:
    """Builds nodes one after the other and keeps the model of one open for the next. Rank 0 writes the ledger."""

    def __init__(
        self, store: Store, ledger: Ledger, runtime: Runtime, stop: Stop, ranks: Ranks | None = None,
        watcher: Watcher | None = None,
    ):  # fmt: skip
        self.store, self.ledger, self.runtime = store, ledger, runtime
        self.run = ReportingRun(runtime, open_model, stop, ranks, serve)
        self.ranks = self.run.ranks
        self.watcher = watcher or Watcher()
        self.broken = False  # after an error inside a build the ranks are out of step and build no other node

    def build(self, node: Node, micro: int = 0) -> Event:
        """Build, wait for or reuse one node whose inputs are done, with `micro` rows at once (0: as the runtime says).
        Every rank calls it and gets the same last event, unless an error leaves them `broken`."""
        if self.ranks.rank:
            return self._follow(node)
        self.run.ledger, self.run.node, self.run.watcher = self.ledger, node.key, self.watcher
        self.watcher.begin(node)
        self.run.micro_batch, self.run.together = micro or self.runtime.micro_batch, False
        while (event := self._lead(node)) is None:
            gc.collect()  # a trainer and its model hold each other
            self.run.close()
        self.watcher.end(event.state != "failed")
        self.broken = bool(event.failure) and self._inside(node)
        return event if self.broken else self.ranks.share(event)

    def build_group(self, first: Node, ready: Iterable[Node], micro: int = 0) -> Iterator[tuple[Node, Event]]:
        """Build `first`. If its stage is built several at a time, its `companions` follow in threads, each with a
        builder; after an interrupt of this thread they end with the process."""
        width = first.stage.together(first.inputs, self.runtime) if self.ranks.size == 1 else 1
        if width == 1:
            yield first, self.build(first, micro)
            return
        waiting = [first, *companions(first, ready, self.runtime)]
        running = 0
        ended: queue.SimpleQueue[tuple[Node, Event | BaseException]] = queue.SimpleQueue()

        def build(node: Node) -> None:
            try:
                builder = Builder(self.store, self.ledger, self.runtime, self.run.stop)
                ended.put((node, builder.build(node)))
            except BaseException as error:
                ended.put((node, error))

        self.run.close()
        while running or (waiting and not self.run.stop.reason):
            while waiting and running < width and not self.run.stop.reason:
                threading.Thread(target=build, args=[waiting.pop(0)], daemon=True).start()
                running += 1
            node, event = ended.get()
            running -= 1
            if isinstance(event, BaseException):
                raise event
            yield node, event

    def _inside(self, node: Node) -> bool:
        """Whether other ranks are in the middle of building this node."""
        return self.run.together and self.ranks.size > 1 and node.stage.ranks == "many"

    def _lead(self, node: Node) -> Event | None:
        """One attempt. None: try again at once, with the rows that are set now."""
        begun = time.monotonic()
        try:
            state = "built" if self._obtain(node) else "reused"
        except (Stopped, KeyboardInterrupt, SystemExit) as error:
            leaves = isinstance(error, SystemExit)  # Lightning raises it on a second Ctrl-C
            if leaves and not self.run.stop.reason:
                raise
            reason = self.run.stop.reason if leaves else str(error) or "interrupted"
            event = self.ledger.event(node.key, "stopped", time.monotonic() - begun, reason)
            if isinstance(error, KeyboardInterrupt) or (leaves and self.run.stop.now):
                raise KeyboardInterrupt from error
            return event
        except Exception as error:
            event = self._ended(node, error, time.monotonic() - begun)
            return event if event.state == "failed" or self._inside(node) else None
        return self.ledger.event(node.key, state, time.monotonic() - begun)

    def _obtain(self, node: Node) -> bool:
        """Whether this call built it."""
        if self.store.has(node):
            self.store.artifact(node)
            return False
        self.run.prepare()
        ranks = self.run.ranks
        if node.stage.ranks == "one":
            self.run.ranks = Ranks()
        self.run.world_size = self.run.ranks.size
        try:
            with isolated(self.runtime.threads):
                return self.store.obtain(node, self.run, lambda: self.ledger.event(node.key, "running"))[1]
        finally:
            self.run.ranks, self.run.world_size = ranks, ranks.size

    def _follow(self, node: Node) -> Event:
        """The other ranks: join each build that rank 0 begins, until rank 0 shares the outcome of the node."""
        while True:
            message = self.ranks.share(None)
            if isinstance(message, Event):
                return message
            out, self.run.micro_batch, attempt = message
            self.ledger.set_attempt(node.key, attempt)
            self.run.together, begun = True, time.monotonic()
            try:
                self.run.prepare()
                inputs = self.store.inputs(node)
                with isolated(self.runtime.threads), contextlib.suppress(Stopped):
                    node.stage.build(inputs, out, self.run)
                    self.run.end()
            except Exception as error:
                self.broken = True
                return self._ended(node, error, time.monotonic() - begun)

    def _ended(self, node: Node, error: Exception, seconds: float) -> Event:
        """The event of an error: failed; or stopped, where half the rows may fit or another rank had the cause."""
        failure, message = class_of(error), message_of(error)
        rows = halved(node.stage, self.run.micro_batch, self.ranks.size)  # the effective batch stays the same
        if failure == MEMORY and rows:
            self.run.micro_batch = rows
            message = f"{message.splitlines()[0]}; trying again with {rows} rows at once"
            self.run.log(f"{node.label}: {message}")
        elif failure == LOST and self._inside(node):
            message = f"another rank has died ({message})"
        else:
            return self._failed(node, error, failure, message, seconds)
        if failure == MEMORY or self.ranks.rank == 0:
            return self.ledger.event(node.key, "stopped", seconds, message, failure)
        return Event(node.key, "stopped", seconds=seconds, note=message, failure=failure)

    def _failed(self, node: Node, error: Exception, failure: str, message: str, seconds: float) -> Event:
        trace = ""
        if failure == MEMORY:
            message = f"{message.splitlines()[0].rstrip('. ')}; {node.stage.less_memory}"
        if failure == BUG or os.environ.get("SYNTHDIV_DEBUG") == "1" or not isinstance(error, SynthdivError):
            path = self.ledger.folder / "events" / f"{self.ledger.job}.{node.key[:8]}.traceback"
            with contextlib.suppress(OSError):  # a full disk: the message is what matters
                path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
                trace = str(path)
        return self.ledger.event(node.key, "failed", seconds, message, failure, log=trace)


def companions(first: Node, ready: Iterable[Node], runtime: Runtime) -> list[Node]:
    """The nodes of `ready` that one process builds together with `first`: those of its stage that take its model."""
    if first.stage.together(first.inputs, runtime) == 1:
        return []
    model = first.stage.model_input
    same = (node for node in ready if node.stage.kind == first.stage.kind and node.key != first.key)
    return [node for node in same if node.inputs[model].key == first.inputs[model].key]


def halved(stage: Stage, rows: int, ranks: int = 1) -> int:
    """Half of the `rows` that a rank takes at once (0: all its rows of a batch); 0 where there is nothing to halve."""
    whole = -(-getattr(stage, "batch_rows", 0) // (ranks if stage.ranks == "many" else 1))
    rows = min(rows or whole, whole)
    return (rows + 1) // 2 if rows > 1 else 0


def summary_of(store: Store, node: Node) -> str:
    """The sizes and rates of a node that was built, for a log line; empty while a shared disk does not show it."""
    try:
        summary = store.artifact(node).manifest["summary"]
    except (SynthdivError, OSError, ValueError):
        return ""
    words = [text.format(summary[name]) for name, text in SHOWN.items() if summary.get(name) is not None]
    return f" ({', '.join(words)})" if words else ""


def log_event(store: Store, node: Node, event: Event, count: str = "") -> None:
    """What became of a node, in a line, after `count`: how many nodes are finished."""
    if event.state == "built":
        LOGGER.info("%s%s built in %.1f s%s", count, node.label, event.seconds, summary_of(store, node))
    elif event.state == "reused":
        LOGGER.info("%s reused", node.label)
    else:
        LOGGER.error("%s %s: %s", node.label, event.state, event.note)
    if event.log.endswith(".traceback"):
        LOGGER.error("  the traceback is in %s", event.log)
