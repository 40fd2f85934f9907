"""A mix contains each prompt once, with the answer of the source that owns it and the provenance of that answer."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter

import pytest

from synthdiv.core.types import Artifact, DataError, Sample
from synthdiv.generate.generate import Generate, read_samples
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.mix.mix import Filter, Mix, finish_counts, read_mix
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.shards import Grid
from tests.models.small import build, cpu_run, named, tiny_model

ROWS, SHARD = 48, 4


@pytest.fixture(scope="module")
def shards(root, prompts):
    """Recorded answers of two sources to every train prompt; `elm` repeats the human test answers in capitals."""
    held_out = [row["response"] for row in read_prompts(prompts, "test")]
    made = []
    for name in ("oak", "elm"):
        file = root / f"{name}.jsonl"
        rows = [
            {"id": row["id"], "prompt": "", "response": f"{name} {row['id']}" if name == "oak" else human.upper()}
            for row, human in zip(read_prompts(prompts, "train"), held_out * 4, strict=True)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        recorded = Recorded(str(file), id="id")
        for shard in range(Grid(ROWS, SHARD).shards):
            stage = Generate(
                source=name, backend=Backend.recorded, recorded=recorded, rows=ROWS, shard_rows=SHARD, shard=shard
            )
            made.append(build(root, stage, prompts))
    return made


def mix(**fields):
    shape = {"rows": ROWS, "sources": ["oak", "elm"], "weights": [0.5, 0.5], "train_rows": ROWS, "shard_rows": SHARD}
    return Mix(**shape | fields)


def test_each_row_is_the_owners_answer_with_its_provenance(root, prompts, shards):
    made = build(root, mix(real_share=0.25, rotation=1), prompts, *shards)
    rows, prompt_rows = read_mix(made), read_prompts(prompts, "train")
    answers = {(row.source, row.id): row for shard in shards for row in read_samples(shard.path)}
    assert Counter(row["source"] for row in rows) == {"oak": 18, "elm": 18, "human": 12}
    assert [row["position"] for row in rows] == list(range(ROWS))
    for row, prompt, owner in zip(rows, prompt_rows, made.stage.owners(), strict=True):
        expected = answers.get(
            (owner, prompt["id"]), Sample(prompt["id"], prompt["prompt"], prompt["response"], "human")
        )
        assert row == dataclasses.asdict(expected) | {"position": prompt["position"]}


@pytest.mark.parametrize("turn", [0, 1])
def test_real_rows_stay_the_same_whatever_is_generated_on_top(root, prompts, shards, turn):
    stages = [mix(rows=20, real_rows=8), mix(rows=40, real_rows=8), mix(rows=8, sources=[], weights=[], real_share=1.0)]
    stages = [dataclasses.replace(stage, real_rotation=turn) for stage in stages]
    few, more, human = (read_mix(build(root, stage, prompts, *shards)) for stage in stages)
    assert few[:8] == more[:8] == human
    assert {row["source"] for row in human} == {"human"}
    assert {row["source"] for row in more[8:]} == {"oak", "elm"}


def test_a_rotation_takes_other_prompts_with_their_answers(root, prompts, shards):
    every = read_prompts(prompts, "train", ROWS)
    made = build(root, mix(rows=40, real_share=0.5, real_rotation=1), prompts, *shards)
    rows, first = read_mix(made), made.stage.positions()[0]
    assert [row["id"] for row in rows] == [every[(first + at) % ROWS]["id"] for at in range(40)]
    assert [row["position"] for row in rows] == list(range(40))
    assert made.manifest["summary"]["effective_sources"] == pytest.approx(2**1.5), "a half, a quarter, a quarter"


def test_answers_equal_to_human_test_answers_are_counted_by_source(root, prompts, shards):
    """Case does not matter. A generator may have memorised them."""
    assert build(root, mix(), prompts, *shards).manifest["summary"]["test_answers_seen"] == {"oak": 0, "elm": 24}


def test_a_filtered_mix_leaves_out_refusals_and_counts_them_by_source(root, prompts, shards, tmp_path):
    """Phrases and what a server would not answer; the other rows stay where they are."""
    stage, inputs = mix(filter=Filter.refusals), named(mix(), [prompts, *shards])
    elm = shards[-1]
    rows = [dataclasses.asdict(row) for row in read_samples(elm.path)]
    rows[0]["response"] = "I'm sorry, but I can't help with that."
    rows[1] |= {"response": "", "finish": "refusal"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = {name: dataclasses.replace(item, path=tmp_path) if item is elm else item for name, item in inputs.items()}
    for each, left_out in ((stage, rows[:2]), (mix(), [])):
        summary = each.build(inputs, tmp_path, cpu_run())
        assert summary["refusals"] == {"elm": 2}
        assert summary["rows"] == ROWS - len(left_out)
        kept = {row["id"]: row["position"] for row in read_mix(Artifact(None, "", tmp_path))}
        every = {row["id"]: row["position"] for row in read_prompts(prompts, "train", ROWS)}
        assert kept == {key: at for key, at in every.items() if key not in [row["id"] for row in left_out]}


def test_a_missing_answer_names_source_and_prompt(root, prompts, shards, tmp_path):
    shutil.copytree(shards[-1].path, tmp_path / "shard")
    (tmp_path / "shard" / "rows.jsonl").write_text("")
    inputs = named(mix(), [prompts, *shards[:-1], dataclasses.replace(shards[-1], path=tmp_path / "shard")])
    with pytest.raises(DataError, match="elm has no answer to prompt toy-"):
        mix().build(inputs, tmp_path, cpu_run())


def test_a_failed_prompt_is_refused_until_it_is_left_out(root, prompts, shards, tmp_path):
    """Of all owners alike; the shards keep their keys."""
    rows = [dataclasses.asdict(row) for row in read_samples(shards[-1].path)]
    rows[0] |= {"finish": "failed", "response": ""}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    broken, bad = [*shards[:-1], dataclasses.replace(shards[-1], path=tmp_path)], rows[0]["id"]
    elm = mix(sources=["elm"], weights=[1.0])
    with pytest.raises(DataError, match=rf"elm has no answer to 1 of its 48 .*'mix\.leave_out=\[{bad}\]'"):
        elm.build(named(elm, [prompts, *broken[12:]]), tmp_path, cpu_run())
    for stage, inputs in ((elm, broken[12:]), (mix(sources=[], weights=[], real_share=1.0), [])):
        stage = dataclasses.replace(stage, leave_out=[bad])
        assert stage.build(named(stage, [prompts, *inputs]), tmp_path, cpu_run())["rows"] == 47
        assert bad not in {row["id"] for row in read_mix(Artifact(stage, "", tmp_path))}


def test_a_human_mix_needs_no_shard(root, prompts):
    rows = read_mix(build(root, mix(sources=[], weights=[], real_share=1.0, rows=20), prompts))
    assert [row["response"] for row in rows] == [row["response"] for row in read_prompts(prompts, "train", 20)]


def test_one_of_several_answers_is_taken(root, prompts):
    """Another one is a replicate."""
    model, sampling = build(root, tiny_model()), Sampling(1.0, 1.0, 8)
    stages = [
        Generate("oak", sampling=sampling, rows=12, shard_rows=12, shard=n, samples=2)
        for n in range(Grid(12, 12).shards)
    ]
    shards = [build(root, stage, prompts, model) for stage in stages]
    texts = {(row.id, row.sample): row.response for shard in shards for row in read_samples(shard.path)}
    assert len(texts) == 24
    for sample in (0, 1):
        made = build(root, Mix(12, ["oak"], [1.0], train_rows=12, shard_rows=12, sample=sample), prompts, *shards)
        assert [row["response"] for row in read_mix(made)] == [texts[row["id"], sample] for row in read_mix(made)]
    assert len(set(texts.values())) > 12


def test_empty_answers_are_counted_by_source_and_logged(caplog):
    ends = [("oak", "stop", "x")] * 60 + [("elm", "refusal", "")] * 2 + [("elm", "stop", " ")]
    rows = [{"source": name, "finish": end, "response": text} for name, end, text in ends]
    with caplog.at_level("INFO", logger="synthdiv"):
        assert finish_counts(rows, cpu_run()) == {"elm": {"refusal": 2, "stop": 1}, "oak": {"stop": 60}}
    (message,) = [record.message for record in caplog.records]
    assert message == "mix: 3 of the 3 answers of elm are empty, 2 of them refusals"
