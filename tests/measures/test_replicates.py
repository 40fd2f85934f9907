"""Comparisons of arms: closed forms against scipy and statsmodels, known power, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.power import TTestPower

from synthdiv.measures.multiplicity import HOLM, adjusted
from synthdiv.measures.replicates import (
    ENOUGH,
    Effect,
    ReplicateError,
    best_on_others,
    bootstrap_interval,
    detectable,
    effect,
    expected,
    false_positive_rate,
    mixture_excess,
    power_of_equivalence,
    replicate_error,
    smallest_margin,
)
from tests.measures.simulated_replicates import LEAST, RATIOS, REPLICATES, against_best, coverage, uneven


def table(prompts: int = 40, replicates: int = 5, model: float = 1.0, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (
        0.5 + random.normal(size=(prompts, 1)) + model * random.normal(size=(1, replicates))
        + random.normal(size=(prompts, replicates))
    )  # fmt: skip


def test_the_variance_is_that_of_prompts_and_of_models() -> None:
    d = table()
    ms_p, ms_r = 5 * d.mean(axis=1).var(ddof=1), 40 * d.mean(axis=0).var(ddof=1)
    made = effect(d)
    assert made.value == pytest.approx(d.mean())
    assert made.error == pytest.approx(math.sqrt((ms_p + ms_r) / 200))
    assert (made.df, made.replicates, made.n) == (4, 5, 40)
    half = stats.t.ppf(0.975, 4) * made.error
    assert made.interval() == pytest.approx((d.mean() - half, d.mean() + half))
    assert made.p() == pytest.approx(2 * stats.t.sf(abs(d.mean()) / made.error, 4))


def test_where_prompts_vary_more_the_degrees_of_freedom_are_of_the_sum() -> None:
    d = table(model=0.0)
    ms_p, ms_r = 5 * d.mean(axis=1).var(ddof=1), 40 * d.mean(axis=0).var(ddof=1)
    assert ms_p > ms_r
    assert effect(d).df == pytest.approx((ms_p + ms_r) ** 2 / (ms_p**2 / 39 + ms_r**2 / 4))


def test_a_measure_of_whole_sets_has_the_paired_t_test_of_replicates() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 6))
    made, oracle = effect((one - other)[None]), stats.ttest_rel(one, other)
    assert made.p() == pytest.approx(oracle.pvalue)
    assert made.interval() == pytest.approx(tuple(oracle.confidence_interval()))
    assert made.n == 0


def test_a_prompt_without_a_value_in_one_replicate_is_left_out() -> None:
    d = table()
    d[3, 1] = math.nan
    assert effect(d) == effect(np.delete(d, 3, axis=0))


@pytest.mark.parametrize("replicates", [1, 2])
def test_fewer_than_three_replicates_have_no_interval(replicates: int) -> None:
    made = effect(table(replicates=replicates))
    assert all(map(math.isnan, (*made.interval(), made.p(), made.p_within(1.0), detectable(made.error, made.df))))
    assert made.note.startswith("descriptive")


def test_replicates_without_variation_have_no_interval() -> None:
    assert math.isnan(effect(np.full((1, 4), 0.3)).error)
    assert math.isnan(effect(np.full((9, 4), math.nan)).value)


def test_the_pooled_error_is_the_interaction_of_arms_and_replicates() -> None:
    random = np.random.default_rng(3)
    arms = random.normal(size=(6, 1)) + random.normal(size=(1, 4)) + random.normal(size=(6, 4))
    error = replicate_error(arms)
    import pandas
    from statsmodels.formula.api import ols

    frame = pandas.DataFrame([(a, r, arms[a, r]) for a in range(6) for r in range(4)], columns=["a", "r", "y"])
    assert error.mean_square == pytest.approx(ols("y ~ C(a) + C(r)", frame).fit().mse_resid)
    assert error.df == 15
    assert error.sd == pytest.approx(math.sqrt(arms.var(axis=1, ddof=1).mean()))
    made = effect((arms[0] - arms[1])[None], error)
    assert (made.pooled, made.df) == (True, 15)
    assert made.error == pytest.approx(math.sqrt(2 * error.mean_square / 4))


def test_errors_that_differ_between_arms_are_not_pooled() -> None:
    random = np.random.default_rng(0)
    error = replicate_error(random.normal(size=(4, 8)) * np.array([[0.01], [1], [1], [5]]))
    made = effect(random.normal(size=(1, 8)), error)
    assert not made.pooled
    assert made.df == 7
    assert made.note.startswith("not pooled: errors of arms differ (p = ")


@pytest.mark.parametrize(("arms", "replicates"), [(3, 3), (4, 5), (8, 3)])
def test_the_test_of_equal_errors_compares_the_noisiest_arm_with_the_others(arms: int, replicates: int) -> None:
    levels = np.random.default_rng(1).normal(size=(arms, replicates))
    levels[1] *= 9
    whole, least = replicate_error(levels), []
    for at in range(arms):
        rest = replicate_error(np.delete(levels, at, axis=0))
        one = (whole.mean_square * whole.df - rest.mean_square * rest.df) / (replicates - 1)
        least.append(2 * arms * stats.f.sf(one / rest.mean_square, replicates - 1, rest.df))
    left = levels - levels.mean(axis=0) - levels.mean(axis=1, keepdims=True) + levels.mean()
    assert whole.p == pytest.approx(min(1, *least, 2 * stats.bartlett(*left).pvalue))
    assert np.argmin(least) == 1


def test_one_noisy_arm_of_three_is_seen() -> None:
    """A small part of the simulation of docs/statistics.md: Bartlett's test alone pools 99 % of these."""
    assert uneven(3, 5, 1, 10, studies=200)[0] > 0.8
    assert uneven(3, 5, 0, 1, studies=400)[0] < 0.075, "binomial, 400 of 5 %: less than 1 %"


