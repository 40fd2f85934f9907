"""Some columns of one file: jsonl, json, csv, tsv (each also .gz) or parquet. Errors name the file and the line."""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synthdiv.core.types import ConfigError, DataError
from synthdiv.views.measure.columns import Columns, kind

ENDINGS = (".jsonl", ".json", ".csv", ".tsv")  # each also with .gz
LARGEST_CELL = 2**31 - 1  # characters; csv refuses more than 131,072 unless told


def read_columns(path: Path, wanted: Mapping[str, str]) -> Columns:
    """The columns that `wanted` names by option (`--by` → `source`); ConfigError or DataError where that cannot be."""
    name = path.name.lower().removesuffix(".gz")
    if not path.exists():
        raise ConfigError(f"{path}: no such file")
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory; name one file in it ({', '.join(ENDINGS)}, .parquet)")
    try:
        if path.name.lower().endswith(".parquet"):
            found = parquet_columns(path, wanted)
        elif name.endswith(".jsonl"):
            found = json_columns(path, wanted, "line", json_lines(path))
        elif name.endswith(".json"):
            found = json_columns(path, wanted, "row", json_array(path))
        elif name.endswith((".csv", ".tsv")):
            found = csv_columns(path, wanted, "," if name.endswith(".csv") else "\t")
        else:
            raise ConfigError(f"{path}: the name must end in {', '.join(ENDINGS)} (each also with .gz) or .parquet")
    except (OSError, EOFError, zlib.error) as error:  # files that cannot be opened, and damaged .gz
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not found.places:
        raise DataError(f"{path}: has no rows")
    return found


def require(path: Path, wanted: Mapping[str, str], there: list[str]) -> None:
    """ConfigError for columns that are not there, and for names that stand twice in a header."""
    problems = []
    for option, column in wanted.items():
        if column not in there:
            near = difflib.get_close_matches(column, there, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            problems.append(
                f"{option} {column}: no such column in {path}; {hint}it has {', '.join(there) or 'no columns'}"
            )
        elif there.count(column) > 1:
            problems.append(f"{option} {column}: {path} has {there.count(column)} columns of this name; rename them")
    if problems:
        raise ConfigError(problems)


@contextmanager
def text_lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a UTF-8 file with their ends, without the mark that spreadsheets begin with."""

    def decoded(lines: Iterator[bytes]) -> Iterator[str]:
        for number, line in enumerate(lines, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                told = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
                raise DataError(f"{path}, line {number}: not UTF-8 ({told}); save the file as UTF-8") from error

    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        yield decoded(iter(file))


def json_columns(
    path: Path, wanted: Mapping[str, str], unit: str, records: Iterator[tuple[int, dict[str, Any]]]
) -> Columns:
    """A column that only some records have is null in the others."""
    names: dict[str, None] = {}
    found = Columns(path, unit, [], {column: [] for column in wanted.values()})
    for place, record in records:
        names.update(dict.fromkeys(record))
        found.places.append(place)
        for column, cells in found.cells.items():
            cells.append(record.get(column))
    if found.places:
        require(path, wanted, list(names))
    return found


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with text_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield (
                    number,
                    record_of(
                        parsed(line.rstrip("\r\n"), f"{path}, line {number}", "one object a line"), path, "line", number
                    ),
                )


def json_array(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with text_lines(path) as lines:
        text = "".join(lines)
    needs = "a list of objects; a file with one object a line is called .jsonl"
    records = parsed(text, str(path), needs) if text.strip() else []
    if not isinstance(records, list):
        raise DataError(f"{path}: is {kind(records)}; it needs {needs}")
    for number, record in enumerate(records, 1):
        yield number, record_of(record, path, "row", number)


def parsed(text: str, where: str, needs: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, character {error.colno}" if "\n" in text.strip() else f"character {error.colno}"
        raise DataError(f"{where}: not JSON ({error.msg}, {at}); it needs {needs}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise DataError(f"{where}: cannot be read as JSON ({error}); it needs {needs}") from error


def record_of(record: Any, path: Path, unit: str, number: int) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(f"{path}, {unit} {number}: is {kind(record)}; each record is an object with columns")
    return record


def csv_columns(path: Path, wanted: Mapping[str, str], delimiter: str) -> Columns:
    """Strict: an open quote would else swallow the rest of the file as one text."""
    found = Columns(path, "line", [], {column: [] for column in wanted.values()})
    limit = csv.field_size_limit(LARGEST_CELL)
    try:
        with text_lines(path) as lines:
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
            begins = 1
            try:
                header = next(rows, None)
                if header is None:
                    return found
                require(path, wanted, header)
                chosen = [(header.index(column), cells) for column, cells in found.cells.items()]
                begins = rows.line_num + 1
                for row in rows:
                    if row and len(row) != len(header):
                        raise DataError(f"{path}, line {begins}: has {len(row)} cells, the header {len(header)}")
                    if row:
                        found.places.append(begins)
                        for index, cells in chosen:
                            cells.append(row[index])
                    begins = rows.line_num + 1
            except csv.Error as error:
                advice = 'in a quoted cell quotes are doubled ("")'
                raise DataError(f"{path}, line {begins}: this row cannot be read ({error}); {advice}") from error
    finally:
        csv.field_size_limit(limit)
    return found


def parquet_columns(path: Path, wanted: Mapping[str, str]) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            require(path, wanted, file.schema_arrow.names)
            table = file.read(columns=list(dict.fromkeys(wanted.values())))
            cells = {column: table.column(column).to_pylist() for column in wanted.values()}
    except (pyarrow.ArrowException, ValueError, OSError) as error:  # ValueError: texts that are not UTF-8
        raise DataError(f"{path}: cannot be read as parquet ({error})") from error
    return Columns(path, "row", list(range(1, table.num_rows + 1)), cells)
