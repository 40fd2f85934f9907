"""Shows a running sweep in a tracker: the curve of each training, and each cell when all its nodes are done.

A tracker that fails never stops the sweep; what it would have shown is missing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from synthdiv.core.ledger import CellRecord
from synthdiv.core.stage import Node
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Track, TrackerName
from synthdiv.views.track.cell import TAG, track_cell
from synthdiv.views.track.tracker import Tracker

LOGGER = logging.getLogger("synthdiv")


class TrackWatcher(Watcher):
    """Writes a live run for each training, which several cells may share and a resumed training continues, and a run
    for each finished cell, written once because an offline run cannot be resumed."""

    def __init__(self, track: Track, root: Path, sweep: str):
        self.track, self.root, self.sweep = track, root, sweep
        self.node: Node | None = None
        self.tracker: Tracker | None = None
        self.written: set[str] = set()

    def begin(self, node: Node) -> None:
        """Remember a training; its run is opened at the first point."""
        self.node = node if node.stage.name == "train" and self.track.name is not TrackerName.none else None

    def point(self, point: Mapping[str, float]) -> None:
        node = self.node
        if node is None:
            return
        try:
            if self.tracker is None and (tracker := online(self.track, self.root)):
                self.tracker = tracker
                tracker.begin(node.key, node.label, "training", [self.sweep[:TAG]], {"node": node.key})
            if self.tracker:
                self.tracker.curve([point])
            else:
                self.node = None  # offline: the curve is written with the finished cell
        except Exception as error:
            LOGGER.error("tracking of %s failed: %s: %s", node.label, type(error).__name__, error)
            self.node = None

    def end(self, succeeded: bool) -> None:
        tracker, self.tracker, self.node = self.tracker, None, None
        if tracker is None:
            return
        try:
            tracker.finish(0 if succeeded else 1)
        except Exception as error:
            LOGGER.error("tracking failed at its end: %s: %s", type(error).__name__, error)

    def cells(self, records: Iterable[CellRecord], done: Callable[[str], bool]) -> None:
        if self.track.name is TrackerName.none:
            return
        for record in records:
            if record.key not in self.written and all(map(done, record.nodes)):
                self.written.add(record.key)
                try:
                    self._write(record)
                except Exception as error:
                    LOGGER.error("tracking of cell %s failed: %s: %s", record.key[:8], type(error).__name__, error)

    def _write(self, record: CellRecord) -> None:
        from synthdiv.views.report.collect import publishable
        from synthdiv.views.track.wandb import WandbTracker

        results = publishable(self.root, record, self.track.samples)
        tracker = WandbTracker(self.track.project, self.track.entity, self.root)
        row, published = dataclasses.asdict(record), self.root / "tracked" / self.track.project
        parts = (results.curve, results.scores, results.samples)
        track_cell(tracker, self.sweep, row, *parts, published, results.training)


def online(track: Track, root: Path) -> Tracker | None:
    """A tracker that shows points as they come; None if it works offline."""
    from synthdiv.views.track.wandb import WandbTracker, mode

    return WandbTracker(track.project, track.entity, root, resume=True) if mode() == "online" else None
