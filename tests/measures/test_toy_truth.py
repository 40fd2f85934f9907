"""The distances to a known law against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from synthdiv.measures import toy_truth as truth

masses = st.lists(st.floats(0.01, 1), min_size=2, max_size=12)
LENGTHS = [np.array([10, 20])] * 2
P = [np.array([0.75, 0.25]), np.array([0.5, 0.5])]
Q = [np.log([0.5, 0.25]), np.log([0.25, 0.25])]


def law(weights):
    return np.array(weights) / np.sum(weights)


@st.composite
def laws(draw):
    """p, and a q on the same answers that may leave mass for others."""
    p = law(draw(masses))
    q = law(draw(st.lists(st.floats(0.01, 1), min_size=len(p), max_size=len(p)))) * draw(st.floats(0.05, 1))
    return p, np.log(q)


@given(laws())
def test_kl_is_positive_and_splits_into_support_and_shape(pair):
    p, log_q = pair
    (excess,) = truth.excess_nll([p], [log_q])
    assert excess >= -1e-12
    mass = float(truth.support_mass([log_q])[0])
    (within,) = truth.excess_nll([p], [log_q - math.log(mass)])
    assert excess == pytest.approx(within - math.log(mass), abs=1e-9), "KL = KL within the support - log q(support)"
    (reverse,) = truth.support_divergence([p], [log_q])
    q = np.exp(log_q) / mass
    assert reverse == pytest.approx(float(q @ np.log(q / p)), abs=1e-9)
    assert reverse >= -1e-12
    assert truth.off_support_rate([log_q])[0] == pytest.approx(1 - mass)
    cover = truth.coverage([p], [log_q])[0]
    assert ((cover >= 0) & (cover <= 1 + 1e-12) | np.isnan(cover)).all()


@given(laws())
def test_kl_is_zero_only_where_the_laws_are_equal(pair):
    p, log_q = pair
    assert truth.excess_nll([p], [np.log(p)])[0] == pytest.approx(0, abs=1e-12)
    assert truth.support_divergence([p], [np.log(p)])[0] == pytest.approx(0, abs=1e-12)
    distance = np.abs(np.exp(log_q) - p).sum()
    assume(distance > 1e-3)
    assert truth.excess_nll([p], [log_q])[0] > distance**2 / 8, "Pinsker, with the mass off the support as one answer"


@given(laws(), st.randoms())
def test_the_order_of_the_answers_does_not_matter(pair, random):
    p, log_q = pair
    order = np.array(random.sample(range(len(p)), len(p)))
    lengths = np.arange(5.0, 5 + len(p))
    before = truth.truth_values([p], [log_q], [lengths])
    after = truth.truth_values([p[order]], [log_q[order]], [lengths[order]])
    if len(set(p.tolist())) < len(p):  # equal answers may fall on either side of a tercile's edge
        before, after = ({k: v for k, v in x.items() if "coverage_" not in k} for x in (before, after))
    assert {k: float(v[0]) for k, v in after.items()} == pytest.approx(
        {k: float(v[0]) for k, v in before.items()}, nan_ok=True
    )


def test_closed_forms():
    assert truth.excess_nll(P, Q) == pytest.approx([0.75 * math.log(1.5), math.log(2)])
    per_character = truth.excess_nll_per_character(P, Q, LENGTHS)
    assert per_character == pytest.approx([0.75 * math.log(1.5) / 12.5, math.log(2) / 15])
    assert truth.off_support_rate(Q) == pytest.approx([0.25, 0.5])
    shape = 2 / 3 * math.log(8 / 9) + 1 / 3 * math.log(4 / 3)
    assert truth.support_divergence(P, Q) == pytest.approx([shape, 0])


def test_an_answer_that_q_cannot_give_is_infinite_and_not_smoothed():
    p, log_q = [np.array([0.5, 0.25, 0.25])], [np.array([math.log(0.5), math.log(0.5), -math.inf])]
    assert truth.excess_nll(p, log_q)[0] == math.inf
    assert truth.support_divergence(p, log_q)[0] == pytest.approx(0.5 * math.log(2))
    assert truth.coverage(p, log_q)[0, 0] == pytest.approx(0.75)
    nothing = [np.full(3, -math.inf)]
    assert math.isnan(truth.support_divergence(p, nothing)[0])
    assert truth.off_support_rate(nothing)[0] == 1
    score = truth.truth_score("truth/excess_nll", np.array([1.0, math.inf]), "nats/answer", False)
    assert (score.value, score.n) == (math.inf, 2)
    assert math.isnan(score.low)
    assert "infinite for 1 of 2" in score.note


def test_answers_without_human_mass_count_as_off():
    p, log_q = [np.array([1.0, 0.0])], [np.log([0.5, 0.5])]
    assert truth.excess_nll(p, log_q)[0] == pytest.approx(math.log(2))


def test_terciles_of_equal_answers_are_even():
    for n in range(3, 400, 3):
        assert np.bincount(truth.terciles(np.full(n, 1 / n))).tolist() == [n // 3] * 3
    assert truth.terciles(np.array([0.1, 0.6, 0.1, 0.2])).tolist() == [2, 0, 2, 1]
    assert truth.terciles(np.array([1.0])).tolist() == [0]


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
    assert truth.coverage([p], [np.log(q)])[0] == pytest.approx([1 - p[6:].sum(), 1, 1, 0])
    assert truth.coverage([p], [np.log(p * 0.1)])[0] == pytest.approx([1, 1, 1, 1]), "a tenth is covered"
    assert truth.coverage([p], [np.log(p * 0.0999)])[0] == pytest.approx([0, 0, 0, 0])
    lone = truth.coverage([np.array([1.0])], [np.array([0.0])])[0]
    assert lone[:2].tolist() == [1, 1]
    assert np.isnan(lone[2:]).all()


def test_dialect_shares_are_means_within_prompts():
    posteriors = [np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 0.0]])]
    assert truth.dialect_shares(posteriors) == pytest.approx(np.array([[0.75, 0.25, 0], [0, 0, 1]]))
    scores = truth.dialect_scores(posteriors, ["human0", "human1"])
    assert [score.name for score in scores] == ["truth/dialect/human0", "truth/dialect/human1", "truth/dialect/off"]
    assert [score.value for score in scores] == pytest.approx([0.375, 0.125, 0.5])
    assert {score.n for score in scores} == {2}


def test_scores_carry_units_intervals_and_directions():
    scores = {score.name: score for score in truth.truth_scores(P, Q, LENGTHS)}
    excess = scores["truth/excess_nll"]
    values = [0.75 * math.log(1.5), math.log(2)]
    half = 12.7062047 * abs(values[0] - values[1]) / 2  # t with one degree of freedom
    assert (excess.low, excess.high) == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    assert (excess.unit, excess.n, excess.higher_is_better) == ("nats/answer", 2, False)
    assert truth.INTERVAL_SCOPE in excess.note
    assert scores["truth/excess_nll_per_character"].unit == "nats/character"
    assert {name: score.unit for name, score in scores.items() if score.higher_is_better} == {
        "truth/coverage": "share",
        "truth/coverage_head": "share",
        "truth/coverage_middle": "share",
        "truth/coverage_tail": "share",
    }
    middle = scores["truth/coverage_middle"]
    assert (middle.value, middle.n) == (1, 1), "the first prompt's answers are head and tail"
    assert math.isnan(middle.low)
    assert "undefined for 1 of 2 prompts; one prompt has no interval" in middle.note


def test_mass_above_one_is_clipped_and_noted():
    log_q = [np.log([0.75, 0.250001]), np.log([0.4, 0.4])]
    assert truth.off_support_rate(log_q) == pytest.approx([0, 0.2])
    score = next(score for score in truth.truth_scores(P, log_q, LENGTHS) if score.name == "truth/off_support")
    assert "1 prompts clipped to 0, by at most 1e-06" in score.note


def test_no_prompts_are_undefined():
    for score in truth.truth_scores([], [], []) + truth.dialect_scores([], ["human0"]):
        assert math.isnan(score.value)
        assert (score.n, score.note) == (0, "no prompts")


@pytest.mark.parametrize(
    ("p", "log_q"),
    [([0.5, 0.6], [-1, -1]), ([0.5, 0.5], [-1, -1, -1]), ([1.5, -0.5], [-1, -1]), ([0.5, 0.5], [math.nan, -1])],
)
def test_invalid_distributions_are_rejected(p, log_q):
    with pytest.raises(ValueError, match="prompt 0"):
        truth.excess_nll([np.array(p)], [np.array(log_q)])
