"""The protocol by which an engine reports while a sweep runs. Trackers implement it; the engine imports none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from synthdiv.core.ledger import CellRecord
from synthdiv.core.stage import Node


class Watcher:
    """Ignores everything; a tracker overrides what it shows."""

    def begin(self, node: Node) -> None:
        """The build of `node` begins."""

    def point(self, point: Mapping[str, float]) -> None:
        """A point of the training curve of the node that is being built."""

    def end(self, succeeded: bool) -> None:
        """The build of the node has ended."""

    def cells(self, records: Iterable[CellRecord], done: Callable[[str], bool]) -> None:
        """Called when cells may be complete: `done(key)` says whether a node is finished."""
