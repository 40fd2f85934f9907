"""One regex for words, and budgets counted in them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.measures.words import REGEX, words


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
        ("Привет, мир 你好", ["привет", "мир", "你", "好"]),
        ("GPT是模型。한국어 문장", ["gpt", "是", "模", "型", "한국어", "문장"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("की का के को कि", ["की", "का", "के", "को", "कि"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("ẹ̀kọ́ ọmọ", ["ẹ̀kọ́", "ọmọ"]),
        ("مُحَمَّدٌ كَتَبَ", ["مُحَمَّدٌ", "كَتَبَ"]),
        ("soft\u00adhyphen", ["softhyphen"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("x\uff07y a\u2032b c\u2018d", ["x'y", "a'b", "c'd"]),
        ("Ｗｉｄｅ ﾊﾝｶｸ", ["wide", "ハ", "ン", "カ", "ク"]),
        ("", []),
        ("… — !", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_regex_finds_words_by_itself():
    assert regex.findall(REGEX, "it's 2 words_") == ["it's", "2", "words"]


@given(st.text(), st.text())
def test_words_of_joined_texts_are_the_words_of_both(a, b):
    assert words(a + " " + b) == words(a) + words(b)


@given(st.text(st.characters(codec="ascii")))
def test_the_words_of_ascii_text_are_the_matches_of_the_regex(text):
    assert words(text) == [word.lower() for word in regex.findall(REGEX, text)]


@given(st.text())
def test_words_hold_no_spaces_capitals_or_outer_apostrophes(text):
    for word in words(text):
        assert word == word.lower()
        assert word == word.strip("'\u2019_")
        assert len(word.split()) == 1


def test_importing_measures_loads_nothing_heavy():
    code = (
        "import sys, synthdiv.measures, synthdiv.measures.budgets, synthdiv.measures.perplexity;"
        "heavy = {'numpy', 'scipy', 'sacrebleu'} & set(sys.modules); sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
