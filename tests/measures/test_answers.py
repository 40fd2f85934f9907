"""Measures of single answers: length, sentences, repetition."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synthdiv.measures.answers import (
    repetition_rate,
    repetitions,
    response_length,
    sentence_count,
)
from synthdiv.measures.estimates import NO_SPREAD
from synthdiv.measures.words import words

MEASURES = [response_length, sentence_count, repetition_rate]
TEXTS = st.lists(st.text(alphabet="ab .", max_size=40), min_size=1, max_size=12)


def test_repetition_is_one_minus_distinct_over_all():
    loop = "go on and " * 10  # 30 words, 27 4-grams, 3 of them distinct
    assert repetitions([words(loop), list("abcd"), list("abc"), []]) == pytest.approx(
        [1 - 3 / 27, 0, math.nan, math.nan], nan_ok=True
    )
    assert repetitions([list("aaa")], n=1) == pytest.approx([2 / 3])
    with pytest.raises(ValueError, match="at least 1 word"):
        repetitions([["a"]], n=0)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=15), max_size=8), st.integers(1, 5))
def test_repetition_by_counting(tokens, n):
    for actual, text in zip(repetitions(tokens, n), tokens, strict=True):
        grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
        assert math.isnan(actual) if not grams else actual == pytest.approx(1 - len(set(grams)) / len(grams))
        assert not grams or 0 <= actual < 1


def test_scores_are_means_over_prompts_with_the_t_interval():
    texts, prompts = ["a b", "a b c d", "a", "a b c d e"], ["p", "p", "q", "r"]
    score = response_length(texts, prompts)
    half = stats.t.ppf(0.975, 2) * stats.sem([3, 1, 5])
    low, high = 3 * math.exp(-half / 3), 3 * math.exp(half / 3)
    assert (score.name, score.value, score.n, score.unit, score.higher_is_better) == (
        "response_words",
        3,
        3,
        "words",
        None,
    )
    assert (score.low, score.high) == pytest.approx((low, high))
    assert response_length(texts).n == 4
    assert sentence_count(["A b. C d.", "", "A"], [1, 1, 2]).value == 1  # an empty answer has 0 sentences
    assert sentence_count(texts).name == "sentences"


def test_answers_without_a_value_are_counted_in_the_note():
    score = repetition_rate(["a a a a a a", "short", "a b c d e", "also", "too short"], [1, 1, 2, 3, 3])
    assert (score.name, score.n, score.higher_is_better) == ("repetition_4", 2, False)
    assert score.value == pytest.approx((2 / 3 + 0) / 2)
    assert "3 of 5 answers" in score.note
    assert "1 of 3 prompts" in score.note
    every = repetition_rate(["short", ""])
    assert math.isnan(every.value)
    assert "2 of 2 answers" in every.note


@pytest.mark.parametrize("measure", MEASURES)
def test_no_answer_and_one_answer(measure):
    nothing = measure([])
    assert (math.isnan(nothing.value), nothing.n) == (True, 0)
    assert nothing.note
    one = measure(["one two three four five"])
    assert math.isfinite(one.value)
    assert math.isnan(one.low)
    assert "no interval" in one.note


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_answers_have_no_interval_of_no_width(measure):
    score = measure(["one two three four five"] * 9)
    if measure is repetition_rate:  # none of nine answers repeats itself: at most three tenths do
        assert (score.low, score.high) == pytest.approx((0, 1 - 0.025 ** (1 / 9)))
    else:
        assert score.note == NO_SPREAD


@pytest.mark.parametrize("measure", MEASURES)
def test_wrong_number_of_prompts(measure):
    with pytest.raises(ValueError, match="for each answer"):
        measure(["a", "b"], ["p"])


@settings(deadline=None)
@given(TEXTS, st.randoms(use_true_random=False))
def test_order_does_not_matter(texts, rng):
    order = rng.sample(range(len(texts)), len(texts))
    prompts = [i // 2 for i in range(len(texts))]
    for measure in MEASURES:
        one = measure(texts, prompts)
        other = measure([texts[i] for i in order], [prompts[i] for i in order])
        ends = [(s.value, s.low, s.high, float(s.n)) for s in (one, other)]
        assert ends[0] == pytest.approx(ends[1], nan_ok=True)
        assert one.note == other.note


@settings(deadline=None)
@given(TEXTS)
def test_doubling_all_answers_changes_no_mean(texts):
    for measure in MEASURES:
        assert measure(texts * 2).value == pytest.approx(measure(texts).value, nan_ok=True)


def test_long_and_many_answers_take_seconds():
    start = time.process_time()
    long = "Ärger über naïve Œuvres. " * 400_000  # 10 MB
    assert response_length([long]).value == 1_600_000
    assert sentence_count([long]).value == 400_000
    assert repetition_rate([long]).value == pytest.approx(1 - 4 / 1_599_997)
    many = np.random.default_rng(0).integers(0, 500, (20_000, 100)).astype(str).tolist()
    assert (repetitions(many) < 0.5).all()
    assert time.process_time() - start < 30
