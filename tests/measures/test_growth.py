"""Heaps' law: exact rarefaction against enumeration, fits against numpy and scipy and data that obey the law."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from synthdiv.measures import heaps, heaps_in_order
from synthdiv.measures.lexical import fit_heaps, fit_in_order, rarefaction
from synthdiv.measures.words import words
from tests.measures.material import HUMAN, SYNTHETIC, left_out_interval, made_answers, real_answers


def values(scores):
    return [score.value for score in scores]


@settings(max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_rarefaction_is_the_mean_over_all_draws(counts):
    tokens = [word for word, count in enumerate(counts) for _ in range(count)][:9]
    counts = np.bincount(tokens)
    sizes = np.arange(1, len(tokens) + 1)
    expected = [np.mean([len(set(draw)) for draw in itertools.combinations(tokens, n)]) for n in sizes]
    assert rarefaction(counts, sizes) == pytest.approx(expected, rel=1e-10)


def test_rarefaction_is_exact_for_large_counts():
    """Against whole numbers, where logarithms of factorials could lose digits."""
    counts = [5000, 1200, 300, 40, 7, 1, 1, 1]
    total = sum(counts)
    for n in (1, 17, 900, total - 1, total):
        expected = sum(1 - math.comb(total - count, n) / math.comb(total, n) for count in counts)
        assert rarefaction(np.array(counts), np.array([n])) == pytest.approx([expected], rel=1e-9)


def test_rarefaction_matches_random_draws():
    rng = np.random.default_rng(0)
    tokens = rng.zipf(1.5, 2000) % 500
    sizes = np.array([10, 100, 1000])
    drawn = [[len(set(order[:n])) for n in sizes] for order in (rng.permutation(tokens) for _ in range(400))]
    error = np.std(drawn, axis=0) / math.sqrt(400)
    _, counts = np.unique(tokens, return_counts=True)
    assert (abs(np.mean(drawn, axis=0) - rarefaction(counts, sizes)) < 4 * error).all()


@given(st.lists(st.integers(1, 50), min_size=2, max_size=30))
def test_rarefaction_rises_from_one_to_the_vocabulary(counts):
    curve = rarefaction(np.array(counts), np.arange(1, sum(counts) + 1))
    assert curve[0] == pytest.approx(1)
    assert curve[-1] == pytest.approx(len(counts))
    assert (np.diff(curve) > -1e-6).all()
    assert (np.diff(curve, 2) < 1e-6).all()  # concave: each further word is less likely to be new


@given(st.lists(st.integers(0, 60), min_size=3, max_size=40))
def test_heaps_is_numpys_straight_line_through_logarithms(counts):
    counts = np.array(counts)
    total = int(counts.sum())
    if total < 100 or (counts > 0).sum() < 2:
        return
    sizes = np.unique(np.geomspace(total / 100, total, 20).round())
    x, y = np.log(sizes), np.log(rarefaction(counts[counts > 0], sizes))
    beta, log_k = np.polyfit(x, y, 1)
    expected = (math.exp(log_k), beta, np.corrcoef(x, y)[0, 1] ** 2)
    assert fit_heaps(counts) == pytest.approx(expected, rel=1e-6)


def test_heaps_extremes():
    fresh = values(heaps([" ".join(f"w{i}" for i in range(500))]))
    assert fresh == pytest.approx((1, 1, 1), abs=1e-6)
    k, beta, r2 = heaps(["word"] * 200)
    assert (k.value, beta.value) == (1, 0)
    assert math.isnan(r2.value)
    assert r2.note == "needs 100 words and a vocabulary that still grows"


@pytest.mark.parametrize("counts", [[40_000] * 5, [12_345] * 11, [50_000, 50_001, 7777, 123_456], [500]])
def test_an_exhausted_vocabulary_has_no_r2(counts):
    """All its words are in any hundredth of the text; what is left of growth is rounding, and explains no variance."""
    fit = fit_heaps(np.array(counts))
    assert (fit.k, fit.beta) == pytest.approx((len(counts), 0), abs=1e-9)
    assert math.isnan(fit.r2)


@pytest.mark.parametrize("texts", [[], [""], ["!"], ["a b c"] * 33])
def test_heaps_undefined_below_100_words(texts):
    for score in heaps(texts):
        assert np.isnan([score.value, score.low, score.high]).all()
        assert score.note.startswith("needs 100 words")
    for score in heaps_in_order(texts):
        assert np.isnan([score.value, score.low, score.high]).all()
        assert score.note.startswith("needs 3000 words")


def test_heaps_recovers_the_exponent_of_zipf():
    """Words drawn with p ~ rank^-2 have an expected vocabulary that grows as the root of n."""
    rng = np.random.default_rng(1)
    fit = fit_heaps(np.bincount(np.minimum(rng.zipf(2.0, 200_000), 10**7)))
    assert fit.beta == pytest.approx(0.5, abs=0.02)
    assert fit.r2 > 0.999


@settings(max_examples=30)
@given(st.randoms(use_true_random=False))
def test_heaps_ignores_the_order_of_texts(rng):
    texts = [" ".join(rng.choices("abcdefghijklmnop", k=7)) for _ in range(30)]
    assert values(heaps(rng.sample(texts, 30))) == pytest.approx(values(heaps(texts)), nan_ok=True)


def test_heaps_intervals_leave_out_groups_of_prompts():
    texts = list(itertools.chain(*made_answers(3).values()))
    prompts = [number // 2 for number in range(80)]
    scores = heaps(texts, prompts, seed=2)
    bounds = ((0, math.inf), (0, 1), (0, 1))
    for column, (score, ends) in enumerate(zip(scores, bounds, strict=True)):

        def without(kept, column=column):
            return heaps([t for t, p in zip(texts, prompts, strict=True) if kept[p]])[column].value

        assert (score.low, score.high) == pytest.approx(left_out_interval(score.value, without, 40, 2, *ends), rel=1e-9)
    assert [score.name for score in scores] == ["heaps_k", "heaps_beta", "heaps_r2"]
    assert {score.n for score in scores} == {40}


def stream(k, beta, total):
    """Words whose vocabulary after n words is k n^beta, rounded: old words in between."""
    vocabulary, out = 0, []
    for n in range(1, total + 1):
        if round(k * n**beta) > vocabulary:
            vocabulary += 1
        out.append(f"w{vocabulary}")
    return out


def test_heaps_in_order_recovers_the_law_of_a_stream():
    read = stream(4, 0.6, 10_000)
    k, beta, r2 = values(heaps_in_order([" ".join(read[i : i + 37]) for i in range(0, len(read), 37)]))
    assert beta == pytest.approx(0.6, abs=0.002)
    assert k == pytest.approx(4, rel=0.02)
    assert r2 > 0.9999


def scipys(read, step):
    """scipy's fit of k n^beta to the vocabulary after each `step` words."""
    n = np.arange(step, len(read) + 1, step)
    v = np.array([len(set(read[:i])) for i in n])
    tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15}
    k, beta = curve_fit(lambda x, k, beta: k * x**beta, n, v, p0=(2, 0.7), **tight)[0]
    return k, beta, 1 - ((v - k * n**beta) ** 2).sum() / ((v - v.mean()) ** 2).sum()


