"""The one reader of tables: some columns of a file of any format. Errors name the file, the line and the column."""

from __future__ import annotations

import contextlib
import csv
import difflib
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from synthdiv.core.types import ConfigError, DataError
from synthdiv.prompts.conversation import answers_of

TEXT_FORMATS = (".jsonl", ".json", ".csv", ".tsv")
ENDINGS = (*(ending + packed for ending in TEXT_FORMATS for packed in ("", ".gz", ".zst")), ".parquet")
FORMATS = f"{', '.join(TEXT_FORMATS)} (each also with .gz or .zst) or .parquet"
LARGEST_CELL = 2**31 - 1  # characters; the default limit of csv is 131,072
LARGEST_LINE = 2**30  # bytes; a megabyte of .gz or .zst can unpack to a line of that length
KINDS = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}


@dataclass
class FileRows:
    """The cells of some columns, by column. Row i begins on `unit` (line or row) `numbers[i]` of `source`."""

    source: str
    unit: str
    numbers: Sequence[int]
    cells: dict[str, list[Any]]

    def place(self, index: int) -> str:
        return f"{self.source}, {self.unit} {self.numbers[index]}"

    def take(self, indices: Sequence[int]) -> FileRows:
        cells = {column: [cells[index] for index in indices] for column, cells in self.cells.items()}
        return FileRows(self.source, self.unit, [self.numbers[index] for index in indices], cells)

    def require(self, column: str, valid: Callable[[Any], object], advice: str) -> list[Any]:
        """The cells of a column. DataError names the first that is not `valid`, with their number and `advice`."""
        cells = self.cells[column]
        wrong = [index for index, cell in enumerate(cells) if not valid(cell)]
        if wrong:
            count = f" ({len(wrong):,} of {len(cells):,} rows are like this)" if len(wrong) > 1 else ""
            raise DataError(f"{self.place(wrong[0])}: column {column} is {kind(cells[wrong[0]])}{advice}{count}")
        return cells

    def answers(self, column: str) -> list[list[str]]:
        """The answers in each cell of a column, at least one; a text may be empty."""
        advice = '; it needs a text, texts or a conversation: remove such rows, or write "" for an empty text'
        return [answers_of(cell) or [] for cell in self.require(column, answers_of, advice)]

    def labels(self, column: str) -> list[str]:
        """The cells of a column of texts, numbers or booleans as text; missing ones are empty."""
        cells = self.require(
            column, lambda cell: not isinstance(cell, dict | list | bytes), "; it needs a text or number"
        )
        return ["" if missing(cell) else str(cell) for cell in cells]

    def ids(self, column: str, advice: str = "; each row needs an id") -> list[str]:
        """The cells of a column of ids as text."""
        self.require(column, lambda cell: not missing(cell), advice)
        return self.labels(column)


def missing(cell: Any) -> bool:
    """Whether a label or id is null, blank, or NaN, which text files spell as numpy does."""
    return cell is None or str(cell).strip() in ("", "nan", "NaN")


def kind(cell: Any) -> str:
    if cell is None or (missing(cell) and str(cell).strip()):
        return "null or missing" if cell is None else "NaN"
    return "empty" if isinstance(cell, str) and not cell.strip() else KINDS.get(type(cell), type(cell).__name__)


def read_columns(path: Path, fields: Mapping[str, str]) -> FileRows:
    """The columns that `fields` names by the option or field that asks for each (`--by source` → `source`); `-` is
    standard input, and `a.b.0` a value inside of column `a`.

    A column that only some records of a JSON file have is null in the others. ConfigError: no such file, format or
    column. DataError: the file cannot be read or has no rows.
    """
    if str(path) != "-" and not path.exists():
        raise ConfigError(f"{path}: no such file")
    if path.is_dir():
        raise ConfigError(f"{path}: is a directory; name one file in it ({FORMATS})")
    rows = FileRows(str(path), "line", numbers := [], {column: [] for column in fields.values()})
    columns: dict[str, Any] = {}
    try:
        with opened(path) as file:
            ending = format_of(path, file)
            rows.unit = "row" if ending in (".json", ".parquet") else "line"
            for number, record in records(path, file, ending, fields):
                columns.update(record)
                numbers.append(number)
                for column, cells in rows.cells.items():
                    cells.append(value_at(record, column))
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory; give a part of its rows") from error
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:  # it cannot be opened, or is damaged
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not numbers:
        raise DataError(f"{path} has no rows")
    inside = {column for column, cells in rows.cells.items() if any(cell is not None for cell in cells)}
    require_columns(str(path), fields, list(columns | dict.fromkeys(inside)))
    for column in rows.cells:
        rows.require(column, encodable, " with half a character (a lone surrogate, \\ud800 to \\udfff)")
    return rows


