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
from synthdiv.mix.filters import Copies, Duplicates, Filter, Overlap
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.mix.mix import OVERLAP, Mix, finish_counts
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.requests import Requests
from synthdiv.prompts.shards import Grid
from synthdiv.prompts.split import SimilarTexts
from synthdiv.prompts.table import Columns, Table
from tests.models.small import build, cpu_run, named, tiny_model

FIELDS_SHOWN = (
    "mix.leave_out", "mix.filter", "mix.duplicates", "mix.min_words", "mix.max_words", "mix.overlap",
    "mix.evaluated", "mix.spare", "mix.sample",
)  # fmt: skip

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
    counts = build(root, mix(), prompts, *shards).manifest["summary"]["overlap"]
    assert counts == {"test": {"prompts": {"elm": 0, "oak": 0}, "answers": {"elm": 24, "oak": 0}}}


@pytest.mark.parametrize(
    "template", ["", "You are an actor who never breaks character. Your next line answers: {prompt}"]
)
def test_rows_that_overlap_an_evaluation_set_are_removed_or_refused(root, prompts, shards, template):
    """Sets of suites are inputs; their names stand in the counts. A request inside a template is that request."""
    asked = [read_prompts(prompts, "train")[at]["prompt"] for at in (0, 3)]
    file = root / "asked.jsonl"
    file.write_text("".join(json.dumps({"prompt": text.upper()}) + "\n" for text in asked))
    inside, columns = root / "templates.jsonl", Columns(response=None)
    inside.write_text(json.dumps({"prompt": template}))
    templates = Table(str(inside), rows=1, columns=columns) if template else None
    requests = build(root, Requests(table=Table(str(file), rows=2, columns=columns), templates=templates))
    sets = {"evaluated": ["safety:bad"]}
    inputs = named(mix(), [prompts, *shards]) | {f"{OVERLAP}safety:bad": requests}
    out = root / f"removed{len(template)}"
    out.mkdir()
    summary = mix(overlap=Overlap.remove, **sets).build(inputs, out, cpu_run())
    assert summary["removed"] == {"elm": {"overlap": 24}, "oak": {"overlap": 1}}
    assert summary["overlap"]["safety:bad"]["prompts"] == {"elm": 1, "oak": 1}
    with pytest.raises(DataError, match=r"mix\.overlap=refuse: .*'safety:bad': .'prompts': .'elm': 1"):
        mix(overlap=Overlap.refuse, **sets).build(inputs, out, cpu_run())


def answered(root, prompts, *answers):
    """Shards of a source `ash` that answers the train prompts, in order, and says `ash N` where no answer is given."""
    name = f"ash{len(list(root.glob('ash*')))}"
    train = read_prompts(prompts, "train")
    texts = [*answers, *(f"ash says the number {at}" for at in range(len(answers), ROWS))]
    lines = [{"id": row["id"], "prompt": "", "response": text} for row, text in zip(train, texts, strict=True)]
    (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recorded = Recorded(str(root / f"{name}.jsonl"), id="id")
    grid = {"rows": ROWS, "shard_rows": SHARD}
    stages = [Generate(name, Backend.recorded, recorded, **grid, shard=at) for at in range(Grid(ROWS, SHARD).shards)]
    return name, [build(root, stage, prompts) for stage in stages]


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"duplicates": Duplicates.exact}, [0, 2, 3, 5]),
        ({"duplicates": Duplicates.near}, [0, 3, 5]),
        ({"min_words": 1}, [0, 1, 2, 3, 4]),
        ({"min_words": 4, "max_words": 9}, [3]),
        ({"duplicates": Duplicates.near, "filter": Filter.refusals}, [0, 5]),
    ],
)
def test_rows_are_left_out_by_the_text_of_their_answer(root, prompts, filters, kept):
    long = "one two three four five six seven eight nine ten eleven twelve"
    name, shards = answered(root, prompts, long, long.upper() + " ", f"{long} plus", "I can't help you.", long, "")
    stage = mix(rows=6, sources=[name], weights=[1.0], **filters)
    made = build(root, stage, prompts, *shards)
    assert [row["position"] for row in read_mix(made)] == kept
    assert sum(made.manifest["summary"]["removed"][name].values()) == 6 - len(kept)
    if filters != {"min_words": 4, "max_words": 9}:
        refilled = read_mix(build(root, dataclasses.replace(stage, spare=1.0), prompts, *shards))
        assert [row["position"] for row in refilled] == [*kept, *range(6, 12 - len(kept))]


def test_a_copy_is_compared_with_what_was_kept_and_not_with_other_copies(monkeypatch):
    """What collapsed students write has as many near pairs as pairs of rows: 50,000 rows filled the memory."""
    texts, kept = [" ".join([*"abcdefghijklmnopqrstuvwxyz", str(number % 250)]) for number in range(500)], []
    monkeypatch.setattr(SimilarTexts, "add", lambda self, at, add=SimilarTexts.add: kept.append(at) or add(self, at))
    copies = Copies([*texts, "another answer"], Duplicates.near)
    assert not copies.copied("another answer")
    assert [copies.copied(text) for text in texts] == [False] + [True] * 499
    assert kept == [250, 0]


@pytest.mark.parametrize("real", [{}, {"real_share": 0.5}, {"real_rows": 10, "real_rotation": 1}])
def test_rows_of_further_prompts_take_the_place_of_those_removed_for_each_source(root, prompts, real):
    """Every third answer is empty."""
    texts = ["" if at % 3 == 0 else f"an answer with the number {at}" for at in range(ROWS)]
    names, shards = zip(*(answered(root, prompts, *texts[shift:]) for shift in (0, 1)), strict=True)
    stage = mix(rows=24, sources=[*names], min_words=1, spare=0.9, **real)
    made = build(root, stage, prompts, *shards[0], *shards[1])
    rows, summary = read_mix(made), made.manifest["summary"]
    assert Counter(row["source"] for row in rows) == Counter(stage.owners())
    assert len({row["id"] for row in rows}) == 24
    assert all(row["response"] for row in rows)
    assert summary["refilled"] == {name: reasons["length"] for name, reasons in summary["removed"].items()}
    assert set(summary["removed"]) == set(names)


def test_a_mix_without_enough_further_prompts_is_refused(root, prompts):
    name, shards = answered(root, prompts, *["the same"] * 20)
    stage = mix(rows=20, sources=[name], weights=[1.0], duplicates=Duplicates.exact, spare=0.5)
    with pytest.raises(DataError, match=rf"mix\.spare=0\.5: no further prompt takes the place of 9 of {name}"):
        stage.build(named(stage, [prompts, *shards]), root, cpu_run())


def test_filters_that_leave_nothing_say_what_they_removed(root, prompts):
    stage = mix(rows=6, sources=[], weights=[], real_share=1.0, min_words=99)
    with pytest.raises(DataError, match=r"answers of 99 to any number of words only\) leave no row; .'human'"):
        stage.build({"prompts": prompts}, root, cpu_run())


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
