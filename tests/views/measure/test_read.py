"""What `synthdiv measure` reads, and how it refuses what it cannot."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from synthdiv.core.types import DataError
from synthdiv.views.measure.read import read_columns
from tests.conftest import write_rows
from tests.views.measure.conftest import answers, write_csv, write_parquet


def write_bad_files(folder: Path) -> None:
    rows = answers(3)
    write_rows(folder / "good.jsonl", rows)
    lines = (folder / "good.jsonl").read_bytes()
    for name, text in {
        "empty.jsonl": b"",
        "blank.jsonl": b"\n \n",
        "empty.csv": b"",
        "header.csv": b"id,response\n",
        "empty.json": b"",
        "none.json": b"[]",
        "broken.jsonl": lines + b'{"response": "open\n',
        "list.jsonl": lines + b'["a"]\n',
        "latin.jsonl": lines + '{"response": "caf\u00e9"}\n'.encode("latin-1"),
        "latin.csv": "response\nplain\ncaf\u00e9\n".encode("latin-1"),
        "utf16.csv": "response\na\n".encode("utf-16"),
        "lines.json": lines,
        "object.json": b'{"response": ["a"]}',
        "texts.json": b'["a", "b"]',
        "deep.jsonl": b'{"response": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        "digits.jsonl": b'{"response": ' + b"9" * 5000 + b"}\n",
        "half.jsonl": lines + b'{"response": "\\ud83d", "id": 1}\n',
        "gap.jsonl": lines + b'\n{"id": 3}\n{"response": null}\n',
        "number.jsonl": b'{"response": 3}\n{"response": "a"}\n',
        "nested.jsonl": b'{"response": "a", "source": {"name": "b"}}\n',
        "short.csv": b"id,response\n1,a\n2\n",
        "long.csv": b'id,response\n1,"two\nlines"\n2,a,b\n',
        "open.csv": b'id,response\n1,"two\nlines"\n2,"open\n3,a\n',
        "quote.tsv": b'id\tresponse\n1\t"No" she said\n',
        "twice.csv": b"response,response\na,b\n",
        "noid.csv": b"id,response\n1,a\n,b\n",
        "many.csv": b"id,response\n" + b"".join(b"%d,a\n" % number for number in range(1001)),
        "words.txt": b"a\n",
        "plain.jsonl.gz": lines,
        "cut.jsonl.gz": gzip.compress(lines)[:-12],
        "flipped.jsonl.gz": bytes(
            byte ^ 255 if place == 25 else byte for place, byte in enumerate(gzip.compress(lines))
        ),
        "text.parquet": b"no parquet at all",
    }.items():
        (folder / name).write_bytes(text)
    write_parquet(folder / "good.parquet", rows)
    (folder / "cut.parquet").write_bytes((folder / "good.parquet").read_bytes()[:-20])
    write_parquet(folder / "null.parquet", [*rows, {"response": None}])
    write_parquet(folder / "bytes.parquet", [{"response": b"a"}])
    (folder / "folder.jsonl").mkdir()


MISTAKES = {
    # the file
    "no file": ([], ["the following arguments are required: FILE", "synthdiv measure --help"]),
    "missing": (["no.jsonl"], ["no.jsonl: no such file"]),
    "directory": (["folder.jsonl"], ["folder.jsonl: is a directory", ".jsonl, .json, .csv, .tsv"]),
    "ending": (["words.txt"], ["words.txt: the name must end in .jsonl, .json, .csv, .tsv", ".parquet"]),
    "empty jsonl": (["empty.jsonl"], ["empty.jsonl: has no rows"]),
    "blank lines": (["blank.jsonl"], ["blank.jsonl: has no rows"]),
    "empty csv": (["empty.csv"], ["empty.csv: has no rows"]),
    "header alone": (["header.csv"], ["header.csv: has no rows"]),
    "empty json": (["empty.json"], ["empty.json: has no rows"]),
    "empty list": (["none.json"], ["none.json: has no rows"]),
    "broken line": (["broken.jsonl"], ["broken.jsonl, line 7: not JSON", "character 14", "one object a line"]),
    "no object": (["list.jsonl"], ["list.jsonl, line 7: is a list"]),
    "not UTF-8": (["latin.jsonl"], ["latin.jsonl, line 7: not UTF-8 (byte 18 of the line is 0xe9)"]),
    "csv not UTF-8": (["latin.csv"], ["latin.csv, line 3: not UTF-8", "0xe9"]),
    "UTF-16": (["utf16.csv"], ["utf16.csv, line 1: not UTF-8", "0xff", "save the file as UTF-8"]),
    "lines called json": (["lines.json"], ["lines.json: not JSON (Extra data, line 2", "called .jsonl"]),
    "an object": (["object.json"], ["object.json: is an object", "a list of objects"]),
    "a list of texts": (["texts.json"], ["texts.json, row 1: is a text", "an object with columns"]),
    "too deep": (["deep.jsonl"], ["deep.jsonl, line 1: cannot be read as JSON"]),
    "too many digits": (["digits.jsonl"], ["digits.jsonl, line 1: cannot be read as JSON"]),
    "no gzip": (["plain.jsonl.gz"], ["plain.jsonl.gz: cannot be read (Not a gzipped file"]),
    "cut gzip": (["cut.jsonl.gz"], ["cut.jsonl.gz: cannot be read"]),
    "damaged gzip": (["flipped.jsonl.gz"], ["flipped.jsonl.gz"]),
    "no parquet": (["text.parquet"], ["text.parquet: cannot be read as parquet"]),
    "cut parquet": (["cut.parquet"], ["cut.parquet: cannot be read as parquet"]),
    "short row": (["short.csv"], ["short.csv, line 3: has 1 cells, the header 2"]),
    "long row": (["long.csv"], ["long.csv, line 4: has 3 cells, the header 2"]),
    "open quote": (["open.csv"], ["open.csv, line 4", "unexpected end of data", "quotes are doubled"]),
    "stray quote": (["quote.tsv"], ["quote.tsv, line 2", "quotes are doubled"]),
    # columns and cells
    "column": (
        ["good.jsonl", "--column", "respond"],
        ["--column respond: no such column in good.jsonl; did you mean response? it has id, source, response"],
    ),
    "column of csv": (["header.csv", "--by", "source"], ["--by source: no such column in header.csv; it has id"]),
    "column of parquet": (["good.parquet", "--prompt", "ids"], ["--prompt ids", "did you mean id?"]),
    "two columns": (["good.jsonl", "--by", "a", "--prompt", "b"], ["--by a: no such", "--prompt b: no such"]),
    "column twice": (["twice.csv"], ["--column response: twice.csv has 2 columns of this name"]),
    "missing cells": (
        ["gap.jsonl"],
        ["gap.jsonl, line 8: column response is null or missing and no text", "(2 of 8 rows are like this)"],
    ),
    "null": (["null.parquet"], ["null.parquet, row 7: column response is null or missing"]),
    "numbers": (["number.jsonl"], ["number.jsonl, line 1: column response is a number and no text"]),
    "bytes": (["bytes.parquet"], ["bytes.parquet, row 1: column response is bytes and no text"]),
    "half a character": (["half.jsonl"], ["half.jsonl, line 7: column response has half a character"]),
    "group of objects": (["nested.jsonl", "--by", "source"], ["line 1: column source is an object"]),
    "no prompt": (["noid.csv", "--prompt", "id"], ["noid.csv, line 3: column id names no prompt"]),
    "ids as groups": (["many.csv", "--by", "id"], ["--by id: has 1,001 different values in 1,001 rows", "1,000"]),
    # options
    "option": (["good.jsonl", "--colum", "a"], ["unrecognized arguments: --colum a", "synthdiv measure --help"]),
    "words": (["good.jsonl", "--words", "0"], ["--words: '0': needs a whole number from 1"]),
    "texts": (["good.jsonl", "--texts", "ten"], ["--texts: 'ten': needs a whole number from 1"]),
    "seed": (["good.jsonl", "--seed=-1"], ["--seed: '-1': needs a whole number from 0"]),
    "no encoder": (["good.jsonl", "--encoder", "no"], ["--encoder no: no such folder"]),
    "empty encoder": (["good.jsonl", "--encoder", "folder.jsonl"], ["folder.jsonl: config.json is missing"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_place(case, typed, tmp_path):
    write_bad_files(tmp_path)
    arguments, told = MISTAKES[case]
    said = typed("measure", *arguments)
    assert (said.code, said.out) == (2, "")
    assert all(line.startswith("error: ") for line in said.err.splitlines()), said.err
    assert len(said.err.splitlines()) == (2 if case == "two columns" else 1)
    assert all(phrase in said.err for phrase in told), said.err


def test_every_kind_of_file_gives_the_same_numbers(scores_of, tmp_path):
    rows = answers()
    rows[0]["response"] = 'A "quoted" text, with\nlines and ünïcode\u2028 too. ' * 15
    write_rows(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    write_csv(tmp_path / "a.csv", rows)
    write_csv(tmp_path / "a.tsv", rows, "\t")
    write_parquet(tmp_path / "a.parquet", rows)
    (tmp_path / "mark.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.csv").read_bytes())
    for name in ("a.jsonl", "a.json", "a.csv", "a.tsv"):
        (tmp_path / f"{name}.GZ").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    files = [file.name for file in tmp_path.iterdir()]
    assert len(files) == 10
    expected = scores_of("a.jsonl", "--by", "source", "--prompt", "id")
    assert list(expected) == ["elm", "oak"]
    for file in files:
        assert scores_of(file, "--by", "source", "--prompt", "id") == expected, file


def test_a_cell_of_any_size_is_read_and_the_limit_of_csv_is_put_back(tmp_path):
    limit = csv.field_size_limit()
    write_csv(tmp_path / "a.csv", [{"response": "x" * 200_000}])
    found = read_columns(tmp_path / "a.csv", {"--column": "response"})
    assert len(found.texts("response")[0]) == 200_000
    write_bad_files(tmp_path)
    with pytest.raises(DataError):
        read_columns(tmp_path / "open.csv", {"--column": "response"})
    assert csv.field_size_limit() == limit


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_rows(tmp_path / "a.jsonl", answers(1))

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read \(Permission denied\)"):
        read_columns(tmp_path / "a.jsonl", {"--column": "response"})
