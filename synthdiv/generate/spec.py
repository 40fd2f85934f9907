"""How answers come about: sampled with these settings, or read from a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

from synthdiv.prompts.table import Columns, Table, normalise, table_rows
from synthdiv.resolve import Resolver, pinned
from synthdiv.types import ConfigError, DataError


class Backend(Enum):
    """Who runs a generator: transformers in this process, or a file of answers that exist."""

    hf = "hf"
    recorded = "recorded"


@dataclass
class Sampling:
    """`temperature` 0 is greedy decoding. `max_new_tokens` counts tokens of the generator's own tokenizer."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 1024

    def check(self, name: str) -> list[str]:
        problems = []
        if not 0 <= self.temperature <= 10:
            problems.append(f"{name}.temperature={self.temperature}: needs 0 (greedy) to 10")
        if not 0 < self.top_p <= 1:
            problems.append(f"{name}.top_p={self.top_p}: needs more than 0 and at most 1")
        if self.max_new_tokens < 1:
            problems.append(f"{name}.max_new_tokens={self.max_new_tokens}: needs 1 token or more")
        return problems


@dataclass
class Recorded:
    """Answers in a file. `answerer` is the value of column `source_column` whose rows count (null: all rows)."""

    table: Table = field(default_factory=Table)
    source_column: str | None = "source"
    answerer: str | None = None

    def answers(self, name: str) -> dict[str, str]:
        """Answer by prompt id, or by normalised prompt where there is no id column. A file is read once a process."""
        path = Path(self.table.path or "")
        rows = _grouped(str(path), path.stat().st_mtime_ns, json.dumps(asdict(self.table)), self.source_column, name)
        if self.answerer not in rows:
            told = ", ".join(sorted(map(str, rows))[:40])
            raise ConfigError(f"{name}.answerer={self.answerer}: no row of that source; there are {told}")
        return rows[self.answerer]

    def resolve(self, resolver: Resolver, name: str) -> None:
        path = Path(self.table.path or "")
        if self.table.hub:
            raise ConfigError(
                f"{name}.table.hub={self.table.hub}: recorded answers are read from a file; give its path"
            )
        if not path.is_file():
            raise ConfigError(f"{name}.table.path={self.table.path}: no such file")
        self.table.sha256 = pinned(f"{name}.table.sha256", self.table.sha256, resolver.file(path))
        table = self.table
        key = ["recorded", table.sha256, table.where, vars(table.columns), self.source_column, self.answerer]
        count = resolver.remember(key, lambda: len(self.answers(name)))
        self.table.rows = pinned(f"{name}.table.rows", table.rows, count)


@cache
def _grouped(
    path: str, changed: int, table: str, source_column: str | None, name: str
) -> dict[str | None, dict[str, str]]:
    """Answers by source, then by prompt; under None where no column names the source."""
    fields = json.loads(table)
    parsed = Table(**(fields | {"columns": Columns(**fields["columns"])}))
    columns = parsed.columns
    if columns.response is None:
        raise ConfigError(f"{name}.table.columns.response=null: recorded answers need the column that holds them")
    found: dict[str | None, dict[str, str]] = {}
    for number, row in enumerate(table_rows(parsed, f"{name}.table"), 1):
        if source_column and source_column not in row:
            raise ConfigError(f"{name}.source_column={source_column}: {path} has {', '.join(sorted(row))}")
        response = row.get(columns.response)
        if not isinstance(response, str):
            raise DataError(f"{path}, row {number}: column {columns.response} holds no text")
        key = str(row.get(columns.id)) if columns.id else normalise(str(row.get(columns.prompt)))
        source = str(row[source_column]) if source_column else None
        if found.setdefault(source, {}).setdefault(key, response) != response:
            raise DataError(
                f"{path}, row {number}: a second, different answer{f' of {source}' if source else ''} to {key!r}; "
                f"choose one with {name}.table.where"
            )
    return found
