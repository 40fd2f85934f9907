"""Writes a finished cell to a tracker: a run with the key of the cell, grouped by arm and tagged with the sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.ledger import NOT_APPLICABLE, CellRecord
from synthdiv.core.store import MANIFEST
from synthdiv.core.types import Score
from synthdiv.views.report.collect import finished, suite_scores
from synthdiv.views.track.wandb import WandbTracker

TAG = 64  # characters; W&B refuses a longer tag
COLUMNS = ("id", "prompt", "response", "sample", "temperature", "top_p", "finish", "response_tokens")


@dataclass(frozen=True)
class Publishable:
    """What a tracker is given of a finished cell, beside its record. What is not finished is empty."""

    curve: list[dict[str, Any]] = field(default_factory=list)
    """The steps of the training."""
    scores: list[Score] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    """The student's first answers."""
    training: dict[str, float] = field(default_factory=dict)
    """Every number of the summary of the training, those of its sources and of validation too."""


def publishable(root: Path, record: CellRecord, samples: int = 50) -> Publishable:
    """What is finished of a cell. The answers are those to the first `samples` prompts by id, the same in every cell,
    in decoding `published` if there is one, else in the first."""
    scores = [score for key in record.suites.values() for score in suite_scores(root, key)]
    decoding = "published" if "published" in record.responses else next(iter(record.responses), "")
    responses = finished(root, record.responses[decoding]) if decoding else None
    train = finished(root, record.train) if record.train else None
    if train is None:
        return Publishable([], scores, answers(responses, samples))
    import pyarrow.parquet

    curve = pyarrow.parquet.read_table(train / "metrics.parquet").to_pylist()
    summary = json.loads((train / MANIFEST).read_text(encoding="utf-8"))["summary"]
    return Publishable(curve, scores, answers(responses, samples), dict(numbers(summary, "training")))


def numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{name}/{key}")
    elif isinstance(value, (int, float)):
        yield name, float(value)


def answers(folder: Path | None, limit: int) -> list[dict[str, Any]]:
    if folder is None:
        return []
    with (folder / "rows.jsonl").open(encoding="utf-8") as handle:
        rows = sorted(map(json.loads, handle), key=lambda row: (row["sample"], row["id"]))[:limit]
    return [{name: row[name] for name in COLUMNS if name in row} for row in rows]


def track_cell(tracker: WandbTracker, sweep: str, cell: CellRecord, results: Publishable, published: Path) -> bool:
    """Write a cell once, and return whether this call wrote it.

    `published` is a folder with a file for each cell that was written, because two offline runs with one id overwrite
    each other when they are synced. A failed attempt leaves no file and is repeated; remove a file to publish again.
    """
    published.mkdir(parents=True, exist_ok=True)
    try:
        (published / cell.key).touch(exist_ok=False)
    except FileExistsError:
        return False
    exit_code = 1
    try:
        tags = [sweep[:TAG]] + ["unmatched"] * bool(cell.unmatched)
        tracker.begin(cell.key, title(cell), cell.arm, tags, {**cell.axes, **cell.seeds})
        if results.curve:
            tracker.curve(results.curve)
        tracker.summary({**results.training, **flat(results.scores)})
        if results.samples:
            tracker.table("samples", results.samples)
        exit_code = 0
    finally:
        tracker.finish(exit_code)
        if exit_code:
            (published / cell.key).unlink(missing_ok=True)
    return True


def title(cell: CellRecord) -> str:
    """The name of the run: the sources of the mix, the student, and the start of the key."""
    values = (cell.axes.get(axis) for axis in ("mix", "source", "generators", "student"))
    return " ".join([str(value) for value in values if value not in (None, "", NOT_APPLICABLE)] + [cell.key[:8]])


def flat(scores: Sequence[Score]) -> dict[str, float]:
    """Each defined score by its name, with the ends of its interval and its n; undefined scores are omitted."""
    values: dict[str, float] = {}
    for score in scores:
        if not math.isnan(score.value):
            values[score.name] = score.value
            ends = {"low": score.low, "high": score.high, "n": float(score.n)}
            values |= {f"{score.name}/{end}": value for end, value in ends.items() if not math.isnan(value)}
    return values
