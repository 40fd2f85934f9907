"""What is read out of names, errors and headers."""

from __future__ import annotations

import email.utils
import time

import pytest

from synthdiv.generate.endpoint import clean_surrogates
from synthdiv.generate.protocol import (
    error_details,
    finish_reason,
    invalid_reason,
    model_names,
    prompt_outcome,
    rejected_parameters,
    rejects_system_role,
    retry_after_seconds,
    text_of,
    token_usage,
)


@pytest.mark.parametrize(
    ("message", "rejected", "needed"),
    [
        ("Unsupported parameter: 'seed'", ["seed"], []),
        ("logprobs is not supported by this model", ["logprobs", "top_logprobs"], []),
        ("Unrecognized request arguments supplied: min_p, top_k", ["top_k", "min_p"], []),
        ("[{'loc': ['body', 'top_k'], 'msg': 'Extra inputs are not permitted'}]", ["top_k"], []),
        ("`temperature` and `top_p` cannot both be specified for this model", ["top_p"], ["temperature"]),
        ("'temperature' does not support 0.7. Only the default (1) value is supported", [], ["temperature"]),
        ("max_tokens must be at most 4096", [], []),
        ("body.top_k: Input should be greater than or equal to 0", ["top_k"], []),
        ("Expected top_k >= 0", ["top_k"], []),
        ("top_k: 0 or more", ["top_k"], []),
        ("the value of min_p is not valid", ["min_p"], []),
        ("we do not talk of seed here", [], []),
        ("unknown field seeds", [], []),
    ],
)
def test_errors_about_parameters_are_recognised(message, rejected, needed):
    sent = {"seed": 1, "logprobs": True, "top_logprobs": 2, "max_tokens": 5, "temperature": 0.7, "top_p": 1}
    sent |= {"top_k": -1, "min_p": 0}
    assert rejected_parameters(message, "", sent) == (rejected, needed)
    assert rejected_parameters(message, "", {}) == ([], [])


def test_of_two_neutral_values_that_are_refused_together_one_stays():
    """Without both, a default of the server could apply; where it refuses the other too, that goes next."""
    message = "`temperature` and `top_p` cannot both be specified for this model"
    assert rejected_parameters(message, "", {"temperature": 1, "top_p": 1}) == (["top_p"], [])
    assert rejected_parameters(message, "", {"temperature": 1}) == (["temperature"], [])


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"prompt": 10, "completion": 7}, (10, 7)),
        ({"prompt": 10, "completion": 7, "total": 17}, (10, 7)),
        ({"prompt": 10, "completion": 7, "total": 517}, (10, 507)),
        ({"prompt": 10, "completion": 7, "total": 3}, (10, 7)),
        ({"prompt": -10, "completion": 7}, None),
        ({"prompt": 10, "completion": -7, "total": 99}, None),
        ({"prompt": 10.5, "completion": 7}, None),
        ({"prompt": 10}, None),
    ],
)
def test_reasoning_tokens_outside_of_the_completion_are_billed_and_negative_counts_not_believed(counts, usage):
    assert token_usage({"usage": {f"{name}_tokens": count for name, count in counts.items()}}) == usage


def test_content_may_be_text_or_a_list_of_parts():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "So"}]
    parts.append({"type": "text", "text": None})
    assert [text_of(content) for content in ("So", parts, [], None, 4, ["So"])] == ["So", "So", "", "", None, None]


def test_retry_after_is_parsed():
    assert retry_after_seconds({"retry-after": "3"}) == 3
    assert retry_after_seconds({"retry-after-ms": "250", "retry-after": "3"}) == 0.25
    assert 50 < retry_after_seconds({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}) <= 60
    assert (
        retry_after_seconds({})
        == retry_after_seconds({"retry-after": "soon"})
        == retry_after_seconds({"retry-after": "-1"})
        == retry_after_seconds({"retry-after": "Mon, 01 Jan 99999 00:00:00 GMT"})
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
    assert (invalid_reason({"choices": [choice]}, "chat") is None) == bool(finish)
    assert (invalid_reason({"choices": [{"finish_reason": reason}]}, "chat") is None) == (finish == "refusal")


def test_a_list_of_models_may_be_wrapped_or_bare_or_none():
    models = [{"id": "a"}, {"id": "b", "object": "model"}, {"name": "c"}, 4]
    assert model_names(models) == model_names({"data": models}) == ["a", "b"]
    for nothing in (None, "x", {}, [], {"data": None}, {"models": models}):
        assert model_names(nothing) == []
        assert invalid_reason(nothing, "models") is None


def test_errors_of_filters_and_about_the_system_role_are_recognised():
    for words in ("Content Exists Risk", "content_filter", "your input was flagged", "Content flagged by moderation"):
        assert prompt_outcome(400, words, "") == prompt_outcome(403, words, "") == "refusal"
    for code in ("content_policy_violation", "invalid_prompt"):
        assert prompt_outcome(400, "no", code) == "refusal"
    for words in ("This model's maximum context length is 4096 tokens", "prompt is too long: 5 tokens > 4 maximum"):
        assert prompt_outcome(400, words, "") == prompt_outcome(413, "", "") == "failed"
    for words in (
        "",
        "risk",
        "policy",
        "too long",
        "Your organization has been flagged for review",
        "moderation is off",
    ):
        assert prompt_outcome(400, words, "") == prompt_outcome(404, "context length", "") == ""
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
