"""The table of n-grams against counters of the cut texts, and what it costs."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.measures.ngrams import count_ngrams, ngrams

TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=9), max_size=7)


def counters(texts, order):
    """For each text how often each n-gram stands in it."""
    return [Counter(zip(*(text[start:] for start in range(order)), strict=False)) for text in texts]


@given(TEXTS, st.integers(1, 4), st.data())
def test_counts_are_those_of_the_cut_texts(texts, order, data):
    table = ngrams(texts, 4)
    kept = np.array([data.draw(st.integers(0, len(text))) for text in texts], dtype=np.int64)
    expected = counters([text[:k] for text, k in zip(texts, kept, strict=True)], order)
    actual = count_ngrams(table, kept, order)
    # the codes are the table's own affair: compare, for each n-gram, in which text it stands how often
    parts = zip(np.split(actual.text, actual.first[1:]), np.split(actual.count, actual.first[1:]), strict=True)
    rows = sorted(tuple(zip(t.tolist(), c.tolist(), strict=True)) for t, c in parts if len(t))
    every = sum(expected, Counter())
    assert rows == sorted(tuple((t, c[gram]) for t, c in enumerate(expected) if gram in c) for gram in every)
    assert sorted(actual.totals()) == sorted(every.values())
    assert len(actual.first) == len(every)


@given(TEXTS)
def test_lengths_and_words_are_those_of_the_texts(texts):
    table = ngrams(texts, 2)
    assert table.lengths.tolist() == [len(text) for text in texts]
    flat = [word for text in texts for word in text]
    code = dict(zip(flat, table.words.tolist(), strict=True))
    assert [code[word] for word in flat] == table.words.tolist()
    assert len(set(code.values())) == len(code)


def test_ngrams_do_not_cross_texts():
    table = ngrams([["a", "b"], ["c"], ["a", "b"]], 3)
    assert count_ngrams(table, table.lengths, 2).totals().tolist() == [2]
    assert len(count_ngrams(table, table.lengths, 3).first) == 0


@pytest.mark.parametrize("texts", [[], [[]], [[], []], [["a"]]])
def test_too_few_words_for_an_order_are_no_ngrams(texts):
    table = ngrams(texts, 3)
    for order in (2, 3):
        actual = count_ngrams(table, table.lengths, order)
        assert len(actual.first) == len(actual.text) == len(actual.count) == 0
        assert len(actual.totals()) == 0


def test_a_text_a_million_words_long():
    words = random.Random(0).choices("abcde", k=1_000_000)
    table = ngrams([words], 3)
    assert count_ngrams(table, table.lengths, 3).totals().sum() == 999_998
    assert len(count_ngrams(table, table.lengths, 3).first) == 125


def test_long_ngrams_of_a_large_vocabulary_do_not_overflow():
    """200,000 words to the power of four is beyond 64 bits; codes are made dense at each order."""
    words = [str(number) for number in range(200_000)]
    table = ngrams([words, words[::-1]], 4)
    for order in (2, 3, 4):
        assert len(count_ngrams(table, table.lengths, order).first) == 2 * (200_000 - order + 1)


def memory(words):
    """Bytes of a table of 1- to 3-grams, and the most that making it and counting it takes."""
    rng, names = random.Random(0), [f"w{i}" for i in range(999)]
    texts = [rng.choices(names, k=20) for _ in range(words // 20)]
    tracemalloc.start()
    table = ngrams(texts, 3)
    count_ngrams(table, table.lengths, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    arrays = [table.words, table.lengths, *(array for order in table.orders for array in order)]
    return sum(array.nbytes for array in arrays), peak


def test_memory_is_linear_in_the_number_of_ngrams():
    size, peak = memory(50_000)
    assert size <= 50 * 50_000  # three orders of three 4-byte numbers, the words, the lengths
    assert peak < 200 * 50_000
    assert memory(100_000)[1] < 2.1 * peak
