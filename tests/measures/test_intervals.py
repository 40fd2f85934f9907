"""Intervals: exact where theory is exact, right coverage where it is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from synthdiv.measures.intervals import (
    NO_INTERVAL,
    Jackknifed,
    Measure,
    balanced,
    jackknife_interval,
    jackknife_masks,
    jackknife_score,
    jackknife_scores,
    mean_interval,
    mean_score,
    median_interval,
    prompt_means,
    prompt_numbers,
    pseudo_values,
    set_scores,
)

KIND = {"unit": "words", "higher_is_better": True, "undefined": "too few words"}


def test_mean_interval_is_the_t_interval():
    values = np.random.default_rng(0).normal(3, 2, size=17)
    expected = stats.t.interval(0.95, 16, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_mean_interval_undefined(values):
    assert np.isnan(mean_interval(values)).all()


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


def ratio_interval(rng):
    size = rng.integers(1, 20, 60)
    return mean_interval(pseudo_values(2 * size + rng.normal(0, size), size))


@pytest.mark.parametrize(
    ("interval", "truth", "least", "most"),
    [
        (lambda rng: mean_interval(rng.exponential(size=30) + 5), 6, 0.90, 0.97),
        (ratio_interval, 2, 0.92, 0.97),
        (lambda rng: median_interval(rng.exponential(size=40)), math.log(2), 0.94, 0.99),  # at least 95 %
    ],
    ids=["mean", "ratio", "median"],
)
def test_intervals_of_means_ratios_and_medians_cover(interval, truth, least, most):
    rng = np.random.default_rng(1)
    low, high = np.transpose([interval(rng) for _ in range(1000)])
    assert least <= ((low <= truth) & (truth <= high)).mean() <= most


@given(st.integers(2, 90), st.integers(2, 25), st.integers(0, 2**32))
def test_masks_leave_each_unit_out_once_and_every_prefix_balanced(units, groups, seed):
    kept = jackknife_masks(units, seed, groups)
    assert kept.shape == (min(groups, units), units)
    assert ((~kept).sum(axis=0) == 1).all()
    left_out = np.cumsum(~kept, axis=1)  # of each group among the first 1, 2, .. units
    assert (left_out.max(axis=0) - left_out.min(axis=0)).max() <= 1
    assert (kept == jackknife_masks(units, seed, groups)).all()


def test_masks_are_random():
    """Every unit of a deal may fall into every group, and deals are shuffled apart from each other."""
    group = np.array([(~jackknife_masks(40, seed)).argmax(axis=0) for seed in range(400)])
    assert len(np.unique(group[:, 0])) == 20
    assert abs(np.corrcoef(group[:, 0], group[:, 20])[0, 1]) < 0.2
    assert (group[0] != group[1]).any()


@pytest.mark.parametrize("units", [0, 1])
def test_no_masks_below_two_units(units):
    assert jackknife_masks(units, seed=0).shape == (0, units)


def left_out(values, seed=0, groups=20):
    return np.array([values[mask].mean(axis=0) for mask in jackknife_masks(len(values), seed, groups)])


def test_one_unit_a_group_gives_the_t_interval_of_a_mean():
    values = np.random.default_rng(5).normal(size=13)
    assert jackknife_interval(values.mean(), left_out(values)) == pytest.approx(mean_interval(values), rel=1e-10)


def test_equal_groups_give_the_t_interval_of_the_group_means():
    values = np.random.default_rng(5).normal(size=(60, 2)) * [1, 100]
    group = [values[~mask].mean(axis=0) for mask in jackknife_masks(60, seed=7)]
    expected = np.transpose([mean_interval([mean[column] for mean in group]) for column in (0, 1)])
    assert np.array(jackknife_interval(values.mean(axis=0), left_out(values, 7))) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("units", "groups"), [(13, 20), (60, 20), (60, 6)])
def test_equal_groups_need_no_adjustment(units, groups):
    values = np.random.default_rng(5).normal(size=(units, 2)) * [1, 100]
    drawn, mean, kept = left_out(values, 3, groups), values.mean(axis=0), jackknife_masks(units, 3, groups)
    even = balanced(mean, drawn, kept)
    assert even - even.mean(axis=0) == pytest.approx(drawn - drawn.mean(axis=0), rel=1e-9)
    assert balanced(mean[0], drawn[:, 0], kept) == pytest.approx(even[:, 0], rel=1e-12)
    assert balanced(mean, np.empty((0, 2)), jackknife_masks(1, 3)).shape == (0, 2)


@pytest.mark.parametrize("units", [25, 31, 50, 150])
def test_a_measure_that_grows_with_the_units_is_not_wider_for_groups_of_two_sizes(units):
    """Replicates differ in size by one unit at most; that must be little beside what the units have to say."""
    rng, hits, widths = np.random.default_rng(9), 0, []
    for seed in range(400):
        x = rng.normal(size=units)
        score = jackknife_score(
            "x", lambda keep, x=x: x[keep].mean() + 9 * np.log2(keep.sum()), units, seed=seed, **KIND
        )
        hits += score.low <= 9 * np.log2(units) <= score.high
        widths.append((score.high - score.low) / np.diff(mean_interval(x))[0])
    assert 0.92 <= hits / 400 <= 0.98
    assert np.mean(widths) < 1.15


@pytest.mark.parametrize("units", [7, 50, 119])
def test_jackknife_of_a_vector_covers_each_entry(units):
    """Also where groups differ in size: 50 units make ten groups of two and ten of three."""
    rng = np.random.default_rng(4)
    ends = []
    for seed in range(600):
        x = rng.normal(size=(units, 2)) * [1, 10]
        ends.append(jackknife_interval(x.mean(axis=0), left_out(x, seed)))
    low, high = np.swapaxes(ends, 0, 1)
    covered = ((low <= 0) & (high >= 0)).mean(axis=0)
    assert (covered >= 0.92).all(), covered
    assert (covered <= 0.98).all(), covered


def test_a_smooth_function_of_means_covers():
    rng = np.random.default_rng(8)
    hits = 0
    for seed in range(500):
        x, y = rng.exponential(size=60) + 1, rng.exponential(size=60) + 2
        score = jackknife_score("ratio", lambda keep, x=x, y=y: x[keep].sum() / y[keep].sum(), 60, seed=seed, **KIND)
        hits += score.low <= 2 / 3 <= score.high
    assert 0.92 <= hits / 500 <= 0.98


def test_the_number_of_distinct_values_keeps_its_value_inside():
    """A bootstrap of a count of distinct values lies below it; an interval around the value cannot."""
    draws = np.random.default_rng(6).integers(0, 400, 200)
    score = jackknife_score("distinct", lambda keep: len(set(draws[keep])), 200, **KIND)
    resampled = [len(set(np.random.default_rng(s).choice(draws, 200))) for s in range(200)]
    assert score.low < score.value == len(set(draws)) < score.high
    assert max(resampled) < score.value


def test_a_difference_on_common_masks_is_narrower_than_two_intervals():
    rng = np.random.default_rng(7)
    prompt = rng.normal(0, 10, 40)
    student, vanilla = (
        Jackknifed(x.mean(keepdims=True), left_out(x)[:, None], 40) for x in prompt + rng.normal(size=(2, 40))
    )
    measures = [Measure("mean", *KIND.values())]
    alone, gap = set_scores(measures, student)[0], set_scores(measures, student.minus(vanilla), "-vanilla")[0]
    assert 0 < gap.high - gap.low < (alone.high - alone.low) / 3
    assert (gap.name, gap.value) == ("mean-vanilla", student.value[0] - vanilla.value[0])
    nothing = set_scores(measures, student.minus(student))[0]
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_a_difference_from_an_undefined_arm_has_its_reason():
    whole = Jackknifed(np.array([3.0]), np.array([[2.0], [4.0]]), 9)
    lacking = Jackknifed(np.array([math.nan]), np.empty((0, 1)), 4, "3 words, the budget needs 9")
    for gap in (whole.minus(lacking), lacking.minus(whole)):
        score = set_scores([Measure("x", *KIND.values())], gap, note="2 left out")[0]
        assert np.isnan([score.value, score.low, score.high]).all()
        assert (score.n, score.note) == (4, "3 words, the budget needs 9; 2 left out")
    assert lacking.minus(lacking).missing_reason == lacking.missing_reason
    assert (
        lacking.minus(lacking._replace(missing_reason="nothing")).missing_reason == f"{lacking.missing_reason}; nothing"
    )


def test_set_scores_give_the_reason_for_no_value_and_no_interval():
    names = [Measure(name, *KIND.values()) for name in "abc"]
    drawn = np.array([[1.0, 2.0, math.nan], [3.0, math.inf, 1.0], [5.0, 4.0, 1.0]])
    a, b, c = set_scores(names, Jackknifed(np.array([3.0, 3.0, math.nan]), drawn, 30), "@words", "1 left out")
    assert (a.name, a.n, a.unit, a.higher_is_better, a.note) == ("a@words", 30, "words", True, "1 left out")
    assert a.low < 3 < a.high
    assert (b.value, b.note) == (3, f"{NO_INTERVAL}; 1 left out")
    assert np.isnan([b.low, b.high, c.value, c.low, c.high]).all()
    assert c.note == "too few words; 1 left out"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_undefined_value_has_no_interval(value):
    assert np.isnan(jackknife_interval(value, np.ones(20))).all()


def test_an_undefined_replicate_leaves_no_interval():
    assert np.isnan(jackknife_interval(1.0, [1.0, math.nan, 2.0])).all()
    assert np.isnan(jackknife_interval(1.0, [1.0, 2.0, math.inf])).all()
    low, high = jackknife_interval([1.0, 1.0], [[1.0, math.inf], [1.0, 2.0]])
    assert (low[0], high[0]) == (1, 1)
    assert np.isnan([low[1], high[1]]).all()


@pytest.mark.parametrize("drawn", [[], [1.0]])
def test_no_interval_below_two_replicates(drawn):
    assert np.isnan(jackknife_interval(1.0, drawn)).all()
    assert np.isnan(jackknife_interval([1.0, 2.0], [[1.0, 1.0]][: len(drawn)])).all()


def test_a_statistic_is_called_once_with_all_and_once_without_each_group():
    seen = []

    def statistic(keep):
        seen.append(int(keep.sum()))
        return 1.0, float(keep.sum())

    one, size = jackknife_scores([Measure(name, *KIND.values()) for name in "ab"], statistic, 45)
    assert seen[0] == 45
    assert sorted(seen[1:]) == [42] * 5 + [43] * 15
    assert (one.low, one.value, one.high) == (1, 1, 1)
    assert size.value == 45


def test_an_undefined_statistic_is_called_once():
    seen = []
    score = jackknife_score("x", lambda keep: seen.append(1) or math.nan, 45, **KIND)
    assert len(seen) == 1
    assert math.isnan(score.value)
    assert score.note == "too few words"


def test_same_seed_same_interval():
    values = np.random.default_rng(6).normal(size=90)

    def score(seed):
        return jackknife_score("median", lambda keep: np.median(values[keep]), 90, seed=seed, **KIND)

    assert score(1) == score(1)
    assert score(1).value == score(2).value
    assert score(1).low != score(2).low


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-9, 9) | st.just(math.nan)), max_size=20))
def test_prompt_means_are_the_means_of_defined_values(pairs):
    prompt, values = np.array([p for p, _ in pairs], dtype=int), [x for _, x in pairs]
    there = [[x for p, x in pairs if p == number and not math.isnan(x)] for number in range(7)]
    expected = [np.mean(x) if x else math.nan for x in there]
    assert prompt_means(values, prompt, 7) == pytest.approx(expected, nan_ok=True)
    assert len(prompt_means(values, prompt)) == max(prompt, default=-1) + 1


def test_mean_score_counts_the_prompts_that_have_a_value():
    score = mean_score("x", [1.0, math.nan, 4.0, 7.0], "words", None, "no answer")
    assert (score.value, score.n, score.note) == (4, 3, "1 of 4 prompts left out: no answer")
    assert (score.low, score.high) == mean_interval([1, 4, 7])
    assert mean_score("x", [2.0], "", None, "").note == "no interval: one prompt"
    for values, note in (([], "no prompts"), ([math.nan] * 2, "2 of 2 prompts left out: no answer")):
        nothing = mean_score("x", values, "", None, "no answer")
        assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
        assert (nothing.n, nothing.note) == (0, note)


def test_prompts_are_numbered_as_they_appear():
    assert prompt_numbers(["b", "a", "b", 3], 4).tolist() == [0, 1, 0, 2]
    assert prompt_numbers(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="3 answers and 2 prompts"):
        prompt_numbers(["a", "b"], 3)
