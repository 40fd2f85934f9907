"""Small files of answers in every format, and the scores that the command prints of one."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

KEYS = ["group", "name", "value", "n", "low", "high", "unit", "higher_is_better", "note"]
WORDS = ("river", "engine", "garden", "letter", "planet", "violin", "bridge", "forest", "harbour", "window", "sings")


def answers(count: int = 40, sources: tuple[str, ...] = ("oak", "elm"), length: int = 60) -> list[dict[str, object]]:
    """Each source answers each of `count` prompts; rows are sorted by source, as files often are."""
    order = random.Random(1)
    return [
        {"id": prompt, "source": source, "response": " ".join(order.choices(WORDS, k=length + prompt % 7))}
        for source in sources
        for prompt in range(count)
    ]


def write_csv(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture
def scores_of(typed):
    """The scores that the command prints as JSON, by group and name."""

    def run(*words: str) -> dict[str, dict[str, dict[str, object]]]:
        said = typed("measure", *words, "--json")
        assert said.code == 0, said.err
        found: dict[str, dict[str, dict[str, object]]] = {}
        for record in json.loads(said.out, parse_constant=pytest.fail):
            assert list(record) == KEYS
            found.setdefault(record["group"], {})[record["name"]] = record
        return found

    return run
