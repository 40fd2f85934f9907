"""What a score is worth in real labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.measures.real_labels import real_labels

CURVE = {100: 1.0, 200: 2.0, 400: 4.0, 800: 5.0}


@given(st.floats(100, 800), st.sampled_from([1.0, -1.0]))
def test_a_point_of_the_curve_is_worth_its_own_labels(labels, sign):
    """Linear in the logarithm; the direction of the measure does not matter."""
    fewer = max(at for at in CURVE if at <= labels)
    more = min(at for at in CURVE if at >= labels)
    share = math.log(labels / fewer) / math.log(more / fewer) if more > fewer else 0
    value = CURVE[fewer] + share * (CURVE[more] - CURVE[fewer])
    score = real_labels(sign * value, {at: sign * level for at, level in CURVE.items()})
    assert score.value == pytest.approx(labels)
    assert (score.n, score.note) == (4, "")


@pytest.mark.parametrize(
    ("value", "curve", "note"),
    [
        (5.5, CURVE, "5.5 is outside of the real-only curve (1 at 100, 2 at 200, 4 at 400, 5 at 800)"),
        (0.5, CURVE, "0.5 is outside of the real-only curve"),
        (1.5, {100: 1.0, 200: 2.0, 400: 1.0}, "the curve has it at 2 numbers of labels"),
        (1.0, {100: 1.0}, "1 is outside of the real-only curve (1 at 100)"),
        (1.0, {}, "1 is outside of the real-only curve (no arm)"),
        (math.nan, CURVE, "nan is outside"),
    ],
)
def test_what_the_curve_does_not_say_is_undefined_with_its_reason(value, curve, note):
    score = real_labels(value, curve)
    assert math.isnan(score.value)
    assert score.note.startswith(note)


@pytest.mark.parametrize("sd", [0.02, 0.2])
@pytest.mark.parametrize("labels", [150, 300, 780])
def test_the_interval_over_replicates_covers_the_labels_that_are_worth_as_much(labels, sd):
    """95 % of 400 studies of four replicates, whose models and curves vary; an end of the curve counts as open."""
    random, at, covered, inside = np.random.default_rng(0), np.array([100, 200, 400, 800]), 0, 0
    means = np.log(at)
    for _ in range(400):
        levels = means[:, None] + random.normal(0, sd, (4, 4))
        values = math.log(labels) + random.normal(0, sd, 4)
        score = real_labels(values, dict(zip(at.tolist(), levels, strict=True)))
        if math.isnan(score.value):
            continue
        inside += 1
        assert score.low <= score.value <= score.high
        assert ("reaches an end" in score.note) is (score.low == 100 or score.high == 800)
        covered += score.low <= labels <= score.high
    assert covered / inside > 0.92, "two standard errors below 95 %"
    assert inside > 200


@pytest.mark.parametrize(
    ("values", "curve", "note"),
    [
        ([1.4, 1.6], {100: [1.0, 1.0], 200: [2.0, 2.0]}, "descriptive: fewer than 3 replicates"),
        ([1.5] * 3, {100: [1.0] * 3, 200: [2.0] * 3}, "no interval: the same in every replicate"),
    ],
)
def test_without_replicates_that_vary_there_is_a_value_and_no_interval(values, curve, note):
    score = real_labels(values, curve)
    assert score.value == pytest.approx(math.sqrt(2) * 100)
    assert math.isnan(score.low)
    assert math.isnan(score.high)
    assert score.note == note
