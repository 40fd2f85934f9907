"""The distances to a known law against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from synthdiv.measures import toy_truth as truth
from synthdiv.measures.intervals import bounded_interval

masses = st.lists(st.floats(0.01, 1), min_size=2, max_size=12)
P, Q = np.array([0.75, 0.25]), np.log([0.5, 0.25])
NLL = np.array([0.0, 0.2]), np.array([0.1, 0.4])  # of the value stated, by the law and by q


def law(weights):
    return np.array(weights) / np.sum(weights)


@st.composite
def laws(draw):
    """p, and a q on the same answers that may leave mass for others."""
    p = law(draw(masses))
    q = law(draw(st.lists(st.floats(0.01, 1), min_size=len(p), max_size=len(p)))) * draw(st.floats(0.05, 1))
    return p, np.log(q)


@given(laws())
def test_divergences_are_their_definitions(pair):
    p, log_q = pair
    excess, mass = truth.excess_nll(p, log_q), float(np.exp(log_q).sum())
    assert excess >= -1e-12
    within = truth.excess_nll(p, log_q - math.log(mass))
    assert excess == pytest.approx(within - math.log(mass), abs=1e-9), "KL = KL within the support - log q(support)"
    whole = np.append(p, 0.0), np.append(np.exp(log_q), max(1 - mass, 0))  # rounding
    assert truth.js_divergence(p, log_q) == pytest.approx(jensenshannon(*whole) ** 2, abs=1e-9)
    reverse, q = truth.support_kl(p, log_q), np.exp(log_q) / mass
    assert reverse == pytest.approx(float(q @ np.log(q / p)), abs=1e-9)
    assert truth.off_support(log_q) == pytest.approx(1 - mass)
    cover = np.array(truth.coverage(p, log_q))
    assert ((cover >= 0) & (cover <= 1 + 1e-12) | np.isnan(cover)).all()


@given(laws())
def test_divergences_are_zero_only_where_the_laws_are_equal(pair):
    p, log_q = pair
    for divergence in (truth.excess_nll, truth.support_kl, truth.js_divergence):
        assert divergence(p, np.log(p)) == pytest.approx(0, abs=1e-12)
    distance = np.abs(np.exp(log_q) - p).sum()
    assume(distance > 1e-3)
    assert truth.excess_nll(p, log_q) > distance**2 / 8, "Pinsker, with the mass off the support as one answer"
    assert truth.js_divergence(p, log_q) > 0


@given(laws(), st.randoms())
def test_the_order_of_the_answers_does_not_matter(pair, random):
    p, log_q = pair
    order, nll = np.array(random.sample(range(len(p)), len(p))), np.arange(5.0, 5 + len(p))
    before = truth.truth_values(p, log_q, nll, 2 * nll)
    after = truth.truth_values(p[order], log_q[order], nll[order], 2 * nll[order])
    if len(set(p.tolist())) < len(p):  # equal answers may fall on either side of a tercile's edge
        before, after = ({k: v for k, v in x.items() if "coverage_" not in k} for x in (before, after))
    assert after == pytest.approx(before, nan_ok=True)


def test_closed_forms():
    values = truth.truth_values(P, Q, *NLL)
    assert list(values) == list(truth.MEASURES)
    assert values["truth/excess_nll"] == pytest.approx(0.75 * math.log(1.5))
    assert values["truth/excess_nll_facts"] == pytest.approx(0.75 * 0.1 + 0.25 * 0.2)
    parts = values["truth/excess_nll_facts"] + values["truth/excess_nll_words"]
    assert parts == pytest.approx(values["truth/excess_nll"]), "the chain rule"
    assert values["truth/off_support"] == pytest.approx(0.25)
    assert values["truth/support_kl"] == pytest.approx(2 / 3 * math.log(8 / 9) + 1 / 3 * math.log(4 / 3))


def test_an_answer_that_q_cannot_give_is_infinite_and_not_smoothed():
    p, log_q = np.array([0.5, 0.25, 0.25]), np.array([math.log(0.5), math.log(0.5), -math.inf])
    assert truth.excess_nll(p, log_q) == math.inf
    assert truth.support_kl(p, log_q) == pytest.approx(0.5 * math.log(2))
    assert truth.coverage(p, log_q)[0] == pytest.approx(0.75)
    nothing = np.full(3, -math.inf)
    assert truth.js_divergence(p, nothing) == pytest.approx(math.log(2))
    assert math.isnan(truth.support_kl(p, nothing))
    assert truth.off_support(nothing) == 1
    parts = truth.truth_values(p, log_q, np.zeros(3), np.array([0.0, 0.0, math.inf]))
    assert parts["truth/excess_nll_words"] == math.inf, "no prompt is left out of the mean of words"
    score = truth.truth_score("truth/excess_nll", [1.0, math.inf])
    assert (score.value, score.n) == (math.inf, 2)
    assert math.isnan(score.low)
    assert "infinite for 1 of 2" in score.note


def test_terciles_of_equal_answers_are_even():
    for n in range(3, 400, 3):
        assert np.bincount(truth.terciles(np.full(n, 1 / n))).tolist() == [n // 3] * 3
    assert truth.terciles(np.array([0.1, 0.6, 0.1, 0.2])).tolist() == [2, 0, 2, 1]


@given(masses)
def test_terciles_follow_frequency(weights):
    p = law(weights)
    third = truth.terciles(p)
    for low, high in ((0, 1), (1, 2), (0, 2)):
        if (third == low).any() and (third == high).any():
            assert p[third == low].min() >= p[third == high].max()
    assert p[third == 0].sum() >= 1 / 3 - 1e-9
    assert p[third == 0].sum() - p[third == 0].min() <= 1 / 3 + 1e-9


def test_coverage_shows_the_lost_tercile():
    p = np.full(9, 1 / 9) * np.array([1.06, 1.05, 1.04, 1.01, 1.0, 0.99, 0.96, 0.95, 0.94])
    q = np.where(truth.terciles(p) == 2, p * 0.05, p)
    assert truth.coverage(p, np.log(q)) == pytest.approx([1 - p[6:].sum(), 1, 1, 0])
    assert truth.coverage(p, np.log(p * 0.1)) == pytest.approx([1, 1, 1, 1]), "a tenth is covered"
    assert truth.coverage(p, np.log(p * 0.0999)) == pytest.approx([0, 0, 0, 0])
    lone = truth.coverage(np.array([1.0]), np.array([0.0]))
    assert lone[:2] == [1, 1]
    assert np.isnan(lone[2:]).all()


def test_dialect_shares_are_means_within_prompts():
    posteriors = [np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 0.0]])]
    scores = truth.dialect_scores(posteriors, ["human0", "human1"])
    assert [score.name for score in scores] == ["truth/dialect/human0", "truth/dialect/human1", "truth/dialect/off"]
    assert [score.value for score in scores] == pytest.approx([0.375, 0.125, 0.5])
    assert {score.n for score in scores} == {2}
    assert {score.higher_is_better for score in scores} == {None}


@pytest.mark.parametrize("name", truth.MEASURES)
def test_scores_carry_n_units_directions_and_an_interval_within_the_bounds(name):
    measure = truth.MEASURES[name]
    unit, least, most = measure.unit, measure.low, measure.high
    score = truth.truth_score(name, [0.1, 0.3, 0.6, math.nan])
    assert (score.value, score.n, score.unit) == (pytest.approx(1 / 3), 3, unit)
    half = 4.30265273 * np.std([0.1, 0.3, 0.6], ddof=1) / math.sqrt(3)  # t with two degrees of freedom
    assert (score.low, score.high) == pytest.approx(bounded_interval(1 / 3, half, least, most))
    assert score.higher_is_better is ("coverage" in name)
    assert score.note == f"1 of 4 prompts left out: {measure.undefined}; {truth.INTERVAL_SCOPE}"
    gap = truth.truth_score(f"{name}-vanilla", [-0.5, -0.1])
    assert (gap.value, gap.unit, gap.higher_is_better) == (pytest.approx(-0.3), unit, measure.higher_is_better)
    assert "fewer than two prompts" in truth.truth_score(name, [0.5]).note


@pytest.mark.parametrize("name", [*truth.MEASURES, "truth/dialect/human0"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_interval_has_zero_width(name, value):
    """Of 16 equal values on the bound of a finite range, the interval is that of a binomial share; others have none."""
    score = truth.truth_score(name, [value] * 16)
    if math.isnan(score.low):
        assert "no interval" in score.note or "floor" in score.note
    else:
        assert 0.1 < score.high - score.low < 0.3
        assert score.low <= score.value <= score.high


def test_a_difference_of_infinite_values_is_undefined():
    for values in ([math.inf, 1.0], [math.inf, -math.inf]):
        score = truth.truth_score("truth/excess_nll-vanilla", values)
        assert math.isnan(score.value)
        assert "infinite for" in score.note


def test_a_coverage_on_its_floor_is_undefined_with_the_reason():
    score = truth.truth_score("truth/coverage", [0.0, 0.06])
    assert math.isnan(score.value)
    assert "on its floor: q has at least p/10 on 3.0% of p" in score.note
    assert truth.truth_score("truth/coverage", [0.0, 0.6]).value == pytest.approx(0.3)


def test_no_prompts_are_undefined():
    for score in [truth.truth_score(name, []) for name in truth.MEASURES] + truth.dialect_scores([], ["human0"]):
        assert math.isnan(score.value)
        assert (score.n, score.note) == (0, "no prompts")


@pytest.mark.parametrize(
    ("p", "log_q"),
    [([0.5, 0.6], [-1, -1]), ([0.5, 0.5], [-1, -1, -1]), ([1.5, -0.5], [-1, -1]), ([0.5, 0.5], [math.nan, -1]),
     ([0.5, 0.5], [-0.1, -0.2])],
)  # fmt: skip
def test_invalid_distributions_are_rejected(p, log_q):
    with pytest.raises(ValueError, match="needs p > 0"):
        truth.truth_values(p, log_q, *NLL)
