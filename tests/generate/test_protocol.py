"""What is read out of names, errors and headers."""

from __future__ import annotations

import email.utils
import time

import pytest

from synthdiv.generate.protocol import fits, not_taken, said, seconds_after, sound


def test_words_about_a_parameter_are_told_from_words_of_a_prompt():
    sent = {"seed": 1, "logprobs": True, "top_logprobs": 2}
    assert not_taken("Unsupported parameter: 'seed'", "", sent) == ["seed"]
    assert not_taken("logprobs is not supported by this model", "", sent) == ["logprobs", "top_logprobs"]
    assert not_taken("we do not talk of seed here", "", sent) == []
    assert not_taken("unknown field seeds", "", sent) == []
    assert not_taken("Unsupported value", "seed", {}) == []


@pytest.mark.parametrize(
    ("asked", "reported", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o-2024-08-06", "gpt-4o", True),
        ("gpt-4", "gpt-4-0613", True),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", True),
        ("meta-llama/Llama-3-8B", "llama-3-8b", True),
        ("m", "/models/m", True),
        ("llama3", "llama3:latest", True),
        ("Qwen/Qwen2.5", "Qwen/Qwen2.5@main", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4", "gpt-4o", False),
        ("llama-3", "llama-3-70b", False),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20", False),
    ],
)
def test_which_names_are_one_model(asked, reported, same):
    assert fits(asked, reported) == same


def test_when_to_come_back():
    assert seconds_after({"retry-after": "3"}) == 3
    assert seconds_after({"retry-after-ms": "250", "retry-after": "3"}) == 0.25
    assert 50 < seconds_after({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}) <= 60
    assert seconds_after({}) == seconds_after({"retry-after": "soon"}) == seconds_after({"retry-after": "-1"}) == 0


def test_halves_of_surrogates_go_and_whole_ones_stay():
    assert sound({"a": ["x\ud83d", "\ud83d\ude00", "\U0001f600 ü \x00"]}) == {"a": ["x\ufffd", "😀", "😀 ü \x00"]}


def test_the_words_of_an_error_are_found_however_they_are_wrapped():
    assert said(b'{"error": {"message": "no", "code": 7, "param": "seed"}}') == ("no", "7", "seed")
    assert said(b'{"error": "no"}') == said(b'{"detail": "no"}') == ("no", "", "")
    assert said(b"<html>\xff") == ("<html>\ufffd", "", "")
    assert said(b"[1]") == ("[1]", "", "")
