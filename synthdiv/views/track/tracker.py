"""The interface of trackers, which show trainings and finished cells; `NullTracker` is the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tracker(Protocol):
    """One run at a time, from `begin` to `finish`. A tracker never prompts and never prints."""

    def begin(self, run_id: str, name: str, group: str, tags: Sequence[str], config: Mapping[str, Any]) -> None:
        """Open the run `run_id`; `config` has no nested values."""

    def curve(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of the training curve; the column `step` is their x axis, and NaN is omitted."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Set final numbers; NaN, which means undefined, is omitted."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add a table of rows that all have the columns of the first."""

    def finish(self, exit_code: int) -> None:
        """Close the run, with exit code 0 if all of it was written. Does nothing if no run is open."""


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
