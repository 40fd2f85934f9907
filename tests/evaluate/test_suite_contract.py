"""A suite is one file and one preset: it is planned, billed, built by a job, reported and tracked like ours."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from synthdiv.core.ledger import Ledger
from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import own_suites, suite_class
from synthdiv.views.track.cell import publishable
from tests.conftest import ROOT, TINY, synthdiv

SUITES = ROOT / "synthdiv" / "evaluate"
PRESET = """\
defaults: [toy]
suites: [{suite: collapse, length: 5, within: 2}, {suite: truth}, {suite: tests.evaluate.toy_suite, least: 2}]
"""
WORDS = ["-m", "mix=human,single,multi", "train.seed=0,1", "sweep=tiny", *TINY, "evaluate=words"]


@pytest.fixture(scope="module")
def folder(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished tiny study, and a preset beside it that adds the suite."""
    folder = tmp_path_factory.mktemp("suite")
    shutil.copytree(study / "outputs", folder / "outputs")
    (folder / "conf" / "evaluate").mkdir(parents=True)
    (folder / "conf" / "evaluate" / "words.yaml").write_text(PRESET)
    return folder


def run(folder: Path, *words: str, code: int = 0) -> str:
    return synthdiv(*words, "--config-dir", "conf", cwd=folder, code=code, PYTHONPATH=str(ROOT)).stdout


def test_a_suite_of_a_user_is_planned_built_reported_and_tracked(folder):
    plan = json.loads(run(folder, "plan", "--json", *WORDS))
    assert plan["nodes"]["toy_words"] == {"present": 0, "to_build": 7}, "six students and the vanilla one"
    assert plan["estimate"]["device_hours"] > 0, "it is billed"
    assert {count["to_build"] for stage, count in plan["nodes"].items() if stage != "toy_words"} == {0}
    run(folder, *WORDS, "hydra/launcher=local", "hydra.launcher.jobs=1")
    synthdiv("report", "tiny", cwd=folder)
    with (folder / "outputs" / "reports" / "tiny" / "arms.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "toy/words"]
    assert len(rows) >= 3
    assert "toy/words" in (folder / "outputs" / "reports" / "tiny" / "index.html").read_text(), "a headline is shown"
    cells = [
        cell for cell in Ledger(folder / "outputs", "tiny").unique_cells() if "tests.evaluate.toy_suite" in cell.suites
    ]
    assert len(cells) == 6
    results = publishable(folder / "outputs", cells[0], 3)
    assert "toy/words" in [score.name for score in results.scores]
    assert len(results.tables["samples"]) == 3, "answers come from the record and not from a suite"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("evaluate.suites.2.least=-1", "evaluate.suites.2.least=-1: needs 0 or more"),
        ("evaluate.suites.2.least=x", "evaluate.suites.2.least"),
        ("evaluate.suites.2.most=1", "tests.evaluate.toy_suite has suite, least"),
        ("evaluate.least=1", "evaluate.least: no such field"),
        ("evaluate.words=1", "did you mean evaluate.suites.0.words"),
        ("evaluate.suites=[{suite: colapse}]", f"no suite 'colapse'; choose {', '.join(own_suites())}"),
        ("evaluate.suites=[{words: 3}]", "evaluate.suites.0: needs the form {suite: NAME"),
        (
            "evaluate.suites.1.suite=collapse",
            "the item has the fields of another suite; set evaluate.suites",
        ),
        ("evaluate.suites.1=x", "evaluate.suites.1: needs the form {suite: NAME"),
        ("evaluate.suites=[]", f"evaluate.suites=[]: needs at least one suite; choose {', '.join(own_suites())}"),
        ("evaluate.suites=[{suite: truth},{suite: truth}]", "evaluate.suites: truth is listed twice"),
    ],
)
def test_a_mistake_in_a_suite_is_named(folder, field, message):
    words = [word for word in WORDS if not word.startswith("evaluate.suites")]
    done = synthdiv("plan", *words, field, "--config-dir", "conf", cwd=folder, code=2, PYTHONPATH=str(ROOT))
    assert message in done.stderr


def test_a_module_has_one_suite():
    known = {"collapse", "downstream", "preference", "quality", "truth"}
    assert known <= {*own_suites()} <= {path.stem for path in SUITES.glob("*.py")}
    with pytest.raises(ConfigError, match="defines 0 subclasses of Suite"):
        suite_class("likelihood")
