"""Heaps' law: exact rarefaction against enumeration, fits against data that obey the law."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from synthdiv.measures.heaps import heaps, heaps_in_order, heaps_of, rarefaction


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_rarefaction_is_the_mean_over_all_draws(counts):
    tokens = [word for word, count in enumerate(counts) for _ in range(count)][:9]
    counts = np.bincount(tokens)
    sizes = np.arange(1, len(tokens) + 1)
    expected = [np.mean([len(set(draw)) for draw in itertools.combinations(tokens, n)]) for n in sizes]
    assert rarefaction(counts, sizes) == pytest.approx(expected, rel=1e-10)


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


def test_heaps_extremes():
    fresh = heaps([" ".join(f"w{i}" for i in range(500))])
    assert fresh == pytest.approx((1, 1, 1), abs=1e-6)
    same = heaps(["word"] * 200)
    assert (same.k, same.beta) == (1, 0)
    assert math.isnan(same.r2)


@pytest.mark.parametrize("texts", [[], [""], ["!"], ["a b c"] * 33])
def test_heaps_undefined_below_100_words(texts):
    assert np.isnan(heaps(texts)).all()
    assert np.isnan(heaps_in_order(texts)).all()


def test_heaps_recovers_the_exponent_of_zipf():
    """Words drawn with p ~ rank^-2 have an expected vocabulary that grows as the root of n."""
    rng = np.random.default_rng(1)
    fit = heaps_of(np.bincount(np.minimum(rng.zipf(2.0, 200_000), 10**7)))
    assert fit.beta == pytest.approx(0.5, abs=0.02)
    assert fit.r2 > 0.999


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_heaps_ignores_the_order_of_texts(rng):
    texts = [" ".join(rng.choices("abcdefghijklmnop", k=7)) for _ in range(30)]
    assert heaps(rng.sample(texts, 30)) == heaps(texts)


def stream(k, beta, total):
    """Words whose vocabulary after n words is k n^beta, rounded: old words in between."""
    vocabulary, out = 0, []
    for n in range(1, total + 1):
        if round(k * n**beta) > vocabulary:
            vocabulary += 1
        out.append(f"w{vocabulary}")
    return out


def test_heaps_in_order_recovers_the_law_of_a_stream():
    words = stream(4, 0.6, 10_000)
    fit = heaps_in_order([" ".join(words[i : i + 37]) for i in range(0, len(words), 37)])
    assert fit.beta == pytest.approx(0.6, abs=0.002)
    assert fit.k == pytest.approx(4, rel=0.02)
    assert fit.r2 > 0.9999


def test_heaps_in_order_is_nonlinear_least_squares_on_v():
    rng = random.Random(2)
    words = [f"w{int(rng.paretovariate(0.9))}" for _ in range(3170)]
    n = np.arange(100, 3171, 100)
    v = [len(set(words[:i])) for i in n]
    k, beta = curve_fit(lambda x, k, beta: k * x**beta, n, v, p0=(2, 0.7))[0]
    assert heaps_in_order([" ".join(words)], step=100)[:2] == pytest.approx((k, beta), rel=1e-4)


def test_heaps_in_order_depends_on_order_and_needs_three_points():
    old, new = ["a b c d"] * 100, [f"x{i} y{i} z{i} w{i}" for i in range(100)]
    assert heaps_in_order(old + new, 100).beta > heaps_in_order(new + old, 100).beta + 0.5
    assert np.isnan(heaps_in_order(old[:75] + new, 300)).all()  # 700 words: V at 300 and 600 only
    assert np.isfinite(heaps_in_order(old + new + old[:25], 300)).all()
