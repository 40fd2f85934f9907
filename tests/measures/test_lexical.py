"""Distinct-n against sets, entropy against scipy, and what is true of both."""

from __future__ import annotations

import math
from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as entropy_of

from synthdiv.measures import distinct_n, heaps, ngram_entropy, self_bleu
from synthdiv.measures.estimates import ON_BOUND
from synthdiv.measures.lexical import COUNT_MEASURES, count_values
from synthdiv.measures.ngrams import ngrams
from synthdiv.measures.words import words
from tests.measures.material import HUMAN, left_out_interval, made_answers, real_answers

SENTENCES = st.lists(st.sampled_from(["the", "cat", "The", "sat", "on", "3.5", "mat."]), max_size=9).map(" ".join)


def pooled(texts, n):
    """How often each n-gram stands in all texts."""
    return Counter(tuple(w[i : i + n]) for w in map(words, texts) for i in range(len(w) - n + 1))


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b a b"], 1, 2 / 4),
        (["a b a b"], 2, 2 / 3),
        (["a b", "b a", "A B!"], 2, 2 / 3),  # pooled, lower-cased, never across texts
        (["a", "b"], 1, 1.0),
    ],
)
def test_distinct_n(texts, n, expected):
    score = distinct_n(texts, n)
    assert score.value == pytest.approx(expected)
    assert (score.name, score.unit, score.higher_is_better) == (f"distinct_{n}", "share", True)


@pytest.mark.parametrize(
    ("texts", "n", "bits"), [(["a b", "c d"], 1, 2.0), (["a a b c"], 1, 1.5), (["a b", "B c"], 2, 1.0), (["a"], 1, 0.0)]
)
def test_ngram_entropy(texts, n, bits):
    score = ngram_entropy(texts, n)
    assert score.value == pytest.approx(bits)
    assert (score.name, score.unit, score.higher_is_better) == (f"entropy_{n}", "bits", True)


@pytest.mark.parametrize("measure", [distinct_n, ngram_entropy])
@pytest.mark.parametrize(("texts", "n"), [([], 1), (["", "!"], 1), (["a", "b"], 2), (["a b"], 3)])
def test_undefined_without_ngrams(measure, texts, n):
    score = measure(texts, n)
    assert np.isnan([score.value, score.low, score.high]).all()
    assert (score.note, score.n) == (f"no text of {n} words", len(texts))


@given(st.lists(SENTENCES, min_size=1, max_size=8), st.integers(1, 4), st.randoms(use_true_random=False))
def test_distinct_n_is_types_per_token_in_any_order(texts, n, rng):
    grams = pooled(texts, n)
    value = distinct_n(texts, n).value
    if not grams:
        assert math.isnan(value)
        return
    assert value == pytest.approx(len(grams) / grams.total())
    assert 1 / grams.total() <= value <= 1
    assert distinct_n(rng.sample(texts, len(texts)), n).value == value
    assert distinct_n(texts * 2, n).value == pytest.approx(value / 2)


@given(st.lists(SENTENCES, min_size=1, max_size=8), st.integers(1, 4), st.randoms(use_true_random=False))
def test_entropy_is_scipys_in_any_order_and_after_doubling(texts, n, rng):
    grams = pooled(texts, n)
    value = ngram_entropy(texts, n).value
    if not grams:
        assert math.isnan(value)
        return
    assert value == pytest.approx(entropy_of(list(grams.values()), base=2), rel=1e-9, abs=1e-12)
    assert 0 <= value <= math.log2(grams.total()) + 1e-12
    assert ngram_entropy(rng.sample(texts, len(texts)), n).value == pytest.approx(value, rel=1e-12, abs=1e-15)
    assert ngram_entropy(texts * 2, n).value == pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_on_real_answers(n):
    texts = real_answers(HUMAN, 300, skip=3000)
    grams = pooled(texts, n)
    assert distinct_n(texts, n).value == pytest.approx(len(grams) / grams.total(), rel=1e-12)
    assert ngram_entropy(texts, n).value == pytest.approx(entropy_of(list(grams.values()), base=2), rel=1e-9)


@given(st.lists(SENTENCES.filter(bool), min_size=2, max_size=8), st.integers(1, 3), st.data())
def test_a_copy_in_place_of_a_text_never_adds_ngrams(texts, n, data):
    """Of distinct n-grams, not of distinct-n or entropy: the ratio may rise when a long text goes."""
    i, j = data.draw(st.integers(0, len(texts) - 1)), data.draw(st.integers(0, len(texts) - 1))
    copied = [*texts[:i], texts[j], *texts[i + 1 :]]

    def types(some):
        value = distinct_n(some, n).value
        return 0 if math.isnan(value) else round(value * pooled(some, n).total())

    assert types(copied) <= types(texts)
    assert len(set(copied)) <= len(set(texts))


def test_a_duplicate_can_raise_diversity():
    """So nothing here promises that it cannot."""
    assert distinct_n(["a a a a", "b c", "b c"], 1).value > distinct_n(["a a a a", "b c", "a a a a"], 1).value
    assert ngram_entropy(["a", "a", "a", "b", "b"], 1).value > ngram_entropy(["a", "a", "a", "b"], 1).value


@pytest.mark.parametrize("measure", [distinct_n, ngram_entropy])
def test_the_interval_leaves_out_groups_of_prompts(measure):
    texts = list(chain(*made_answers(0, prompts=33, samples=3).values()))
    prompts = np.repeat(np.arange(33), 3).tolist()
    score = measure(texts, 2, prompts, seed=5)
    most = 1 if measure is distinct_n else math.log2(sum(len(text.split()) for text in texts))

    def without(kept):
        return measure([t for t, p in zip(texts, prompts, strict=True) if kept[p]], 2).value

    expected = left_out_interval(score.value, without, 33, 5, 0, most)
    assert (score.low, score.high) == pytest.approx(expected, rel=1e-9)
    assert (score.n, score.note) == (33, "")
    assert score == measure(texts, 2, prompts, seed=5)
    assert score.low != measure(texts, 2, prompts, seed=6).low


@pytest.mark.parametrize("measure", [distinct_n, ngram_entropy])
def test_one_text_has_a_value_and_no_interval(measure):
    score = measure(["a b c a"], 1)
    assert score.value > 0
    assert np.isnan([score.low, score.high]).all()
    assert score.note.startswith("no interval")


def test_equal_texts():
    assert distinct_n(["a b"] * 50, 2).value == 1 / 50
    score = ngram_entropy(["a b"] * 50, 2)
    assert score.value == 0  # one n-gram only: a finding, not a gap
    assert score.note == ON_BOUND


@given(st.lists(SENTENCES, min_size=1, max_size=8), st.data())
def test_counted_values_are_those_of_the_texts_that_are_present(texts, data):
    tokens = [words(text) for text in texts]
    present = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    cut = [" ".join(text) for text, is_present in zip(tokens, present, strict=True) if is_present]
    expected = [self_bleu(cut, 3).value, *(f(cut, n).value for f in (distinct_n, ngram_entropy) for n in (1, 2, 3))]
    actual = count_values(ngrams(tokens, 3), present)
    assert actual == pytest.approx([*expected, *(score.value for score in heaps(cut))], rel=1e-9, nan_ok=True)
    assert len(actual) == len(COUNT_MEASURES)
