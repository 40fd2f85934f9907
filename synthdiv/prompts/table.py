"""Rows from a file (jsonl, jsonl.gz, csv, parquet) or a hub dataset, by column names that are fields."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.fields import locator
from synthdiv.core.types import ConfigError, DataError

ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".parquet")


@dataclass
class Columns:
    """Which column of a table holds what."""

    prompt: str = "prompt"
    """The instruction."""
    response: str | None = "response"
    """The human answer; null: there are none."""
    id: str | None = None
    """The id of a row; null: a hash of its normalised prompt."""
    context: str | None = None
    """Text that stands before the prompt, with a blank line between; null: none."""
    category: str | None = None
    """The stratum of a row, in which splits and shards are balanced; null: one stratum."""


@dataclass
class Table:
    """A local file or a hub dataset, and the rows of it that count."""

    path: str | None = locator()
    """A file: .jsonl, .jsonl.gz, .csv or .parquet; null: `hub`."""
    hub: str | None = locator()
    """A dataset on the hub, like `org/name`, or its local folder; null: `path`."""
    subset: str | None = None
    """The configuration of the hub dataset; null: its default."""
    part: str = "train"
    """The split of the hub dataset."""
    revision: str | None = locator()
    """Branch, tag or commit on the hub; null: the main branch."""
    where: list[str] = field(default_factory=list)
    """Keeps the rows whose columns equal the given text, each `column=value`; empty: all rows."""
    columns: Columns = field(default_factory=Columns)
    """Which column holds what."""
    sha256: str = ""
    """Content of the file, filled in by resolving; given beforehand it pins the content."""
    commit: str = ""
    """Commit of the hub dataset, filled in by resolving; given beforehand it pins the content."""
    rows: int = 0
    """Rows that count, filled in by resolving; given beforehand it pins the number."""

    def check(self, name: str) -> list[str]:
        problems = []
        if bool(self.path) == bool(self.hub):
            problems.append(f"{name}.path={self.path}, {name}.hub={self.hub}: give one of the two")
        if self.path and not self.path.endswith(ENDINGS):
            problems.append(f"{name}.path={self.path}: reads {', '.join(ENDINGS)}")
        problems += [
            f"{name}.where: {term!r} is not of the form column=value" for term in self.where if "=" not in term
        ]
        return problems


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file as dictionaries. Errors name the file and the line."""
    try:
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            with (
                gzip.open(path, "rt", encoding="utf-8")
                if path.suffix == ".gz"
                else path.open(encoding="utf-8") as lines
            ):
                yield from _json_lines(path, lines)
        elif path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin with a mark
                yield from csv.DictReader(file)
        elif path.suffix == ".parquet":
            import pyarrow.parquet

            yield from pyarrow.parquet.read_table(path).to_pylist()
        else:
            raise ConfigError(f"{path}: reads {', '.join(ENDINGS)}")
    except (ValueError, EOFError, csv.Error, zlib.error, gzip.BadGzipFile) as error:  # ValueError: encodings and Arrow
        raise DataError(f"{path}: cannot be read ({error})") from error


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error.msg}); it needs one object a line") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: needs an object with columns, has {type(row).__name__}")
            yield row


def table_rows(table: Table, name: str, wanted: dict[str, str | None]) -> list[dict[str, Any]]:
    """All rows of `table` that pass `where`. The first row must have the columns that `wanted` names by field."""
    if table.hub:
        import datasets

        source: Iterable[Any] = datasets.load_dataset(
            table.hub, table.subset, split=table.part, revision=table.commit or table.revision
        )
        shown = table.hub
    else:
        path = Path(table.path or "")
        if not path.is_file():
            raise ConfigError(f"{name}.path={table.path}: no such file")
        source, shown = read_rows(path), str(path)
    terms = [term.split("=", 1) for term in table.where]
    wanted = {f"{field}={column}": column for field, column in wanted.items()}
    wanted |= {f"where {'='.join(term)!r}": term[0] for term in terms}
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(source):
        missing = [told for told, column in wanted.items() if column and column not in row]
        if number == 0 and missing:
            told = ", ".join(f"{name}.{given}" for given in missing)
            raise ConfigError(f"{told}: no such column in {shown}; it has {', '.join(sorted(map(str, row)))}")
        if all(str(row.get(column)) == value for column, value in terms):
            rows.append(row)
    if not rows:
        raise ConfigError(f"{name}: {shown} has no row" + (f" with {' and '.join(table.where)}" if terms else ""))
    return rows


def normalise(text: str) -> str:
    """Lower case, white space collapsed: what counts as the same instruction."""
    return " ".join(text.lower().split())


def with_context(context: str, instruction: str) -> str:
    """Context, where there is one, goes before the instruction, a blank line between (S1)."""
    return f"{context}\n\n{instruction}" if context.strip() else instruction


def prompt_records(table: Table, name: str) -> list[dict[str, Any]]:
    """Rows as `id, prompt, instruction, context, response (or None), category`, every one checked.

    Where no id column is given the id is a hash of the normalised text, with a count where a text stands twice.
    """
    columns, records = table.columns, []
    seen: dict[str, int] = {}
    wanted = {f"columns.{field}": column for field, column in vars(columns).items()}
    for number, row in enumerate(table_rows(table, name, wanted), 1):
        instruction = row.get(columns.prompt)
        where = f"{table.path or table.hub}, row {number}"
        if not isinstance(instruction, str) or not instruction.strip():
            raise DataError(f"{where}: {name}.columns.prompt={columns.prompt} is empty or not text")
        context = str(row.get(columns.context) or "") if columns.context else ""
        prompt = with_context(context, instruction)
        response = row.get(columns.response) if columns.response else None
        if columns.response and (not isinstance(response, str) or not response.strip()):
            raise DataError(
                f"{where}: {name}.columns.response={columns.response} holds no answer. Remove the row, or set "
                f"{name}.columns.response=null if this set has no human answers"
            )
        if columns.id:
            key = str(row.get(columns.id, ""))
            if not key.strip():
                raise DataError(f"{where}: {name}.columns.id={columns.id} is empty")
            if key in seen:
                raise DataError(f"{where}: {columns.id}={key} stands twice (first in row {seen[key]}); ids are unique")
            seen[key] = number
        else:
            text = normalise(prompt)
            seen[text] = seen.get(text, 0) + 1
            key = "p-" + hashlib.sha256(f"{text}\0{seen[text]}".encode()).hexdigest()[:16]
        records.append(
            {
                "id": key,
                "prompt": prompt,
                "instruction": instruction,
                "context": context,
                "response": response,
                "category": str(row.get(columns.category, "")) if columns.category else "",
            }
        )
    return records
