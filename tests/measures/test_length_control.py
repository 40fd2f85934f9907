"""The win rate at equal length, against scikit-learn and a planted effect of length."""

from __future__ import annotations

import math

import numpy as np
import pytest
from measures.pairs import sigmoid
from sklearn.linear_model import LogisticRegression

from synthdiv.measures.length_control import length_controlled, votes_for_longer


def verdicts(rate=0.5, term=0.0, n=400, shift=0.0, seed=0):
    gap = np.random.default_rng(seed).normal(shift, 100, n)
    return sigmoid(math.log(rate / (1 - rate)) + term * np.tanh(gap / 100)), gap


def test_it_equals_a_logistic_model_of_scikit_learn_with_the_same_ridge():
    wins, gap = verdicts(0.6, 0.8, n=60)
    terms = np.tile(np.tanh(gap / 100)[:, None], (2, 1))
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000)
    model.fit(terms, np.repeat([1, 0], 60), sample_weight=np.concatenate([wins, 1 - wins]))
    rate, term = length_controlled(wins, gap, 100)
    assert rate.value == pytest.approx(model.predict_proba([[0.0]])[0, 1], abs=1e-6)
    assert term.value == pytest.approx(model.coef_[0, 0], abs=1e-5)


def test_a_judge_that_likes_length_gives_no_win_to_equal_answers():
    wins, gap = verdicts(0.5, 2.0, shift=60)
    rate, term = (each.score() for each in length_controlled(wins, gap, 100))
    assert wins.mean() > 0.6
    assert rate.value == pytest.approx(0.5, abs=0.02)
    assert term.value == pytest.approx(2.0, abs=0.15)
    assert votes_for_longer(wins, gap).value > 0.7


def test_exchanging_both_answers_turns_the_rate_around_and_the_order_of_rows_does_not_matter():
    wins, gap = verdicts(0.7, 1.0)
    rate, term = length_controlled(wins, gap, 100)
    for other, expected in (
        (length_controlled(1 - wins, -gap, 100), 1 - rate.value),
        (length_controlled(wins[::-1], gap[::-1], 100), rate.value),
    ):
        assert other[0].value == pytest.approx(expected, abs=1e-6)
        assert other[1].value == pytest.approx(term.value, abs=1e-6)
    assert votes_for_longer(1 - wins, -gap).value == pytest.approx(votes_for_longer(wins, gap).value)


@pytest.mark.parametrize("side", [0.0, 1.0])
def test_an_answer_that_always_wins_or_loses_has_a_rate_of_1_or_0_at_any_length(side):
    wins, gap = np.full(60, side), verdicts(n=60)[1]
    rate, term = (each.score() for each in length_controlled(wins, gap, 100))
    assert (rate.value, term.value) == (side, 0.0)
    assert "no interval" in rate.note
    wins[0] = 1 - side
    assert abs(length_controlled(wins, gap, 100)[0].value - side) < 0.1


def test_lengths_that_hardly_overlap_are_not_extrapolated():
    wins, gap = verdicts(0.6, shift=300)
    rate, term = (each.score() for each in length_controlled(wins, gap, 100))
    assert math.isnan(rate.value)
    assert math.isnan(term.value)
    assert "length control needs 10% on either side" in rate.note


def test_no_verdict_and_equal_lengths_are_undefined_with_a_reason():
    none = [math.nan] * 3
    for each in (*length_controlled(none, [1, -1, 1], 1), votes_for_longer(none, [1, 2, 3])):
        assert math.isnan(each.value)
        assert each.score().note
    assert "no pair of unequal length" in votes_for_longer([1.0, 0.0], [0, 0]).score().note


def test_answers_to_one_prompt_are_one_unit():
    wins, gap = verdicts(n=50)
    rate, _ = length_controlled(np.tile(wins, 3), np.tile(gap, 3), 100, [*range(50)] * 3)
    assert rate.n == 50
