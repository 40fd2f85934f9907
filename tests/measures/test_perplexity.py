"""Perplexity 2 and 1: each average is the one its name says, and nothing undefined passes for a number."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.types import DataError
from synthdiv.measures.estimates import NO_SPREAD
from synthdiv.measures.intervals import bounded_interval, median_interval
from synthdiv.measures.pairing import shuffled_prompts
from synthdiv.measures.perplexity import AnswerNLL, likelihood_scores, own_answer_scores, published_perplexity
from tests.measures.material import mean_interval

ANSWERS = st.builds(AnswerNLL, st.floats(0, 500), st.integers(1, 60), st.integers(1, 300))


def on_logs(values):
    """The t interval of a mean above 0, on the logarithmic scale."""
    low, high = mean_interval(values)
    return bounded_interval(np.mean(values), (high - low) / 2, 0, math.inf)


def arm(*answers):
    return {f"p{i}": AnswerNLL(*answer) for i, answer in enumerate(answers)}


def by_name(*arms):
    return {score.name: score for score in likelihood_scores(*arms)}


STUDENT = arm((2.0, 2, 8), (9.0, 3, 10), (8.0, 10, 50))
VANILLA = arm((1.0, 2, 8), (6.0, 3, 10), (9.0, 10, 50))


def test_values_by_hand():
    scores = by_name(STUDENT, VANILLA)
    assert scores["nll_2"].value == pytest.approx((1 + 3 + 0.8) / 3)
    assert scores["perplexity_2"].value == pytest.approx(math.exp(1.6))
    assert scores["perplexity_2_pooled"].value == pytest.approx(math.exp(19 / 15))
    assert scores["perplexity_2_median"].value == pytest.approx(math.e)
    assert scores["nll_2_byte"].value == pytest.approx(19 / 68)
    assert scores["nll_2-vanilla"].value == pytest.approx((0.5 + 1 - 0.1) / 3)
    assert scores["nll_2_byte-vanilla"].value == pytest.approx(3 / 68)
    assert scores["nll_2_pooled-vanilla"].value == pytest.approx(3 / 15)
    assert scores["nll_2_median-vanilla"].value == pytest.approx(0.5)
    assert all(score.higher_is_better is False and score.n == 3 for score in scores.values())
    for name, score in scores.items():
        assert score.note == ("no interval: 3 prompts, a median needs 6" if "median" in name else "")
    assert {score.unit for score in scores.values()} == {"nats/token", "nats/byte", "perplexity"}


def test_the_median_of_an_even_number_of_answers_is_the_mean_of_the_middle_two_perplexities():
    """Not exp of the mean of their logarithms: 2 and 8 give 5, not 4."""
    answers = arm(*((math.log(perplexity), 1, 4) for perplexity in (1, 2, 8, 50)))
    other = arm(*((math.log(perplexity), 1, 4) for perplexity in (1, 1, 2, 1)))
    assert by_name(answers)["perplexity_2_median"].value == pytest.approx(5)
    own = own_by_name({name: [answer] for name, answer in answers.items()})
    assert own["perplexity_1_median"].value == pytest.approx(5)
    gaps = [0, math.log(2), math.log(4), math.log(50)]  # a difference is in nats, prompt by prompt
    assert by_name(answers, other)["nll_2_median-vanilla"].value == pytest.approx((gaps[1] + gaps[2]) / 2)


def test_intervals_are_over_prompts_and_paired():
    scores = by_name(STUDENT, VANILLA)
    low, high = on_logs([1, 3, 0.8])
    assert (scores["nll_2"].low, scores["nll_2"].high) == pytest.approx((low, high))
    assert (scores["perplexity_2"].low, scores["perplexity_2"].high) == pytest.approx((math.exp(low), math.exp(high)))
    gap = scores["nll_2-vanilla"]
    assert (gap.low, gap.high) == pytest.approx(mean_interval([0.5, 1, -0.1]))
    assert math.isnan(scores["perplexity_2_median"].low)  # three answers do not bound a median


@given(st.lists(ANSWERS, min_size=6, max_size=20))
def test_averages_lie_within_the_answers_and_intervals_around_them(answers):
    scores = by_name(arm(*answers))
    per_token = [a.nll / a.tokens for a in answers]
    for name in ("perplexity_2", "perplexity_2_pooled", "perplexity_2_median"):
        score = scores[name]
        slack = 1e-9 * (1 + abs(math.log(score.value)))
        assert min(per_token) - slack <= math.log(score.value) <= max(per_token) + slack
        assert score.note or score.low <= score.value * (1 + 1e-9)
        assert score.note or score.high >= score.value * (1 - 1e-9)
    assert scores["nll_2"].value == pytest.approx(statistics.fmean(per_token))


@given(st.lists(ANSWERS, min_size=2, max_size=20))
def test_the_difference_from_itself_is_zero_in_any_prompt_order(answers):
    student = arm(*answers)
    scores = by_name(student, dict(reversed(student.items())))
    for name in ("nll_2-vanilla", "nll_2_pooled-vanilla", "nll_2_byte-vanilla"):
        assert (scores[name].value, scores[name].note) == (0, NO_SPREAD)
    median = scores["nll_2_median-vanilla"]
    assert (median.value, median.low, median.high) == (0, 0, 0) or (len(answers) < 6 and median.note)


def test_differences_of_pooled_ratios_and_medians_have_intervals_of_their_own():
    random = np.random.default_rng(0)
    tokens, base = random.integers(1, 30, 40), random.gamma(4, 1, 40)
    own = base + random.normal(0.2, 0.5, 40)
    arms = [arm(*zip((x * tokens).tolist(), tokens.tolist(), [9] * 40, strict=True)) for x in (own, base)]
    scores = by_name(*arms)
    gap, low, high = own - base, *median_interval(own - base)
    median = scores["nll_2_median-vanilla"]
    assert (median.value, median.low, median.high) == pytest.approx((np.median(gap), low, high))
    pooled = scores["nll_2_pooled-vanilla"]
    ratio = (gap * tokens).sum() / tokens.sum()
    each = ratio + (gap - ratio) * tokens / tokens.mean()  # of the ratio of the gaps: tokens are the same
    assert (pooled.value, pooled.low, pooled.high) == pytest.approx((ratio, *mean_interval(each)))
    own_median = own_by_name(*({key: [answer] for key, answer in one.items()} for one in arms))["nll_1_median-vanilla"]
    assert (own_median.value, own_median.low, own_median.high) == pytest.approx((np.median(gap), low, high))


def test_prompts_of_only_one_arm_are_left_out_and_counted():
    gap = by_name(STUDENT, {**dict(list(VANILLA.items())[:2]), "other": AnswerNLL(5.0, 2, 3)})["nll_2-vanilla"]
    assert gap.value == pytest.approx(0.75)
    assert gap.n == 2
    assert gap.note.startswith("2 prompts")


@pytest.mark.parametrize(
    ("student", "vanilla", "undefined", "note"),
    [
        ({}, {}, 9, "no answers"),
        (STUDENT, {"other": AnswerNLL(1.0, 1, 1)}, 4, "no prompt in both arms"),
        (STUDENT, arm((1.0, 2, 8), (6.0, 4, 10), (9.0, 10, 50)), 4, "differ in tokens or bytes"),
        (
            arm((math.nan, 2, 8), (1.0, 1, 3)),
            arm((1.0, 2, 8), (1.0, 1, 3)),
            9,
            "1 of 2 prompts have answers without likelihood",
        ),
        (arm((1.0, 1, 0)), arm((1.0, 1, 0)), 2, "empty"),
    ],
)
def test_undefined_is_nan_with_the_reason(student, vanilla, undefined, note):
    nans = [score for score in likelihood_scores(student, vanilla) if math.isnan(score.value)]
    assert len(nans) == undefined
    assert note in " ".join(score.note for score in nans)


def test_probability_zero_gives_infinity_and_a_note():
    scores = by_name(arm((math.inf, 2, 8), (1.0, 1, 3), (1.0, 1, 3)), arm((1.0, 2, 8), (1.0, 1, 3), (1.0, 1, 3)))
    for name in ("nll_2", "perplexity_2", "perplexity_2_pooled", "nll_2_byte"):
        assert scores[name].value == math.inf
        assert math.isnan(scores[name].low)
        assert "1 of 3 prompts have an answer of probability 0" in scores[name].note
    assert scores["perplexity_2_median"].value == pytest.approx(math.e)
    assert math.isnan(scores["nll_2-vanilla"].value)


def test_huge_likelihoods_overflow_to_infinity_without_a_warning():
    assert by_name(arm((1e6, 1, 1), (2e6, 1, 1)))["perplexity_2"].value == math.inf


def test_an_answer_without_tokens_is_a_mistake():
    with pytest.raises(DataError, match="EOS"):
        likelihood_scores(arm((0.0, 0, 0)))


# Perplexity 1: several own answers to a prompt, under the vanilla student.


def answer_nlls(*prompts):
    return {f"p{i}": [AnswerNLL(*answer) for answer in answers] for i, answers in enumerate(prompts)}


OWN = answer_nlls([(2.0, 2, 8), (9.0, 3, 10)], [(8.0, 10, 50)], [(3.0, 1, 0), (1.0, 1, 3)])
OTHERS = answer_nlls([(1.0, 2, 9)], [(9.0, 10, 50)], [(4.0, 2, 2), (4.0, 4, 8)])


def own_by_name(*arms):
    return {score.name: score for score in own_answer_scores(*arms)}


def test_own_answers_by_hand():
    """Answers of a prompt are averaged first: 2, 0.8 and 2 nats a token."""
    scores = own_by_name(OWN, OTHERS)
    assert scores["nll_1"].value == pytest.approx(4.8 / 3)
    assert scores["perplexity_1"].value == pytest.approx(math.exp(1.6))
    assert scores["perplexity_1_median"].value == pytest.approx(math.exp(2))
    assert scores["nll_1_byte"].value == pytest.approx((5.5 + 8 + 2) / (9 + 50 + 1.5))
    assert scores["nll_1-vanilla"].value == pytest.approx((1.5 - 0.1 + 0.5) / 3)
    assert scores["nll_1_byte-vanilla"].value == pytest.approx(15.5 / 60.5 - 14 / 64)
    assert scores["nll_1_median-vanilla"].value == pytest.approx(0.5)
    assert all(score.higher_is_better is None and score.n == 3 for score in scores.values())
    assert {name for name, score in scores.items() if score.note} == {"perplexity_1_median", "nll_1_median-vanilla"}
    low, high = on_logs([2, 0.8, 2])
    assert (scores["nll_1"].low, scores["nll_1"].high) == pytest.approx((low, high))
    assert (scores["perplexity_1"].low, scores["perplexity_1"].high) == pytest.approx((math.exp(low), math.exp(high)))
    gap = scores["nll_1-vanilla"]
    assert (gap.low, gap.high) == pytest.approx(mean_interval([1.5, -0.1, 0.5]))


@given(st.lists(st.lists(ANSWERS, min_size=1, max_size=4), min_size=2, max_size=12))
def test_repeating_all_answers_changes_nothing(prompts):
    """A prompt weighs the same, however many answers it has."""
    once, twice = own_by_name(answer_nlls(*prompts)), own_by_name(answer_nlls(*([*a, *a] for a in prompts)))
    for name, score in once.items():
        assert (score.value, score.n) == (pytest.approx(twice[name].value), twice[name].n)


@given(st.lists(ANSWERS, min_size=2, max_size=12))
def test_one_answer_to_each_prompt_is_perplexity_2_of_it(answers):
    own, human = own_by_name(answer_nlls(*([a] for a in answers))), by_name(arm(*answers))
    for name, score in own.items():
        other = human[name.replace("_1", "_2")]
        assert (score.value, score.low) == pytest.approx((other.value, other.low), nan_ok=True)


@pytest.mark.parametrize(
    ("student", "vanilla", "undefined", "note"),
    [
        ({}, {}, 7, "no answers"),
        (OWN, {"other": OWN["p0"]}, 3, "no prompt in both arms"),
        (answer_nlls([(math.nan, 2, 8)], [(1.0, 1, 3)]), OTHERS, 7, "1 of 2 prompts have answers without likelihood"),
        (answer_nlls([(1.0, 1, 0)]), OTHERS, 2, "empty"),
        (answer_nlls([(math.inf, 1, 3)], [(1.0, 1, 3)]), OTHERS, 3, "1 of 2 prompts have an answer of probability 0"),
    ],
)
def test_undefined_own_scores_are_nan_with_the_reason(student, vanilla, undefined, note):
    scores = own_answer_scores(student, vanilla)
    assert [math.isnan(score.value) for score in scores].count(True) == undefined
    assert note in " ".join(score.note for score in scores)


@pytest.mark.parametrize("answers", [[], [AnswerNLL(0.0, 0, 0)]])
def test_an_own_prompt_without_answer_or_token_is_a_mistake(answers):
    with pytest.raises(DataError, match="p0"):
        own_answer_scores({"p0": answers})


@given(st.sets(st.text(max_size=3)), st.integers(0, 5))
def test_a_shuffle_depends_on_the_set_and_the_seed_alone(prompts, seed):
    assert shuffled_prompts(prompts, seed) == shuffled_prompts(sorted(prompts, reverse=True), seed)
    assert set(shuffled_prompts(prompts, seed)) == prompts


def test_the_published_mean_leaves_out_the_outliers_of_its_arm_and_says_so():
    """Mistake 5 of S1: one arm loses an eighth of its answers, the other none. No other score does that."""
    plain, tailed = [1.0, 1.1, 1.2, 1.3] * 6, [1.0, 1.1, 1.2, 1.3, 1.1, 1.2, 1.2, 6.0] * 3
    whole, cut = published_perplexity(plain), published_perplexity(tailed)
    assert whole.value == pytest.approx(np.exp(plain).mean())
    assert "0.0% of the answers" in whole.note
    assert cut.value == pytest.approx(np.exp([1.0, 1.1, 1.2, 1.3, 1.1, 1.2, 1.2] * 3).mean())
    assert "12.5% of the answers of this arm left out" in cut.note
    every = by_name(arm(*((nll, 1, 1) for nll in tailed)))["nll_2"]
    assert (every.n, every.value) == (24, pytest.approx(np.mean(tailed)))
    assert math.isnan(published_perplexity([1.0, math.inf]).value)
    assert published_perplexity([]).note == "no answers"
