"""Agreement of models on prompts and of measures on cells; a second opinion that is refused where it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.multitest import multipletests

from synthdiv.measures.concordance import consistency, mixed_model, rank_correlation
from synthdiv.measures.multiplicity import BENJAMINI_YEKUTIELI, HOLM, adjusted, published_tests
from synthdiv.measures.replicates import effect

SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_consistency_is_that_of_the_known_example() -> None:
    """Shrout and Fleiss 1979, table 4: ICC(3,1) = .71, and its interval by McGraw and Wong."""
    value, ends = consistency(np.array(SHROUT_FLEISS, dtype=float))
    assert value == pytest.approx(0.7148, abs=1e-4)
    assert ends == pytest.approx((0.3425, 0.9459), abs=1e-4)


def test_consistency_ignores_the_level_of_a_replicate_and_is_undefined_without_variation() -> None:
    values = np.array(SHROUT_FLEISS, dtype=float)
    assert consistency(values + np.array([5, 0, -3, 2]))[0] == pytest.approx(consistency(values)[0])
    assert consistency(np.arange(6.0)[:, None] + np.array([0, 1]))[0] == 1
    assert math.isnan(consistency(np.ones((6, 3)))[0])
    assert math.isnan(consistency(values[:, :1])[0])


def test_rank_correlation_is_that_of_scipy_with_the_units_that_are_independent() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 30))
    other[:2] = other[2]
    other = other + one
    other[7] = math.nan
    value, (low, high) = rank_correlation(one, other, 10)
    assert value == pytest.approx(stats.spearmanr(np.delete(one, 7), np.delete(other, 7)).statistic)
    assert -1 < low < value < high < 1
    assert math.isnan(rank_correlation(one, other, 4)[1][0])
    assert math.isnan(rank_correlation(one, np.ones(30), 10)[0])


def test_a_second_opinion_agrees_in_a_balanced_design() -> None:
    random = np.random.default_rng(0)
    d = random.normal(size=(40, 1)) + random.normal(size=(1, 5)) + random.normal(size=(40, 5))
    value, error, note = mixed_model(d)
    assert note == ""
    assert value == pytest.approx(effect(d).value)
    assert error == pytest.approx(effect(d).error, rel=0.02)


def test_a_zero_of_the_mixed_model_is_reproduced_and_refused() -> None:
    """statsmodels#10239: where a random effect has no variance, fixed effects may be exactly 0.0, `converged=True`."""
    random = np.random.default_rng(0)
    d = random.normal(size=(8, 8))
    d += 3 - d.mean(axis=1, keepdims=True)
    model = MixedLM(d.ravel(), np.ones((64, 1)), groups=np.repeat(np.arange(8), 8))
    assert model.get_fe_params(np.array([[1e-9]]), np.empty(0))[0][0] == pytest.approx(3)
    assert model.get_fe_params(np.array([[1e-11]]), np.empty(0))[0][0] == 0.0, "mended: the guard can go"
    value, error, note = mixed_model(d)
    assert math.isnan(value)
    assert math.isnan(error)
    assert note.startswith("refused: ")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_corrections_are_those_of_statsmodels_and_leave_out_what_was_not_tested(p: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda: 0)  # which it calls each time: a second in a process of many tests
        expected = {method: multipletests(p, method=method)[1] for method in (HOLM, BENJAMINI_YEKUTIELI)}
    for method in expected:
        assert adjusted(p, method) == pytest.approx(expected[method])
        *rest, last = adjusted([*p, math.nan], method)
        assert rest == adjusted(p, method)
        assert math.isnan(last)


def test_the_published_tests_are_those_of_scipy_with_bonferroni() -> None:
    arms = dict(zip("abc", np.random.default_rng(0).normal(size=(3, 50)), strict=True))
    rows = published_tests(arms)
    assert rows[0]["p"] == pytest.approx(stats.kruskal(*arms.values()).pvalue)
    assert rows[1]["p"] == pytest.approx(min(1, 3 * stats.mannwhitneyu(arms["a"], arms["b"]).pvalue))
    assert [row["arms"] for row in rows] == ["a, b, c", "a, b", "a, c", "b, c"]
    assert published_tests({"a": arms["a"]}) == []
