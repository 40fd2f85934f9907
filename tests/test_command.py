"""The command: what it says to a mistake, what it loads, what a plan leaves behind."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

from synthdiv.__main__ import options
from tests.conftest import FILES, TINY, command, sources, synthdiv, write_files, write_rows


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
    limit = "5 cells are more than the 4 that need no confirmation; to run them all add hydra.sweeper.cells=5"
    few = ["hydra/launcher=inline", "hydra.sweeper.cells=4"]
    assert typed("plan", *experiments, "-m", "experiment=one,two", "sweep=both", *few).err == f"error: {limit}\n"
    several = typed("plan", *experiments, "-m", "experiment=one,two", "sweep=both").err
    assert several == "error: these experiments choose the launchers local, slurm; add hydra/launcher=NAME\n"


@pytest.mark.parametrize(("words", "launcher"), [([], "Local"), (["hydra/launcher=inline"], "Inline")])
def test_an_experiment_chooses_the_launcher_and_the_command_line_overrides_it(words, launcher, typed, experiments):
    shown = typed(*experiments, "-m", "experiment=one", *words, "--cfg", "hydra", "--package", "hydra.launcher").out
    assert f"_target_: hydra_plugins.synthdiv.plugins.{launcher}Launcher" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.launcher.jobs=3"], "hydra.launcher.jobs: the launcher of this run has no such field; it is one of "
         "hydra/launcher=local: add that"),
        (["hydra.launcher.job=3", "hydra/launcher=local"], "hydra.launcher.job: the launcher of this run has no such "
         "field; no launcher has: local has jobs, devices; slurm has partition, "),
    ],
)  # fmt: skip
def test_a_field_of_another_launcher_is_one_line_that_names_it_however_it_is_added(words, message, typed):
    for prefix in ("", "+", "++"):
        done = typed("plan", prefix + words[0], *words[1:], "prompts.test=12")
        assert done.code == 2
        assert done.err.startswith(f"error: {message}")
        assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ('generators.models.0.hosted.extra={"a": 1, "b": ["c", true]}',
         """'generators.models.0.hosted.extra={a: 1, b: ["c", true]}'"""),
        ("prompts.system=Be brief (please), and kind", """'prompts.system="Be brief (please), and kind"'"""),
        ("prompts.table.path=a=b.jsonl", """'prompts.table.path="a=b.jsonl"'"""),
        ("evaluate.suites.0.words=1{", """'evaluate.suites.0.words="1{"'"""),
    ],
)  # fmt: skip
def test_a_value_that_hydra_cannot_parse_is_written_anew_with_the_right_quotes(word, advice, typed):
    done = typed("plan", "-m", word)
    assert done.code == 2
    assert done.err.endswith(f"Write {advice}\n")
    (written,) = shlex.split(advice)
    assert "Write" not in typed("plan", "-m", written).err, "Hydra can parse the advice"
    assert """'prompts.system="a, b"'""" in typed("plan", "prompts.system=be brief, please").err


def test_the_options_are_those_of_hydra():
    words = (
        "a=1 -c job --resolve -p x -r b=2 -m -sc -cp p -cn n -cd d --experimental-rerun r -i all --hydra-help -h c=3"
    )
    for line in (words, words.replace("-i all", "--info"), "--multi a=1 --config-d d --unknown b=2", ""):
        expected, _ = get_args_parser().parse_known_intermixed_args(line.split())
        assert options(line.split()) == expected


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


def test_an_experiment_file_holds_paths_and_interpolations_for_each_cell(typed, tmp_path):
    """Paths in the grid of a file are relative to its folder, and the printed words work from any folder."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    rows = write_files(tmp_path / "mine")
    write_rows(tmp_path / "mine" / "it's.jsonl", rows[:20])
    params = {"prompts.table.path": "prompts.jsonl,'it\\'s.jsonl'", "prompts": "files", "evaluate": "short"}
    params |= {"mix": "none", "student": "text", "student.pretrain.text.path": "corpus.txt"}
    params |= {"train.seed": "1,2", "evaluate.respond.seed": "${train.seed}"}  # nothing is trained
    sweeper = {"params": params, "exclude": [{"prompts.table.path": "prompts.jsonl", "train.seed": "2"}]}
    text = json.dumps({"sweep": "s", "prompts": {"test": 6}, "hydra": {"sweeper": sweeper}})
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(f"# @package _global_\n{text}\n")
    words = ["--config-dir", "mine", "-m", "experiment=own"]
    done = typed("plan", *words)
    assert "3 cells, 3 unique" in done.out, done.err
    typed_path = typed("plan", *words, "prompts=files", "prompts.table.path=prompts.jsonl")
    assert "prompts.table.path=prompts.jsonl: no such file" in typed_path.err, "those of the command line are not"


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
        "judge",
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
