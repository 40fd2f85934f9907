"""OpenAI's protocol: valid answers, and the meaning of errors."""

from __future__ import annotations

import contextlib
import email.utils
import json
import re
import time
from typing import Any

PATHS = {"chat": "/chat/completions", "completions": "/completions", "models": "/models"}
FINISH_REASONS = {"stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop"}  # of different servers
FINISH_REASONS |= {"length": "length", "max_tokens": "length"}
FILTER_FINISH = r"content_filter|safety|recitation|prohibited_content|blocklist|spii"  # finish reasons of filters
FILTER_ERROR = (  # messages and codes by which a filter refuses a prompt
    r"content[ _-]?(filter|policy|management policy|exists risk)|inappropriate content|invalid_prompt"
)
FLAGGED, TEXT = r"\b(moderation|flagged)\b", r"\b(prompt|input|content|message)s?\b"  # an account can be flagged, too
FILTER_MESSAGE = rf"{FILTER_ERROR}|{TEXT}.{{0,60}}{FLAGGED}|{FLAGGED}.{{0,60}}{TEXT}"
TOO_LONG = r"context[ _-]?(length|window|size)|max_model_len|(prompt|input|request|messages?)\b.{0,30} too (long|large)"
RETRIED_STATUSES = (408, 409, 425, 429, 498)  # and 500 or more: another attempt may succeed
MAYBE_BILLED_STATUSES = (504, 524)  # a gateway timed out; the server behind it may have answered and charged
# parameters that a server may reject, and the name under which the value is sent instead, if any
OPTIONAL_PARAMETERS = {"max_tokens": "max_completion_tokens", "seed": "", "top_logprobs": "", "logprobs": ""}
# values that change nothing: sent because a server of one's own would apply a checkpoint's defaults instead
NEUTRAL = {"temperature": 1, "top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1}
REJECTED = r"unsupported|n[o'’]t support|unknown|unrecogni|unexpected|not permitted|not allowed|not enabled|extra"
REJECTED_VALUE = rf"{REJECTED}|cannot|can't|only|must|should|expected|(in|not )valid"
REJECTED_VALUE += "|deprecated|incompatible|ignored|out of range"
SYSTEM_ROLE = (
    r"\b(system|developer)\W{1,2}(role|message|prompt|instruction)|\brole\b.{0,60}\bsystem\b|roles must alternate"
)


class Retryable(Exception):
    """A failed attempt after which another may succeed. `after` is the wait in seconds that the server asks for;
    `unbilled` means that the attempt cost nothing."""

    def __init__(self, kind: str, message: str, after: float = 0.0, unbilled: bool = False):
        super().__init__(message)
        self.kind, self.after, self.unbilled = kind, after, unbilled


class RequestAdjusted(Exception):
    """The server rejects an optional parameter or the system role; the next attempt is sent without it."""


class PromptRejected(Exception):
    """The server never answers this prompt. `finish` is the outcome: `refusal` (by a filter) or `failed`."""

    def __init__(self, message: str, finish: str):
        super().__init__(message)
        self.finish, self.unbilled = finish, finish == "failed"


def error_details(content: bytes) -> tuple[str, str, str]:
    """Return the message, code and parameter of an error from a server."""
    text = content.decode(errors="replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text, "", ""
    data = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else data  # Google sends a list
    error = data.get("error", data) if isinstance(data, dict) else data
    details = error if isinstance(error, dict) else {"message": error}
    message = details.get("message") or details.get("detail") or text
    return str(message), str(details.get("code") or ""), str(details.get("param") or "")


def model_names(data: Any) -> list[str]:
    """Return the ids in a list of models, bare or under `data`; empty if `data` is no such list."""
    models = data.get("data") if isinstance(data, dict) else data
    items = models if isinstance(models, list) else []
    return [item["id"] for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]


def token_usage(data: Any) -> tuple[int, int] | None:
    """Return the tokens of the prompt and those billed as output, or None if the server does not report them. Some
    servers count reasoning tokens in the total only. Negative counts count as not reported."""
    usage = data.get("usage") if isinstance(data, dict) else None
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion, total = (counts.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    if not isinstance(prompt, int) or not isinstance(completion, int) or min(prompt, completion) < 0:
        return None
    return prompt, max(completion, total - prompt if isinstance(total, int) else 0)


def finish_reason(choice: dict[str, Any]) -> str:
    """Return how an answer ended: `stop`, `length` or `refusal` (by a filter); empty for any other reason."""
    reason = str(choice.get("finish_reason") or "").casefold()
    return "refusal" if re.match(FILTER_FINISH, reason) else FINISH_REASONS.get(reason, "")


def text_of(content: Any) -> str | None:
    """Return the text of an answer, which is a string, a list of parts of which some are text, or null; None if it is
    none of these."""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = "".join(str(part.get("text") or "") for part in content if part.get("type") == "text")
    return content if isinstance(content, str) else "" if content is None else None


def invalid_reason(data: Any, kind: str) -> tuple[str, str] | None:
    """Return why `data` is no answer of this endpoint, as (cause, message), or None."""
    if kind == "models":
        return None  # an unreadable list counts as empty
    choices = data.get("choices") if isinstance(data, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return "invalid", f"an answer without choices: {str(data)[:200]}"
    finish = finish_reason(choice)
    message = choice.get("message") if kind == "chat" else {"content": choice.get("text")}
    has_text = isinstance(message, dict) and text_of(message.get("content")) is not None
    if not has_text and not (finish == "refusal" and message is None):
        return "invalid", f"a choice without text: {str(choice)[:200]}"
    return None if finish else ("finish", f"an answer that finished by {choice.get('finish_reason')!r}")


def prompt_outcome(status: int, message: str, code: str) -> str:
    """Return the outcome of a prompt that this error rejects for good: `refusal`, `failed` (too long), or empty."""
    if re.search(rf"{FILTER_ERROR}|moderation|flagged", code, re.IGNORECASE):
        return "refusal"
    if status in (400, 403) and re.search(FILTER_MESSAGE, message, re.IGNORECASE):
        return "refusal"
    too_long = status in (400, 422) and re.search(TOO_LONG, f"{code} {message}", re.IGNORECASE)
    return "failed" if too_long or status == 413 else ""


def rejects_system_role(message: str) -> bool:
    """Return whether an error says that the model has no system role."""
    rejected = re.search(rf"{REJECTED}|invalid|must|only", message, re.IGNORECASE)
    return bool(rejected and re.search(SYSTEM_ROLE, message, re.IGNORECASE))


def rejected_parameters(message: str, parameter: str, sent: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the parameters in `sent` that an error rejects: those that can be left out or renamed, and those whose
    value matters."""

    def named(names: Any, pattern: str) -> list[str]:
        if not re.search(pattern, message, re.IGNORECASE):
            return []
        where = parameter or message
        return [name for name in names if name in sent and re.search(rf"(?<![a-z_]){name}(?![a-z_])", where)]

    optional = named(OPTIONAL_PARAMETERS, REJECTED)
    if "logprobs" in optional and "top_logprobs" in sent and "top_logprobs" not in optional:
        optional.append("top_logprobs")  # it needs logprobs
    values = named((*NEUTRAL, "stop"), REJECTED_VALUE)
    unmistakable = named([name for name in NEUTRAL if "_" in name], "")  # no word of a prompt: whatever is said of it
    neutral = [name for name in NEUTRAL if name in {*values, *unmistakable} and sent[name] == NEUTRAL[name]]
    needed = [name for name in values if name not in neutral]
    if {"temperature", "top_p"} <= {*neutral}:  # perhaps refused together: without both, another default could apply
        neutral.remove("temperature")
    return optional + neutral, needed


def retry_after_seconds(headers: Any) -> float:
    """Return the wait in seconds from `Retry-After`, given as seconds or as a date; 0 without one."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            date = email.utils.parsedate_tz(value)
            with contextlib.suppress(ValueError, OverflowError):  # a date of another age
                if date:
                    return max(0.0, email.utils.mktime_tz(date) - time.time())
    return 0.0
