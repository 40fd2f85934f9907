"""Intervals: exact where theory is exact, right coverage where it is not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from synthdiv.measures.intervals import (
    NORMAL_975,
    linearised,
    mean_interval,
    median_interval,
    set_interval,
    spread_interval,
    subsamples,
)


def test_mean_interval_is_the_t_interval():
    values = np.random.default_rng(0).normal(3, 2, size=17)
    expected = stats.t.interval(0.95, 16, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_mean_interval_undefined(values):
    assert np.isnan(mean_interval(values)).all()


def test_mean_interval_covers():
    rng = np.random.default_rng(1)
    ends = np.array([mean_interval(rng.exponential(size=30) + 5) for _ in range(1000)])
    assert 0.90 <= ((ends[:, 0] <= 6) & (ends[:, 1] >= 6)).mean() <= 0.97


def test_linearised_mean_is_the_pooled_ratio():
    a, b = np.array([1.0, 5.0, 2.0, 9.0]), np.array([2.0, 3.0, 1.0, 7.0])
    assert linearised(a, b).mean() == pytest.approx(a.sum() / b.sum())
    assert linearised(a, np.full(4, 2.0)) == pytest.approx(a / 2)  # equal denominators: an ordinary mean
    assert np.isnan(linearised(a, np.zeros(4))).all()


def test_linearised_ratio_covers():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(1000):
        size = rng.integers(1, 20, 60)
        low, high = mean_interval(linearised(2 * size + rng.normal(0, size), size))
        hits += low <= 2 <= high
    assert 0.92 <= hits / 1000 <= 0.97


def test_median_interval_from_order_statistics():
    assert median_interval([5, 1, 9, 2, 8, 3, 7, 4, 6, 10]) == (2, 9)  # P(B(10, 1/2) <= 1) = .011, <= 2 is .055
    assert median_interval(range(6)) == (0, 5)
    assert np.isnan(median_interval(range(5))).all()
    assert np.isnan(median_interval([*range(9), math.nan])).all()


def test_median_interval_covers_at_least_its_level():
    rng = np.random.default_rng(3)
    ends = np.array([median_interval(rng.exponential(size=40)) for _ in range(1000)])
    assert 0.94 <= ((ends[:, 0] <= math.log(2)) & (ends[:, 1] >= math.log(2))).mean() <= 0.99


@pytest.mark.parametrize(("groups", "kept"), [(2, 1), (3, 1), (8, 4), (9, 8)])
def test_subsamples_never_repeat_a_group(groups, kept):
    chosen = subsamples(groups, kept, seed=5, replicates=30)
    assert chosen.shape == (30, kept)
    assert (np.diff(chosen, axis=1) > 0).all()
    assert set(chosen.ravel()) == set(range(groups))
    assert (chosen == subsamples(groups, kept, seed=5, replicates=30)).all()
    assert (chosen != subsamples(groups, kept, seed=6, replicates=30)).any()


@pytest.mark.parametrize(("groups", "kept"), [(6, 3), (7, 3), (7, 5), (5, 4)])
def test_all_subsamples_give_the_exact_variance_of_a_mean(groups, kept):
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 0.5])[:groups]
    drawn = [values[list(chosen)].mean() for chosen in itertools.combinations(range(groups), kept)]
    low, high = spread_interval(values.mean(), drawn, groups, kept)
    variance_of_mean = values.var(ddof=1) / groups * len(drawn) / (len(drawn) - 1)
    assert (high - low) / 2 == pytest.approx(NORMAL_975 * math.sqrt(variance_of_mean), rel=1e-12)
    assert (high + low) / 2 == pytest.approx(values.mean())


@pytest.mark.parametrize("kept", [None, 45])
def test_set_interval_of_a_vector_covers_each_entry(kept):
    rng = np.random.default_rng(4)
    hits = np.zeros(2)
    for seed in range(300):
        x = rng.normal(size=(50, 2)) * [1, 10]
        low, high = set_interval(lambda i, x=x: x[i].mean(axis=0), 50, seed, kept=kept)
        hits += (low <= 0) & (high >= 0)
    assert (hits / 300 >= 0.90).all()
    assert (hits / 300 <= 0.98).all()


def test_the_number_of_distinct_values_keeps_its_value_inside():
    """A bootstrap of a count of distinct values lies below it; an interval around the value cannot."""
    draws = np.random.default_rng(6).integers(0, 400, 200)
    distinct = len(set(draws))
    low, high = set_interval(lambda i: len(set(draws[i])), 200, seed=0)
    resampled = [len(set(np.random.default_rng(s).choice(draws, 200))) for s in range(200)]
    assert low < distinct < high
    assert max(resampled) < distinct


def test_a_difference_on_common_halves_is_narrower_than_two_intervals():
    rng = np.random.default_rng(7)
    prompt = rng.normal(0, 10, 40)
    student, vanilla = prompt + rng.normal(size=40), prompt + rng.normal(size=40)
    low, high = set_interval(lambda i: student[i].mean() - vanilla[i].mean(), 40, seed=0)
    alone = np.diff(set_interval(lambda i: student[i].mean(), 40, seed=0))[0]
    assert 0 < high - low < alone / 3
    assert set_interval(lambda i: student[i].mean() - student[i].mean(), 40, seed=0) == (0, 0)


def test_set_interval_takes_half_unless_told():
    sizes = []
    set_interval(lambda i: float(sizes.append(len(i)) or len(i)), 11, seed=0, replicates=3)
    assert sizes == [11, 5, 5, 5]


def test_an_undefined_subsample_leaves_no_interval():
    assert np.isnan(set_interval(lambda i: 1.0 if 0 in i else math.nan, 10, seed=0)).all()
    assert np.isnan(set_interval(lambda i: math.nan if len(i) == 10 else 1.0, 10, seed=0)).all()
    assert np.isnan(set_interval(lambda i: 1.0, 1, seed=0)).all()
    assert np.isnan(set_interval(lambda i: 1.0, 10, seed=0, replicates=1)).all()
    assert np.isnan(set_interval(lambda i: 1.0, 10, seed=0, kept=10)).all()
    low, high = set_interval(lambda i: [len(i), math.inf], 10, seed=0)
    assert (low[0], high[0]) == (10, 10)
    assert np.isnan([low[1], high[1]]).all()
