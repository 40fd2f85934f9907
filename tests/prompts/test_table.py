"""Tables: one content, one set of records, whatever the file; every error says where."""

from __future__ import annotations

import csv
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from synthdiv.core.resolver import Resolver
from synthdiv.core.types import ConfigError, DataError
from synthdiv.prompts.prompt_set import Prompts
from synthdiv.prompts.table import Columns, Table, prompt_records

ROWS = [
    {"key": "a1", "question": "What is a fjord?", "answer": "A drowned valley.", "about": "", "topic": "sea"},
    {
        "key": "a2",
        "question": "Who is “she”?",
        "answer": "A keeper,\nof bees.",
        "about": "Ann keeps bees.",
        "topic": "text",
    },
    {"key": "a3", "question": "What is   a FJORD?", "answer": "An inlet.", "about": "", "topic": "sea"},
]
COLUMNS = {"prompt": "question", "response": "answer", "id": "key", "context": "about", "category": "topic"}
ENDINGS = ("jsonl", "jsonl.gz", "csv", "parquet")


def write(path, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(lines, encoding="utf-8")
    return str(path)


def records(path, rows=ROWS, **fields):
    columns = Columns(**(COLUMNS | fields.pop("columns", {})))
    return prompt_records(Table(path=write(path, rows), columns=columns, **fields), "t")


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_every_kind_of_file_gives_the_same_records(tmp_path, no_cache):
    found = [records(tmp_path / f"rows.{ending}") for ending in ENDINGS]
    folder = tmp_path / "dataset"
    folder.mkdir()
    write(folder / "train.jsonl", ROWS)
    found.append(prompt_records(Table(hub=str(folder), columns=Columns(**COLUMNS)), "t"))
    assert all(each == found[0] for each in found)
    assert found[0][1] == {
        "id": "a2",
        "prompt": "Ann keeps bees.\n\nWho is “she”?",
        "instruction": "Who is “she”?",
        "context": "Ann keeps bees.",
        "response": "A keeper,\nof bees.",
        "category": "text",
    }
    assert found[0][0]["prompt"] == "What is a fjord?", "no context, no blank line"


def test_where_keeps_rows_whose_columns_equal_the_text(tmp_path):
    assert [row["id"] for row in records(tmp_path / "r.csv", where=["topic=sea"])] == ["a1", "a3"]
    assert [row["id"] for row in records(tmp_path / "r.jsonl", where=["topic=sea", "answer=An inlet."])] == ["a3"]
    with pytest.raises(ConfigError, match=r"r\.jsonl has no row with topic=land"):
        records(tmp_path / "r.jsonl", where=["topic=land"])
    with pytest.raises(ConfigError, match=r"where 'theme=sea': no such column .* about, answer, key, question, topic"):
        records(tmp_path / "r.jsonl", where=["theme=sea"])
    assert "not of the form column=value" in Table(path="r.csv", where=["sea"]).check("t")[0]


def test_ids_that_are_not_given_are_of_the_text_and_do_not_depend_on_the_order(tmp_path):
    forth = records(tmp_path / "r.jsonl", columns={"id": None})
    back = records(tmp_path / "s.jsonl", ROWS[::-1], columns={"id": None})
    assert {row["id"]: row["prompt"] for row in forth if row["context"]} == {
        row["id"]: row["prompt"] for row in back if row["context"]
    }
    assert len({row["id"] for row in forth}) == 3, "a text that stands twice is told apart"
    assert {row["id"] for row in forth} == {row["id"] for row in back}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"key": "a1"}, r"row 2: key=a1 stands twice \(first in row 1\)"),
        ({"answer": "  "}, r"row 2: t\.columns\.response=answer holds no answer"),
        ({"question": ""}, r"row 2: t\.columns\.prompt=question is empty"),
        ({"key": " "}, r"row 2: t\.columns\.id=key is empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, told):
    with pytest.raises(DataError, match=told):
        records(tmp_path / "r.jsonl", [ROWS[0], ROWS[1] | change, ROWS[2]])


@pytest.mark.parametrize("column", ["key", "question", "answer"])
def test_a_row_without_a_column_that_the_first_row_has_is_named(tmp_path, column):
    with pytest.raises(DataError, match=rf"row 2: t\.columns\.\w+={column}"):
        records(tmp_path / "r.jsonl", [ROWS[0], {key: ROWS[1][key] for key in ROWS[1] if key != column}])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("r.jsonl", b'{"key": "a"}\n\n[1]\n', "line 3: needs an object"),
        ("r.jsonl", b'{"key": "a"}\n{not}\n', "line 2: not JSON"),
        ("r.jsonl", b'{"key": "\xff"}\n', "cannot be read"),
        ("r.jsonl.gz", b"plain", "cannot be read"),
        ("r.jsonl.gz", gzip.compress(b'{"key": "a"}\n' * 500)[:-20], "cannot be read"),
        ("r.csv", b"key,question\na,\xe9\n", "cannot be read"),
        ("r.parquet", b"not parquet", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told) as caught:
        prompt_records(Table(path=str(tmp_path / name), columns=Columns("key", None)), "t")
    assert name in str(caught.value)


def test_a_spreadsheets_mark_is_no_part_of_the_first_column(tmp_path):
    (tmp_path / "r.csv").write_bytes("\ufeffprompt,response\nHi,Ho\n".encode())
    assert prompt_records(Table(path=str(tmp_path / "r.csv")), "t")[0]["prompt"] == "Hi"


def prompts(path, **fields):
    return Prompts(table=Table(path=str(path), columns=Columns(**COLUMNS), **fields), test=1)


def test_content_is_pinned_by_its_hash_and_its_count(tmp_path):
    write(tmp_path / "r.jsonl", ROWS)
    resolver = Resolver(tmp_path / "out")
    found = prompts(tmp_path / "r.jsonl")
    found.resolve(resolver)
    assert (len(found.table.sha256), found.table.rows, found.train_rows) == (64, 3, 2)
    prompts(tmp_path / "r.jsonl", sha256=found.table.sha256, rows=3).resolve(resolver)
    with pytest.raises(
        ConfigError, match=r"prompts\.table\.sha256=abc: the content has .* changed since it was pinned"
    ):
        prompts(tmp_path / "r.jsonl", sha256="abc").resolve(resolver)
    with pytest.raises(ConfigError, match=r"prompts\.table\.rows=7: the content has 3"):
        prompts(tmp_path / "r.jsonl", rows=7).resolve(resolver)


def test_each_content_is_read_once_over_all_processes_and_a_change_is_noticed(tmp_path, monkeypatch):
    from synthdiv.core import resolver as resolve

    reads = []
    whole = resolve.file_digest
    monkeypatch.setattr(resolve, "file_digest", lambda path: reads.append(path) or whole(path))

    def launch(online=True):
        resolver, found = Resolver(tmp_path / "out", online), prompts(tmp_path / "r.jsonl")
        found.resolve(resolver)
        found.resolve(resolver)
        resolver.save()
        return found.table.sha256

    write(tmp_path / "r.jsonl", ROWS)
    launch(online=False)
    assert not (tmp_path / "out").exists(), "a plan writes nothing"
    first = launch()
    assert launch() == first
    assert len(reads) == 2, "one read of the plan, one of the launches"
    write(tmp_path / "r.jsonl", ROWS[:2])
    assert launch() != first
    assert len(reads) == 3
    (tmp_path / "out" / "resolved.json").write_text("{cut")
    assert launch() != first, "a cache that cannot be read costs the reading and nothing else"


def test_a_hub_dataset_in_a_local_folder_is_identified_by_its_content(tmp_path, no_cache):
    folder = tmp_path / "dataset"
    folder.mkdir()
    write(folder / "train.jsonl", ROWS)

    def resolved():
        found = Prompts(table=Table(hub=str(folder), columns=Columns(**COLUMNS)), test=1)
        found.resolve(Resolver(tmp_path / "out"))
        return found.table

    before = resolved()
    assert (len(before.sha256), before.rows) == (64, 3)
    write(folder / "train.jsonl", ROWS[:2])
    assert resolved().sha256 != before.sha256
    assert resolved().rows == 2