def value_at(record: dict[str, Any], column: str) -> Any:
    """The cell of a column, or the value at a path of names and numbers inside of one; None where there is none."""
    if column in record or "." not in column:
        return record.get(column)
    value: Any = record
    for name in column.split("."):
        if isinstance(value, list):
            value = value[int(name)] if name.isdigit() and int(name) < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The bytes of a file or of standard input, unpacked as their first bytes say."""
    with contextlib.ExitStack() as stack:
        file: Any = sys.stdin.buffer if str(path) == "-" else stack.enter_context(path.open("rb"))
        magic = file.peek(4)
        if magic.startswith(b"\x1f\x8b"):
            file = stack.enter_context(gzip.open(file))
        elif magic.startswith(b"\x28\xb5\x2f\xfd"):
            unpacked = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
            file = stack.enter_context(io.BufferedReader(unpacked))
        yield file


def format_of(path: Path, file: Any) -> str:
    """The format by the name of the file or of what it links to; else, as of a pipe, by what it begins with."""
    for name in (path.name.lower(), path.resolve().name.lower()):
        if name.endswith(ENDINGS):
            return Path(name.removesuffix(".gz").removesuffix(".zst")).suffix
    begin = file.peek(1024).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if begin not in (b"{", b"["):
        raise ConfigError(f"{path}: the name must end in {FORMATS}; without a name it must be JSON")
    return ".jsonl" if begin == b"{" else ".json"


def require_columns(source: str, fields: Mapping[str, str], columns: Sequence[str]) -> None:
    """ConfigError for columns that `source` does not have, and for names that several of its columns have."""
    problems = []
    for label, column in fields.items():
        if column not in columns:
            near = difflib.get_close_matches(column, columns, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            problems.append(f"{label}: no such column in {source}; {hint}it has {', '.join(columns) or 'no columns'}")
        elif columns.count(column) > 1:
            problems.append(f"{label}: {source} has {columns.count(column)} columns of this name; rename them")
    if problems:
        raise ConfigError(problems)


def encodable(cell: Any) -> bool:
    """JSON can spell half a character (`"\\ud83d"`), which cannot be written or compressed."""
    try:
        if isinstance(cell, str | list | dict):
            (cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=str)).encode()
    except UnicodeEncodeError:
        return False
    return True


def records(path: Path, file: BinaryIO, ending: str, fields: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file with the line or row on which each begins."""
    if ending == ".parquet":
        yield from parquet_records(path, fields)
    elif ending in (".csv", ".tsv"):
        yield from csv_records(path, file, "," if ending == ".csv" else "\t", fields)
    else:
        for unit, number, record in json_lines(path, file) if ending == ".jsonl" else json_array(path, file):
            if not isinstance(record, dict):
                raise DataError(f"{path}, {unit} {number}: is {kind(record)}; each record is an object with columns")
            yield number, record


def text_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends, without the byte order mark that spreadsheets write."""
    for number, line in enumerate(iter(lambda: file.readline(LARGEST_LINE + 1), b""), 1):
        if len(line) > LARGEST_LINE:
            raise DataError(
                f"{path}, line {number}: has more than {LARGEST_LINE:,} bytes; give one record a line, as .jsonl"
            )
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
            raise DataError(f"{path}, line {number}: not UTF-8 ({byte}); save the file as UTF-8") from error
        yield text


def json_lines(path: Path, file: BinaryIO) -> Iterator[tuple[str, int, Any]]:
    for number, line in enumerate(text_lines(path, file), 1):
        if line.strip():
            yield "line", number, parse_json(line.rstrip("\r\n"), path, number, "one object a line")


def json_array(path: Path, file: BinaryIO) -> Iterator[tuple[str, int, Any]]:
    needs = "a list of objects; a file with one object a line is called .jsonl"
    text = "".join(text_lines(path, file))
    items = parse_json(text, path, 1, needs) if text.strip() else []
    if not isinstance(items, list):
        raise DataError(f"{path}: is {kind(items)}; it needs {needs}")
    yield from (("row", number, item) for number, item in enumerate(items, 1))


def parse_json(text: str, path: Path, first: int, needs: str) -> Any:
    """The value of `text`, which begins on line `first`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {first + error.lineno - 1}"
        raise DataError(f"{place}: not JSON ({error.msg}, character {error.colno}); it needs {needs}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise DataError(f"{path}, line {first}: cannot be read as JSON ({error}); it needs {needs}") from error


def csv_records(
    path: Path, file: BinaryIO, delimiter: str, fields: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Strict: otherwise an open quote would make the rest of the file one text."""
    limit, begins = csv.field_size_limit(LARGEST_CELL), 1
    try:
        rows = csv.reader(text_lines(path, file), delimiter=delimiter, strict=True)
        if header := next(rows, []):
            require_columns(str(path), fields, header)
        begins = rows.line_num + 1
        for row in rows:
            if row and len(row) != len(header):
                raise DataError(f"{path}, line {begins}: has {len(row)} cells, the header {len(header)}")
            if row:
                yield begins, dict(zip(header, row, strict=True))
            begins = rows.line_num + 1
    except csv.Error as error:
        advice = 'in a quoted cell quotes are doubled ("")'
        raise DataError(f"{path}, line {begins}: this row cannot be read ({error}); {advice}") from error
    finally:
        csv.field_size_limit(limit)


def parquet_records(path: Path, fields: Mapping[str, str]) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            roots = {label: column if column in names else column.split(".")[0] for label, column in fields.items()}
            require_columns(str(path), roots, names)
            rows = file.read(columns=list(dict.fromkeys(roots.values()))).to_pylist()
    except (pyarrow.ArrowException, ValueError, OSError) as error:  # ValueError: texts that are not UTF-8
        raise DataError(f"{path}: cannot be read as parquet ({error})") from error
    yield from enumerate(rows, 1)
