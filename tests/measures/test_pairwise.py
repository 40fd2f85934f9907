"""Verdicts on pairs: the effect of order, scores of authors, Bradley–Terry strengths."""

from __future__ import annotations

import math
from dataclasses import replace

import evalica
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measures.pairs import NO, every_pair, sigmoid, swapped

from synthdiv.measures import pairwise
from synthdiv.measures.pairwise import author_scores, contrast, missing_pairs, order_scores, strengths

VERDICT = st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0, NO])


def test_order_scores_of_a_judge_that_always_takes_the_first_shown():
    position, flips, ties = (each.score() for each in order_scores([1.0] * 40, [0.0] * 40))
    assert (position.value, flips.value, ties.value) == (0.5, 1.0, 0.0)
    assert flips.low > 0.9
    fair = order_scores([1.0, 0.0, 0.5, 0.5], [1.0, 0.0, 0.5, 0.5])
    assert [each.value for each in fair] == [0.0, 0.0, 0.5]


@given(st.lists(st.tuples(VERDICT, VERDICT), min_size=1, max_size=20))
def test_order_scores_do_not_depend_on_which_author_is_called_the_first(rows):
    forward, backward = np.array(rows).T
    values = [each.value for each in order_scores(forward, backward)]
    exchanged = [each.value for each in order_scores(1 - backward, 1 - forward)]
    assert exchanged == pytest.approx(values, nan_ok=True)
    assert math.isnan(values[0]) or -0.5 <= values[0] <= 0.5


def test_pairs_judged_in_one_order_are_counted_and_none_is_dropped():
    position, flips, _ = order_scores([1.0, 1.0, 0.9], [NO, 0.0, 0.8], prompts=["a", "a", "b"])
    assert position.note == "1 of 3 pairs have a verdict in one order only"
    assert position.value == pytest.approx((2.9 / 3 - 0.4) / 2)
    assert (flips.value, flips.n) == (0.5, 2)
    for each in order_scores([NO], [NO]):
        assert math.isnan(each.value)
        assert each.score().note


def test_position_bias_from_one_random_order_is_free_of_who_wins():
    rng = np.random.default_rng(0)
    authors, shown_first = rng.integers(0, 3, 6000), rng.random(6000) < 0.5
    wins = np.array([0.95, 0.3, 0.6])[authors] + np.where(shown_first, 0.04, -0.04)
    forward, backward = np.where(shown_first, wins, NO), np.where(shown_first, NO, wins)
    apart, pooled = (order_scores(forward, backward, authors=each)[0] for each in (authors.tolist(), None))
    assert apart.value == pytest.approx(0.04, abs=1e-9)
    score = pooled.score()
    assert score.low < 0.04 < score.high
    none = order_scores([1.0, 0.0], [NO, NO])[0].score()  # always shown in one order
    assert math.isnan(none.value)
    assert "one order only" in none.note


@given(st.integers(0, 2**31 - 1), st.integers(2, 4))
def test_scores_of_all_authors_average_one_half_on_complete_pairs(seed, count):
    pairs = every_pair("abcd"[:count], 5, seed=seed)
    scores = author_scores(pairs)
    assert np.mean([each.value for each in scores.values()]) == pytest.approx(0.5)
    assert {each.n for each in scores.values()} == {5}
    rows = np.random.default_rng(seed).random(len(pairs.wins)) < 0.5
    other = author_scores(swapped(pairs, rows))
    assert {name: each.value for name, each in other.items()} == pytest.approx(
        {name: each.value for name, each in scores.items()}
    )


def test_incomplete_pairs_are_listed_and_their_prompts_left_out():
    pairs = every_pair("abc", 4)
    pairs.wins[1] = NO  # a and c on the first prompt
    pairs = pairs.take(np.arange(len(pairs.wins)) != 5)  # b and c on the second
    assert missing_pairs(pairs) == [(0, "a", "c"), (1, "b", "c")]
    scores = author_scores(pairs)
    assert {each.n for each in scores.values()} == {2}
    assert "2 of 4 prompts left out: 2 pairs without a verdict" in scores["a"].score().note
    pairs.wins[:] = NO
    assert math.isnan(author_scores(pairs)["a"].score().value)


def test_strengths_equal_bradley_terry_scores_of_evalica(monkeypatch):
    monkeypatch.setattr(pairwise, "RIDGE", 1e-9)
    pairs = every_pair("abcd", 30)
    actual = strengths(pairs)
    twice = [*zip(pairs.first, pairs.second, strict=True)] * 2
    winners = [evalica.Winner.X] * len(pairs.wins) + [evalica.Winner.Y] * len(pairs.wins)
    weights = [*pairs.wins, *(1 - pairs.wins)]
    table = evalica.bradley_terry(*zip(*twice, strict=True), winners, weights=weights, tolerance=1e-12, limit=10_000)
    expected = np.log(table.scores) - np.log(table.scores).mean()
    assert {name: each.value for name, each in actual.items()} == pytest.approx(dict(expected), abs=1e-5)


def test_strengths_recover_the_terms_that_verdicts_were_made_with_and_ignore_roles():
    truth = np.array([-0.6, 0.1, 0.5])

    def wins(first, second, length, quality):
        return sigmoid(truth[first] - truth[second] + 0.7 * length + 1.5 * quality)

    pairs = every_pair("abc", 300, wins)
    actual = strengths(pairs, ("length", "quality"))
    values = [actual[name].value for name in ("a", "b", "c", "length", "quality")]
    assert values == pytest.approx([*truth, 0.7, 1.5], abs=0.04)
    assert sum(values[:3]) == pytest.approx(0, abs=1e-6)
    other = strengths(swapped(pairs, np.arange(len(pairs.wins)) % 3 == 0), ("length", "quality"))
    assert [other[name].value for name in actual] == pytest.approx(values, abs=1e-6)
    assert contrast(np.array(values[:3]), 2, 3) == pytest.approx(0.75, abs=0.04)


def test_an_author_that_always_wins_has_a_finite_strength_and_rows_without_a_covariate_are_counted():
    pairs = every_pair("ab", 50, lambda first, *_: np.ones(len(first)))
    assert math.isfinite(strengths(pairs)["b"].value)
    pairs.length[:10] = NO
    assert "10 of 50 pairs left out: no verdict or no length" in strengths(pairs, ("length",))["b"].note
    alone = replace(pairs, second=pairs.first)
    score = strengths(alone)["b"].score()
    assert math.isnan(score.value)
    assert "no pair of two authors has a verdict" in score.note
