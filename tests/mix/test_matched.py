"""One source at the temperature that gives its answers the likelihood of several sources under the vanilla student."""

from __future__ import annotations

import json
import math

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.types import Artifact, ConfigError, DataError
from synthdiv.generate.generate import Generate, read_samples
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.mix.matched import EQUAL, MatchedTemperature, nearest, nll_a_token
from synthdiv.study.pipeline import graph
from synthdiv.study.records import cell_record
from tests.conftest import sources
from tests.models.small import WORLD, build, cpu_run
from tests.study.test_keys import cell, expander
from tests.views.test_plan import frozen

FIELDS_SHOWN = (
    "generate.tuned", "matched_temperature.temperatures", "matched_temperature.usual",
    "matched_temperature.tolerance",
)  # fmt: skip

TRIED = [0.5, 1.0, 2.0, 4.0]


@given(
    nll=st.lists(st.floats(0.1, 9), min_size=4, max_size=4), wanted=st.floats(0.1, 9), usual=st.sampled_from([0.0, 1.0])
)
def test_a_likelihood_between_those_tried_is_reached_and_one_outside_only_nearly(nll, wanted, usual):
    temperature, reached = nearest(TRIED, nll, wanted, usual)
    closest = min(max(wanted, min(nll)), max(nll))
    assert reached == pytest.approx(closest, abs=0.02 * (max(nll) - min(nll)) + EQUAL * wanted + 1e-9)
    assert 0.5 <= temperature <= 4


def test_of_several_temperatures_with_this_likelihood_the_nearest_to_the_usual_one_is_taken():
    nll = [(math.log(at) - 0.4) ** 2 for at in TRIED]
    low, high = (nearest(TRIED, nll, 0.3, usual)[0] for usual in (0.7, 3))
    assert low < 1 < 2 < high


def tuned(tmp_path, nll, tolerance, answers=200):
    """The stage on likelihoods with these NLL a token, of answers of other lengths."""
    stage, inputs = MatchedTemperature([0.5, 1.0], 1.0, tolerance), {}
    for name, value in zip(stage.input_names(), nll, strict=True):
        (tmp_path / name).mkdir()
        table = {"nll": [value * 3 - 1, value * 9 + 1] * (answers // 2), "tokens": [3, 9] * (answers // 2)}
        pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / name / "likelihood.parquet")
        inputs[name] = Artifact(None, name, tmp_path / name)
    assert nll_a_token(inputs["multi"]) == pytest.approx(nll[0])
    return stage.build(inputs, tmp_path, None)


def test_a_likelihood_out_of_reach_names_the_closest_one_and_the_override(tmp_path):
    closest = r"no closer than 3.58 \(standard error of the difference 0.017\), at temperature 1 "
    message = rf"4 nats a token.*{closest}.*accept the closest with mix.tolerance=0.11"
    with pytest.raises(DataError, match=message):
        tuned(tmp_path, [4.0, 2.0, 3.58], 0.05)


def test_a_gap_that_chance_explains_is_no_reason_to_refuse(tmp_path):
    """6 % where 5 % are accepted, with standard errors of the difference of .4 and .7 %."""
    for name in ("many", "few"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"no closer than 3\.76"):
        tuned(tmp_path / "many", [4.0, 2.0, 3.76], 0.05, 200)
    assert tuned(tmp_path / "few", [4.0, 2.0, 3.76], 0.05, 80)["standard_error"] == pytest.approx(0.0265, rel=0.01)


def test_the_closest_temperature_is_accepted_within_the_tolerance(tmp_path):
    summary = tuned(tmp_path, [4.0, 2.0, 3.58], 0.11)
    assert json.loads((tmp_path / "temperature.json").read_text()) == {"temperature": 1.0}
    assert (summary["temperature"], summary["interpolated"]) == (1.0, pytest.approx(3.58))


def test_answers_at_a_tuned_temperature_are_those_at_that_temperature(root, prompts, tmp_path):
    family = build(root, Family(0, 4, 0.5, 0.0, WORLD, Grade()))
    stage = Generate("oak", Backend.law, sampling=Sampling(2.5, 1.0), rows=48, shard_rows=48)
    (tmp_path / "temperature.json").write_text('{"temperature": 2.5}')
    inputs = {"prompts": prompts, "model": family, "temperature": Artifact(None, "t", tmp_path)}
    other = Generate("oak", Backend.law, sampling=Sampling(1.0, 1.0), rows=48, shard_rows=48, tuned=True)
    (out := tmp_path / "out").mkdir()
    other.build(inputs, out, cpu_run())
    assert read_samples(out) == read_samples(build(root, stage, prompts, family).path)
    assert {row.temperature for row in read_samples(out)} == {2.5}


def matched(*words):
    return graph(cell("mix=single_matched", "generators=toy", *words)).mix


def test_a_temperature_is_tuned_once_for_every_size_share_and_rotation_of_rows():
    shards = [node for name, node in matched("mix.rows=300").inputs.items() if "/" in name]
    (temperature,) = {node.inputs["temperature"].key for node in shards}
    for words in (["mix.rows=600"], ["mix.real_share=0.5"], ["mix.real_rotation=2", "mix.rows=300"], ["train.lr=1"]):
        assert temperature in matched(*words).ancestry(), words
    for words in (["generators.seed=1"], ["mix.rotation=1"], ["student=toy_large"], ["mix.source=elm"]):
        assert temperature not in matched(*words).ancestry(), words


def test_what_several_sources_depend_on_is_an_axis_of_the_matched_one_and_of_no_other():
    def axes(words):
        (point,) = expander().expand({}, ["generators=toy", "mix.tolerance=0.1", "mix.weights=[2,1,1,1]", *words])
        record = cell_record(point, graph(point.cell))
        return record.axes["mix.tolerance"], record.axes["mix.weights"], record.seeds["mix.rotation"]

    assert axes(["mix=single_matched"]) == ("0.1", "[2,1,1,1]", 0)
    assert axes(["mix=single"]) == ("n/a", "n/a", "n/a")
    assert axes(["mix=multi"]) == ("n/a", "[2,1,1,1]", 0)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["mix.weights=[1]"], "needs one weight of 0 or more, not all 0, for each of oak, elm, ash, fir"),
        (["mix.weights=[1,0,0,0]"], "mix=multi: needs at least two generators"),
        ([sources("one", "two")], "one answers from a file, at one temperature"),
    ],
)
def test_a_source_that_cannot_be_matched_is_refused_at_plan(words, problem, tmp_path):
    with pytest.raises(ConfigError, match=problem):
        frozen("generators=toy", "mix=single_matched", *words, root=tmp_path)