@pytest.mark.parametrize(("shape", "step"), [(0.9, 100), (0.5, 30), (3.0, 100)])
def test_heaps_in_order_is_nonlinear_least_squares_on_v(shape, step):
    rng = random.Random(2)
    read = [f"w{int(rng.paretovariate(shape))}" for _ in range(3170)]
    assert values(heaps_in_order([" ".join(read)], step)) == pytest.approx(scipys(read, step), rel=1e-6)


@pytest.mark.parametrize("name", [HUMAN, SYNTHETIC])
def test_heaps_in_order_is_scipys_fit_on_real_answers(name):
    texts = real_answers(name, 400, skip=500)
    read = [word for text in texts for word in words(text)]
    actual = heaps_in_order(texts)
    assert values(actual) == pytest.approx(scipys(read, 1000), rel=1e-6)
    assert [score.name for score in actual] == ["published_heaps_k", "published_heaps_beta", "published_heaps_r2"]
    assert all(score.low < score.value < score.high for score in actual)


def test_heaps_in_order_depends_on_order_and_needs_three_points():
    old, new = ["a b c d"] * 100, [f"x{i} y{i} z{i} w{i}" for i in range(100)]
    beta = 1
    assert heaps_in_order(old + new, 100)[beta].value > heaps_in_order(new + old, 100)[beta].value + 0.5
    assert np.isnan(values(heaps_in_order(old[:75] + new, 300))).all()  # 700 words: V at 300 and 600 only
    assert np.isfinite(values(heaps_in_order(old + new + old[:25], 300))).all()


def test_one_repeated_word_does_not_grow():
    k, beta, r2 = fit_in_order(np.zeros(500, dtype=np.int64), 100)
    assert (k, beta) == pytest.approx((1, 0), abs=1e-6)
    assert math.isnan(r2)
    assert heaps_in_order(["word " * 400], 100)[2].note == "needs 300 words and a vocabulary that still grows"
