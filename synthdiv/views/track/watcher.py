"""Shows a running sweep in a tracker: the curve of each training, and each cell when all its nodes are done. A tracker
that fails never stops the sweep; what it would have shown is missing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from synthdiv.core.ledger import CellRecord
from synthdiv.core.stage import Node
from synthdiv.core.types import SynthdivError
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Track, TrackerName
from synthdiv.views.report.collect import vanilla_cells
from synthdiv.views.track.cell import TAG, publishable, track_cell
from synthdiv.views.track.publish import published_folder, tracker_of
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
        self.vanilla: list[CellRecord] | None = None

    def begin(self, node: Node) -> None:
        """Remember a training, which makes a model of another one; its run is opened at the first point."""
        self.node = node if self.shows and node.stage.model and node.stage.model_input else None

    def point(self, point: Mapping[str, float]) -> None:
        node, self.node = self.node, None  # after a failure nothing more is shown of it
        if node is None:
            return
        with self.caught(node.label):
            if self.tracker is None and (tracker := online(self.track, self.root)):
                self.tracker = tracker
                tracker.begin(node.key, node.label, "training", [self.sweep[:TAG]], {"node": node.key}, "train")
            if self.tracker:  # offline the curve is written with the finished cell
                self.tracker.curve([point])
                self.node = node

    def end(self, succeeded: bool) -> None:
        tracker, self.tracker, self.node = self.tracker, None, None
        if tracker:
            with self.caught("a training"):
                tracker.finish(0 if succeeded else 1)

    def cells(self, records: Iterable[CellRecord], done: Callable[[str], bool]) -> None:
        records = list(records) if self.shows else []
        if self.vanilla is None and records:
            self.vanilla = vanilla_cells(records)
        for record in (*(self.vanilla or ()), *records):
            parts = (*record.suites.values(), *record.nodes)
            if self.shows and record.key not in self.written and all(map(done, parts)):
                self.written.add(record.key)
                with self.caught(f"cell {record.key[:8]}"):
                    results = publishable(self.root, record, self.track.samples)
                    tracker = tracker_of(self.track, self.root)
                    track_cell(tracker, [self.sweep], record, results, published_folder(self.root, tracker))

    @contextlib.contextmanager
    def caught(self, subject: str) -> Iterator[None]:
        """Log what fails. A server that cannot be reached costs a minute and more, so it is not asked again."""
        try:
            yield
        except Exception as error:
            self.shows = self.shows and not isinstance(error, SynthdivError)
            kind = "" if isinstance(error, SynthdivError) else f"{type(error).__name__}: "
            again = f"; `synthdiv publish {self.sweep}` writes what is missing"
            LOGGER.error("tracking of %s failed: %s%s%s", subject, kind, error, again)


def online(track: Track, root: Path) -> WandbTracker | None:
    """A tracker that shows points as they come; None if it works offline."""
    live = track.name is TrackerName.trackio or mode() == "online"
    return tracker_of(track, root, resume=True) if live else None
