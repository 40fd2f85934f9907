"""The one reader of tables: equal content from every format, and errors that name the file, the line and the column."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from synthdiv.core.types import DataError, SynthdivError
from synthdiv.prompts import formats
from synthdiv.prompts.formats import read_columns
from tests.conftest import write_rows

ROWS = [{"id": number, "source": "oak", "response": "river garden"} for number in range(6)]


def write_csv(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, object]]) -> str:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ZIPPED = gzip.compress(LINES)
BAD_FILES = {
    "empty.jsonl": (b"", "empty.jsonl has no rows"),
    "blank.jsonl": (b"\n \n", "blank.jsonl has no rows"),
    "empty.csv": (b"", "empty.csv has no rows"),
    "header.csv": (b"id,response\n", "header.csv has no rows"),
    "empty.json": (b"", "empty.json has no rows"),
    "none.json": (b"[]", "none.json has no rows"),
    "broken.jsonl": (
        LINES + b'{"response": "open\n',
        "broken.jsonl, line 7: not JSON",
        "character 14",
        "object a line",
    ),
    "list.jsonl": (LINES + b'["a"]\n', "list.jsonl, line 7: is a list"),
    "latin.jsonl": (LINES + b'{"response": "ros\xe9"}\n', "line 7: not UTF-8 (byte 18 of the line is 0xe9)"),
    "latin.csv": (b"response\nplain\nros\xe9\n", "latin.csv, line 3: not UTF-8", "0xe9"),
    "utf16.csv": ("response\na\n".encode("utf-16"), "utf16.csv, line 1: not UTF-8", "0xff", "save the file as UTF-8"),
    "lines.json": (LINES, "lines.json, line 2: not JSON (Extra data, character 1)", "called .jsonl"),
    "object.json": (b'{"response": ["a"]}', "object.json: is an object", "a list of objects"),
    "texts.json": (b'["a", "b"]', "texts.json, row 1: is a text", "an object with columns"),
    "deep.jsonl": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 1: cannot be read as JSON"),
    "digits.jsonl": (b'{"response": ' + b"9" * 5000 + b"}\n", "digits.jsonl, line 1: cannot be read as JSON"),
    "half.jsonl": (LINES + b'{"response": "\\ud83d"}\n', "line 7: column response is a text with half a character"),
    "short.csv": (b"id,response\n1,a\n2\n", "short.csv, line 3: has 1 cells, the header 2"),
    "long.csv": (b'id,response\n1,"two\nlines"\n2,a,b\n', "long.csv, line 4: has 3 cells, the header 2"),
    "open.csv": (b'id,response\n1,"two\nlines"\n2,"open\n3,a\n', "open.csv, line 4", "unexpected end", "are doubled"),
    "quote.tsv": (b'id\tresponse\n1\t"No" she said\n', "quote.tsv, line 2", "quotes are doubled"),
    "words.txt": (b"a\n", "the name must end in .jsonl, .json, .csv, .tsv", ".parquet"),
    "text.zst": (b"(\xb5/\xfd rest", "text.zst: cannot be read"),
    "cut.jsonl.zst": (zstandard.compress(LINES)[:-9], "cut.jsonl.zst"),
    "cut.jsonl.gz": (ZIPPED[:-12], "cut.jsonl.gz: cannot be read"),
    "flipped.jsonl.gz": (ZIPPED[:25] + bytes([ZIPPED[25] ^ 255]) + ZIPPED[26:], "flipped.jsonl.gz"),
    "text.parquet": (b"not parquet", "text.parquet: cannot be read as parquet"),
    # columns
    "misspelt.jsonl": (b'{"respond": "a", "id": 1}\n', "--column response: no such column in", "did you mean respond?"),
    "other.csv": (b"id,text\n", "--column response: no such column in", "other.csv; it has id, text"),
    "twice.csv": (b"response,response\na,b\n", "twice.csv has 2 columns of this name"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_an_error_names_the_file_the_line_and_the_column(name, tmp_path):
    content, *phrases = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SynthdivError) as caught:
        read_columns(tmp_path / name, {"--column response": "response"})
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    assert all(phrase in message for phrase in phrases), message


def test_a_file_that_does_not_exist_a_directory_and_a_cut_parquet_are_named(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    write_parquet(tmp_path / "cut.parquet", ROWS)
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-20])
    for name, phrase in {
        "no.jsonl": "no such file",
        "folder.jsonl": "is a directory; name one file in it (.jsonl, .json, .csv, .tsv",
        "cut.parquet": "cannot be read as parquet",
    }.items():
        with pytest.raises(SynthdivError) as caught:
            read_columns(tmp_path / name, {"--column id": "id"})
        assert f"{name}: {phrase}" in str(caught.value)


def test_every_missing_column_is_named_in_one_error(tmp_path):
    write_parquet(tmp_path / "a.parquet", ROWS)
    with pytest.raises(SynthdivError, match=r"(?s)--by a: no such .*did you mean id.*--prompt ids") as caught:
        read_columns(tmp_path / "a.parquet", {"--by a": "a", "--column ids": "ids", "--prompt ids": "ids"})
    assert len(str(caught.value).splitlines()) == 3


def test_every_format_gives_the_same_cells(tmp_path):
    rows = [{"id": str(row["id"]), "response": row["response"]} for row in ROWS]
    rows[0]["response"] = 'A "quoted" text, with\nlines and ünïcode\u2028 too. '
    write_rows(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    write_csv(tmp_path / "a.csv", rows)
    write_csv(tmp_path / "a.tsv", rows, "\t")
    write_parquet(tmp_path / "a.parquet", rows)
    for ending in ("csv", "jsonl", "json"):
        (tmp_path / f"mark.{ending}").write_bytes(b"\xef\xbb\xbf" + (tmp_path / f"a.{ending}").read_bytes())
    for name in ("a.jsonl", "a.json", "a.csv", "a.tsv"):
        (tmp_path / f"{name}.GZ").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / f"{name}.zst").write_bytes(zstandard.compress((tmp_path / name).read_bytes()))
    (tmp_path / "plain.jsonl.gz").write_bytes((tmp_path / "a.jsonl").read_bytes())
    (tmp_path / "latest").symlink_to(tmp_path / "a.tsv")
    (tmp_path / "blob").write_bytes(zstandard.compress((tmp_path / "a.json").read_bytes()))
    files = list(tmp_path.iterdir())
    assert len(files) == 19
    for file in files:
        cells = read_columns(file, {"--column": "response", "--prompt": "id"}).cells
        assert cells == {name: [row[name] for row in rows] for name in ("response", "id")}, file


def test_cells_of_another_kind_are_refused_with_their_number(tmp_path):
    gap = LINES + b'\n{"id": {"a": 1}}\n{"response": null, "id": " ", "source": true}\n'
    (tmp_path / "gap.jsonl").write_bytes(gap)
    rows = read_columns(tmp_path / "gap.jsonl", {name: name for name in ("id", "response", "source")})
    for read, message in (
        (lambda: rows.answers("response"), "line 8: column response is null or missing; it needs a text.*2 of 8 rows"),
        (lambda: rows.answers("id"), "line 1: column id is a number; it needs a text"),
        (lambda: rows.labels("id"), "line 8: column id is an object; it needs a text or number"),
        (lambda: rows.ids("source", "!"), "line 8: column source is null or missing!$"),
        (lambda: rows.ids("id"), "line 9: column id is empty; each row needs an id"),
    ):
        with pytest.raises(DataError, match=message):
            read()
    assert rows.labels("source") == ["oak"] * 6 + ["", "True"]
    rows = read_columns(Path(write_parquet(tmp_path / "a.parquet", [{"response": b"a"}, {}])), {"--column": "response"})
    with pytest.raises(DataError, match=r"a\.parquet, row 1: column response is bytes; it needs a text"):
        rows.answers("response")


def test_a_cell_of_any_size_is_read_and_the_limit_of_csv_is_restored(tmp_path):
    limit = csv.field_size_limit()
    path = Path(write_csv(tmp_path / "a.csv", [{"response": "x" * 200_000}]))
    assert read_columns(path, {"--column": "response"}).answers("response") == [["x" * 200_000]]
    path.write_bytes(BAD_FILES["open.csv"][0])
    with pytest.raises(DataError):
        read_columns(path, {"--column": "response"})
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_packed_file_that_unpacks_to_an_endless_line_is_an_error_of_one_line(name, pack, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "LARGEST_LINE", 1000)
    (tmp_path / name).write_bytes(pack(b"response\n" * (name == "a.csv") + b'"' + b"x" * 100_000))
    with pytest.raises(DataError, match=r"a\.\w+, line [12]: has more than 1,000 bytes"):
        read_columns(tmp_path / name, {"--column": "response"})
    monkeypatch.setattr(formats, "text_lines", exhausted)
    with pytest.raises(DataError, match=r"a\.\w+: does not fit into memory"):
        read_columns(tmp_path / name, {"--column": "response"})


def exhausted(*_: object) -> None:
    raise MemoryError


def test_a_file_without_permission_is_an_error_of_one_line(tmp_path, monkeypatch):
    write_rows(tmp_path / "a.jsonl", ROWS)

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read \(Permission denied\)"):
        read_columns(tmp_path / "a.jsonl", {"--column": "response"})
