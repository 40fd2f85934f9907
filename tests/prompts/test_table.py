"""Tables: equal content gives equal records, whatever the file; errors name the row."""

from __future__ import annotations

import gzip

import pytest

from synthdiv.core.resolver import Resolver
from synthdiv.core.types import ConfigError, DataError
from synthdiv.prompts.prompt_set import Prompts
from synthdiv.prompts.table import Columns, Table, prompt_records, table_rows
from tests.conftest import write_rows
from tests.prompts.test_formats import write_csv, write_parquet

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
    if path.suffix == ".csv":
        return write_csv(path, rows)
    if path.suffix == ".parquet":
        return write_parquet(path, rows)
    write_rows(path, rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    return str(path)


def records(path, rows=ROWS, **fields):
    columns = Columns(**(COLUMNS | fields.pop("columns", {})))
    return prompt_records(Table(path=write(path, rows), columns=columns, **fields), "t")


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_every_format_gives_the_same_records(tmp_path, no_cache):
    tables = [records(tmp_path / f"rows.{ending}") for ending in ENDINGS]
    folder = tmp_path / "dataset"
    folder.mkdir()
    write(folder / "train.jsonl", ROWS)
    tables.append(prompt_records(Table(hub=str(folder), columns=Columns(**COLUMNS)), "t"))
    assert all(table == tables[0] for table in tables)
    assert tables[0][1] == {
        "id": "a2",
        "prompt": "Ann keeps bees.\n\nWho is “she”?",
        "instruction": "Who is “she”?",
        "context": "Ann keeps bees.",
        "response": "A keeper,\nof bees.",
        "category": "text",
    }
    assert tables[0][0]["prompt"] == "What is a fjord?", "no context, no blank line"


def test_where_keeps_rows_whose_columns_equal_the_text(tmp_path):
    assert [row["id"] for row in records(tmp_path / "r.csv", where=["topic=sea"])] == ["a1", "a3"]
    assert [row["id"] for row in records(tmp_path / "r.jsonl", where=["topic=sea", "answer=An inlet."])] == ["a3"]
    with pytest.raises(ConfigError, match=r"r\.jsonl has no row with topic=land; topic is "):
        records(tmp_path / "r.jsonl", where=["topic=land"])
    with pytest.raises(ConfigError, match=r"where 'theme=sea': no such column .* key, question, answer, about, topic"):
        records(tmp_path / "r.jsonl", where=["theme=sea"])
    assert "not of the form column=value" in Table(path="r.csv", where=["sea"]).check("t")[0]


def test_without_an_id_column_ids_are_hashes_that_do_not_depend_on_the_order(tmp_path):
    forward = records(tmp_path / "r.jsonl", columns={"id": None})
    backward = records(tmp_path / "s.jsonl", ROWS[::-1], columns={"id": None})
    assert {row["id"]: row["prompt"] for row in forward if row["context"]} == {
        row["id"]: row["prompt"] for row in backward if row["context"]
    }
    assert len({row["id"] for row in forward}) == 3, "equal texts have different ids"
    assert {row["id"] for row in forward} == {row["id"] for row in backward}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "a1"}, r"line 2: key=a1 is listed twice \(first in line 1\)"),
        ({"answer": "  "}, r"line 2: column answer is empty: it holds no answer.*set t\.columns\.response=null"),
        ({"question": ""}, "line 2: column question is empty; it needs a text with words"),
        ({"question": 5}, "line 2: column question is a number"),
        ({"key": " "}, "line 2: column key is empty; each row needs an id"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        records(tmp_path / "r.jsonl", [ROWS[0], ROWS[1] | change, ROWS[2]])


@pytest.mark.parametrize("column", ["key", "question", "answer"])
def test_a_row_without_a_column_that_the_first_row_has_is_named(tmp_path, column):
    with pytest.raises(DataError, match=f"line 2: column {column} is null or missing"):
        records(tmp_path / "r.jsonl", [ROWS[0], {key: ROWS[1][key] for key in ROWS[1] if key != column}])


def prompts(path, **fields):
    return Prompts(table=Table(path=str(path), columns=Columns(**COLUMNS), **fields), test=1)


def test_content_is_pinned_by_its_hash_and_its_count(tmp_path):
    write(tmp_path / "r.jsonl", ROWS)
    resolver = Resolver(tmp_path / "out")
    stage = prompts(tmp_path / "r.jsonl")
    stage.resolve(resolver)
    assert (len(stage.table.sha256), stage.table.rows, stage.train_rows) == (64, 3, 2)
    prompts(tmp_path / "r.jsonl", sha256=stage.table.sha256, rows=3).resolve(resolver)
    with pytest.raises(
        ConfigError, match=r"prompts\.table\.sha256=abc: the content has .* changed since it was pinned"
    ):
        prompts(tmp_path / "r.jsonl", sha256="abc").resolve(resolver)
    with pytest.raises(ConfigError, match=r"prompts\.table\.rows=7: the content has 3"):
        prompts(tmp_path / "r.jsonl", rows=7).resolve(resolver)


def test_all_processes_read_each_content_once_and_notice_a_change(tmp_path, monkeypatch):
    from synthdiv.core import resolver as resolve

    reads = []
    digest = resolve.file_digest
    monkeypatch.setattr(resolve, "file_digest", lambda path: reads.append(path) or digest(path))

    def launch(online=True):
        resolver, stage = Resolver(tmp_path / "out", online), prompts(tmp_path / "r.jsonl")
        stage.resolve(resolver)
        stage.resolve(resolver)
        resolver.save()
        return stage.table.sha256

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
    assert launch() != first, "a cache that cannot be read is computed again"


def test_a_hub_dataset_in_a_local_folder_is_identified_by_its_content(tmp_path, no_cache):
    folder = tmp_path / "dataset"
    folder.mkdir()
    write(folder / "train.jsonl", ROWS)

    def resolved():
        stage = Prompts(table=Table(hub=str(folder), columns=Columns(**COLUMNS)), test=1)
        stage.resolve(Resolver(tmp_path / "out"))
        return stage.table

    before = resolved()
    assert (len(before.sha256), before.rows) == (64, 3)
    write(folder / "train.jsonl", ROWS[:2])
    assert resolved().sha256 != before.sha256
    assert resolved().rows == 2


@pytest.mark.parametrize(("name", "content"), [("a.parquet", b"PAR1 no"), ("a.jsonl", b"[" * 100_000 + b"]" * 100_000)])
def test_a_damaged_file_of_a_data_set_is_an_error_of_one_line(name, content, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(content)
    with pytest.raises(DataError, match=r"set: the data set cannot be read \([^\n]+\)$"):
        prompt_records(Table(hub=str(tmp_path / "set")), "t")


def test_a_boolean_is_selected_as_json_writes_it(tmp_path):
    write_rows(tmp_path / "r.jsonl", [{"prompt": f"ask {n}", "harmful": n % 2 == 0} for n in range(4)])
    for word in ("harmful=true", "harmful=True"):
        rows = table_rows(Table(str(tmp_path / "r.jsonl"), where=[word]), "table", {"prompt": "prompt"})
        assert rows.cells["prompt"] == ["ask 0", "ask 2"]