@pytest.mark.parametrize(("arms", "replicates"), [(3, 3), (5, 3), (8, 5)])
def test_against_one_control_holm_is_no_narrower_than_dunnett(arms: int, replicates: int) -> None:
    """In the one design that Dunnett's test is of: independent models, and one error of all arms."""
    random = np.random.default_rng(arms)
    values = random.normal(size=(arms, replicates)) + 0.8 * np.arange(arms)[:, None]
    oracle = stats.dunnett(*values[1:], control=values[0], rng=np.random.default_rng(0))
    error, df = math.sqrt(2 * values.var(axis=1, ddof=1).mean() / replicates), arms * (replicates - 1)
    made = [Effect(float(each.mean() - values[0].mean()), error, df, replicates, 0) for each in values[1:]]
    assert oracle.statistic == pytest.approx([each.value / error for each in made])
    holm = adjusted([each.p() for each in made], HOLM)
    assert min(holm) >= oracle.pvalue.min() - 1e-3, "the first step, which decides whether anything is shown"
    limits = oracle.confidence_interval(0.95)
    for each, low, high in zip(made, limits.low, limits.high, strict=True):
        first = each.interval(1 - 0.05 / len(made))
        assert first[0] <= low + 1e-2 * error
        assert first[1] >= high - 1e-2 * error


def test_power_and_detectable_effects_are_those_that_were_simulated() -> None:
    """science: six arms at three replicates, 11.3 to 3.3 standard deviations by pooling; equivalence with 80 % power
    needs margins of 2.7, 1.6 and 1.0 at 3, 5 and 10 replicates."""
    se = math.sqrt(2 / 3)
    assert [round(detectable(se, df, 0.05 / 6), 1) for df in (2, 12)] == [11.3, 3.3]
    for replicates, margin in ((3, 2.66), (5, 1.60), (10, 1.005)):
        assert power_of_equivalence(margin * math.sqrt(replicates), replicates - 1) == pytest.approx(0.8, abs=0.003)


@pytest.mark.parametrize("df", [2, 4, 30])
def test_a_detectable_effect_has_the_power_of_the_t_test(df: int) -> None:
    size = detectable(1 / math.sqrt(df + 1), df)
    assert TTestPower().power(size, df + 1, 0.05, alternative="larger") > 0.8
    assert TTestPower().power(size, df + 1, 0.05) == pytest.approx(0.8, abs=1e-3)


def test_a_test_has_two_sides_of_a_bound() -> None:
    made = Effect(2.0, 0.5, 4, 5, 0)
    assert made.one_sided(1.0) == pytest.approx((stats.t.cdf(2, 4), stats.t.sf(2, 4)))
    assert made.p(1.0) == pytest.approx(2 * stats.t.sf(2, 4))


@pytest.mark.parametrize(("singles", "replicates"), [(4, 5), (8, 10)])
def test_several_against_the_best_of_equal_singles_hold_their_level(singles: int, replicates: int) -> None:
    """A small part of the simulation of docs/statistics.md."""
    assert max(against_best(singles, replicates, studies=400)[1:]) <= 0.075, "binomial, 400 of 5 %: less than 1 %"


@pytest.mark.parametrize("model", [0.1, 3.0])
def test_a_pilot_expects_the_error_that_a_study_has(model: float) -> None:
    pilots = [expected(table(80, 10, model, seed), 5)[0] for seed in range(40)]
    assert np.mean(pilots) == pytest.approx(
        np.mean([effect(table(80, 5, model, 99 + at)).error for at in range(40)]), rel=0.1
    )
    assert expected(table(1, 10, model), 5) == (pytest.approx(table(1, 10, model).std(ddof=1) / math.sqrt(5)), 4)


def test_the_smallest_margin_has_the_power_that_is_said() -> None:
    assert power_of_equivalence(smallest_margin(2.0, 4.0, 0.01) / 2, 4.0, 0.01) == pytest.approx(0.8)


def test_equivalence_is_two_one_sided_tests() -> None:
    made, margin = Effect(0.2, 0.1, 4, 5, 0), 0.5
    oracle = max(stats.t.sf((0.2 + margin) / 0.1, 4), stats.t.cdf((0.2 - margin) / 0.1, 4))
    assert made.p_within(margin) == pytest.approx(oracle)
    low, high = made.interval(0.9)
    assert made.p_within(high) == pytest.approx(0.05)
    assert low == pytest.approx(0.4 - high)


