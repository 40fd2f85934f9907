"""Nearest neighbours: entropies that are known, and the manifolds of precision and recall by their plain definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synthdiv.measures.intervals import share_interval
from synthdiv.measures.neighbours import (
    NEIGHBOURS,
    nearest_neighbour_entropy,
    subsample,
    subsample_pair,
    support_precision,
    support_recall,
)
from synthdiv.measures.vectors import vector_arms
from tests.measures.material import cloud, left_out_interval


def units(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def radius(vectors, row):
    """To the third nearest other vector."""
    return sorted(np.linalg.norm(vectors[row] - vectors[other]) for other in range(len(vectors)) if other != row)[2]


def covered(points, centres):
    """Kynkäänniemi et al., eq. 1 and 2, by loops."""
    radii = [radius(centres, row) for row in range(len(centres))]
    inside = [any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]
    return np.mean(inside)


def plain_entropy(vectors):
    from scipy.special import digamma, gamma

    n, d = len(vectors), vectors.shape[1] - 1
    ball = math.log(math.pi ** (d / 2) / gamma(d / 2 + 1))
    return digamma(n) - digamma(NEIGHBOURS) + ball + d * np.mean([math.log(radius(vectors, row)) for row in range(n)])


def test_uniform_on_a_sphere_is_the_log_of_its_area():
    for d, area in ((2, 2 * math.pi), (3, 4 * math.pi), (4, 2 * math.pi**2)):
        score = nearest_neighbour_entropy(cloud(0, 2000, d, 0.0))
        assert score.value == pytest.approx(math.log(area), abs=0.06)
        assert score.low <= math.log(area) <= score.high


def test_narrower_directions_have_less():
    wide, narrow = (nearest_neighbour_entropy(cloud(0, 500, 6, shift)) for shift in (0.5, 3.0))
    assert narrow.high < wide.low


@pytest.mark.parametrize("human_prompts", [None, "same"])
def test_values_and_replicates_are_the_definition(human_prompts):
    own, human = units(cloud(0, 60)), units(cloud(1, 45, shift=0.7))
    prompts, other = np.arange(60) // 2, np.arange(45)  # 15 human prompts are of nobody else
    ids = other.tolist() if human_prompts else None

    def human_rows(kept):
        return np.append(kept, np.ones(15, bool)) if human_prompts else np.ones(45, bool)

    for measure, order in ((support_precision, 1), (support_recall, -1)):
        score = measure(own * 7, human, prompts.tolist(), ids, seed=4)

        def share(kept, order=order):
            return covered(*(own[kept[prompts]], human[human_rows(kept)])[::order])

        assert score.value == covered(*(own, human)[::order])
        low, high = left_out_interval(score.value, share, 30, 4)
        error = (high - low) / 2 / stats.t.ppf(0.975, 19)
        trials = min(60, score.value * (1 - score.value) / error**2)
        assert (score.low, score.high) == pytest.approx(share_interval(score.value, trials), rel=1e-9)
    score = nearest_neighbour_entropy(own * 7, prompts.tolist(), seed=4)
    assert score.value == pytest.approx(plain_entropy(own), rel=1e-9)
    expected = left_out_interval(score.value, lambda kept: plain_entropy(own[kept[prompts]]), 30, 4)
    assert (score.low, score.high) == pytest.approx(expected, rel=1e-9)


def test_precision_and_recall_show_which_side_collapsed():
    human = cloud(0, 300, 3, 0.0)
    narrow, wide = human[np.argsort(human[:, 0])[:150]], np.vstack([human, cloud(1, 300, 3, 0.0)])
    assert support_precision(narrow, human).value == 1
    assert support_recall(narrow, human).value < 0.7
    half = wide[wide[:, 0] > 0]
    assert support_recall(wide, half).value == 1
    assert support_precision(wide, half).value < 0.7


@given(st.integers(0, 10**6), st.integers(4, 30))
@settings(max_examples=40, deadline=None)
def test_bounds_and_order(seed, n):
    rng = np.random.default_rng(seed)
    own, human = rng.normal(size=(n, 4)), rng.normal(size=(n + 3, 4))
    order = rng.permutation(n)
    for measure in (support_precision, support_recall):
        score = measure(own, human)
        assert 0 <= score.value <= 1
        assert measure(own[order] * 2, human).value == score.value
        assert measure(own, own).value == 1
    entropy = nearest_neighbour_entropy(own)
    assert nearest_neighbour_entropy(own[order]).value == pytest.approx(entropy.value, rel=1e-9)


def test_copies_are_counted_and_not_scored():
    vectors = cloud(0, 40).astype(np.float32)
    vectors[:NEIGHBOURS] = vectors[NEIGHBOURS - 1]
    assert math.isfinite(nearest_neighbour_entropy(vectors).value)
    vectors[NEIGHBOURS] = vectors[0] * np.float32(1.0000001)
    score = nearest_neighbour_entropy(vectors)
    assert math.isnan(score.value)
    assert score.note == "4 of 40 vectors have 3 copies or more"
    equal = np.ones((30, 4), dtype=np.float32)
    assert "30 of 30" in nearest_neighbour_entropy(equal).note
    assert support_precision(equal, equal).value == support_recall(equal, equal).value == 1
    assert support_precision(equal, cloud(0, 30, 4)).value in (0, 1)


@pytest.mark.parametrize(
    ("vectors", "note"),
    [
        (np.empty((0, 4)), "fewer than 4 vectors"),
        (np.empty(0), "fewer than 4 vectors"),
        (np.eye(3), "fewer than 4 vectors"),
        (np.vstack([np.eye(4), np.zeros((2, 4))]), "2 of 6 vectors are zero"),
        (np.vstack([np.eye(4), np.full((1, 4), math.nan)]), "1 of 5 vectors are zero or not"),
    ],
)
def test_undefined_has_a_reason(vectors, note):
    for measure in (support_precision, support_recall):
        assert note in measure(vectors, cloud(0, 9, 4)).note
        assert note.replace("vectors", "human vectors") in measure(cloud(0, 9, 4), vectors).note
    assert note in nearest_neighbour_entropy(vectors).note


def test_one_dimension_has_no_neighbourhood():
    assert "two dimensions" in nearest_neighbour_entropy(cloud(0, 9, 1)).note


def test_a_limit_takes_whole_prompts_the_same_of_every_arm():
    ids = [f"p{i}" for i in range(50) for _ in range(4)]
    order = np.random.default_rng(0).permutation(200)
    shuffled_prompts = [ids[i] for i in order]
    sets = (cloud(0, 200), ids), (cloud(1, 200), shuffled_prompts), (cloud(2, 60), [f"p{i}" for i in range(60)])
    student, vanilla, human = vector_arms(0, *sets)
    (a, c, *notes), (b, _) = subsample_pair(student, human, 0, 90), subsample(vanilla, 0, 90)
    assert len(a.vectors) == len(b.vectors) == 88
    assert set(a.prompt) == set(b.prompt)
    assert sorted(np.bincount(a.prompt)[np.unique(a.prompt)]) == [4] * 22
    assert set(c.prompt) == {-1, *a.prompt}
    assert len(c.vectors) == 32
    assert notes == ["on 88 of 200 vectors", "on 32 of 60 human vectors"]
    assert a.groups == 20
    assert (a.vectors == student.vectors[np.isin(student.prompt, a.prompt)]).all()
    score = nearest_neighbour_entropy(cloud(0, 200), ids, limit=90)
    assert (score.n, score.note) == (22, "on 88 of 200 vectors")
    assert math.isfinite(score.low)
    assert subsample(student, 0, 200)[1] == ""


@pytest.mark.parametrize("counts", [[2100], [1050, 1050], [1990, *[10] * 5], [1, 5000], [300] * 10])
def test_few_prompts_with_many_answers_use_some_of_them(counts):
    ids = np.repeat(np.arange(len(counts)), counts)
    arm, twin = vector_arms(0, *[(cloud(0, len(ids), 2), np.random.default_rng(0).permutation(ids).tolist())] * 2)
    (cut, note), (other, _) = subsample(arm, 0), subsample(twin, 0)
    entered = np.bincount(cut.prompt)
    assert len(entered) == len(counts)
    assert 2000 - len(counts) < len(cut.vectors) <= 2000
    assert note == f"on {len(cut.vectors)} of {len(ids)} vectors"
    assert set(entered[entered < np.bincount(arm.prompt)]) <= {entered.max()}  # the same number of all that are cut
    assert cut.groups == min(len(counts), 20)
    assert (cut.vectors == other.vectors).all()  # an arm differs from itself by nothing
    for prompt in range(len(counts)):
        whole = arm.vectors[arm.prompt == prompt]
        assert (cut.vectors[cut.prompt == prompt] == whole[: entered[prompt]]).all()


def test_a_prompt_that_does_not_fit_is_skipped():
    ids = np.repeat(np.arange(40), [100, *[2] * 39]).tolist()
    (arm,) = vector_arms(0, (cloud(0, len(ids), 2), ids))
    for seed in range(10):
        cut, _ = subsample(arm, seed, 100)
        assert 78 <= len(cut.vectors) <= 100
    assert subsample(arm, 0, 5)[1] == "on 5 of 178 vectors"


def test_an_arm_that_lacks_vectors_uses_the_prompts_of_one_that_has_them():
    ids = [f"p{i}" for i in range(50) for _ in range(4)]
    whole, few = vector_arms(0, (cloud(0, 200), ids), (cloud(1, 150), ids[50:]))
    cut, _ = subsample(few, 0, 90, np.bincount(whole.prompt))
    assert set(cut.prompt) == set(subsample(whole, 0, 90)[0].prompt) & set(few.prompt)
