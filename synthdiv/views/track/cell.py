"""Writes a finished cell to a tracker: a run with the key of the cell, grouped by arm and tagged with the sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthdiv.core.types import Score
from synthdiv.views.track.tracker import Tracker

TAG = 64  # characters; W&B refuses a longer tag


def track_cell(
    tracker: Tracker,
    sweep: str,
    cell: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    scores: Sequence[Score],
    samples: Sequence[Mapping[str, Any]],
    published: Path | None = None,
    training: Mapping[str, float] | None = None,
) -> bool:
    """Write a cell once, and return whether this call wrote it. `cell` has the fields of a `CellRecord`; `training` has
    the totals of its training: supervised tokens, repetitions, the share of each source.

    `published` is a folder with a file for each cell that was written, because two offline runs with one id overwrite
    each other when they are synced. A failed attempt leaves no file and is repeated; remove a file to publish again.
    """
    if published is not None and not claim(published / cell["key"]):
        return False
    exit_code = 1
    try:
        tags = [sweep[:TAG]] + ["unmatched"] * bool(cell.get("unmatched"))
        tracker.begin(cell["key"], title(cell), cell["arm"], tags, {**cell["axes"], **cell["seeds"]})
        if curve:
            tracker.curve(curve)
        tracker.summary({**(training or {}), **flat(scores)})
        if samples:
            tracker.table("samples", samples)
        exit_code = 0
    finally:
        tracker.finish(exit_code)
        if exit_code and published is not None:
            (published / cell["key"]).unlink(missing_ok=True)
    return True


def claim(path: Path) -> bool:
    """Create a file; False if another process created it before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def title(cell: Mapping[str, Any]) -> str:
    """The name of the run: the sources of the mix, the student, and the start of the key."""
    values = (cell["axes"].get(axis) for axis in ("mix", "source", "generators", "student"))
    return " ".join([str(value) for value in values if value not in (None, "", "n/a")] + [cell["key"][:8]])


def flat(scores: Sequence[Score]) -> dict[str, float]:
    """Each defined score by its name, with the ends of its interval and its n; undefined scores are omitted."""
    values: dict[str, float] = {}
    for score in scores:
        if not math.isnan(score.value):
            values[score.name] = score.value
            ends = {"low": score.low, "high": score.high, "n": float(score.n)}
            values |= {f"{score.name}/{end}": value for end, value in ends.items() if not math.isnan(value)}
    return values
