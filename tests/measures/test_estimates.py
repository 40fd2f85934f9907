"""From a measure to a score: the jackknife, paired differences, intervals that fit the measure, and reasons."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.measures.estimates import (
    FEW_PROMPTS,
    FRAGILE,
    NO_SPREAD,
    ON_BOUND,
    SHARE,
    Estimate,
    Measure,
    estimates,
    jackknife,
    mean_of,
    prompt_groups,
    prompt_means,
    prompt_numbers,
    set_scores,
    undefined,
)
from tests.measures.material import mean_interval

X = Measure("x", "words", True, "too few words")
RATE = Measure("rate", SHARE, None, "no answer", 0, 1)
LEVEL = Measure("level", "share", None, "no answer", 0, 1)


def score_of(statistic, units, measure=X, seed=0):
    return set_scores([measure], lambda keep: [statistic(keep)], None, units, seed)[0]


@given(st.integers(1, 90), st.integers(2, 25), st.integers(0, 2**32))
def test_groups_are_balanced_in_every_prefix_whatever_follows(prompts, groups, seed):
    group = prompt_groups(prompts, seed, groups)
    counts = np.cumsum(group[:, None] == np.arange(min(groups, prompts)), axis=0)
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    if prompts >= groups:
        assert (prompt_groups(prompts + 30, seed, groups)[:prompts] == group).all()


def test_groups_are_random():
    """Every prompt of a deal may fall into every group, and deals are shuffled apart from each other."""
    group = np.array([prompt_groups(40, seed) for seed in range(400)])
    assert len(np.unique(group[:, 0])) == 20
    assert abs(np.corrcoef(group[:, 0], group[:, 20])[0, 1]) < 0.2


@pytest.mark.parametrize("units", [13, 60])
def test_the_jackknife_of_a_mean_is_the_t_interval_of_group_means(units):
    values = np.random.default_rng(5).normal(size=(units, 2)) * [1, 100]
    group = prompt_groups(units, 7)
    scores = set_scores([X, X], lambda keep: values[keep].mean(axis=0), None, units, 7)
    for column, score in enumerate(scores):
        means = [values[group == g, column].mean() for g in range(group.max() + 1)]
        assert (score.low, score.high) == pytest.approx(mean_interval(means), rel=1e-9)


@pytest.mark.parametrize("units", [25, 31, 50, 150])
def test_a_measure_that_grows_with_the_units_is_not_wider_for_groups_of_two_sizes(units):
    """Replicates differ in size by one unit at most; that must be little beside what the units have to say."""
    rng, hits, widths = np.random.default_rng(9), 0, []
    for seed in range(300):
        x = rng.normal(size=units)
        score = score_of(lambda keep, x=x: x[keep].mean() + 9 * np.log2(keep.sum()), units, seed=seed)
        hits += score.low <= 9 * np.log2(units) <= score.high
        widths.append((score.high - score.low) / np.diff(mean_interval(x))[0])
    assert 0.92 <= hits / 300 <= 0.98
    assert np.mean(widths) < 1.15


def test_a_smooth_function_of_means_covers():
    rng, hits = np.random.default_rng(8), 0
    for seed in range(400):
        x, y = rng.exponential(size=60) + 1, rng.exponential(size=60) + 2
        score = score_of(lambda keep, x=x, y=y: x[keep].sum() / y[keep].sum(), 60, X._replace(low=0), seed)
        hits += score.low <= 2 / 3 <= score.high
    assert 0.92 <= hits / 400 <= 0.98


def test_the_number_of_distinct_values_keeps_its_value_inside():
    """A bootstrap of a count of distinct values lies below it; an interval around the value cannot."""
    draws = np.random.default_rng(6).integers(0, 400, 200)
    score = score_of(lambda keep: len(set(draws[keep])), 200)
    resampled = [len(set(np.random.default_rng(s).choice(draws, 200))) for s in range(200)]
    assert max(resampled) < score.low < score.value == len(set(draws)) < score.high


def test_a_statistic_is_called_once_with_all_and_once_without_each_group():
    seen = []
    jackknife(lambda keep: seen.append(keep.tolist()) or [1.0], np.array([3, 3, 2]))
    assert seen[0] == [True] * 4
    assert sorted(seen[1:]) == [[False, True, True, True], [True, False, True, True], [True, True, False, True]]
    seen.clear()
    value, pseudo = jackknife(lambda keep: seen.append(1) or [math.nan], np.array([3, 3]))
    assert (len(seen), len(pseudo)) == (1, 0)
    assert math.isnan(value[0])


def test_an_empty_group_changes_nothing():
    x = np.random.default_rng(0).normal(size=40)
    group = prompt_groups(40, 0)
    one, other = (
        jackknife(lambda keep: [x[keep[group]].mean()], np.bincount(group, minlength=size))[1] for size in (20, 21)
    )
    assert other[:20] * 20 / 21 == pytest.approx(one * 20 / 21, rel=0.1)
    assert other[20] == pytest.approx(x.mean())


def test_same_seed_same_interval():
    values = np.random.default_rng(6).normal(size=90)
    one, same, other = (score_of(lambda keep: np.median(values[keep]), 90, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.value == other.value
    assert one.low != other.low


def test_a_difference_is_paired_and_has_its_name():
    prompt = np.random.default_rng(7).normal(0, 10, 40)
    noise = np.random.default_rng(8).normal(size=(2, 40))
    group = prompt_groups(40, 0)
    for make in (
        lambda x: mean_of(X, x),
        lambda x: estimates([X], *jackknife(lambda keep: [x[keep[group]].mean()], np.bincount(group)), 40)[0],
    ):
        student, vanilla = map(make, prompt + noise)
        alone, gap = student.score(), student.minus(vanilla).score()
        assert 0 < gap.high - gap.low < (alone.high - alone.low) / 3
        assert (gap.name, gap.value) == ("x-vanilla", pytest.approx(student.value - vanilla.value))
        nothing = student.minus(student).score()
        assert (nothing.value, nothing.note) == (0, NO_SPREAD)


def test_a_difference_from_an_undefined_arm_has_its_reason():
    whole, lacking = mean_of(X, [3.0, 4.0, 5.0]), undefined(X, "3 words, the budget needs 9", 4)
    for gap in (whole.minus(lacking), lacking.minus(whole)):
        score = gap.with_note("2 left out").score()
        assert np.isnan([score.value, score.low, score.high]).all()
        assert score.note == "3 words, the budget needs 9; 2 left out"
    both = lacking.minus(replace(lacking, reason="nothing")).score()
    assert both.note == "3 words, the budget needs 9; nothing"


def test_a_difference_is_of_the_prompts_that_both_arms_have():
    gap = mean_of(X, [1.0, math.nan, 4.0, 7.0]).minus(mean_of(X, [0.0, 1.0, math.nan, 1.0])).score()
    assert (gap.value, gap.n) == (3.5, 2)
    assert gap.note == "2 of 4 prompts left out: too few words"
    infinite = mean_of(X, [math.inf, 1.0]).minus(mean_of(X, [1.0, 1.0])).score()
    assert (math.isnan(infinite.value), infinite.note) == (True, "infinite in one of the arms")


@pytest.mark.parametrize(
    ("estimate", "note"),
    [
        (Estimate(X, math.nan, np.array([1.0, 2.0]), 9), "too few words"),
        (Estimate(X, math.inf, np.array([1.0, 2.0]), 9, note="infinite"), "infinite"),
        (Estimate(X, 3.0, np.array([1.0, math.inf]), 9), FRAGILE),
        (Estimate(X, 3.0, np.array([1.0, math.nan]), 9), FRAGILE),
        (Estimate(X, 3.0, np.array([1.0]), 9), FEW_PROMPTS),
        (Estimate(X, 3.0, np.array([]), 9, no_interval="no interval: why"), "no interval: why"),
        (Estimate(X, 3.0, np.array([2.0, 2.0]), 9), NO_SPREAD),
        (Estimate(LEVEL, 1.0, np.array([1.0, 1.0]), 9), ON_BOUND),
        (Estimate(LEVEL, 1.016, np.array([1.0, 0.9]), 9), ON_BOUND),
        (mean_of(X, []), "no prompts"),
        (mean_of(X, [math.nan] * 2), "2 of 2 prompts left out: too few words"),
        (mean_of(X, [1.0] * 5, median=True), "no interval: 5 prompts, a median needs 6"),
    ],
)
def test_no_value_and_no_interval_have_a_reason(estimate, note):
    score = estimate.score()
    assert np.isnan([score.low, score.high]).all()
    assert score.note == note


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.booleans(), st.sampled_from([RATE, LEVEL]))
def test_values_and_intervals_are_possible(values, whole, measure):
    x = np.array(values)
    made = Estimate(measure, float(x.mean()) * 1.001, x, len(x)) if whole else mean_of(measure, x)
    for score, low, high in ((made.score(), 0, 1), (made.minus(replace(made, units=x[::-1])).score(), -1, 1)):
        assert low <= score.value <= high
        if not score.note:
            assert low <= score.low < score.high <= high


def test_a_rate_at_its_edge_has_the_interval_of_that_many_prompts():
    """Never of width 0: no hit in 805 does not say that there are none."""
    for value, ends in ((0.0, (0, 1 - 0.025 ** (1 / 805))), (1.0, (0.025 ** (1 / 805), 1))):
        for measure in (RATE, LEVEL):
            score = mean_of(measure, [value] * 805, trials=8 * 805).score()
            assert (score.low, score.high) == pytest.approx(ends)


def test_a_rate_counts_the_trials_that_its_variance_has():
    """Equal answers within a prompt count as one, independent ones as many."""
    rng = np.random.default_rng(0)
    once = (rng.random(200) < 0.3).astype(float)
    width = {}
    for name, means in (("copies", once), ("independent", (rng.random((200, 8)) < 0.3).mean(axis=1))):
        score = mean_of(RATE, means, trials=1600).score()
        width[name] = score.high - score.low
    assert 2 < width["copies"] / width["independent"] < 3.5


@pytest.mark.parametrize(("rate", "prompts"), [(1 / 805, 805), (0.02, 25), (0.98, 40), (0.5, 25)])
def test_rates_cover(rate, prompts):
    rng = np.random.default_rng(3)
    scores = [mean_of(RATE, (rng.random(prompts) < rate).astype(float)).score() for _ in range(400)]
    assert np.mean([score.low <= rate <= score.high for score in scores]) >= 0.94


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-9, 9) | st.just(math.nan)), max_size=20))
def test_prompt_means_are_the_means_of_defined_values(pairs):
    prompt, values = np.array([p for p, _ in pairs], dtype=int), [x for _, x in pairs]
    defined = [[x for p, x in pairs if p == number and not math.isnan(x)] for number in range(7)]
    expected = [np.mean(x) if x else math.nan for x in defined]
    assert prompt_means(values, prompt, 7) == pytest.approx(expected, nan_ok=True)
    assert len(prompt_means(values, prompt)) == max(prompt, default=-1) + 1


def test_prompts_are_numbered_as_they_appear():
    assert prompt_numbers(["b", "a", "b", 3], 4).tolist() == [0, 1, 0, 2]
    assert prompt_numbers(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="3 answers and 2 prompts"):
        prompt_numbers(["a", "b"], 3)
    with pytest.raises(ValueError, match="a prompt id is NaN"):
        prompt_numbers(["a", math.nan], 2)


def test_rounding_is_no_spread():
    noise = np.array([1e-17, -1e-17, 2e-17, 0.0])
    score = mean_of(Measure("bias", "points", None, "no pair"), noise).score()
    assert math.isnan(score.low)
    assert NO_SPREAD in score.note
