"""The prompts stage: what it writes, and which fields it refuses before anything runs."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow.parquet
import pytest

from synthdiv.core.fields import problems
from synthdiv.core.resolver import Resolver
from synthdiv.core.stage import Node
from synthdiv.core.types import Artifact, DataError
from synthdiv.prompts.prompt_set import FILE, Prompts, ToyPrompts, read_prompts
from synthdiv.prompts.split import ordered
from synthdiv.prompts.table import Columns, Table
from synthdiv.prompts.toy_world import World
from tests.conftest import write_rows

TOPICS = ("sea", "sky", "soil")


def table(tmp_path, **columns):
    rows = [
        {"id": f"r{i}", "prompt": f"Word{i} alone{i} about{i}", "response": f"Answer {i}.", "topic": TOPICS[i % 3]}
        for i in range(60)
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    return resolved(tmp_path, **columns)


def resolved(tmp_path, **columns):
    path = str(tmp_path / "rows.jsonl")
    stage = Prompts(table=Table(path=path, columns=Columns(id="id", category="topic", **columns)), test=12, target=6)
    stage.resolve(Resolver(tmp_path / "out"))
    return stage


def build(stage, out):
    out.mkdir()
    summary = stage.build({}, out, SimpleNamespace())
    return Artifact(stage, Node(stage).key, out), summary


def test_splits_have_their_sizes_equal_strata_and_a_fixed_order(tmp_path):
    stage = table(tmp_path)
    artifact, summary = build(stage, tmp_path / "built")
    assert summary == {"rows": 60, "groups": 60, "train": 42, "test": 12, "target": 6, "test_asked": 12}
    sides = {side: read_prompts(artifact, side) for side in ("train", "test", "target")}
    for side, rows in sides.items():
        assert [row["position"] for row in rows] == list(range(len(rows)))
        assert {topic: sum(row["category"] == topic for row in rows) for topic in TOPICS} == dict.fromkeys(
            TOPICS, len(rows) // 3
        ), side
        assert [rows[index] for index in ordered(rows, list(range(len(rows))), stage.seed)] == rows
    ids = [row["id"] for rows in sides.values() for row in rows]
    assert len(set(ids)) == 60
    assert read_prompts(artifact, "train", 5) == sides["train"][:5]


def test_the_split_and_its_order_do_not_depend_on_the_order_of_the_file(tmp_path):
    artifact, _ = build(table(tmp_path), tmp_path / "one")
    lines = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(sorted(lines)))
    other, _ = build(resolved(tmp_path), tmp_path / "two")
    ids = [[row["id"] for row in read_prompts(each, "train")] for each in (artifact, other)]
    assert ids[0] == ids[1]


def test_another_seed_holds_other_rows_out(tmp_path):
    one, other = table(tmp_path), table(tmp_path)
    other.seed = 7
    (first, _), (second, _) = build(one, tmp_path / "one"), build(other, tmp_path / "two")
    ids = [{row["id"] for row in read_prompts(each, "test")} for each in (first, second)]
    assert ids[0] != ids[1]


def test_human_answers_are_optional(tmp_path):
    stage = table(tmp_path, response=None)
    assert not stage.human
    artifact, _ = build(stage, tmp_path / "built")
    assert {row["response"] for row in read_prompts(artifact, "train")} == {None}


def test_a_file_that_changed_after_it_was_resolved_is_not_used(tmp_path):
    stage = table(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [{"id": "r1", "prompt": "One", "response": "Two", "topic": "sea"}])
    with pytest.raises(DataError, match="the file changed since this sweep was launched"):
        build(stage, tmp_path / "built")


def test_a_toy_set_is_the_same_bytes_every_time_and_needs_no_file(tmp_path):
    toy = Prompts(toy=ToyPrompts(60, World(entities=12, values=4)), test=12)
    (first, summary), (second, _) = build(toy, tmp_path / "one"), build(toy, tmp_path / "two")
    assert (first.path / FILE).read_bytes() == (second.path / FILE).read_bytes()
    assert (summary["rows"], summary["test"] <= 12) == (60, True)
    rows = pyarrow.parquet.read_table(first.path / FILE).to_pylist()
    assert len({row["id"] for row in rows}) == 60
    assert all(row["response"] for row in rows)
    other = Prompts(toy=ToyPrompts(60, World(entities=12, values=4)), test=12, seed=43)
    third, _ = build(other, tmp_path / "three")
    assert (third.path / FILE).read_bytes() != (first.path / FILE).read_bytes()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of the two"),
        ({"toy": ToyPrompts(60), "test": 0}, "prompts.test=0"),
        ({"toy": ToyPrompts(60), "test": 50, "target": 10}, "leave no train row of 60"),
        ({"toy": ToyPrompts(10**9)}, "prompts.toy.rows=1000000000: needs 1 to"),
        ({"table": Table()}, "prompts.table.path=None"),
        ({"table": Table(path="a.csv", hub="b/c")}, "give one of the two"),
    ],
)
def test_problems_are_named(fields, message):
    assert any(message in problem for problem in problems(Prompts(**fields), "prompts"))
