"""Sentences: what ends one, what does not, and that no text takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.measures.words import sentences

MARKS = st.text(alphabet=' \n\t.!?…。！」")*1aAzMré😀', max_size=60)


@pytest.mark.parametrize("name", ["D.C.", "A.I.", "U.S.", "J.R.R."])
def test_initials_in_a_row_do_not_end_a_sentence(name):
    assert sentences(f"The {name} office is closed. It rains.") == [f"The {name} office is closed.", "It rains."]


@pytest.mark.parametrize(
    "expected",
    [
        ["It rains.", "It pours!", "Does it?", "So…", "Yes"],
        ["Pi is 3.14, about.", "Version 2.0.1 is at example.org/a.b today."],
        ["Mr. Smith met Dr. J. K. Jones, e.g. at 5 p.m. on St. Mary's day.", "Then he left."],
        ["Bring eggs, milk etc. and flour.", "We met at 5 p.m.", "Then it rained."],
        ['He said "Stop!"', "(She did.)", "**Note.**", "“Good.”", "Why?!", "Well..."],
        ["No.", "That was in 2019.", "The answer is 42.", "It is I.", "Done"],
        ["careless writers.", "use no capitals.", "or few"],
    ],
)
def test_sentences_of_one_line(expected):
    assert sentences(" ".join(expected)) == expected


def test_lines_end_sentences_and_numbers_start_them():
    text = "Steps:\r\n 1. Mix it. Stir.\n\n  12. Bake\n2) Eat\n- a bullet\n***\n😀\n"
    assert sentences(text) == ["Steps:", "1. Mix it.", "Stir.", "12. Bake", "2) Eat", "- a bullet"]


def test_other_scripts():
    assert sentences("你好。“再见！”好吗？是") == ["你好。", "“再见！”", "好吗？", "是"]
    assert sentences("यह है। वह है।") == ["यह है।", "वह है।"]
    assert sentences("هل هذا؟ نعم.") == ["هل هذا؟", "نعم."]
    assert sentences("„Gut.“ Sagte er. École. Être.") == ["„Gut.“", "Sagte er.", "École.", "Être."]


@pytest.mark.parametrize("text", ["", " \n\t ", "...", "***\n---", "😀!", "。"])
def test_no_letter_no_sentence(text):
    assert sentences(text) == []


@settings(deadline=None)
@given(st.one_of(MARKS, st.text(max_size=60)))
def test_sentences_stand_in_the_text_in_order_and_lose_no_letter(text):
    actual = sentences(text)
    place = 0
    for sentence in actual:
        place = text.index(sentence, place) + len(sentence)
    assert [c for c in text if c.isalnum()] == [c for c in "".join(actual) if c.isalnum()]
    assert all(sentence == sentence.strip() != "" for sentence in actual)


@settings(deadline=None)
@given(st.one_of(MARKS, st.text(max_size=60)))
def test_a_sentence_is_one_sentence_and_lines_are_independent(text):
    assert all(sentences(sentence) == [sentence] for sentence in sentences(text))
    assert sentences(text + "\n" + text) == sentences(text) * 2


@pytest.mark.parametrize(
    "piece", ["a", ".", ".)", "etc. ", "A.", "。」", "\n", "One is 3.5. ", "1. ", "…?", "etc." + " " * 99]
)
def test_two_million_characters_take_seconds(piece):
    text = piece * (2_000_000 // len(piece)) + "x"
    start = time.process_time()
    sentences(text)
    assert time.process_time() - start < 10
