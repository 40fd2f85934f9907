"""What every suite writes: `scores.json`, and `items.parquet` beside it, because scores alone cannot be paired."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from synthdiv.types import Score

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
    """NaN is written as null: JSON has no NaN, and a reader must not take it for a number."""
    import pyarrow
    import pyarrow.parquet

    records = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()}
        | {"infinite": math.isinf(record["value"])}
        for record in map(dataclasses.asdict, scores)
    ]
    (out / "scores.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(items), out / "items.parquet")


def read_scores(path: Path) -> list[Score]:
    """The scores of a finished suite."""
    scores = []
    for record in json.loads((path / "scores.json").read_text(encoding="utf-8")):
        infinite = record.pop("infinite", False)
        for name in ("value", "low", "high"):
            if record[name] is None:
                record[name] = math.inf if infinite and name == "value" else math.nan
        scores.append(Score(**record))
    return scores
