"""Distinct-n against sets, Self-BLEU against sacrebleu itself, and what is true of both."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from synthdiv.measures.lexical import Part, distinct_n, distinct_n_of, ngram_table, self_bleu, self_bleu_of
from synthdiv.measures.words import words

SMALL = st.text(alphabet="ab .", max_size=14)  # few letters and spaces: duplicates, ties in length, empty texts
SENTENCES = st.lists(st.sampled_from(["the", "cat", "The", "sat", "on", "3.5", "mat."]), max_size=9).map(" ".join)


def reference(texts, n):
    bleu = BLEU(max_ngram_order=n, effective_order=True)
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return sum(scores) / len(scores)


def english(seed, texts):
    rng = random.Random(seed)
    subject, verb = ["The old king", "A dog", "She", "Nobody's friend"], ["saw", "didn't like", "bought", "gave"]
    thing = ["3.5 apples", "the well-known book", "U.S. dollars, mostly", "a &quot;gift&quot;", "rain\nand snow"]
    end = [".", "!", " because it was late.", ", and then left...", " (again)?"]
    return [
        "".join([rng.choice(subject), " ", rng.choice(verb), " ", rng.choice(thing), rng.choice(end)])
        * rng.choice([1, 1, 2])
        for _ in range(texts)
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "texts",
    [
        english(0, 40),
        [*english(1, 41), "", "Yes", "Yes", "no match whatsoever here"],
        ["a b c d", "a b", "a b c d e f", "x"],  # 4 is as far from 2 as from 6: the shorter counts
        ["a a a a", "a a", "a b a b a", "a"],  # clipping, with one text alone at the top and with ties
        ["one", "one"],
        ["word", "other"],
        ["", "", "a b c"],
        ["Привет, мир!", "Привет мир", "你好 世界", "naïve café – “quoted”", "naïve cafe"],
        ["same text here"] * 5 + ["same text"],
        ["b c d", "a b c d e", "e d c b a b c", "   ", "c"],
    ],
)
def test_self_bleu_is_sacrebleu(texts, n):
    assert self_bleu(texts, n) == pytest.approx(reference(texts, n), rel=1e-9, abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(st.lists(SMALL | SENTENCES, min_size=2, max_size=8), st.sampled_from([2, 3, 4]))
def test_self_bleu_is_sacrebleu_on_random_texts(texts, n):
    if any(text.strip() for text in texts):
        assert self_bleu(texts, n) == pytest.approx(reference(texts, n), rel=1e-9, abs=1e-12)
    else:
        assert math.isnan(self_bleu(texts, n))


@pytest.mark.parametrize("texts", [[], ["only one text"], ["", ""], [" ", "\n", ""]])
def test_self_bleu_undefined(texts):
    assert math.isnan(self_bleu(texts))


def test_self_bleu_extremes():
    assert self_bleu(["a b c d", "a b c d"]) == pytest.approx(100)
    assert self_bleu(["a b c", "d e f"]) == 0


@settings(deadline=None)
@given(st.lists(SENTENCES, min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_self_bleu_bounds_order_and_doubling(texts, rng):
    if not any(texts):
        return
    value = self_bleu(texts)
    assert 0 <= value <= 100 + 1e-9
    shuffled = rng.sample(texts, len(texts))
    assert self_bleu(shuffled) == pytest.approx(value, rel=1e-12)
    assert self_bleu(texts * 2) == pytest.approx(100 * sum(map(bool, texts)) / len(texts))


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
    assert distinct_n(texts, n) == pytest.approx(expected)


@pytest.mark.parametrize(("texts", "n"), [([], 1), (["", "!"], 1), (["a", "b"], 2), (["a b"], 3)])
def test_distinct_n_undefined(texts, n):
    assert math.isnan(distinct_n(texts, n))


@given(st.lists(SENTENCES, min_size=1, max_size=8), st.integers(1, 4), st.randoms(use_true_random=False))
def test_distinct_n_is_types_per_token_in_any_order(texts, n, rng):
    grams = [tuple(w[i : i + n]) for w in map(words, texts) for i in range(len(w) - n + 1)]
    if not grams:
        assert math.isnan(distinct_n(texts, n))
        return
    assert distinct_n(texts, n) == pytest.approx(len(set(grams)) / len(grams))
    assert distinct_n(rng.sample(texts, len(texts)), n) == distinct_n(texts, n)
    assert distinct_n(texts * 2, n) == pytest.approx(distinct_n(texts, n) / 2)


@given(st.lists(SENTENCES.filter(bool), min_size=2, max_size=8), st.data())
def test_a_copy_in_place_of_a_text_never_adds_ngrams(texts, data):
    """Of distinct n-grams, not of distinct-n: the ratio may rise when a long text goes."""
    i, j = data.draw(st.integers(0, len(texts) - 1)), data.draw(st.integers(0, len(texts) - 1))
    copied = [*texts[:i], texts[j], *texts[i + 1 :]]

    def types(some):
        return round(distinct_n(some, 1) * sum(len(words(text)) for text in some))

    assert types(copied) <= types(texts)


@settings(deadline=None)
@given(st.lists(SENTENCES, min_size=1, max_size=8), st.data())
def test_a_part_of_a_table_is_a_table_of_the_part(texts, data):
    tokens = [text.split() for text in texts]
    table = ngram_table(tokens, 3)
    chosen = data.draw(st.lists(st.integers(0, len(texts) - 1), unique=True))
    kept = [data.draw(st.integers(0, len(tokens[i]))) for i in chosen]
    part = Part(np.array(chosen, dtype=int), np.array(kept, dtype=int))
    again = ngram_table([tokens[i][:k] for i, k in zip(chosen, kept, strict=True)], 3)
    all_of_it = Part(np.arange(len(chosen)), again.lengths)
    assert self_bleu_of(table, part, 3) == pytest.approx(self_bleu_of(again, all_of_it, 3), rel=1e-12, nan_ok=True)
    for n in (1, 2, 3):
        assert distinct_n_of(table, part, n) == pytest.approx(distinct_n_of(again, all_of_it, n), nan_ok=True)
