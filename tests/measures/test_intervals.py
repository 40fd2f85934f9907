"""Intervals: exact where theory is exact, right coverage where it is not, and never outside what is possible."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from synthdiv.measures.intervals import (
    bounded_interval,
    half_width,
    median_interval,
    pseudo_values,
    share_interval,
)
from tests.measures.material import mean_interval


def test_half_the_width_is_that_of_the_t_interval():
    values = np.random.default_rng(0).normal(3, 2, size=17)
    low, high = mean_interval(values)
    assert half_width(values) == pytest.approx((high - low) / 2, rel=1e-12)


def test_pseudo_values_have_the_mean_of_the_pooled_ratio():
    a, b = np.array([1.0, 5.0, 2.0, 9.0]), np.array([2.0, 3.0, 1.0, 7.0])
    assert pseudo_values(a, b).mean() == pytest.approx(a.sum() / b.sum())
    assert pseudo_values(a, np.full(4, 2.0)) == pytest.approx(a / 2)  # equal denominators: an ordinary mean
    assert np.isnan(pseudo_values(a, np.zeros(4))).all()


def test_median_interval_from_order_statistics():
    assert median_interval([5, 1, 9, 2, 8, 3, 7, 4, 6, 10]) == (2, 9)  # P(B(10, 1/2) <= 1) = .011, <= 2 is .055
    assert median_interval(range(6)) == (0, 5)
    assert np.isnan(median_interval(range(5))).all()
    assert np.isnan(median_interval([*range(9), math.nan])).all()


@pytest.mark.parametrize(("hits", "trials"), [(0, 25), (25, 25), (1, 805), (12, 30)])
def test_share_interval_is_that_of_clopper_and_pearson(hits, trials):
    expected = stats.binomtest(hits, trials).proportion_ci(method="exact")
    assert share_interval(hits / trials, trials) == pytest.approx((expected.low, expected.high), rel=1e-9)


@given(st.sampled_from([0.0, 1.0]) | st.floats(1e-6, 1 - 1e-6), st.floats(0.5, 1e6))
def test_a_share_has_an_interval_with_width_around_it(share, trials):
    low, high = share_interval(share, trials)
    assert 0 <= low <= share <= high <= 1
    assert low < high


@given(st.floats(0.001, 0.999), st.floats(1e-9, 1e3), st.sampled_from([(0, 1), (0, math.inf), (-math.inf, 1)]))
def test_an_interval_stays_between_its_bounds(value, half, bounds):
    low, high = bounded_interval(value, half, *bounds)
    assert bounds[0] <= low <= value <= high <= bounds[1]
    if half < 1e-7:  # near the value every scale is straight
        assert (low, high) == pytest.approx((value - half, value + half), rel=1e-3)


def test_scales_are_logarithm_and_logit():
    assert bounded_interval(2, 1, 0, math.inf) == pytest.approx((2 * math.exp(-0.5), 2 * math.exp(0.5)))
    odds = math.log(0.8 / 0.2)
    ends = [1 / (1 + math.exp(-(odds + step))) for step in (-0.1 / 0.16, 0.1 / 0.16)]
    assert bounded_interval(80, 10, 0, 100) == pytest.approx([100 * end for end in ends])
    assert bounded_interval(-2, 1, -math.inf, 0) == pytest.approx((-2 * math.exp(0.5), -2 * math.exp(-0.5)))
    assert bounded_interval(-2, 1, -math.inf, math.inf) == (-3, -1)


def ratio_interval(rng):
    size = rng.integers(1, 20, 60)
    return mean_interval(pseudo_values(2 * size + rng.normal(0, size), size))


def positive_interval(rng):
    values = rng.exponential(size=30)
    return bounded_interval(float(values.mean()), half_width(values), 0, math.inf)


@pytest.mark.parametrize(
    ("interval", "truth", "least", "most"),
    [
        (lambda rng: mean_interval(rng.exponential(size=30) + 5), 6, 0.90, 0.97),
        (positive_interval, 1, 0.92, 0.98),
        (ratio_interval, 2, 0.92, 0.97),
        (lambda rng: median_interval(rng.exponential(size=40)), math.log(2), 0.94, 0.99),  # at least 95 %
    ],
    ids=["mean", "positive", "ratio", "median"],
)
def test_intervals_of_means_ratios_and_medians_cover(interval, truth, least, most):
    rng = np.random.default_rng(1)
    low, high = np.transpose([interval(rng) for _ in range(1000)])
    assert least <= ((low <= truth) & (truth <= high)).mean() <= most
