"""What an artifact holds, as JSON data that can be compared: short lists whole, long ones by digest or by sums.

Files are read by their columns and not through the package, so that a new name is a line of `golden/names.json`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet

from synthdiv.core.types import Artifact

GOLDEN = Path(__file__).parent / "golden"
# what another day or another machine has otherwise, at any depth of a summary and as a column
OF_THE_DAY = {"tokens_per_second", "mfu", "memory_bytes", "peak_memory_bytes", "at", "seconds", "response_id", "url"}
SHOWN = (".parquet", ".jsonl", ".npy", ".safetensors")
WHOLE = 160  # characters of a list that is shown as it is
FEW = 40  # numbers of a curve that is


@functools.cache
def names() -> dict[str, dict[str, str | None]]:
    """Old name to new one, or to null where it is gone on purpose, of `scores`, `files`, `columns` and `summary`.

    A column may be named with its old file (`rows.jsonl:id`), a summary's field with its section (`train:steps`); an
    inner field is named with all before it (`validation.own`). A score is named alone or with what stands before it:
    `nll_2` is also that of `plain/nll_2` and of `nll_2-vanilla`. `plain/` and `-vanilla` can be renamed too.
    """
    return json.loads((GOLDEN / "names.json").read_text(encoding="utf-8"))


def column(file: str, old: str) -> str:
    """What a column of a file is called now."""
    table = names()["columns"]
    return str(table.get(f"{file}:{old}", table.get(old, old)))


def file_now(old: str) -> str:
    return str(names()["files"].get(old, old))


def shown(artifact: Artifact) -> dict[str, Any]:
    """The summary of an artifact and what its files hold."""
    actual = {str(path.relative_to(artifact.path)): path for path in sorted(artifact.path.rglob("*"))}
    files = {name: contents(name, path) for name, path in actual.items() if path.suffix in SHOWN}
    made = {"summary": lasting(artifact.manifest["summary"]), "files": files}
    scores = actual.get(file_now("scores.json"))
    return made | ({"scores": score_records(scores)} if scores else {})


def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without what only tells of the day."""
    return {
        name: lasting(value) if isinstance(value, dict) else json_value(value)
        for name, value in summary.items()
        if name not in OF_THE_DAY
    }


def contents(name: str, path: Path) -> dict[str, Any]:
    if path.suffix == ".npy":
        import numpy as np

        values = np.load(path)
        return {"shape": list(values.shape)} | numbers([float(value) for value in values.ravel()])
    if path.suffix == ".safetensors":
        return weights(path)
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path).to_pydict()
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        table = {key: [row.get(key) for row in rows] for key in sorted({key for row in rows for key in row})}
    columns = {key: series(values) for key, values in table.items() if key not in OF_THE_DAY}
    if name == file_now("items.parquet"):
        return {"columns": dict.fromkeys(columns, ""), "measures": measures(table)}
    return {"rows": len(next(iter(table.values()))), "columns": columns}


def weights(path: Path) -> dict[str, Any]:
    """The sizes and the length of all weights of a model together, whatever they are called."""
    import safetensors.torch

    tensors = safetensors.torch.load_file(path)
    squares = sum(float(value.double().square().sum()) for value in tensors.values())
    size = sum(value.numel() for value in tensors.values())
    return {"tensors": len(tensors), "size": size, "norm": math.sqrt(squares)}


def series(values: list[Any]) -> Any:
    """A column: numbers of floating point by their sums, all else exactly."""
    flat, nested = flattened(values)
    if any(isinstance(value, float) for value in flat):
        lengths = {"lengths": exact([len(value) for value in values])} if nested else {}
        return lengths | numbers(flat) if nested or len(flat) > FEW else [json_value(value) for value in flat]
    return exact(values)


def flattened(values: list[Any]) -> tuple[list[Any], bool]:
    if any(isinstance(value, list) for value in values):
        return [inner for value in values for inner in value], True
    return values, False


def numbers(values: list[float | None]) -> dict[str, Any]:
    """Sums over many numbers, one of them weighted by place: two that changed places show."""
    defined = [(place, value) for place, value in enumerate(values, 1) if value is not None and not math.isnan(value)]
    return {
        "count": len(values),
        "nothing": len(values) - len(defined),
        "sum": json_value(math.fsum(value for _, value in defined)),
        "weighted": json_value(math.fsum(value * place / len(values) for place, value in defined)),
        "norm": json_value(math.sqrt(math.fsum(value * value for _, value in defined))),
        "first": [json_value(value) for value in values[:3]],
    }


def exact(values: list[Any]) -> Any:
    """A list of texts or whole numbers: one that never changes by its value, a long one by half of its SHA-256 and the
    first few."""
    if len(values) > 8 and all(value == values[0] for value in values):
        return {"count": len(values), "all": values[0]}
    text = json.dumps(values, ensure_ascii=False, sort_keys=True)
    if len(text) <= WHOLE:
        return values
    first: list[Any] = []
    for value in values[:3]:
        short = value[:8] if isinstance(value, list) else value
        if len(json.dumps([*first, short], ensure_ascii=False)) <= WHOLE:
            first.append(short)
    return {"count": len(values), "sha256": hashlib.sha256(text.encode()).hexdigest()[:32], "first": first}


def json_value(value: Any) -> Any:
    """A value as JSON can hold it: NaN is null, an infinity a text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def score_records(path: Path) -> dict[str, list[Any]]:
    """Of each score: value, low, high, n, unit, direction; and why, where there is no value."""
    actual = {}
    fields = ("value", "low", "high", "n", "unit", "higher_is_better")
    for record in json.loads(path.read_text(encoding="utf-8")):
        values = [record[column("scores.json", field)] for field in fields]
        why = [record[column("scores.json", "note")]] if values[0] is None else []
        name = record[column("scores.json", "name")]
        assert name not in actual, f"{name} stands twice"
        actual[name] = values + why
    return actual


def measures(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Of each measure, in each decoding: how many items, how many without a number, and the sum of the others."""
    items: dict[str, list[float]] = defaultdict(list)
    given = (table[column("items.parquet", name)] for name in ("decoding", "measure", "value"))
    for decoding, measure, value in zip(*given, strict=True):
        items[f"{decoding}/{measure}" if decoding else measure].append(value)
    actual = {}
    for name, values in sorted(items.items()):
        defined = [value for value in values if not math.isnan(value)]
        actual[name] = [len(values), len(values) - len(defined), json_value(math.fsum(defined))]
    return actual
