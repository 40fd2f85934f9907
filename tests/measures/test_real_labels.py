"""What a score is worth in real labels."""

from __future__ import annotations

import math

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
        (5.5, CURVE, "outside of the real-only curve (1 at 100, 2 at 200, 4 at 400, 5 at 800)"),
        (0.5, CURVE, "outside of the real-only curve"),
        (1.5, {100: 1.0, 200: 2.0, 400: 1.0}, "the curve has it at 2 numbers of labels"),
        (1.0, {100: 1.0}, "outside of the real-only curve (1 at 100)"),
        (1.0, {}, "outside of the real-only curve (no arm)"),
        (math.nan, CURVE, "outside"),
    ],
)
def test_what_the_curve_does_not_say_is_undefined_with_its_reason(value, curve, note):
    score = real_labels(value, curve)
    assert math.isnan(score.value)
    assert score.note.startswith(note)