def test_an_interval_of_a_difference_of_shares_is_within_what_is_possible() -> None:
    low, high = Effect(0.7, 0.2, 4, 5, 9, limit=1.0).interval()
    assert (low, high) == (pytest.approx(0.7 - 0.2 * stats.t.ppf(0.975, 4)), 1.0)
    assert Effect(-0.7, math.inf, 4, 5, 9, limit=1.0).interval() == (-1.0, 1.0)


def test_a_standardized_difference_has_the_interval_of_the_noncentral_t() -> None:
    size, low, high = Effect(3.0, 0.5, 4, 5, 0).standardized(1.5)
    assert size == 2.0
    for end, level in ((low, 0.975), (high, 0.025)):
        assert stats.nct.cdf(6.0, 4, end * 1.5 / 0.5) == pytest.approx(level, abs=1e-6)


def test_the_best_is_chosen_without_the_replicate_in_which_it_counts() -> None:
    singles = np.array([[2.0, 2.0, 9.0], [3.0, 3.0, 0.0]])
    assert best_on_others(singles, higher_is_better=False).tolist() == [1, 1, 0]
    assert best_on_others(singles, higher_is_better=True).tolist() == [0, 0, 1]


@settings(max_examples=30)
@given(arrays(float, 5, elements=st.floats(-9, 0)), st.integers(1, 5), st.integers(2, 6))
def test_models_that_are_the_singles_have_no_excess(answers: np.ndarray, sources: int, replicates: int) -> None:
    made, size = mixture_excess(np.tile(answers, (sources, replicates, 1)), np.tile(answers, (replicates, 1)))
    assert size == min(sources, replicates - 1)
    assert made == pytest.approx(0, abs=1e-9)


def test_a_value_that_is_too_large_on_average_is_shown_below_a_bound_only() -> None:
    large, small = (Effect(value, 0.1, 10, 5, 40, at_most=True) for value in (1.0, -1.0))
    assert (large.p(), large.p_within(9.0), large.interval()) == (1, 1, Effect(1.0, 0.1, 10, 5, 40).interval())
    assert small.p() == Effect(-1.0, 0.1, 10, 5, 40).p() < 0.001


def test_the_excess_is_the_mixture_of_singles_less_that_of_as_many_models() -> None:
    random = np.random.default_rng(0)
    singles, multi = random.normal(-3, 1, (2, 3, 50)), random.normal(-2, 1, (3, 50))
    made, size = mixture_excess(singles, multi)
    assert size == 2
    pairs = [(first, (first + 1) % 3) for first in range(3)]
    mixture = np.mean([np.log(np.exp([singles[0, a], singles[1, b]]).mean(axis=0)) for a, b in pairs], axis=0)
    models = np.mean([np.log(np.exp(multi[[a, b]]).mean(axis=0)) for a, b in pairs], axis=0)
    left = [
        np.mean([
            np.log(np.exp([singles[0, x], singles[1, y]]).mean(axis=0)) - np.log(np.exp(multi[[x, y]]).mean(axis=0))
            for x, y in ((a, b), (b, a))], axis=0)
        for a, b in ((1, 2), (0, 2), (0, 1))
    ]  # fmt: skip
    assert made == pytest.approx(3 * (mixture - models)[:, None] - 2 * np.array(left).T)


def test_a_bootstrap_of_means_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=300)
    oracle = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert bootstrap_interval(values) == pytest.approx((oracle.low, oracle.high), abs=0.01)
    assert bootstrap_interval(values + 1e6) == pytest.approx((1e6 + oracle.low, 1e6 + oracle.high), abs=0.01)


def test_equal_models_differ_in_five_percent_of_splits() -> None:
    rates = [false_positive_rate(np.random.default_rng(seed).normal(size=8)) for seed in range(60)]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.02)
    assert false_positive_rate(np.arange(40.0) % 7) == false_positive_rate(np.arange(10.0) % 7), "not all splits of 40"
    assert math.isnan(false_positive_rate(np.arange(5.0)))
    assert math.isnan(false_positive_rate(np.ones(8))), "they cannot differ: no rate of 0"


@pytest.mark.parametrize(("replicates", "ratio"), [(3, 0.1), (3, 10), (10, 1)])
def test_intervals_hold_the_truth(replicates: int, ratio: float) -> None:
    """A small part of the simulation of `make slow`."""
    share, pooled = coverage(replicates, ratio, studies=300)
    assert min(share, pooled) > LEAST - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("replicates", [each for each in REPLICATES if each >= ENOUGH])
def test_intervals_hold_the_truth_at_every_ratio(replicates: int, ratio: float) -> None:
    assert min(coverage(replicates, ratio)) > LEAST


def test_an_error_of_one_arm_is_no_error_of_others() -> None:
    error = ReplicateError(1.0, 5, 1.0, math.nan)
    assert not effect(table(), error).pooled
