"""Where finished cells are shown: a tracker has five verbs, and the one that does nothing is the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tracker(Protocol):
    """One run at a time, from `begin` to `finish`. Nothing is asked and nothing is printed."""

    def begin(self, run_id: str, name: str, group: str, tags: Sequence[str], config: Mapping[str, Any]) -> None:
        """Open the run `run_id`; `config` is flat."""

    def curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The training curve, one row of numbers a step; column `step` is its own axis, and NaN is left out."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Final numbers. One that is NaN is left out: it was not measured."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows to read; all have the columns of the first."""

    def finish(self, exit_code: int) -> None:
        """Close the run: 0 where all of it was written. Does nothing where none is open."""


class NullTracker:
    """Shows nothing."""

    def begin(self, run_id: str, name: str, group: str, tags: Sequence[str], config: Mapping[str, Any]) -> None:
        pass

    def curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        pass

    def summary(self, values: Mapping[str, float]) -> None:
        pass

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        pass

    def finish(self, exit_code: int) -> None:
        pass
