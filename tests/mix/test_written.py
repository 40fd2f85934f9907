"""Pairs that a generator writes: strictly read, never held out, no copies of their original; exact by a law."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest

from synthdiv.core.types import Artifact, DataError
from synthdiv.generate.generate import Generate, Split, read_samples
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.mix.mix import Mix
from synthdiv.mix.written import PairPrompts, Written
from synthdiv.prompts import prompt_set
from synthdiv.prompts.prompt_set import Prompts, ToyPrompts, read_prompts
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import World
from tests.models.small import build

FIELDS_SHOWN = (
    "written.rows", "written.paraphrases", "written.spare", "pair_prompts.rows", "pair_prompts.wording",
    "pair_prompts.topics",
)  # fmt: skip

WORLD = World(entities=24, categories=2)
FAMILY = Family(0, 4, 0.5, 0.0, WORLD, Grade(0.2))
ANSWER = Generate("oak", Backend.law, sampling=Sampling(1.0, 1.0), split=Split.test)


@pytest.fixture(scope="module")
def made(root):
    """Prompts, a family, and a mix of 40 rows of it, a fifth with wrong values."""
    prompts, family = build(root, Prompts(toy=ToyPrompts(300, WORLD), test=50)), build(root, FAMILY)
    stage = replace(ANSWER, split=Split.train, rows=250, shard_rows=250)
    shards = [build(root, replace(stage, shard=at), prompts, family) for at in range(12)]
    return prompts, family, build(root, Mix(40, ["oak"], [1.0], train_rows=250, shard_rows=250), prompts, *shards)


def pairs(root, made, paraphrases: bool, rows: int, samples: int, topics=()):
    prompts, family, mix = made
    count = 40 if paraphrases else rows
    asked = build(
        root, PairPrompts(rows=count, wording="{prompt} {response} {topic}", topics=list(topics)), prompts,
        *[mix] * paraphrases,
    )  # fmt: skip
    stage = replace(ANSWER, rows=count, subset=count, samples=samples)
    answers = build(root, stage, asked, family)
    return asked, answers, lambda: build(root, Written(rows, paraphrases), prompts, answers, *[mix] * paraphrases)


def test_paraphrases_by_law_say_the_same_fact_in_the_same_dialect_and_other_words(root, made):
    _, answers, write = pairs(root, made, True, 100, 5)
    result = write()
    rows, law = read_mix(result), Law(WORLD)
    original = {row["id"]: row for row in rows[:40]}
    assert rows[:40] == read_mix(made[2])
    for row in rows[40:]:
        first = original[row["id"].partition("~")[0]]
        assert (row["prompt"], row["response"]) != (first["prompt"], first["response"])
        was, now = ({reading[0] for reading in law.parse(each["response"])} for each in (first, row))
        assert was & now, "the dialect"
        assert {reading[2:] for reading in law.parse(row["response"])} == {
            reading[2:] for reading in law.parse(first["response"])
        }, "entity, relation and value, right or wrong"
    summary = result.manifest["summary"]
    identical = sum(
        sample.response.endswith(f"Answer: {original[sample.id]['response']}") for sample in read_samples(answers.path)
    )
    assert summary["used"] == 60
    assert 0 < summary["identical"] <= identical
    assert len({row["id"] for row in rows}) == 100


@pytest.mark.parametrize("topic", ["geography", "trade"])
def test_pairs_on_a_topic_are_of_that_topic_and_right_as_often_as_the_law(root, made, topic):
    _, _, write = pairs(root, made, False, 60, 3, [topic])
    law = Law(WORLD)
    rows = read_mix(write())
    readings = [law.parse(row["response"])[0] for row in rows]
    assert {law.categories[reading[3]] for reading in readings} == {topic}
    assert all(law.entities[reading[2]] in row["prompt"] for reading, row in zip(readings, rows, strict=True))
    assert 0.6 < sum(reading[-1] for reading in readings) / 60 < 0.98
    held_out = {row["prompt"] for row in read_prompts(made[0], "test")}
    assert not held_out & {row["prompt"] for row in rows}


def test_a_topic_that_the_world_does_not_have_is_named(root, made):
    with pytest.raises(DataError, match="fishing is no category and no entity"):
        pairs(root, made, False, 10, 1, ["fishing"])


def test_a_question_that_is_nearly_held_out_is_held_out(root, made, tmp_path):
    """By the rule that splits prompts (Jaccard .8 of word 3-grams), and not as equal text only."""
    _, answers, _ = pairs(root, made, False, 4, 2, ["geography"])
    long = " ".join(f"word{at}" for at in range(40))
    asked = replace(made[0], path=tmp_path)
    table = pyarrow.parquet.read_table(made[0].path / prompt_set.FILE).to_pylist()
    test = next(row for row in table if row["split"] == "test")
    test["prompt"] = long
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / prompt_set.FILE)
    asks = (f"{long} more", "Why this and not that?", f"{long} {long[::-1]}")
    texts = [f"Question: {question}\nAnswer: He." for question in asks]
    rows = [vars(row) | {"response": text} for row, text in zip(read_samples(answers.path), texts, strict=False)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = Written(2).build({"prompts": asked, "answers": replace(answers, path=tmp_path)}, tmp_path, None)
    assert summary["held out"] == 1


def test_a_reworded_question_with_the_same_answer_is_a_paraphrase(root, made, tmp_path):
    _, answers, _ = pairs(root, made, True, 60, 2)
    first = read_mix(made[2])[0]
    samples = [row for row in read_samples(answers.path) if row.id == first["id"]]
    texts = [f"Question: {question}\nAnswer: {first['response']}" for question in (first["prompt"], "Which one is it?")]
    rows = [vars(row) | {"response": text} for row, text in zip(samples, texts, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = {"prompts": made[0], "answers": replace(answers, path=tmp_path), "mix": made[2]}
    assert Written(41, True).build(inputs, tmp_path, None) == {"rows": 41, "used": 1, "identical": 1}


@pytest.mark.parametrize(("paraphrases", "least"), [(True, 6), (False, 9)])
def test_further_pairs_replace_those_that_filters_remove(root, made, paraphrases, least):
    _, answers, _ = pairs(root, made, paraphrases, 80, 6, () if paraphrases else ["geography"])
    stage = Mix(80, ["oak"], [1.0], train_rows=250, shard_rows=250, level=True, min_words=least)

    def mixed(spare: float) -> Artifact:
        written = Written(80, paraphrases, int(80 * spare))
        level = build(root, written, made[0], answers, *[made[2]] * paraphrases)
        return build(root, replace(stage, spare=spare), made[0], level)

    alone, refilled = mixed(0), mixed(1.0)
    removed = alone.manifest["summary"]["removed"]["oak"]["length"]
    assert 0 < removed < 70
    assert refilled.manifest["summary"] | {"rows": 0} | {"refilled": {}} == alone.manifest["summary"] | {
        "rows": 0,
        "sources": {"oak": 80},
        "finish": {"oak": {"stop": 80}},
    }
    assert refilled.manifest["summary"]["refilled"] == {"oak": removed}
    rows = read_mix(refilled)
    assert len(rows) == len({row["id"] for row in rows}) == 80
    assert rows[: 80 - removed] == read_mix(alone)
    assert min(len(row["response"].split()) for row in rows) >= least
    with pytest.raises(DataError, match=r"mix.spare=0.01: no further prompt takes the place of \d+ of oak"):
        mixed(0.01)


def test_too_few_usable_paraphrases_name_the_closest_level(root, made):
    *_, write = pairs(root, made, True, 400, 3)
    with pytest.raises(DataError, match=r"of 400 rows.*'identical': \d+.*closest level is 0.\d\d; raise") as caught:
        write()
    rows, level = (float(re.search(rf"{before} ([\d.]+\d)", str(caught.value))[1]) for before in ("level:", "level is"))
    assert rows - 4 <= 40 + round(0.9 * (1 - level) * 400) <= rows, "as many paraphrases at this level as are usable"


def test_pairs_are_read_strictly_and_what_is_not_read_is_counted(root, made, tmp_path):
    _, answers, _ = pairs(root, made, False, 4, 2, ["geography"])
    held_out = read_prompts(made[0], "test")[0]["prompt"]
    texts = [
        "Question: Who?\nAnswer: He.", "Question: Who? Answer: He.", "Who? He.", "Question: Who?\nAnswer: ...",
        "Question: A?\nAnswer: B.\nQuestion: C?\nAnswer: D.", f"Question: {held_out.upper()}\nAnswer: He.",
        " Question:  Why? \n Answer:  So\nit is. ", "",
    ]  # fmt: skip
    rows = [vars(row) | {"response": text} for row, text in zip(read_samples(answers.path), texts, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = {"prompts": made[0], "answers": replace(answers, path=tmp_path)}
    summary = Written(2).build(inputs, tmp_path, None)
    assert summary == {"rows": 2, "used": 2, "unreadable": 5, "held out": 1}
    with pytest.raises(DataError, match="2 of 3 rows"):
        Written(3).build(inputs, tmp_path, None)
