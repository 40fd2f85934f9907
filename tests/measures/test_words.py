"""One regex for words, and budgets counted in them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.measures.words import REGEX, cut_lengths, cut_to_words, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat, the CAT!", ["the", "cat", "the", "cat"]),
        ("don't 'quote' rock'n'roll dogs'", ["don't", "quote", "rock'n'roll", "dogs"]),
        ("don\u2019t", ["don't"]),
        ("3.5 litres in 2024, B2B", ["3", "5", "litres", "in", "2024", "b2b"]),
        ("snake_case well-known", ["snake", "case", "well", "known"]),
        ("na\u00efve", ["na\u00efve"]),
        ("nai\u0308ve", ["na\u00efve"]),
        ("\u0130stanbul", ["i\u0307stanbul"]),
        ("Привет, мир 你好", ["привет", "мир", "你好"]),
        ("", []),
        ("… — !", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_regex_finds_words_by_itself():
    assert re.findall(REGEX, "it's 2 words_") == ["it's", "2", "words"]


@given(st.text(), st.text())
def test_words_of_joined_texts_are_the_words_of_both(a, b):
    assert words(a + " " + b) == words(a) + words(b)


@given(st.text())
def test_words_hold_no_spaces_capitals_or_outer_apostrophes(text):
    for word in words(text):
        assert word == word.lower()
        assert word == word.strip("'\u2019_")
        assert len(word.split()) == 1


def test_cut_takes_texts_in_order_and_cuts_the_last():
    texts = ["One two three", "", "four, five six", "seven"]
    assert cut_to_words(texts, 5) == [["one", "two", "three"], [], ["four", "five"]]
    assert cut_to_words(texts, 3) == [["one", "two", "three"]]
    assert cut_to_words(texts, 7) == [["one", "two", "three"], [], ["four", "five", "six"], ["seven"]]
    assert cut_to_words(texts, 8) is None
    assert cut_to_words([], 1) is None


@given(st.lists(st.integers(0, 9)), st.integers(1, 40))
def test_a_budget_is_met_exactly_or_not_at_all(lengths, budget):
    kept = cut_lengths(lengths, budget)
    if sum(lengths) < budget:
        assert kept is None
        return
    assert sum(kept) == budget
    assert kept[:-1] == lengths[: len(kept) - 1]
    assert 0 < kept[-1] <= lengths[len(kept) - 1]


def test_importing_measures_loads_nothing_heavy():
    code = (
        "import sys, synthdiv.measures, synthdiv.measures.collapse, synthdiv.measures.likelihood;"
        "heavy = {'numpy', 'scipy', 'sacrebleu'} & set(sys.modules); sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
