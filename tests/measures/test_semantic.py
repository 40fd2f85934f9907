"""All semantic scores of one arm: each the public measure of that name, and differences over the same prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synthdiv.core.types import DataError
from synthdiv.measures import neighbours, reference, spectrum, vectors
from synthdiv.measures.estimates import NO_SPREAD
from synthdiv.measures.semantic import semantic_scores
from tests.measures.material import cloud

AGAINST_HUMAN = ("mauve", "frechet", "precision", "recall", "cluster_entropy")
PROMPTS = [f"p{i}" for i in range(80) for _ in range(2)]
NAMES = [f"p{i}" for i in range(80)]
STUDENT, VANILLA, HUMAN = (
    cloud(seed, n, 6, shift, np.float32) for seed, n, shift in ((0, 160, 0.5), (1, 160, 0.2), (2, 80, 0.5))
)


def by_name(scores):
    actual = {score.name: score for score in scores}
    assert len(actual) == len(scores)
    return actual


def test_each_score_equals_the_public_measure():
    actual = by_name(semantic_scores(STUDENT, VANILLA, HUMAN, PROMPTS, PROMPTS, NAMES, seed=3))
    for suffix, own in (("", STUDENT), ("-vanilla", VANILLA)):
        pair = {"prompts": PROMPTS, "human_prompts": NAMES, "seed": 3}
        alone = {"prompts": PROMPTS, "seed": 3}
        public = by_name(
            [
                vectors.mean_cosine_distance(own, **alone),
                vectors.within_prompt_distance(own, **alone),
                vectors.between_prompt_distance(own, **alone),
                *(spectrum.vendi(own, q, **alone) for q in spectrum.ORDERS),
                neighbours.nearest_neighbour_entropy(own, **alone),
                reference.cluster_entropy(own, HUMAN, **alone),
                reference.mauve(own, HUMAN, **pair),
                reference.frechet_distance(own, HUMAN, **pair),
                neighbours.support_precision(own, HUMAN, **pair),
                neighbours.support_recall(own, HUMAN, **pair),
            ]
        )
        assert list(actual) == [*public, *(f"{name}-vanilla" for name in public)]
        for name, score in public.items():
            if suffix:
                assert actual[name + suffix].value == pytest.approx(actual[name].value - score.value, abs=1e-12)
                gap = actual[name + suffix]
                assert gap.low < gap.value < gap.high or name == "mauve"
            else:
                assert repr(actual[name]) == repr(score), "NaN is not equal to itself"


def test_the_difference_from_itself_is_zero():
    actual = by_name(semantic_scores(STUDENT, STUDENT, HUMAN, PROMPTS, PROMPTS, NAMES))
    gaps = [score for name, score in actual.items() if name.endswith("-vanilla")]
    assert len(gaps) == 12
    assert all((gap.value, gap.note) == (0, NO_SPREAD) or "clusters" in gap.note for gap in gaps)


def test_order_of_rows_and_number_of_answers_do_not_matter():
    order = np.random.default_rng(0).permutation(160)
    shuffled_prompts = [PROMPTS[i] for i in order]
    actual, other = (
        by_name(semantic_scores(STUDENT, base, None, PROMPTS, ids))
        for base, ids in ((VANILLA, PROMPTS), (VANILLA[order], shuffled_prompts))
    )
    for name, score in actual.items():
        if not name.startswith("cluster"):  # k-means starts from rows by number
            assert (other[name].value, other[name].low) == pytest.approx((score.value, score.low), rel=1e-6)
    one_each = by_name(semantic_scores(STUDENT, VANILLA[::2], None, PROMPTS, NAMES))
    assert "no prompt with two" in one_each["cosine_distance_within-vanilla"].note
    assert math.isfinite(one_each["cosine_distance-vanilla"].low)


def test_without_human_answers_nothing_is_measured_against_them():
    actual, full = (by_name(semantic_scores(STUDENT, None, human, PROMPTS)) for human in (None, HUMAN))
    assert full.keys() - actual.keys() == {"mauve", "frechet", "precision", "recall", "cluster_entropy"}


def test_notes_count_the_vectors_of_subsampled_measures():
    """Only what compares with human answers stands on some of them."""
    actual = by_name(semantic_scores(cloud(0, 2100), None, cloud(1, 2050)))
    for name, score in actual.items():
        assert ("2000 of 2100 vectors" in score.note) == (name in ("neighbour_entropy", "mauve", "precision", "recall"))
        assert ("human" in score.note) == (name in ("mauve", "precision", "recall")), name


def test_vectors_of_empty_answers_are_left_out_of_both_arms():
    student, human = STUDENT.copy(), HUMAN.copy()
    student[[0, 1, 7]] = math.nan  # both answers to p0
    human[5] = math.nan
    actual = by_name(semantic_scores(student, VANILLA, human, PROMPTS, PROMPTS, NAMES))
    rows = [row for row in range(160) if row not in (0, 1, 7)]
    wanted = vectors.mean_cosine_distance(STUDENT[rows], [PROMPTS[row] for row in rows])
    assert actual["cosine_distance"].value == wanted.value
    assert actual["cosine_distance"].n == 79
    wanted = wanted.value - vectors.mean_cosine_distance(VANILLA[2:]).value
    assert actual["cosine_distance-vanilla"].value == pytest.approx(wanted, abs=1e-12)
    alone = by_name(semantic_scores(student, None, human, PROMPTS, None, NAMES))
    for name, score in actual.items():
        assert "3 of 160 vectors" in score.note
        assert ("1 prompts without a vector in the other arm" in score.note) == name.endswith("-vanilla")
        assert ("1 of 80 human vectors" in score.note) == (name.split("-")[0] in AGAINST_HUMAN)
        assert math.isfinite(score.low) or name.startswith("mauve"), score
        assert name not in alone or alone[name] == score


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_vectors_have_a_reason(n):
    for human in (None, HUMAN, HUMAN[:1]):
        for base in (None, VANILLA[:n]):
            for score in semantic_scores(STUDENT[:n], base, human):
                assert score.note or math.isfinite(score.low), score
                assert score.n <= n


def test_invalid_vectors_are_undefined():
    for bad in (np.zeros((30, 3)), np.full((30, 3), math.nan)):
        for score in semantic_scores(bad, bad, bad):
            assert math.isnan(score.value)
            assert score.note


def test_all_equal_has_values_or_reasons():
    same = np.ones((40, 3))
    for score in semantic_scores(same, same, same):
        assert score.note or score.low <= score.value <= score.high, score


def test_arms_answer_the_same_prompts():
    with pytest.raises(DataError, match="different prompts"):
        semantic_scores(STUDENT, VANILLA, None, PROMPTS, [f"q{name}" for name in PROMPTS])
    with pytest.raises(DataError, match="different prompts"):
        semantic_scores(STUDENT, VANILLA[:7])
    with pytest.raises(ValueError, match="160 answers and 80 prompts"):
        semantic_scores(STUDENT, VANILLA, None, PROMPTS, NAMES)
