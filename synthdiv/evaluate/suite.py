"""What every suite writes: `scores.json`, and `items.parquet` beside it, because scores alone cannot be paired."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from synthdiv.core.types import Score

ITEM = ("prompt", "sample", "order", "decoding", "measure", "value", "bytes", "finish")


def item(prompt: str, measure: str, value: float, **rest: Any) -> dict[str, Any]:
    """One measured value of one answer. `bytes` is -1 and `order` 0 where they mean nothing."""
    return {
        "prompt": prompt,
        "sample": 0,
        "order": 0,
        "decoding": "",
        "measure": measure,
        "value": float(value),
        "bytes": -1,
        "finish": "",
    } | rest


def write_suite(out: Path, scores: list[Score], items: list[dict[str, Any]]) -> None:
    """NaN is written as null and an infinity as a string: JSON has neither, and nobody shall read a number."""
    import pyarrow
    import pyarrow.parquet

    records = [
        {key: told(value) if isinstance(value, float) else value for key, value in dataclasses.asdict(score).items()}
        for score in scores
    ]
    (out / "scores.json").write_text(json.dumps(records, indent=1, allow_nan=False), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(items), out / "items.parquet")


def told(value: float) -> float | str | None:
    """A number as JSON can hold it."""
    return value if math.isfinite(value) else None if math.isnan(value) else str(value)


def read_scores(path: Path) -> list[Score]:
    """The scores of a finished suite."""
    scores = []
    for record in json.loads((path / "scores.json").read_text(encoding="utf-8")):
        numbers = {name: math.nan if record[name] is None else float(record[name]) for name in ("value", "low", "high")}
        scores.append(Score(**record | numbers))
    return scores
