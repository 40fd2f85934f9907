"""Suites on a toy study: every number says how many units it stands on and how sure it is, or why not."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow.parquet
import pytest

from synthdiv.core.types import Score
from synthdiv.evaluate.collapse import Collapse
from synthdiv.evaluate.respond import Decoding, Respond
from synthdiv.evaluate.suite import Evaluate, EvaluatedStudent, item, read_scores, write_suite
from synthdiv.evaluate.truth import Truth, TruthSuite
from synthdiv.generate.generate import read_samples
from synthdiv.generate.spec import Sampling
from tests.models.small import build, node_of


@pytest.fixture(scope="module", params=["collapse", "truth"])
def suite(request, arms):
    """(tuned, vanilla) artifacts of one suite."""
    if request.param == "collapse":
        own, base = ([arm.answers, arm.own, arm.human] for arm in (arms.tuned, arms.vanilla))
        budget = {"words": 100, "texts": 4, "length": 4, "within": 2, "draws": 2}
        stages = tuple(Collapse(decodings=["plain"], vanilla=alone, **budget) for alone in (False, True))
        return build(arms.root, stages[0], *own, *base), build(arms.root, stages[1], *base)
    own, base = ([arms.prompts, arm.support, arm.answers] for arm in (arms.tuned, arms.vanilla))
    return build(arms.root, Truth(), *own, arms.vanilla.support), build(arms.root, Truth(vanilla=True), *base)


def items(artifact):
    return pyarrow.parquet.read_table(artifact.path / "items.parquet").to_pylist()


def test_every_score_has_its_units_and_an_interval_or_a_reason(suite):
    for artifact in suite:
        scores = read_scores(artifact.path)
        assert max(Counter(score.name for score in scores).values()) == 1
        assert len(scores) > 8
        for score in scores:
            assert score.n >= 0, score
            assert score.note or (score.n > 0 and score.low <= score.value <= score.high), score
            assert math.isnan(score.value) or score.n > 0, score


def test_differences_to_vanilla_stand_beside_every_arm_but_vanilla(suite):
    tuned, vanilla = ({score.name: score for score in read_scores(artifact.path)} for artifact in suite)
    gaps = {name for name in tuned if name.endswith("-vanilla")}
    assert gaps == tuned.keys() - vanilla.keys()
    assert not vanilla.keys() - tuned.keys()
    assert any(math.isfinite(tuned[name].value) for name in gaps)
    for name in ("nll_2", "truth/excess_nll"):
        if name in tuned:
            gap = tuned[name].value - vanilla[name].value
            assert tuned[f"{name}-vanilla"].value == pytest.approx(gap, rel=1e-6)


def test_items_hold_a_row_for_each_answer_measured(suite, arms):
    rows = items(suite[0])
    assert set(rows[0]) == {"prompt", "sample", "order", "decoding", "measure", "value", "bytes", "finish"}
    lengths = {(row["prompt"], row["sample"]): row for row in rows if row["measure"] == "response_words"}
    if lengths:
        samples = {(row.id, row.sample): row for row in read_samples(arms.tuned.answers.path)}
        assert lengths.keys() == samples.keys()
        assert all(row["bytes"] == len(samples[key].response.encode()) for key, row in lengths.items())
        assert all(row["finish"] == samples[key].finish for key, row in lengths.items())
    keys = [(row["prompt"], row["sample"], row["order"], row["decoding"], row["measure"]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_the_mean_of_items_is_the_score(suite):
    scores = {score.name: score.value for score in read_scores(suite[0].path)}
    for name in ("nll_2", "truth/js", "truth/excess_nll_words"):
        values = [row["value"] for row in items(suite[0]) if row["measure"] == name]
        assert not values or np.mean(values) == pytest.approx(scores[name], rel=1e-9)
    assert {"nll_2", "truth/excess_nll"} & scores.keys()


def test_no_student_is_nearer_to_the_law_than_the_law_itself(arms):
    """KL is not negative; tuning on human answers brings the student nearer."""
    actual = [
        items(build(arms.root, Truth(vanilla=True), arms.prompts, arm.support, arm.answers))
        for arm in (arms.tuned, arms.vanilla)
    ]
    tuned, vanilla = ([row["value"] for row in rows if row["measure"] == "truth/excess_nll"] for rows in actual)
    assert min(*tuned, *vanilla) >= -1e-6
    assert np.mean(tuned) < np.mean(vanilla)


def test_dialect_shares_and_what_is_off_add_up(arms):
    made = build(arms.root, Truth(vanilla=True), arms.prompts, arms.tuned.support, arms.tuned.answers)
    shares = [score.value for score in read_scores(made.path) if score.name.startswith("truth/dialect/")]
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize(("cut", "applies"), [({}, True), ({"top_k": 5}, False), ({"min_p": 0.1}, False)])
def test_shares_of_dialects_are_of_answers_from_the_students_own_distribution(arms, cut, applies):
    settings = Evaluate(Respond([Decoding("plain", Sampling(1.0, 1.0, **cut))]))
    answers = {"plain": node_of(arms.tuned.answers)}
    arm = EvaluatedStudent(node_of(arms.prompts), node_of(arms.tuned.model), answers["plain"], answers, settings)
    assert (TruthSuite().node(arm, None) is not None) is applies


@pytest.mark.parametrize("value", [1.5, math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_come_back(tmp_path, value):
    score = Score("x", value, 3, low=-math.inf, high=value, unit="share", higher_is_better=True, note="why")
    write_suite(tmp_path, [score], [item("p", "x", value)])
    text = (tmp_path / "scores.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert repr(read_scores(tmp_path)) == repr([score])
    assert repr(pyarrow.parquet.read_table(tmp_path / "items.parquet")["value"].to_pylist()) == repr([value])
