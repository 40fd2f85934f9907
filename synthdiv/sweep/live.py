"""The curve of a training while it goes, where somebody can watch it: a tracker that is online."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from synthdiv.config import Track, TrackerName
from synthdiv.stage import Node
from synthdiv.track.cell import TAG
from synthdiv.track.tracker import Tracker

LOGGER = logging.getLogger("synthdiv")


class Live:
    """One run of the tracker for each training, which several cells may share; a training that goes on later goes on
    there. A tracker that fails costs its picture and never the training."""

    def __init__(self, track: Track, root: Path, sweep: str):
        self.track, self.root, self.sweep = track, root, sweep
        self.node: Node | None = None
        self.tracker: Tracker | None = None

    def begin(self, node: Node) -> None:
        """From here on `show` speaks of this node; nothing is opened before it says something."""
        self.node = node if node.stage.name == "train" and self.track.name is not TrackerName.none else None

    def show(self, point: Mapping[str, float]) -> None:
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
                self.node = None  # nobody watches: it is shown when the cell is done
        except Exception as error:
            LOGGER.error("tracking of %s failed: %s: %s", node.label, type(error).__name__, error)
            self.node = None

    def end(self, fine: bool) -> None:
        tracker, self.tracker, self.node = self.tracker, None, None
        if tracker is None:
            return
        try:
            tracker.finish(0 if fine else 1)
        except Exception as error:
            LOGGER.error("tracking failed at its end: %s: %s", type(error).__name__, error)


def online(track: Track, root: Path) -> Tracker | None:
    """A tracker that can be watched now, or none."""
    from synthdiv.track.wandb import WandbTracker, mode

    return WandbTracker(track.project, track.entity, root, resume=True) if mode() == "online" else None
