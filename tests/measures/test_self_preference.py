"""Self-preference: a planted bias is recovered, an unbiased judge has none, and what cannot be identified is NaN."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from measures.pairs import NO, every_pair, sigmoid, swapped

from synthdiv.measures.length_control import length_controlled
from synthdiv.measures.self_preference import (
    over_baseline,
    self_bias,
    votes_at_equal_quality,
    votes_at_equal_quality_and_length,
    votes_for_author,
)

QUALITY = np.array([0.5, 0.1, -0.2, -0.4])  # mean quality of authors a to d


def judged(authors="abc", bias=0.0, slope=2.0, prompts=400, seed=0, hard=False):
    """Verdicts of a judge with a bias for `a`; the panel's differ by quality alone."""

    def panel(first, second, _, quality):
        return sigmoid(2 * (QUALITY[first] - QUALITY[second] + quality))

    def judge(first, second, _, quality):
        own = (first == 0).astype(float) - (second == 0)
        return sigmoid(slope * (QUALITY[first] - QUALITY[second] + quality) + bias * own)

    pairs, other = every_pair(authors, prompts, judge, seed), every_pair(authors, prompts, panel, seed)
    pairs.panel[:] = other.wins
    pairs.quality[:] = np.log(other.wins / (1 - other.wins)) / 2
    if hard:
        rng = np.random.default_rng([seed, 1])
        pairs.wins[:], pairs.panel[:] = (rng.random(len(x)) < x for x in (pairs.wins, pairs.panel))
    return pairs


@pytest.mark.parametrize("authors", ["ab", "abc", "abcd"])
def test_a_planted_bias_is_recovered_however_many_authors_there_are(authors):
    actual = self_bias(judged(authors, bias=0.8), "a", ("quality",))
    assert actual.bias.value == pytest.approx(0.8, abs=0.05)
    assert actual.slope.value == pytest.approx(2.0, abs=0.2)
    assert actual.scaled.value == pytest.approx(0.4, abs=0.05)
    assert actual.discrimination.value > 0.9
    assert self_bias(judged(authors), "a", ("quality",)).bias.value == pytest.approx(0, abs=1e-6)
    assert self_bias(judged(authors), "a").bias.value == pytest.approx(0, abs=1e-6)


def test_the_bias_does_not_shrink_with_a_judge_that_discriminates_less():
    keen, dull = (self_bias(judged(bias=0.4 * slope, slope=slope), "a", ("quality",)) for slope in (2.0, 0.5))
    assert dull.bias.value < 0.5 * keen.bias.value
    assert dull.scaled.value == pytest.approx(keen.scaled.value, abs=0.05)


def test_the_interval_of_the_bias_covers_a_planted_one():
    hits = 0
    for seed in range(12):
        score = self_bias(judged(bias=0.6, prompts=150, seed=seed, hard=True), "a", ("quality",)).bias.score()
        hits += score.low <= 0.6 <= score.high
    assert hits >= 10


def test_a_judge_at_chance_has_no_identifiable_bias():
    pairs = judged(bias=0.8)
    pairs.wins[:] = np.random.default_rng(1).integers(0, 2, len(pairs.wins))
    actual = self_bias(pairs, "a")
    assert actual.discrimination.value < 0.55
    for each in (actual.bias, actual.scaled):
        assert math.isnan(each.value)
        assert "not identifiable: discrimination 0.5" in each.score().note
    pairs = judged(bias=2.0, slope=0.0)  # it knows authors, not quality within them
    pairs.wins[:] = np.random.default_rng(2).random(len(pairs.wins)) < pairs.wins
    actual = self_bias(pairs, "a", ("quality",))
    assert math.isfinite(actual.bias.value)
    assert "interval of the quality slope holds 0" in actual.scaled.score().note


def test_self_preference_ignores_who_is_first_and_the_order_of_rows():
    pairs = judged(bias=0.8, prompts=40)
    other = swapped(pairs, np.arange(len(pairs.wins)) % 2 == 0)
    backward = pairs.take(np.arange(len(pairs.wins))[::-1])
    functions = [
        over_baseline,
        votes_at_equal_quality,
        lambda p, o: votes_at_equal_quality_and_length(p, o, 1.0),
        *(lambda p, o, k=k: votes_for_author(p, o)[k] for k in range(3)),
    ]
    functions += [lambda p, o, k=k: self_bias(p, o)[k] for k in range(4)]
    for function in functions:
        value = function(pairs, "a").value
        assert function(other, "a").value == pytest.approx(value, abs=1e-6)
        assert function(backward, "a").value == pytest.approx(value, abs=1e-6)


