"""The command: what it says to a mistake, what it loads, what a plan leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from tests.conftest import FILES, TINY, command, sources, synthdiv, write_files, write_rows

SINGLE = [*FILES, "mix=single"]
MULTI = [*FILES, "mix=multi"]
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
    "stray word": (["mix=human", "frobnicate"], ["frobnicate", "plan, status, report, doctor"]),
    "stray word of a plan": (["plan", "frobnicate"], ["frobnicate", "key=value"]),
    "stray word of a verb": (["status", "train.lr=1"], ["status train.lr=1", "runtime.outputs"]),
    "two sweeps": (["report", "a", "b"], ["report b", "the name of a sweep"]),
    # a preset
    "preset": (["mix=mutli"], ["mix=mutli: no such preset", "human, multi, multi_decoding, none, single"]),
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
    "sweep swept": (["-m", "sweep=a,b"], ["sweep, rerun, runtime and track", "one launch for each"]),
    # a file
    "no path": (["prompts=files"], ["prompts.table.path=None", "give one of the two"]),
    "missing file": ([*FILES, "prompts.table.path=no.jsonl"], ["prompts.table.path=no.jsonl: no such file"]),
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
        ["prompts.table.columns.response=null", "human answers"],
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


def test_a_users_folder_of_presets_joins_the_built_in_ones(typed, tmp_path):
    (tmp_path / "mine" / "train").mkdir(parents=True)
    (tmp_path / "mine" / "train" / "slow.yaml").write_text("lr: 1e-6\n")
    done = typed("plan", "--config-dir", "mine", "train=slow")
    assert (done.code, done.err) == (0, "")
    assert "train=slow" in done.out
    assert "full, lora, qlora, slow" in typed("--help", "--config-dir=mine").out
    assert "qlora, slow" not in typed("--help").out
    assert "train.epochs=x" in typed("--config-dir", "mine", "train=slow", "train.epochs=x").err


@pytest.fixture
def experiments(tmp_path):
    """Two experiments with their own grids and launchers."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    for name, launcher, axis in [("one", "local", 'train.seed: "0,1"'), ("two", "slurm", 'prompts.seed: "0,1,2"')]:
        (tmp_path / "mine" / "experiment" / f"{name}.yaml").write_text(
            f"# @package _global_\ndefaults: [{{override /hydra/launcher: {launcher}}}]\nsweep: {name}\n"
            f"train: {{epochs: {len(axis)}}}\nhydra: {{sweeper: {{params: {{{axis}}}}}}}\n"
        )
    return ["--config-dir", "mine"]


def test_swept_experiments_are_the_union_of_their_grids(typed, experiments):
    done = typed("plan", *experiments, "-m", "experiment=one,two", "sweep=both", "hydra/launcher=inline")
    assert "both: 5 cells, 5 unique" in done.out
    for words in ("one train.seed=1", "two prompts.seed=2"):
        assert f"experiment={words}" in done.out
    several = typed("plan", *experiments, "-m", "experiment=one,two", "sweep=both").err
    assert several == "error: these experiments choose the launchers local, slurm; add hydra/launcher=NAME\n"


@pytest.mark.parametrize(("words", "launcher"), [([], "Local"), (["hydra/launcher=inline"], "Inline")])
def test_an_experiment_chooses_the_launcher_and_the_command_line_overrides_it(words, launcher, typed, experiments):
    shown = typed(*experiments, "-m", "experiment=one", *words, "--cfg", "hydra", "--package", "hydra.launcher").out
    assert f"_target_: hydra_plugins.synthdiv.plugins.{launcher}Launcher" in shown


def test_words_that_are_no_fields_and_the_order_of_options_are_as_in_hydra(typed, experiments, monkeypatch):
    assert "complete -o nospace -o default -F hydra_bash_completion synthdiv" in typed("-sc", "install=bash").out
    monkeypatch.setenv("COMP_LINE", "synthdiv train=")
    monkeypatch.setenv("COMP_POINT", "15")
    assert "train=lora" in typed("-sc", "query=bash").out
    assert (
        "1 cells" in typed("plan", "mix=human", *experiments, "train.seed=1", "hydra.sweep.subdir=${hydra.job.num}").out
    )


