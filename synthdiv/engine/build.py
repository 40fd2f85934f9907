"""Building one node in this process, for every engine. The ledger records what happens."""

from __future__ import annotations

import contextlib
import gc
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.ledger import Ledger
from synthdiv.core.local_run import LocalRun, Stop, isolated
from synthdiv.core.ranks import Ranks
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node, Stage
from synthdiv.core.store import Store
from synthdiv.core.types import Artifact, Stopped, SynthdivError
from synthdiv.engine.failure import BUG, LOST, MEMORY, advice, class_of, message_of
from synthdiv.engine.watcher import Watcher

SHOWN = {  # of a summary in a log line
    "rows": "{:,} rows", "rows_seen": "{:,} rows", "parameters": "{:,} parameters",
    "trained_parameters": "{:,} trained parameters", "steps": "{:,} steps", "tokens": "{:,} tokens",
    "tokens_per_second": "{:,.0f} tokens/s", "loss": "loss {:.3f}",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a node. `state` is built, reused, blocked, failed (with class and message) or stopped (with the
    reason as message)."""

    state: str
    seconds: float = 0.0
    message: str = ""
    failure: str = ""
    summary: str = ""  # of the artifact, as words in parentheses
    trace: str = ""  # path of a traceback
    log: str = ""  # path of the log of the job


def open_model(artifact: Artifact, precision: str, device: str) -> Any:
    from synthdiv.models import load

    return load.open_model(artifact, precision, device)


def serve(artifact: Artifact, precision: str, runtime: Runtime, boundary: Callable[[], None]) -> Any:
    from synthdiv.generate import vllm

    return vllm.serve(artifact, precision, runtime, boundary)


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
        self,
        store: Store,
        ledger: Ledger,
        runtime: Runtime,
        stop: Stop,
        ranks: Ranks | None = None,
        watcher: Watcher | None = None,
    ):
        self.store, self.ledger, self.runtime = store, ledger, runtime
        self.run = ReportingRun(runtime, open_model, stop, ranks, serve)
        self.ranks = self.run.ranks
        self.watcher = watcher or Watcher()
        self.broken = False  # after an error inside a build the ranks are out of step and build no other node

    @property
    def opened(self) -> str | None:
        """The key of the open model: a node that takes it need not open one."""
        return self.run.opened

    def build(self, node: Node, micro: int = 0) -> Outcome:
        """Build, wait for or reuse one node whose inputs are done, with `micro` rows at once (0: as the runtime says).
        Every rank calls it and gets the same outcome, unless an error leaves them `broken`."""
        if self.ranks.rank:
            return self._follow(node)
        self.run.ledger, self.run.node, self.run.watcher = self.ledger, node.key, self.watcher
        self.watcher.begin(node)
        self.run.micro_batch, self.run.together = micro or self.runtime.micro_batch, False
        while (outcome := self._lead(node)) is None:
            gc.collect()  # a trainer and its model hold each other
            self.run.close()
        self.watcher.end(outcome.state != "failed")
        self.broken = bool(outcome.failure) and self._inside(node)
        return outcome if self.broken else self.ranks.share(outcome)

    def _inside(self, node: Node) -> bool:
        """Whether other ranks are in the middle of building this node."""
        return self.run.together and self.ranks.size > 1 and node.stage.ranks == "many"

    def _lead(self, node: Node) -> Outcome | None:
        """One attempt. None: try again at once, with the rows that are set now."""
        begun = time.monotonic()
        try:
            if self.store.has(node):
                self.store.artifact(node)
                built, artifact = False, None
            else:
                artifact, built = self._obtain(node)
        except (Stopped, KeyboardInterrupt) as note:
            self.ledger.event(node.key, "stopped", time.monotonic() - begun, str(note) or "interrupted")
            if isinstance(note, KeyboardInterrupt):
                raise
            return Outcome("stopped", time.monotonic() - begun, str(note))
        except SystemExit as error:  # Lightning raises it on a second Ctrl-C
            if not self.run.stop.reason:
                raise
            self.ledger.event(node.key, "stopped", time.monotonic() - begun, self.run.stop.reason)
            if self.run.stop.now:
                raise KeyboardInterrupt from error
            return Outcome("stopped", time.monotonic() - begun, self.run.stop.reason)
        except Exception as error:
            outcome = self._ended(node, error, time.monotonic() - begun)
            return outcome if outcome.state == "failed" or self._inside(node) else None
        seconds = time.monotonic() - begun
        outcome = Outcome("built" if built else "reused", seconds)
        self.ledger.event(node.key, outcome.state, seconds)
        if not built or not artifact:
            return outcome
        return Outcome("built", seconds, summary=describe(artifact.manifest["summary"]))

    def _obtain(self, node: Node) -> tuple[Artifact, bool]:
        self.run.prepare()
        ranks = self.run.ranks
        if node.stage.ranks == "one":
            self.run.ranks = Ranks()
        self.run.world_size = self.run.ranks.size
        try:
            with isolated(self.runtime.threads):
                return self.store.obtain(node, self.run, lambda: self.ledger.event(node.key, "running"))
        finally:
            self.run.ranks, self.run.world_size = ranks, ranks.size

    def _follow(self, node: Node) -> Outcome:
        """The other ranks: join each build that rank 0 begins, until rank 0 shares the outcome of the node."""
        while True:
            message = self.ranks.share(None)
            if isinstance(message, Outcome):
                return message
            out, self.run.micro_batch, attempt = message
            self.ledger.number(node.key, attempt)
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

    def _ended(self, node: Node, error: Exception, seconds: float) -> Outcome:
        """The outcome of an error: failed; or stopped, where half the rows may fit or another rank had the cause."""
        failure, message = class_of(error), message_of(error)
        if failure == MEMORY and self._halve(node):
            message = f"{message.splitlines()[0]}; trying again with {self.run.micro_batch} rows at once"
            self.run.log(f"{node.label}: {message}")
        elif failure == LOST and self._inside(node):
            message = f"another rank has died ({message})"
        else:
            return self._failed(node, error, seconds)
        if failure == MEMORY or self.ranks.rank == 0:
            self.ledger.event(node.key, "stopped", seconds, message, failure)
        return Outcome("stopped", seconds, message, failure)

    def _halve(self, node: Node) -> bool:
        """Take half the rows at once, unless it is one already. The effective batch stays the same."""
        rows = halved(node.stage, self.run.micro_batch, self.ranks.size)
        if rows:
            self.run.micro_batch = rows
        return rows > 0

    def _failed(self, node: Node, error: Exception, seconds: float) -> Outcome:
        failure, message, trace = class_of(error), message_of(error), ""
        if not halved(node.stage, self.run.micro_batch, self.ranks.size) and (hint := advice(failure, node.stage)):
            message = f"{message.splitlines()[0].rstrip('. ')}; {hint}"
        if failure == BUG or os.environ.get("SYNTHDIV_DEBUG") == "1" or not isinstance(error, SynthdivError):
            path = self.ledger.folder / "events" / f"{self.ledger.job}.{node.key[:8]}.traceback"
            with contextlib.suppress(OSError):  # a full disk: the message is what matters
                path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
                trace = str(path)
        self.ledger.event(node.key, "failed", seconds, message, failure, log=trace)
        return Outcome("failed", seconds, message, failure, trace=trace, log=self.ledger.log)


def halved(stage: Stage, rows: int, ranks: int = 1) -> int:
    """Half of the `rows` that a rank takes at once (0: all its rows of a batch); 0 where there is nothing to halve."""
    whole = -(-getattr(stage, "batch_rows", 0) // (ranks if stage.ranks == "many" else 1))
    rows = min(rows or whole, whole)
    return (rows + 1) // 2 if rows > 1 else 0


def describe(summary: dict[str, Any]) -> str:
    """The sizes and rates of a summary for a log line, in parentheses; empty where it has none."""
    words = [text.format(summary[name]) for name, text in SHOWN.items() if summary.get(name) is not None]
    return f" ({', '.join(words)})" if words else ""
