"""The inline engine: this process builds the nodes of a frozen sweep, those that share a model in a row."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.config import Cell, Track, TrackerName
from synthdiv.runtime import LocalRun, Runtime, isolated
from synthdiv.stage import Node
from synthdiv.store import Store
from synthdiv.sweep.event import DONE
from synthdiv.sweep.ledger import CellRecord, Ledger
from synthdiv.sweep.prepare import Frozen
from synthdiv.sweep.records import node_record
from synthdiv.types import Artifact, SynthdivError

LOGGER = logging.getLogger("synthdiv")


def open_model(artifact: Artifact, precision: str, device: str) -> Any:
    from synthdiv.models import load

    return load.open_model(artifact, precision, device)


class ReportingRun(LocalRun):
    """Tells the ledger too how far the node is that is being built."""

    def __init__(self, runtime: Runtime, ledger: Ledger):
        super().__init__(runtime, open_model)
        self.ledger, self.node = ledger, ""

    def progress(self, done: int, total: int, what: str) -> None:
        super().progress(done, total, what)
        self.ledger.progress(self.node, done, total, what)


@dataclass
class Inline:
    """Runs every node once; a failure blocks what stands on it and nothing else."""

    frozen: Frozen
    cell: Cell  # whose runtime and tracker count: these are no part of any node
    states: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        root = Path(self.cell.runtime.outputs)
        self.store = Store(root, self.cell.runtime.heartbeat_seconds)
        self.ledger = Ledger(root, self.cell.sweep)
        self.run_context = ReportingRun(self.cell.runtime, self.ledger)
        self.tracked: set[str] = set()
        self.total = 0

    def run(self) -> int:
        """Build all; return the exit code: 0, or 1 if a cell failed, after all others have run."""
        nodes = self.frozen.nodes()
        self.total = len(nodes)
        records = self.frozen.records()
        self.ledger.add(records, [node_record(node) for node in nodes.values()])
        begun = time.monotonic()
        waiting = list(nodes.values())
        while waiting:
            node = self._next(waiting)
            waiting.remove(node)
            self._one(node)
            self._track(records)
        built = sum(state == "built" for state in self.states.values())
        reused = sum(state == "reused" for state in self.states.values())
        cells = {record.key for record in records}
        LOGGER.info(
            "%s: %d cells (%d unique), %d nodes built, %d reused, in %.1f s",
            self.cell.sweep, len(records), len(cells), built, reused, time.monotonic() - begun,
        )  # fmt: skip
        return self._summary(records)

    def _next(self, waiting: list[Node]) -> Node:
        """The first node that is ready, one that takes the open model before others."""
        ready = [node for node in waiting if all(inner.key in self.states for inner in node.inputs)]
        opened = self.run_context.opened
        return next((node for node in ready if any(inner.key == opened for inner in node.inputs)), ready[0])

    def _one(self, node: Node) -> None:
        bad = [inner for inner in node.inputs if self.states[inner.key] not in DONE]
        if bad:
            self.states[node.key] = "blocked"
            return
        begun = time.monotonic()
        try:
            if self.store.has(node):
                self.store.artifact(node)
                built = False
            else:
                self.run_context.prepare()
                self.run_context.node = node.key
                with isolated(self.cell.runtime.threads):
                    artifact, built = self.store.obtain(
                        node, self.run_context, lambda: self.ledger.event(node.key, "running")
                    )
        except KeyboardInterrupt:
            self.ledger.event(node.key, "stopped", time.monotonic() - begun, "interrupted")
            raise
        except Exception as error:
            self._failed(node, error, time.monotonic() - begun)
            return
        seconds = time.monotonic() - begun
        self.states[node.key] = "built" if built else "reused"
        self.ledger.event(node.key, self.states[node.key], seconds)
        if built:
            place, total = len(self.states), self.total
            told_ = told(artifact.manifest["summary"])
            LOGGER.info("%*d/%d %s built in %.1f s%s", len(str(total)), place, total, node.label, seconds, told_)

    def _failed(self, node: Node, error: Exception, seconds: float) -> None:
        message = str(error) if isinstance(error, SynthdivError) else f"{type(error).__name__}: {error}"
        self.states[node.key], self.failures[node.key] = "failed", message
        LOGGER.error("%s failed: %s", node.label, message)
        trace = self.ledger.folder / "events" / f"{self.ledger.job}.{node.key[:8]}.traceback"
        unforeseen = os.environ.get("SYNTHDIV_DEBUG") == "1" or not isinstance(error, SynthdivError)
        self.ledger.event(node.key, "failed", seconds, message, log=str(trace) if unforeseen else "")
        if unforeseen:
            trace.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            LOGGER.error("  the traceback is in %s", trace)

    def _track(self, records: list[CellRecord]) -> None:
        """Show every cell that is done now. A tracker that fails costs its picture and never the sweep."""
        for record in records:
            if record.key not in self.tracked and all(self.states.get(key) in DONE for key in record.nodes):
                self.tracked.add(record.key)
                try:
                    publish(self.ledger, record, self.cell.track)
                except Exception as error:
                    LOGGER.error("tracking of cell %s failed: %s: %s", record.key[:8], type(error).__name__, error)

    def _summary(self, records: list[CellRecord]) -> int:
        """One line and one command for each node that failed."""
        for key, message in self.failures.items():
            hit = [record for record in records if key in record.nodes]
            again = hit[0].command(self.cell.sweep)
            print(f"failed: {key[:8]} ({len(hit)} cells stand on it): {message}\n  again: {again}", file=sys.stderr)
        return 1 if self.failures else 0


def publish(ledger: Ledger, record: CellRecord, track: Track) -> None:
    """A cell is written from the store when it is done: once, because an offline run cannot be resumed."""
    if track.name is TrackerName.none:
        return  # the null tracker, without reading the store for it
    from synthdiv.report.collect import publishable
    from synthdiv.track.cell import track_cell
    from synthdiv.track.wandb import WandbTracker

    found = publishable(ledger.root, record, track.samples)
    tracker = WandbTracker(track.project, track.entity, ledger.root)
    written = ledger.root / "tracked" / track.project
    track_cell(tracker, ledger.name, dataclasses.asdict(record), found.curve, found.scores, found.samples, written)


def told(summary: dict[str, Any]) -> str:
    """What is worth saying of a summary in a log line."""
    words = []
    rows = summary.get("rows", summary.get("rows_seen"))
    if rows is not None:
        words.append(f"{rows:,} rows")
    if summary.get("hidden"):
        words.append(f"{summary['layers']} x {summary['hidden']} units")
    if summary.get("parameters") or summary.get("trained_parameters"):
        words.append(f"{summary.get('parameters') or summary['trained_parameters']:,} parameters")
    if summary.get("steps"):
        words.append(f"{summary['steps']:,} steps")
    if summary.get("tokens"):
        words.append(f"{summary['tokens']:,} tokens")
    if summary.get("tokens_per_second"):
        words.append(f"{summary['tokens_per_second']:,.0f} tokens/s")
    if summary.get("loss") is not None:
        words.append(f"loss {summary['loss']:.3f}")
    return f" ({', '.join(words)})" if words else ""