def test_paths_in_a_users_presets_are_relative_to_their_folder(typed, tmp_path, monkeypatch):
    (tmp_path / "mine" / "prompts").mkdir(parents=True)
    write_files(tmp_path / "mine")
    (tmp_path / "mine" / "prompts" / "own.yaml").write_text("table: {path: prompts.jsonl}\ntest: 6\n")
    words = ["--config-dir", "mine", "prompts=own", "mix=none", "student=text"]
    words += ["student.pretrain.text.path=mine/corpus.txt"]
    assert "1 cells" in typed("plan", *words).out
    assert "table.path=prompts.jsonl: no such file" in typed("plan", *words, "prompts.table.path=prompts.jsonl").err
    monkeypatch.setenv("WORDS", "mine/corpus.txt")
    assert "1 cells" in typed("plan", *words[:-1], "student.pretrain.text.path=${oc.env:WORDS}").out, "paths may differ"


def test_a_plan_writes_nothing_and_shows_equal_cells_once(typed, tmp_path):
    write_files(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = typed("plan", "-m", *FILES, "mix=human,none", "train.seed=0,1", sources("one", "two"))
    assert (done.code, done.err) == (0, "")
    assert "4 cells, 3 unique" in done.out
    assert done.out.count("= 1 more") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_plan_shows_models_that_only_the_hub_knows_as_unresolved(typed, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "no-cache"))
    (tmp_path / "mine" / "student").mkdir(parents=True)
    (tmp_path / "mine" / "student" / "far.yaml").write_text("name: far\ncheckpoint: {hub: some/model}\n")
    done = typed("plan", "-m", "--config-dir", "mine", "mix=none", "student=far,toy_small")
    assert (done.code, done.err) == (0, "")
    assert "2 cells, 2 unique" in done.out
    assert "unresolved: some/model: the commit of main is not in the local hub cache" in done.out
    assert "unknown: some/model: no size" in done.out
    nodes = {line.split()[0]: line.split()[1:] for line in done.out.split("\nnodes")[1].splitlines() if line.strip()}
    assert nodes["checkpoint"] == ["0", "1", "0", "1"], "present, to build, shared, unresolved"
    assert nodes["pretrain"] == ["0", "1", "0", "0"]
    assert nodes["generate"] == ["0", "4", "0", "2"], "what stands on it is unresolved too"


def test_help_names_every_group_and_every_verb(typed):
    done = typed("--help")
    assert typed().out == done.out, "without a word it tells what it can do"
    for name in (
        "prompts",
        "generators",
        "mix",
        "student",
        "train",
        "evaluate",
        "runtime",
        "track",
        "report",
        "experiment",
    ):
        assert f"\n  {name}: " in done.out
    assert done.out == typed("plan", "-h").out
    for verb in ("plan", "status", "report", "doctor"):
        assert f"synthdiv {verb}" in done.out


HEAVY = [
    "torch",
    "transformers",
    "lightning",
    "peft",
    "deepspeed",
    "datasets",
    "wandb",
    "pandas",
    "plotly",
    "matplotlib",
]
LISTING = f"""
import atexit, runpy, sys
atexit.register(lambda: print("loaded", *(name for name in {[*HEAVY, "numpy"]} if name in sys.modules)))
runpy.run_module("synthdiv", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("words", "may"),
    [
        (["--help"], set()),
        (["status"], set()),
        (["plan", "-m", "mix=human,multi"], {"numpy"}),  # a toy world counts its prompts
        (["plan", "--json", "-m", "mix=human", "evaluate=study"], {"numpy"}),
        (["trian.lr=1"], set()),
    ],
)
def test_help_plan_and_status_load_no_heavy_library(words, may, tmp_path):
    done = subprocess.run([sys.executable, "-c", LISTING, *words], cwd=tmp_path, capture_output=True, text=True)
    name, *loaded = done.stdout.splitlines()[-1].split()
    assert name == "loaded"
    assert set(loaded) <= may, done.stderr


def test_the_command_and_the_module_are_one_program(tmp_path):
    script = Path(sys.executable).with_name("synthdiv")
    for words in (["--help"], ["mix=mutli"]):
        one = subprocess.run([script, *words], cwd=tmp_path, capture_output=True, text=True)
        other = subprocess.run(command(*words), cwd=tmp_path, capture_output=True, text=True)
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)
    assert one.returncode == 2
    assert one.stderr.startswith("error: ")


def test_without_m_a_run_is_a_sweep_of_one_cell(tmp_path):
    done = synthdiv("mix=none", "sweep=one", *TINY, cwd=tmp_path)
    assert "one: 1 cells (1 unique)" in done.stderr
    (cell,) = (tmp_path / "outputs" / "sweeps" / "one" / "cells.jsonl").read_text().splitlines()
    assert json.loads(cell)["axes"]["mix"] == "none"
    again = synthdiv("mix=none", "sweep=one", *TINY, cwd=tmp_path)
    assert "0 nodes built" in again.stderr
    assert "done" in synthdiv("status", "one", cwd=tmp_path).stdout
    assert not list(tmp_path.glob("multirun*"))
