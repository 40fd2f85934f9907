"""The tail of the vanilla student is 1 % of its tokens, whatever ties, and each score is the one its name says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.core.types import DataError
from synthdiv.measures.estimates import NO_SPREAD
from synthdiv.measures.tails import MIN_TOKENS, QUANTILES, own_answer_tail_scores, quantile, tail_scores, tail_weights

FEW = "no interval: fewer than 3,000 tokens"
VALUES = st.lists(st.integers(0, 5).map(float) | st.floats(0, 20, width=32), min_size=1, max_size=400)
TIED = st.lists(st.integers(0, 2).map(float), min_size=MIN_TOKENS, max_size=MIN_TOKENS + 150)


def arm(values, tokens=10):
    """Answers of `tokens` tokens each."""
    parts = [list(values[start : start + tokens]) for start in range(0, len(values), tokens)]
    return {f"p{number}": part for number, part in enumerate(parts)}


def by_name(*arms):
    return {score.name: score for score in tail_scores(*arms)}


def skewed(random, prompts):
    """Tokens of a student and of the vanilla student: skewed, alike within a prompt, alike between the two."""
    student, vanilla = {}, {}
    for prompt in map(str, range(prompts)):
        base = np.exp(random.normal(0, 0.3)) * random.gamma(0.5, 2, random.integers(5, 25))
        vanilla[prompt], student[prompt] = base, base * np.exp(random.normal(0.05, 0.4, len(base)))
    return student, vanilla


@given(VALUES, st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_those_of_the_inverted_distribution(values, q):
    actual = quantile(np.array(values), q)
    assert actual == np.quantile(values, q, method="inverted_cdf") or abs(len(values) * q % 1) < 1e-6
    assert (np.array(values) > actual).sum() <= (1 - q) * len(values) + 1e-9
    assert (np.array(values) >= actual).sum() >= (1 - q) * len(values) - 1e-9


def test_scores_by_hand():
    """1,000 distinct values: ten are the tail, and the student raises five others beyond the threshold of 989."""
    vanilla = np.random.default_rng(0).permutation(1000).astype(float)
    student = vanilla - 1
    student[np.argsort(vanilla)[:5]] = 2000
    scores = by_name(arm(student), arm(vanilla))
    assert scores["tail_share"].value == pytest.approx((9 + 5) / 1000)
    assert scores["nll_2_tail"].value == pytest.approx(np.arange(990, 1000).mean() - 1)
    assert scores["nll_2_tail-vanilla"].value == pytest.approx(-1)
    assert [scores[f"nll_2_token_{name}"].value for name in QUANTILES] == [503, 903, 993]
    assert scores["nll_2_token_q50-vanilla"].value == 503 - 499
    assert scores["nll_2_token_q99-vanilla"].value == 993 - 989
    assert all(score.n == 100 for score in scores.values())
    assert {score.note for score in scores.values()} <= {"", NO_SPREAD, FEW}
    assert {score.unit for score in scores.values()} == {"nats/token", "share of tokens"}
    assert not any(score.higher_is_better for score in scores.values())


@given(VALUES, VALUES)
def test_the_tail_is_one_percent_of_the_vanilla_students_tokens(vanilla, values):
    weights = tail_weights(np.array(vanilla), np.array(vanilla))
    assert weights.sum() == pytest.approx(0.01 * len(vanilla))
    assert ((weights >= 0) & (weights <= 1)).all()
    other = tail_weights(np.array(vanilla), np.array(values))
    higher = tail_weights(np.array(vanilla), np.array(values) + 1)
    assert (higher >= other).all()  # a less probable token is never less in the tail


@given(TIED)
@settings(max_examples=25, deadline=None)
def test_against_itself_the_share_is_one_percent_and_differences_are_zero(values):
    scores = by_name(arm(values), arm(values))
    share = scores["tail_share"]
    assert (share.value, share.note) == (pytest.approx(0.01), NO_SPREAD)
    gaps = {name: score for name, score in scores.items() if name.endswith("-vanilla")}
    notes = {name: FEW if "q99" in name else NO_SPREAD for name in gaps}
    assert {name: (gap.value, gap.note) for name, gap in gaps.items()} == {
        name: (0, note) for name, note in notes.items()
    }
    assert len(gaps) == 4


@given(TIED)
@settings(max_examples=25, deadline=None)
def test_a_vanilla_student_alone_has_the_scores_of_a_comparison_with_itself(values):
    alone, beside = by_name(arm(values)), by_name(arm(values), arm(values))
    assert repr({name: score for name, score in beside.items() if not name.endswith("-vanilla")}) == repr(alone)


def test_a_lost_tail_shows_in_the_share_and_not_in_the_median():
    random = np.random.default_rng(1)
    vanilla = random.exponential(size=4000)
    student = np.where(vanilla > 3, 3 * vanilla, 0.98 * vanilla)  # the rare became rarer, the common a bit likelier
    scores = by_name(arm(student), arm(vanilla))
    assert scores["tail_share"].low > 0.02
    assert scores["nll_2_tail-vanilla"].low > 0
    assert scores["nll_2_token_q50-vanilla"].high < 0


def test_prompt_order_does_not_matter():
    student, vanilla = skewed(np.random.default_rng(2), 60)
    turned = dict(reversed(student.items())), dict(reversed(vanilla.items()))
    assert by_name(student, vanilla) == by_name(*turned)


def test_prompts_of_only_one_arm_are_left_out_and_counted():
    student, vanilla = skewed(np.random.default_rng(3), 60)
    more = student | {"alone": [50.0] * 9}
    assert by_name(more, vanilla)["tail_share"].value == by_name(student, vanilla)["tail_share"].value
    assert by_name(more, vanilla)["tail_share"].note == "1 prompts of one arm alone left out"
    assert by_name(more, vanilla)["nll_2_tail-vanilla"].note == "1 prompts of one arm alone left out"


@pytest.mark.parametrize(
    ("student", "vanilla", "undefined", "note"),
    [
        ({}, {}, 9, "0 tokens"),
        (arm([1.0] * 400), arm([1.0] * 400), 9, "400 tokens: at least 500"),
        (arm([1.0] * 600), {"other": [1.0]}, 6, "no prompt in both arms"),
        (arm([1.0] * 600), arm([1.0] * 600, tokens=12), 6, "50 answers differ in tokens"),
        (arm([math.nan] * 3 + [1.0] * 600), arm([1.0] * 603), 9, "1 of 61 prompts have answers without likelihood"),
    ],
)
def test_undefined_is_nan_with_the_reason(student, vanilla, undefined, note):
    scores = tail_scores(student, vanilla)
    assert [math.isnan(score.value) for score in scores].count(True) == undefined
    assert len(scores) == 9
    assert note in " ".join(score.note for score in scores)


def test_probability_zero_gives_infinity_and_a_note():
    zero = arm([math.inf] * 20 + [1.0] * 600)
    scores = by_name(zero, arm([1.0] * 620))
    assert scores["nll_2_token_q90"].value == 1
    for name in ("nll_2_token_q99", "nll_2_token_q99-vanilla", "nll_2_tail"):
        assert scores[name].value == math.inf
        assert math.isnan(scores[name].low)
        assert "20 tokens have probability 0" in scores[name].note
    backwards = by_name(arm([1.0] * 620), zero)
    assert math.isnan(backwards["nll_2_tail-vanilla"].value)
    assert "infinite in the vanilla student" in backwards["nll_2_tail-vanilla"].note


def test_an_answer_without_tokens_is_a_mistake():
    with pytest.raises(DataError, match="EOS"):
        tail_scores({"p": []})


# Perplexity 1: the tokens of own answers, several answers to a prompt.


def own_by_name(*arms):
    scores = own_answer_tail_scores(*arms)
    assert len({score.name for score in scores}) == len(scores) == 3 * len(arms)
    assert all(score.unit == "nats/token" and score.higher_is_better is None for score in scores)
    return {score.name: score for score in scores}


@pytest.mark.parametrize(("tokens", "bounded"), [(2990, False), (3000, True)])
def test_a_quantile_has_an_interval_only_with_thirty_tokens_above_it(tokens, bounded):
    values = np.random.default_rng(0).gamma(0.5, 2, tokens)
    for scores in (by_name(arm(values), arm(values * 1.1)), own_by_name({k: [v] for k, v in arm(values).items()})):
        for name, score in scores.items():
            if "q99" in name:
                assert math.isfinite(score.value)
                assert (math.isfinite(score.low), FEW in score.note) == (bounded, not bounded)
            elif "q" in name:
                assert math.isfinite(score.low)


def answer_tokens(random, prompts, mean=1.0, samples=(1, 8)):
    """Own answers: prompts differ in level, most have one answer."""
    actual = {}
    for prompt in map(str, range(prompts)):
        level = mean * np.exp(random.normal(0, 0.3))
        count = samples[random.random() < 0.2]
        actual[prompt] = [random.gamma(0.7, level, random.integers(5, 25)).tolist() for _ in range(count)]
    return actual


@given(TIED, st.booleans())
@settings(max_examples=25, deadline=None)
def test_own_quantiles_of_one_answer_each_are_those_of_perplexity_2(values, alone):
    one = arm(values)
    own = {key: [answer] for key, answer in one.items()}
    scores = own_by_name(own) if alone else own_by_name(own, own)
    for name in QUANTILES:
        first, human = scores[f"nll_1_token_{name}"], by_name(one)[f"nll_2_token_{name}"]
        assert (first.value, first.n, first.note) == (human.value, human.n, human.note)
        assert (first.low, first.high) == pytest.approx((human.low, human.high), nan_ok=True)
        if not alone:
            gap = scores[f"nll_1_token_{name}-vanilla"]
            assert (gap.value, gap.note) == (0, FEW if name == "q99" else NO_SPREAD)


def test_a_prompt_counts_once_however_many_answers_it_has():
    once = answer_tokens(np.random.default_rng(0), 80)
    often = {key: answers * (1 + int(key) % 3) for key, answers in once.items()}
    for name, score in own_by_name(once).items():
        assert own_by_name(often)[name].value == score.value
    heavy = once | {"0": [[50.0] * 10] * 900}  # most tokens, one prompt
    assert own_by_name(heavy)["nll_1_token_q90"].value < 50


def test_own_arms_of_other_tokens_are_subtracted_and_lose_the_same_prompts():
    random = np.random.default_rng(1)
    student, vanilla = answer_tokens(random, 150), answer_tokens(random, 150, 1.5)
    scores = own_by_name(student, vanilla | {"other": [[9.0] * 50]})
    for name in QUANTILES:
        base = own_by_name(vanilla)[f"nll_1_token_{name}"].value
        gap = scores[f"nll_1_token_{name}-vanilla"]
        assert gap.value == pytest.approx(scores[f"nll_1_token_{name}"].value - base)
        assert gap.low < gap.value < gap.high
        assert gap.note == "1 prompts of one arm alone left out"
    # what both arms have in common cancels: levels of prompts, when the arms say the same of them but for a little
    near = {key: [[value + 0.01 for value in answer] for answer in answers] for key, answers in student.items()}
    gap = own_by_name(near, student)["nll_1_token_q90-vanilla"]
    assert gap.value == pytest.approx(0.01)
    assert gap.high - gap.low < 1e-9 or gap.note == NO_SPREAD


@pytest.mark.parametrize(
    ("student", "vanilla", "undefined", "note"),
    [
        ({}, {}, 6, "0 tokens"),
        ({"a": [[1.0] * 300, [1.0] * 300]}, {"a": [[1.0] * 400]}, 3, "400 tokens: at least 500"),
        ({"a": [[1.0] * 600]}, {"b": [[1.0] * 600]}, 3, "no prompt in both arms"),
        ({"a": [[math.nan] * 600]}, {"a": [[1.0] * 600]}, 6, "1 of 1 prompts have answers without likelihood"),
        ({"a": [[1.0] * 600]}, {"a": [[math.inf] * 600]}, 3, "infinite in the vanilla student"),
    ],
)
def test_undefined_own_quantiles_are_nan_with_the_reason(student, vanilla, undefined, note):
    scores = own_answer_tail_scores(student, vanilla)
    assert [math.isnan(score.value) for score in scores].count(True) == undefined
    assert note in " ".join(score.note for score in scores)


@pytest.mark.parametrize("answers", [[], [[1.0], []]])
def test_an_own_prompt_without_answer_or_token_is_a_mistake(answers):
    with pytest.raises(DataError, match="'p'"):
        own_answer_tail_scores({"p": answers})
