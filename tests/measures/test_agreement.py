"""Agreement of a judge with labels, against the published example of α and scikit-learn's AUC."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from synthdiv.measures.agreement import agreement, concordance, discrimination, krippendorff_alpha

NO = math.nan
# Four observers and twelve units of Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C and on
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NO, NO, NO],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NO, 3],
    [NO, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NO],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NO],
]
SIDES = st.lists(st.tuples(*[st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0, NO])] * 2), min_size=1, max_size=30)


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_equals_the_published_example(level, published):
    result = krippendorff_alpha(OBSERVERS, level)
    assert result.value == pytest.approx(published, abs=5e-4)
    assert result.n == 11  # the last unit has one rating
    score = result.score()
    assert score.low < result.value < score.high <= 1


@pytest.mark.parametrize("ratings", [[[1, 1, 1], [1, 1, 1]], [[1, 2, NO], [NO, NO, 3]], [[NO] * 3] * 2])
def test_alpha_of_equal_or_single_ratings_is_undefined_with_a_reason(ratings):
    score = krippendorff_alpha(ratings).score()
    assert math.isnan(score.value)
    assert "all ratings are equal" in score.note


def test_alpha_of_many_distinct_ratings_is_that_of_their_values():
    a = np.random.default_rng(0).normal(size=400)
    b = a + np.random.default_rng(1).normal(size=400)
    pooled = np.concatenate([a, b])
    exact = 1 - ((a - b) ** 2).mean() / (2 * pooled.var(ddof=1))
    assert krippendorff_alpha([a, b], "interval").value == pytest.approx(exact, abs=1e-3)


def test_samples_of_one_prompt_are_one_unit_of_the_interval():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 60)
    judge = np.where(rng.random(60) < 0.8, label, 1 - label)
    alone, copied = (
        krippendorff_alpha(np.tile([judge, label], copies), prompts=[*range(60)] * copies) for copies in (1, 5)
    )
    assert copied.n == alone.n == 60
    low, high = (abs(each.score().high - each.score().low) for each in (alone, copied))
    assert high == pytest.approx(low, rel=0.1)


@given(SIDES)
def test_agreement_and_discrimination_do_not_depend_on_who_is_first_nor_on_the_order_of_rows(rows):
    judge, label = np.array(rows).T
    turned = np.arange(len(rows)) % 2 == 0
    swapped = [np.where(turned, 1 - x, x) for x in (judge, label)]
    for function in (agreement, discrimination):
        value = function(judge, label).value
        for other in (function(*swapped), function(judge[::-1], label[::-1])):
            assert other.value == pytest.approx(value, nan_ok=True)
        assert math.isnan(value) or 0 <= value <= 1


def test_agreement_counts_ties_apart():
    score = agreement([1.0, 0.2, 0.5, 0.9, NO], [1.0, 1.0, 1.0, 0.5, 0.0]).score()
    assert (score.value, score.n) == (0.5, 2)
    assert "2 pairs with a tie left out" in score.note


def test_concordance_is_the_area_under_the_roc_curve_and_its_generalisation_to_levels():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 80)
    value = np.round(label + rng.normal(size=80), 1)  # with ties
    assert concordance(value, label) == pytest.approx(roc_auc_score(label, value))
    levels = rng.integers(1, 6, 50)
    value = np.round(levels + 2 * rng.normal(size=50))
    pairs = [(i, j) for i in range(50) for j in range(50) if levels[i] < levels[j]]
    wins = [(value[i] < value[j]) + (value[i] == value[j]) / 2 for i, j in pairs]
    assert concordance(value, levels) == pytest.approx(np.mean(wins))


def test_a_judge_without_differing_labels_has_no_discrimination():
    score = discrimination([1.0, 2.0, 5.0], [3.0, 3.0, 3.0], pairs=False).score()
    assert math.isnan(score.value)
    assert score.note == "no two items with different labels"
    assert discrimination([0.9, 0.1, 0.5], [1.0, 0.0, 0.5]).value == 1.0
