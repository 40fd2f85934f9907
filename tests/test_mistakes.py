"""A user's mistake is one line that names the value, the choices and the next command, before anything runs."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from tests.conftest import FILES, sources, write_files, write_rows

SINGLE = [*FILES, "mix=single"]
MULTI = [*FILES, "mix=multi"]
REFILLED, TARGET = ["mix.min_words=2", "mix.spare=0.5"], ["prompts.target=200"]
MISTAKES = {
    # an override that is no field, however it is written: the nearest that exist
    "misspelt block": (["trian.lr=1"], ["trian.lr", "did you mean train.lr"]),
    "spelt out": (["train.learning_rate=1"], ["train.learning_rate", "train.lr "]),
    "with +": (["+train.learning_rate=1"], ["train.learning_rate", "train.lr "]),
    "with ++": (["++train.lrr=1"], ["train.lrr", "train.lr "]),
    "added": (["+train.lr=1"], ["+train.lr=1", "write train.lr=VALUE"]),
    "deleted": (["~train.lr"], ["~train.lr", "write train.lr=VALUE"]),
    "no block": (["lr=1"], ["lr: no such field", "train.lr"]),
    "two at once": (["foo=1", "bar=2"], ["foo: no such field", "bar: no such field"]),
    "swept": (["-m", "trian.lr=1,2"], ["trian.lr", "train.lr"]),
    # a word
    "verb": (["stauts"], ["stauts", "did you mean `synthdiv status`"]),
    "stray word": (["mix=human", "frobnicate"], ["frobnicate", "plan, status, report, publish, dashboard, doctor"]),
    "stray word of a plan": (["plan", "frobnicate"], ["frobnicate", "key=value"]),
    "stray word of a verb": (["status", "train.lr=1"], ["status train.lr=1", "runtime.outputs"]),
    "two sweeps": (["report", "a", "b"], ["report b", "the name of a sweep"]),
    # a preset
    "preset": (["mix=mutli"], ["mix=mutli: no such preset", "human, human_benign, multi, multi_decoding"]),
    "swept preset": (["-m", "mix=human,mutli"], ["mix=mutli: no such preset", "multi_decoding"]),
    "experiment": (["experiment=nope"], ["experiment=nope: no such preset", "demo"]),
    "launcher": (["hydra/launcher=nope"], ["hydra/launcher=nope: no such preset", "inline"]),
    "list of presets": (["mix=[human,multi]"], ["mix=[human,multi]: choose one of human", "-m mix=NAME,NAME"]),
    "no preset": (["train=null"], ["train=null: choose one of eggs, full"]),
    "cells without -m": (["mix=human,multi"], ["2 cells are a sweep", "`synthdiv -m mix=human,multi`"]),
    "sources without -m": (
        ["mix=single", "mix.source=every"],
        ["4 cells are a sweep", "-m mix=single mix.source=every"],
    ),
    "a grid without -m": (["experiment=demo"], ["cells are a sweep", "`synthdiv -m experiment=demo`"]),
    "experiments": (["-m", "experiment=demo,gsm8k_real"], ["experiment=demo,gsm8k_real", "name it: sweep=NAME"]),
    "launcher's number": (
        ["plan", "hydra/launcher=local", "hydra.launcher.jobs=-3", "train.lr=-1"],
        ["hydra.launcher.jobs=-3: needs 0 or more", "train.lr=-1"],
    ),
    # a value
    "type": (["train.epochs=abc"], ["train.epochs=abc", "Float"]),
    "type, swept": (["-m", "train.epochs=1,abc,2,x"], ["train.epochs=abc", "train.epochs=x"]),
    "choice": (["train.method=foo"], ["train.method=foo", "full, lora"]),
    "negative": (["train.lr=-1"], ["train.lr=-1.0: needs more than 0"]),
    "below null": (["prompts.table.path=x"], ["prompts.table is null with prompts=toy", "choose a prompts preset"]),
    "below null, swept": (["-m", "prompts.table.path=x,y"], ["prompts.table is null with prompts=toy"]),
    "mapping over null": (["student.checkpoint={path: x}"], ["student.checkpoint is null with student=toy_small"]),
    "behind the end": (["generators.models.9.name=x"], ["generators.models has 4 items with generators=toy_small"]),
    "interval": (["-m", "train.lr=interval(0,1)"], ["interval(0,1)", "range"]),
    "grammar": (["train.lr=1)"], ["train.lr=1)"]),
    "sweep name": (["sweep=a/b"], ["sweep='a/b'", "a letter or digit first"]),
    "sweep swept": (["-m", "sweep=a,b"], ["sweep, rerun, runtime, track and report.claims", "one launch for each"]),
    # a file
    "no path": (["prompts=files"], ["prompts.table.path=None", "give one of the two"]),
    "missing file": ([*FILES, "prompts.table.path=no.jsonl"], ["prompts.table.path=no.jsonl: no such file"]),
    "folders": (
        [*SINGLE, sources("one", path="folder.jsonl"), "student.pretrain.text.path=pickled"],
        ["models.0.recorded.path=folder.jsonl: is a folder; name a file in it", "text.path=pickled: is a folder"],
    ),
    "missing corpus": (
        [*FILES, "student.pretrain.text.path=no.txt"],
        ["student.pretrain.text.path=no.txt: no such file"],
    ),
    "missing answers": (
        [*SINGLE, sources("one", path="no.jsonl")],
        ["generators.models.0.recorded.path=no.jsonl"],
    ),
    "ending": ([*FILES, "prompts.table.path=prompts.xlsx"], ["prompts.xlsx", ".jsonl, .json, .csv, .tsv", ".parquet"]),
    "empty file": ([*FILES, "prompts.table.path=empty.jsonl"], ["empty.jsonl has no row"]),
    "column": (
        [*FILES, "prompts.table.columns.prompt=question"],
        ["prompts.table.columns.prompt=question: no such column in prompts.jsonl", "id, prompt, response"],
    ),
    "no answer": (
        [*FILES, "prompts.table.path=gap.jsonl"],
        ["gap.jsonl, line 3", "holds no answer", "Remove the row", "columns.response=null"],
    ),
    "not JSON": ([*FILES, "prompts.table.path=broken.jsonl"], ["broken.jsonl, line 2: not JSON"]),
    "several files": (
        [*FILES, "prompts.table.path=no.jsonl", "student.pretrain.text.path=no.txt"],
        ["no.jsonl: no such file", "no.txt: no such file"],
    ),
    # a mix
    "rows": ([*FILES, "mix=human", "mix.rows=100"], ["mix.rows=100", "needs 100", "there are 24"]),
    "rows of toys": (["mix.rows=5000"], ["needs 5000", "there are 2900"]),
    "answers": (
        [*SINGLE, sources("one", path="few.jsonl")],
        ["one: the mix needs 24 answers", "few.jsonl has 5", "lower mix.rows"],
    ),
    "answers to other prompts": (
        [*SINGLE, sources("one", path="others.jsonl")],
        ["one has no answer to 2 of its 24 prompts (q21, q3)", "'mix.leave_out=[q21,q3]'"],
    ),
    "too few samples": (
        ["plan", *SINGLE, sources("one"), "generators.samples=2"],
        ["one: the mix needs 24 answers of it and answers.jsonl has 0 prompts with 2 answers (generators.samples)"],
    ),
    "no ids": (
        [*FILES, "prompts.table.path=bare.jsonl"],
        ["columns.id=id: no such column", "columns.id=null if there"],
    ),
    "a prompt beyond the context": (
        ["plan", *FILES[:3], "mix=none", "student=checkpoint", "student.checkpoint.path=short"],
        ["student: 1 of 6 test prompts (q29) do not fit", "with 40 new tokens", "sampling.overlong=truncate"],
    ),
    "prompts beyond the context of a round's student": (
        [
            "plan",
            *FILES[:3],
            "mix=human",
            "mix.rows=12",
            "student=checkpoint",
            "student.checkpoint.path=short",
            "prompts.seed=3",
            "evaluate=toy",
            "rounds=replace",
            "rounds.sampling.max_new_tokens=60",
            "train.max_tokens=64",
        ],
        [
            "rounds.sampling.max_new_tokens=60",
            "context of the students, 64 tokens",
            "set rounds.sampling.max_new_tokens=16",
        ],
    ),
    "a value of the environment": (
        ["prompts.system='${oc.env:TOKEN}'", "train.lr=${oc.env:TOKEN}", "generators.seed=${prompts.system}"],
        ["prompts.system: takes a value of the environment (TOKEN)", "train.lr: takes", "generators.seed: takes"],
    ),
    "fields of another suite": (
        ["evaluate.suites.0={suite: truth, words: 3}"],
        ["evaluate.suites.0", "words", "truth has suite, prompts"],
    ),
    "no suite": (
        [
            *FILES[:3],
            "mix=none",
            "student=text",
            "student.pretrain.text.path=corpus.txt",
            "evaluate.suites=[{suite: truth}]",
        ],
        ["evaluate.suites: none applies to this cell"],
    ),
    "no such device": (
        ["plan", "runtime.device=cuda:99"],
        ["runtime.device=cuda:99: this process may use", "choose auto"],
    ),
    "one reason": (
        ["plan", "-m", "train.lr=-1,-2,-3e-5", "mix.rows=9999"],
        ["train.lr=-1.0: needs more than 0 (and 2 more like this) [in 3 of 3 cells, first: train.lr=-1"],
    ),
    "nobody answers": (
        [*SINGLE, sources("one"), "generators.models.0.recorded.answerer=three"],
        ["generators.models.0.recorded.answerer=three", "there are one, two"],
    ),
    "one family": (
        [*MULTI, sources("one", "two", family="same")],
        ["two families, has one of same, two of same", "multi_decoding"],
    ),
    "one generator": (
        [*FILES, "mix=multi_decoding", sources("one")],
        ["at least two generators with a weight, has one of one"],
    ),
    "two families of decodings": (
        [*FILES, "mix=multi_decoding", sources("one", "two")],
        ["needs one family, has one of one, two of two", "mix=multi"],
    ),
    "no family": (["mix=multi", "generators.models.1.facts.family=''"], ["facts.family", "elm of ?"]),
    "one weight": (["mix.weights=[1,0,0,0]"], ["at least two generators with a weight, has oak of oak"]),
    "an infinite rate": (["train.lr=inf"], ["train.lr=inf: needs a finite number, more than 0"]),
    "no generator": (["mix=single", "generators=none"], ["mix=single", "choose generators="]),
    "no such source": (["mix=single", "mix.source=yew"], ["mix.source=yew", "oak, elm, ash, fir"]),
    "weights": (["mix.weights=[1,2]"], ["mix.weights=[1.0, 2.0]", "oak, elm, ash, fir"]),
    "no human answers": (
        [*FILES, "mix=human", "prompts.table.columns.response=null"],
        ["prompts.table.columns.response=null", "needs 24 human answers"],
    ),
    "no human answers for a real share": (
        [*FILES, "mix=single", "mix.real_share=0.5", "prompts.table.columns.response=null", sources("one")],
        ["the mix needs 12 human answers"],
    ),
    "more real rows than rows": (["mix.real_rows=50", "mix.rows=40"], ["mix.real_rows=50: at most the 40 rows"]),
    "too few further prompts": (
        [*REFILLED, "mix.rows=2800"],
        ["mix.spare=0.5: needs 1,400 further prompts and there are 100"],
    ),
    "further prompts in rounds": (
        [*REFILLED, "rounds.round=1", "mix.rows=1900"],
        ["2 blocks of 1,900 fresh prompts and 950 further ones", "there are 2,900; set mix.rows=966"],
    ),
    "a bound on the shift that leaves no further prompts": (
        ["mix=selected", "mix.rows=950", "mix.real_rows=300", "mix.diversity.near=0.3", *TARGET, *REFILLED],
        ["mix.diversity.near=0.3: leaves 578 answers to select 650 rows from"],
    ),
    "no length of answers": (["mix.min_words=9", "mix.max_words=8"], ["mix.max_words=8: needs mix.min_words=9"]),
    "a pool that leaves no choice": (
        ["mix=selected", "mix.rows=48", "prompts.toy.rows=60", "prompts.test=12"],
        ["mix.rows=48", "no choice among 48 prompts", "mix.rows=12"],
    ),
    "a bound on the shift that leaves too few": (
        ["mix=selected", "mix.rows=1500", "mix.diversity.near=0.5", *TARGET],
        ["mix.diversity.near=0.5: leaves 1350 answers to select 1500 rows from"],
    ),
    "near to no target": (["mix=selected", "mix.rows=9", "mix.diversity.near=0.5"], ["prompts.target=200"]),
    "a level of no sampling": (["mix=sampled", "mix.level=null"], ["mix.level=null", "needs a level from 0 to 1"]),
    "a level beyond the most diverse": (["mix=selected", "mix.level=1.5"], ["mix.level=1.5: needs 0 to 1"]),
    "sampling that a law does not have": (
        ["generators=toy", "mix=sampled", "mix.diversity.high.min_p=0.1"],
        ["generators.models.0.sampling", "temperature, top_p and max_new_tokens only"],
    ),
    "a level that topics do not give": (
        ["generators=toy", "mix=topics", "mix.level=0.4", "mix.rows=9"],
        ["mix.level=0.4: 2 topics do not give it; the closest is 0"],
    ),
    "topics that are one": (["mix=topics", "mix.diversity.topics=[trade]"], ["needs two or more different topics"]),
    "a wording without its slot": (["mix=topics", "mix.diversity.wording=Ask."], ["wording='Ask.': needs {topic}"]),
    "paraphrases of several sources": (["mix=paraphrased", "mix.kind=multi"], ["mix.kind=multi", "choose mix=single"]),
    "no pair stays": (
        ["mix=paraphrased", "mix.rows=4", "mix.level=0"],
        ["mix.level=0.0: of 4 generated rows none stays to be paraphrased; set mix.rows=10"],
    ),
    "no temperatures": (["mix=single_matched", "mix.temperatures=[]"], ["mix.temperatures=[]: needs two or more"]),
    "temperatures of 0": (["mix=single_matched", "mix.temperatures=[0,-1]"], ["temperatures=[0.0, -1.0]: needs two"]),
    "selection in later rounds": (
        ["mix=selected", "mix.rows=9", "rounds=replace", "rounds.round=1"],
        ["mix.level: rows are selected in round 0", "rounds=none"],
    ),
    "no weight at all": (
        ["mix.weights=[0,0,0,0]"],
        ["[0.0, 0.0, 0.0, 0.0]", "not all 0, for each of oak, elm, ash, fir"],
    ),
    "toys and files": ([*FILES, "mix=single", "generators=toy_small"], ["oak: a toy model", "prompts=toy"]),
    # a model
    "pickle": (
        ["student=checkpoint", "student.checkpoint.path=pickled"],
        ["student.checkpoint.path=pickled", "pytorch_model.bin", "can run code", "save_pretrained"],
    ),
    "no checkpoint": (
        ["student=checkpoint", "student.checkpoint.path=nowhere"],
        ["student.checkpoint.path=nowhere", "config.json is missing"],
    ),
    "no such sweep": (["status", "nope"], ["no sweep 'nope'", "nothing was launched yet"]),
    "no such report": (["report", "nope"], ["no sweep 'nope'"]),
    "report of what": (["report"], ["needs the name of a sweep"]),
    "report of nothing": (["report", ""], ["needs the name of a sweep"]),
    "trace of nothing": (["trace", ""], ["needs the id of a prompt"]),
    "status of nothing": (["status"], ["error: no sweep in outputs/sweeps; nothing was launched yet"]),
    "several cells of a plan": (
        ["plan", "--json", "mix=human", "train.seed=1,2"],
        ["2 cells are a sweep, which needs -m: `synthdiv plan --json -m mix=human train.seed=1,2`"],
    ),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_reported_before_anything_runs(words, typed, tmp_path, monkeypatch):
    """One line each: the value, the choices or the next step; no traceback, and nothing is built."""
    rows = write_files(tmp_path)
    write_rows(tmp_path / "gap.jsonl", [row | ({"response": " "} if row["id"] == "q2" else {}) for row in rows])
    write_rows(tmp_path / "few.jsonl", [row | {"source": "one"} for row in rows[:5]])
    write_rows(tmp_path / "bare.jsonl", [{"prompt": "a", "response": "b"}])
    write_rows(tmp_path / "others.jsonl", [row | {"source": "one"} for row in rows if row["id"] not in ("q21", "q3")])
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "config.json").write_text('{"text_config": {"max_position_embeddings": 64}}')
    (tmp_path / "short" / "model.safetensors").touch()
    letters = {chr(code): code for code in range(128)}
    Tokenizer(BPE(letters, [])).save(str(tmp_path / "short" / "tokenizer.json"))
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "broken.jsonl").write_text(json.dumps(rows[0]) + "\n{\n")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").touch()
    monkeypatch.setenv("TOKEN", "sk-secret")
    arguments, phrases = MISTAKES[words]
    done = typed(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert all(line.startswith("error: ") for line in done.err.splitlines()), done.err
    assert all(phrase in done.err for phrase in phrases), done.err
    assert "sk-secret" not in done.err
    assert not (tmp_path / "outputs" / "artifacts").exists()
    assert not (tmp_path / "outputs" / "sweeps").exists()


def test_a_plan_accepts_prompts_that_are_left_out_or_belong_to_another_source(typed, tmp_path):
    rows = write_files(tmp_path)
    write_rows(tmp_path / "gap.jsonl", [row | {"source": "one"} for row in rows if row["id"] not in ("q29", "q21")])
    words = ["plan", *SINGLE, sources("one", path="gap.jsonl")]
    assert "(q21)" in typed(*words).err, "q29 is a test prompt"
    assert typed(*words, "mix.leave_out=[q21]").code == 0


def test_all_problems_of_a_grid_are_reported_together_with_their_cells(typed):
    done = typed("-m", "train.lr=1e-3,-1", "train.batch_rows=0,8", "mix.rows=9999")
    assert done.err.splitlines() == [
        "error: train.batch_rows=0: needs more than 0 [in 2 of 4 cells, first: train.lr=0.001 "
        "train.batch_rows=0 mix.rows=9999]",
        "error: mix.rows=9999: needs 9999 train prompts and there are 2900 (3000 rows less 100 test and 0 target) "
        "[in 1 of 4 cells, first: train.lr=0.001 train.batch_rows=8 mix.rows=9999]",
        "error: train.lr=-1.0: needs more than 0 [in 2 of 4 cells, first: train.lr=-1 train.batch_rows=0 "
        "mix.rows=9999]",
    ]
