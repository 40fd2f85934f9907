"""Vendi scores against the package of their authors, and what is true of them."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.measures.spectrum import ORDERS, vendi
from tests.measures.material import left_out_interval


def peer(vectors, q):
    """`score_X` takes any order and computes order 1; `score_K` does as it is told, and calls infinity "inf"."""
    package = pytest.importorskip("vendi_score.vendi", reason="vendi-score is not installed")
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*scipy.sparse.csr.*", DeprecationWarning)
        return package.score_K(directions @ directions.T, q="inf" if q == math.inf else q)


@pytest.mark.parametrize("q", ORDERS)
@pytest.mark.parametrize("shape", [(3, 5), (40, 60), (60, 40), (700, 20), (5, 5)])
def test_equals_the_package(q, shape):
    vectors = np.random.default_rng(0).normal(size=shape) + 0.3
    score = vendi(vectors, q)
    assert score.value == pytest.approx(peer(vectors, q), rel=1e-6)
    assert score.name == {1: "vendi_1", 2: "vendi_2"}.get(q, "vendi_inf")


@pytest.mark.parametrize("function", ["score_X", "score_dual"])
def test_equals_the_package_on_vectors_of_any_length(function):
    package = pytest.importorskip("vendi_score.vendi", reason="vendi-score is not installed")
    vectors = np.random.default_rng(1).normal(size=(300, 32)) * np.random.default_rng(2).uniform(1, 5, (300, 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*scipy.sparse.csr.*", DeprecationWarning)
        wanted = getattr(package, function)(vectors)
    assert vendi(vectors).value == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("q", ORDERS)
@pytest.mark.parametrize("d", [4, 100])
def test_replicates_are_the_measure_without_a_group(q, d):
    """Both where moments are the smaller matrix and where cosines are."""
    vectors, prompts = np.random.default_rng(0).normal(size=(50, d)), np.arange(50) // 2
    score = vendi(vectors, q, prompts.tolist(), seed=3)
    expected = left_out_interval(score.value, lambda kept: peer(vectors[kept[prompts]], q), 25, 3, 1, min(50, d))
    assert (score.low, score.high) == pytest.approx(expected, rel=1e-6)


def test_the_published_counterexample():
    """A duplicate can raise diversity: of {a, a, a, b} and then + b."""
    a, b = np.eye(2)
    assert vendi(np.array([a, a, a, b])).value == pytest.approx(1.7548, abs=1e-4)
    assert vendi(np.array([a, a, a, b, b])).value == pytest.approx(1.9601, abs=1e-4)


@given(st.integers(0, 10**6), st.integers(2, 25), st.integers(1, 12), st.sampled_from(ORDERS))
@settings(max_examples=80, deadline=None)
def test_bounds_order_and_doubling(seed, n, d, q):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d))
    value = vendi(vectors, q).value
    assert 1 - 1e-9 <= value <= min(n, d) + 1e-9
    assert vendi(vectors[rng.permutation(n)] * 3, q).value == pytest.approx(value, rel=1e-9)
    assert vendi(np.tile(vectors, (2, 1)), q).value == pytest.approx(value, rel=1e-9)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_higher_orders_are_smaller(seed):
    vectors = np.random.default_rng(seed).normal(size=(20, 6))
    values = [vendi(vectors, q).value for q in ORDERS]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("q", ORDERS)
def test_equal_vectors_are_one_and_orthogonal_ones_many(q):
    assert vendi(np.ones((30, 4)), q).value == pytest.approx(1)
    assert vendi(np.eye(30), q).value == pytest.approx(30)


@pytest.mark.parametrize("q", ORDERS)
@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_undefined_has_a_reason(q, bad):
    vectors = np.ones((5, 3), dtype=np.float32)
    vectors[:2] = bad
    assert vendi(vectors, q).note == "2 of 5 vectors are zero or not finite"
    for few in (np.empty((0, 3)), np.ones((1, 3))):  # one vector alone amounts to one, whatever it is
        score = vendi(few, q)
        assert math.isnan(score.value)
        assert score.note == "fewer than 2 vectors"
    for pair in (np.eye(2), np.eye(2)[:, :1] + 1):  # by cosines and by moments
        assert "no interval" in vendi(pair, q).note


def test_another_order_is_refused():
    with pytest.raises(ValueError, match="q=3: unknown order"):
        vendi(np.eye(3), 3)