def test_the_baseline_holds_the_judge_fixed():
    """A judge that takes the worse answer in 40 % of pairs, whoever wrote it, votes for its own bad answers without
    preferring itself."""
    pairs = judged(prompts=600, hard=True)
    pairs.wins[:] = np.where(np.random.default_rng(2).random(len(pairs.wins)) < 0.4, 1 - pairs.panel, pairs.panel)
    fair = over_baseline(pairs, "a").score()
    assert fair.low < 0 < fair.high
    own = np.where(pairs.first == "a", 1.0, 0.0)
    pairs.wins[:] = np.where((pairs.first == "a") | (pairs.second == "a"), own, pairs.panel)
    assert over_baseline(pairs, "a").value == 1.0


def test_bad_answers_are_compared_on_the_same_prompt_and_within_the_caliper():
    pairs = judged("abc", prompts=2).take(np.array([0, 1, 2, 3]))  # b-a, c-a, c-b of prompt 0; b-a of prompt 1
    pairs.wins[:], pairs.panel[:] = [0.3, 0.1, 0.6, 0.0], [0.8, 0.95, 0.75, 0.9]
    score = over_baseline(pairs, "a").score()
    assert score.value == pytest.approx(0.7 - 0.4)  # own at 0.20 against b's at 0.25; own at 0.05 has no equal
    assert score.n == 1
    assert "2 of 3 pairs have no equally bad answer of another" in score.note


def test_votes_for_author_are_paired_with_labels_and_stay_0_5_at_equal_quality():
    pairs = judged("ab", bias=1.0, prompts=300)
    pairs.panel[:5] = NO
    judge, panel, gap = votes_for_author(pairs, "a")
    assert judge.n == panel.n == 295
    assert gap.value == pytest.approx(judge.value - panel.value)
    assert gap.value > 0.05
    assert votes_at_equal_quality(judged("ab"), "a").value == pytest.approx(0.5, abs=0.02)
    assert votes_at_equal_quality(pairs, "a").value > 0.65


@pytest.mark.parametrize(("bias", "share"), [(0.0, 0.5), (1.0, sigmoid(1.0))])
def test_votes_at_equal_quality_and_length_are_free_of_a_taste_for_long_texts(bias, share):
    """Its own texts are longer more often than not, and the judge takes the longer of two."""
    pairs = judged("ab", prompts=600)
    pairs.panel[:], own = 0.5, np.where(pairs.first == "a", 1.0, -1.0)
    gap = np.random.default_rng(0).normal(0.7, 1.0, len(own))
    pairs.length[:], pairs.wins[:] = own * gap, sigmoid(own * (bias + 2 * np.tanh(gap)))
    assert votes_at_equal_quality(pairs, "a").value > share + 0.05
    score = votes_at_equal_quality_and_length(pairs, "a", 1.0).score()
    assert score.value == pytest.approx(share, abs=0.02)
    assert (score.name, score.n) == ("votes_for_itself_at_equal_quality_and_length", 600)
    assert score.higher_is_better is None
    assert votes_at_equal_quality_and_length(pairs, "b", 1.0).value == pytest.approx(1 - share, abs=0.02)
    part = pairs.of("a")
    wanted, _ = length_controlled(part.wins, part.length, 3.0, part.prompt.tolist())
    assert votes_at_equal_quality_and_length(pairs, "a", 3.0).value == pytest.approx(wanted.value, abs=1e-9)


def test_votes_at_equal_quality_and_length_say_what_is_missing():
    pairs = judged("ab", bias=1.0, prompts=100)
    pairs.panel[:], pairs.length[:] = 0.5, 0.0
    assert votes_at_equal_quality_and_length(pairs, "a", 1.0).value == votes_at_equal_quality(pairs, "a").value
    pairs.length[:] = np.random.default_rng(0).normal(size=100)
    pairs.wins[:30] = NO
    score = votes_at_equal_quality_and_length(pairs, "a", 1.0).score()
    assert (score.n, score.note) == (70, "70 of 100 pairs of equal quality have a verdict and lengths")
    for field, reason in (
        ("length", "no pair of equal quality has a verdict and lengths"),
        ("wins", "no pair of equal quality has a verdict and lengths"),
        ("panel", "no pair of equal quality"),
    ):
        score = votes_at_equal_quality_and_length(replace(pairs, **{field: np.full(100, NO)}), "a", 1.0).score()
        assert math.isnan(score.value)
        assert score.note.split(";")[0] == reason, score.note


@pytest.mark.parametrize("own", ["nobody", "a"])
def test_without_pairs_of_its_own_everything_is_undefined_with_a_reason(own):
    pairs = judged("bc" if own == "a" else "abc", prompts=20)
    actual = [*self_bias(pairs, "nobody")[:3], *votes_for_author(pairs, "nobody"), over_baseline(pairs, "nobody")]
    for each in actual:
        assert math.isnan(each.value)
        assert each.score().note
