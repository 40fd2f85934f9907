"""A cell is shown by the tracker when all its nodes are done: from the store, and once."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable

from synthdiv.config import Track, TrackerName
from synthdiv.sweep.ledger import CellRecord, Ledger

LOGGER = logging.getLogger("synthdiv")


class Publisher:
    """Remembers which cells it has shown."""

    def __init__(self, ledger: Ledger, track: Track):
        self.ledger, self.track = ledger, track
        self.shown: set[str] = set()

    def show(self, records: Iterable[CellRecord], done: Callable[[str], bool]) -> None:
        """Show those of `records` whose nodes are all `done`. A tracker that fails costs its picture and never the
        sweep."""
        if self.track.name is TrackerName.none:
            return  # the null tracker, without reading the store for it
        for record in records:
            if record.key not in self.shown and all(map(done, record.nodes)):
                self.shown.add(record.key)
                try:
                    self._one(record)
                except Exception as error:
                    LOGGER.error("tracking of cell %s failed: %s: %s", record.key[:8], type(error).__name__, error)

    def _one(self, record: CellRecord) -> None:
        """Once, because an offline run cannot be resumed."""
        from synthdiv.report.collect import publishable
        from synthdiv.track.cell import track_cell
        from synthdiv.track.wandb import WandbTracker

        root, track = self.ledger.root, self.track
        found = publishable(root, record, track.samples)
        tracker = WandbTracker(track.project, track.entity, root)
        row, written = dataclasses.asdict(record), root / "tracked" / track.project
        shown = (found.curve, found.scores, found.samples)
        track_cell(tracker, self.ledger.name, row, *shown, written, found.training)
