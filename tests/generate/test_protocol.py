"""What is read out of names, errors and headers."""

from __future__ import annotations

import email.utils
import time

import pytest

from synthdiv.generate.protocol import (
    clean_surrogates,
    error_details,
    finish_reason,
    invalid_reason,
    is_filter_error,
    is_same_model,
    model_names,
    rejected_parameters,
    rejects_system_role,
    retry_after_seconds,
)


def test_errors_about_parameters_are_recognised():
    sent = {"seed": 1, "logprobs": True, "top_logprobs": 2}
    assert rejected_parameters("Unsupported parameter: 'seed'", "", sent) == ["seed"]
    assert rejected_parameters("logprobs is not supported by this model", "", sent) == ["logprobs", "top_logprobs"]
    assert rejected_parameters("we do not talk of seed here", "", sent) == []
    assert rejected_parameters("unknown field seeds", "", sent) == []
    assert rejected_parameters("Unsupported value", "seed", {}) == []


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
        ("gpt-4", "gpt-4-1106-preview", False),
        ("llama", "llama-405b", False),
        ("llama3:8b", "llama3:70b", False),
        ("gpt-4-1106", "gpt-4", True),
        ("mistral-large-latest", "mistral-large-2411", True),
        ("gemini-1.5-pro", "models/gemini-1.5-pro-002", True),
        ("a/llama-3-8b", "b/llama-3-8b:free", True),
    ],
)
def test_which_names_are_the_same_model(asked, reported, same):
    assert is_same_model(asked, reported) == same


def test_retry_after_is_parsed():
    assert retry_after_seconds({"retry-after": "3"}) == 3
    assert retry_after_seconds({"retry-after-ms": "250", "retry-after": "3"}) == 0.25
    assert 50 < retry_after_seconds({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}) <= 60
    assert (
        retry_after_seconds({})
        == retry_after_seconds({"retry-after": "soon"})
        == retry_after_seconds({"retry-after": "-1"})
        == 0
    )


def test_only_lone_surrogates_are_replaced():
    assert clean_surrogates({"a": ["x\ud83d", "\ud83d\ude00", "\U0001f600 ü \x00"]}) == {
        "a": ["x\ufffd", "😀", "😀 ü \x00"]
    }


def test_error_messages_are_found_in_every_format():
    assert error_details(b'{"error": {"message": "no", "code": 7, "param": "seed"}}') == ("no", "7", "seed")
    assert error_details(b'{"error": "no"}') == error_details(b'{"detail": "no"}') == ("no", "", "")
    assert error_details(b"<html>\xff") == ("<html>\ufffd", "", "")
    assert error_details(b"[1]") == ("[1]", "", "")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *((reason, "stop") for reason in ("stop", "STOP", "eos", "eos_token", "end_turn")),
        *((reason, "length") for reason in ("length", "max_tokens", "MAX_TOKENS")),
        *((reason, "refusal") for reason in ("content_filter", "content_filter: PROHIBITED_CONTENT", "SAFETY")),
        *((reason, "refusal") for reason in ("RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII")),
        *((reason, "") for reason in (None, "", "error", "tool_calls", "stopped")),
    ],
)
def test_how_an_answer_ended(reason, finish):
    choice = {"finish_reason": reason, "message": {"content": "so"}}
    assert finish_reason(choice) == finish
    assert (invalid_reason({"choices": [choice]}, "m", "chat") is None) == bool(finish)
    assert (invalid_reason({"choices": [{"finish_reason": reason}]}, "m", "chat") is None) == (finish == "refusal")


def test_a_list_of_models_may_be_wrapped_or_bare_or_none():
    models = [{"id": "a"}, {"id": "b", "object": "model"}, {"name": "c"}, 4]
    assert model_names(models) == model_names({"data": models}) == ["a", "b"]
    for nothing in (None, "x", {}, [], {"data": None}, {"models": models}):
        assert model_names(nothing) == []
        assert invalid_reason(nothing, "m", "models") is None


def test_errors_of_filters_and_about_the_system_role_are_recognised():
    for words in ("Content Exists Risk", "content_filter", "content_policy_violation", "flagged by moderation"):
        assert is_filter_error(words)
    for words in ("", "This model's maximum context length is 4096 tokens", "risk", "policy"):
        assert not is_filter_error(words)
    for words in (
        "System role not supported",
        "This model doesn't support system messages",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
        "Conversation roles must alternate user/assistant/user/assistant/...",
    ):
        assert rejects_system_role(words)
    for words in ("an unexpected error in the system", "system message too long", "unsupported parameter: seed"):
        assert not rejects_system_role(words)
