"""Shows a running sweep in a tracker: the curve of each training, and each cell when all its nodes are done.

A tracker that fails never stops the sweep; what it would have shown is missing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from synthdiv.core.ledger import CellRecord
from synthdiv.core.stage import Node
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Track, TrackerName
from synthdiv.views.track.cell import TAG, publishable, track_cell
from synthdiv.views.track.wandb import WandbTracker, mode

LOGGER = logging.getLogger("synthdiv")


class TrackWatcher(Watcher):
    """Writes a live run for each training, which several cells may share and a resumed training continues, and a run
    for each finished cell, written once because an offline run cannot be resumed."""

    def __init__(self, track: Track, root: Path, sweep: str):
        self.track, self.root, self.sweep = track, root, sweep
        self.shows = track.name is not TrackerName.none
        self.node: Node | None = None
        self.tracker: WandbTracker | None = None
        self.written: set[str] = set()

    def begin(self, node: Node) -> None:
        """Remember a training, which makes a model of another one; its run is opened at the first point."""
        self.node = node if self.shows and node.stage.model and node.stage.model_input else None

    def point(self, point: Mapping[str, float]) -> None:
        node, self.node = self.node, None  # after a failure nothing more is shown of it
        if node is None:
            return
        with caught(node.label):
            if self.tracker is None and (tracker := online(self.track, self.root)):
                self.tracker = tracker
                tracker.begin(node.key, node.label, "training", [self.sweep[:TAG]], {"node": node.key})
            if self.tracker:  # offline the curve is written with the finished cell
                self.tracker.curve([point])
                self.node = node

    def end(self, succeeded: bool) -> None:
        tracker, self.tracker, self.node = self.tracker, None, None
        if tracker:
            with caught("a training"):
                tracker.finish(0 if succeeded else 1)

    def cells(self, records: Iterable[CellRecord], done: Callable[[str], bool]) -> None:
        for record in records if self.shows else ():
            if record.key not in self.written and all(map(done, record.nodes)):
                self.written.add(record.key)
                with caught(f"cell {record.key[:8]}"):
                    results = publishable(self.root, record, self.track.samples)
                    tracker = WandbTracker(self.track.project, self.track.entity, self.root)
                    track_cell(tracker, self.sweep, record, results, self.root / "tracked" / self.track.project)


@contextlib.contextmanager
def caught(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        LOGGER.error("tracking of %s failed: %s: %s", what, type(error).__name__, error)


def online(track: Track, root: Path) -> WandbTracker | None:
    """A tracker that shows points as they come; None if it works offline."""
    return WandbTracker(track.project, track.entity, root, resume=True) if mode() == "online" else None
