"""Distances to the human set, against the libraries and formulas that define them."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.measures.reference import cluster_entropy, divergence_area, fit_centres, frechet_distance, mauve
from tests.measures.material import cloud, left_out_interval

GIVEN = " clusters, which the interval takes as given"


def plain_frechet(a, b):
    product = np.cov(a.T) @ np.cov(b.T)
    root = np.trace(scipy.linalg.sqrtm(product)).real
    gap = a.mean(0) - b.mean(0)
    return gap @ gap + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * root


@pytest.mark.parametrize("far", [0.0, 1e5])
@pytest.mark.parametrize("named", [True, False])
def test_frechet_is_its_formula_and_so_are_its_replicates(named, far):
    own, human = cloud(0, 80) + far, cloud(1, 70, shift=0.7) * 1.2 + far
    prompts = np.arange(80) // 2
    names = list(range(70)) if named else None
    score = frechet_distance(own, human, prompts.tolist(), names, seed=2)
    assert score.value == pytest.approx(plain_frechet(own, human), rel=1e-6)

    def without(kept):
        rows = np.append(kept, np.ones(30, bool)) if named else np.ones(70, bool)
        return plain_frechet(own[kept[prompts]], human[rows])

    assert (score.low, score.high) == pytest.approx(left_out_interval(score.value, without, 40, 2, 0), rel=1e-6)
    assert not score.note


def test_frechet_of_few_vectors_is_noted_as_biased():
    own, human = cloud(0, 9, 20), cloud(1, 30, 20)
    score = frechet_distance(own, human)
    assert score.note == "biased: 9 vectors of 20 dimensions"
    assert score.value == pytest.approx(plain_frechet(own, human), rel=1e-5)


@given(st.integers(0, 10**6), st.integers(3, 40))
@settings(max_examples=30, deadline=None)
def test_frechet_to_itself_is_zero_and_it_is_symmetric(seed, n):
    a, b = cloud(seed, n), cloud(seed + 1, n + 4)
    assert frechet_distance(a, a).value == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a, b).value == pytest.approx(frechet_distance(b, a).value, abs=1e-5)
    assert frechet_distance(a, b).value >= 0


def library(own, human, seed):
    """`compute_mauve` prints what it cannot be kept from printing."""
    package = pytest.importorskip("mauve", reason="mauve-text is not installed")
    return package.compute_mauve(p_features=human, q_features=own, seed=seed)


@pytest.mark.parametrize(("n", "m", "d", "shift"), [(60, 60, 6, 0.5), (300, 200, 12, 0.8), (90, 500, 3, 2.0)])
def test_mauve_is_that_of_the_library(n, m, d, shift, capfd):
    own, human = cloud(0, n, d, shift), cloud(1, m, d)
    score = mauve(own, human, seed=3)
    assert capfd.readouterr() == ("", "")
    assert score.value == pytest.approx(library(own, human, 3).mauve, rel=1e-6)
    assert math.isnan(score.low)
    assert score.note.startswith("no interval: its clusters differ")


@given(st.lists(st.integers(0, 9), min_size=2, max_size=8), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_area_is_that_of_the_library(counts, random):
    package = pytest.importorskip("mauve", reason="mauve-text is not installed")
    from mauve.compute_mauve import compute_area_under_curve, get_divergence_curve_for_multinomials

    assert package
    other = counts[:]
    random.shuffle(other)
    p, q = np.array(counts), np.array(other)
    if not p.sum():
        assert math.isnan(divergence_area(p, q))
        return
    curve = get_divergence_curve_for_multinomials(p / p.sum(), q / q.sum(), np.linspace(1e-6, 1 - 1e-6, 25), 5)
    x, y = curve.T
    a, b = np.argsort(x), np.argsort(y)
    wanted = 0.5 * (compute_area_under_curve(x[a], y[a]) + compute_area_under_curve(y[b], x[b]))
    assert divergence_area(p, q) == pytest.approx(wanted, rel=1e-9)
    assert 0 <= divergence_area(p, q) <= 1 + 1e-9


def test_mauve_of_copies_is_quiet_and_defined(capfd):
    own = np.repeat(cloud(0, 5), 20, axis=0)
    assert 0 <= mauve(own, cloud(1, 100)).value < 1
    assert mauve(np.ones((40, 3)), np.ones((40, 3))).note == "all vectors are equal"
    assert capfd.readouterr() == ("", "")


def test_mauve_is_higher_for_closer_sets():
    human = cloud(0, 400)
    near, far = (mauve(cloud(1, 400, shift=shift), human) for shift in (0.55, 1.5))
    assert near.value > far.value + 0.2


def test_cluster_entropy_is_that_of_the_counts():
    own, human = cloud(0, 300), cloud(1, 200)
    score = cluster_entropy(own, human, (np.arange(300) // 3).tolist(), clusters=7, seed=2)
    centres, note = fit_centres(human, 7, 2)
    directions = own / np.linalg.norm(own, axis=1, keepdims=True)
    nearest = np.linalg.norm(directions[:, None] - centres, axis=2).argmin(axis=1)

    def bits(labels):
        shares = np.unique(labels, return_counts=True)[1] / len(labels)
        return -(shares * np.log2(shares)).sum()

    assert (score.note, note) == (f"7{GIVEN}", f"7{GIVEN}")
    assert score.value == pytest.approx(bits(nearest), rel=1e-9)
    expected = left_out_interval(
        score.value, lambda kept: bits(nearest[kept[np.arange(300) // 3]]), 100, 2, 0, math.log2(7)
    )
    assert (score.low, score.high) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 10**6), st.integers(20, 60))
@settings(max_examples=15, deadline=None)
def test_cluster_entropy_bounds_order_and_doubling(seed, n):
    human, own = cloud(seed, 100), cloud(seed + 1, n)
    score = cluster_entropy(own, human)
    assert score.note == f"10{GIVEN}"
    assert 0 <= score.value <= math.log2(10) + 1e-9
    order = np.random.default_rng(seed).permutation(n)
    assert cluster_entropy(own[order] * 2, human).value == pytest.approx(score.value, rel=1e-9)
    assert cluster_entropy(np.tile(own, (2, 1)), human).value == pytest.approx(score.value, rel=1e-9)


def test_cluster_entropy_of_copies_is_a_finding():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cluster_entropy(np.ones((40, 3))).value == 0
        assert cluster_entropy(np.ones((5, 3)), cloud(0, 100, 3)).value == 0
    assert cluster_entropy(cloud(0, 100)).note == f"10{GIVEN}"
    assert cluster_entropy(cloud(0, 900)).note == f"50{GIVEN}"


@pytest.mark.parametrize(
    ("vectors", "note"),
    [
        (np.empty((0, 4)), "fewer than"),
        (np.empty(0), "fewer than"),
        (np.ones((1, 4)), "fewer than"),
        (np.vstack([np.ones((30, 4)), np.full((2, 4), math.nan)]), "2 of 32"),
        (np.vstack([np.ones((30, 4)), np.full((1, 4), -math.inf)]), "1 of 31"),
    ],
)
def test_undefined_has_a_reason(vectors, note):
    for measure in (mauve, frechet_distance, cluster_entropy):
        for score in (measure(vectors, cloud(0, 30, 4)), measure(cloud(0, 30, 4), vectors)):
            if measure is cluster_entropy and len(vectors) == 1 and score.value == 0:
                continue  # one vector falls into one cluster
            assert math.isnan(score.value)
            assert note in score.note
