"""OpenAI's protocol: valid answers, and the meaning of errors."""

from __future__ import annotations

import email.utils
import json
import re
import time
from typing import Any

PATHS = {"chat": "/chat/completions", "completions": "/completions", "models": "/models"}
FINISH_REASONS = {"stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop"}  # of different servers
FINISH_REASONS |= {"length": "length", "max_tokens": "length"}
FILTER_FINISH_PATTERN = (
    r"content_filter|safety|recitation|prohibited_content|blocklist|spii"  # finish reasons of filters
)
FILTER_ERROR_PATTERN = (
    r"content[ _-]?(filter|policy|management policy|exists risk)|moderation|inappropriate content"  # errors of filters
)
RETRIED_STATUSES = (408, 409, 429)  # and 500 or more: another attempt may succeed
MAYBE_BILLED_STATUSES = (504, 524)  # a gateway timed out; the server behind it may have answered and charged
CONNECTION_ERRORS = {"HTTPError", "ClientError", "OSError"}  # class names of connection errors
# parameters that a server may reject, and the name under which the value is sent instead, if any
OPTIONAL_PARAMETERS = {"max_tokens": "max_completion_tokens", "seed": "", "top_logprobs": "", "logprobs": ""}
REJECTED_PATTERN = (
    r"unsupported|n[o'’]t support|unknown|unrecogni|unexpected|not permitted|not allowed|not enabled|extra"
)
SYSTEM_ROLE_PATTERN = (
    r"\b(system|developer)\W{1,2}(role|message|prompt|instruction)|\brole\b.{0,60}\bsystem\b|roles must alternate"
)
# suffixes of a model name: a date, a version number, a tag
MODEL_SUFFIX_PATTERN = r"(-\d{4}-[01]\d-[0-3]\d|-20\d\d[01]\d[0-3]\d|-[01]\d[0-3]\d|-2\d[01]\d|-0\d\d)?([:@].*)?"


class Retryable(Exception):
    """A failed attempt after which another may succeed. `after` is the wait in seconds that the server asks for;
    `unbilled` means that the attempt cost nothing."""

    def __init__(self, kind: str, message: str, after: float = 0.0, unbilled: bool = False):
        super().__init__(message)
        self.kind, self.after, self.unbilled = kind, after, unbilled


class RequestAdjusted(Exception):
    """The server rejects an optional parameter or the system role; the next attempt is sent without it."""


class PromptFiltered(Exception):
    """The filter of the server refuses the prompt, with this message."""


def is_same_model(requested: str, reported: str) -> bool:
    """Return whether the reported model may be the requested one: equal up to folders and a date or tag as suffix."""
    names = [name.rsplit("/", 1)[-1].casefold().removesuffix("-latest") for name in (requested, reported)]
    short, long = sorted(names, key=len)
    return long.startswith(short) and bool(re.fullmatch(MODEL_SUFFIX_PATTERN, long[len(short) :]))


def error_causes(error: BaseException) -> tuple[set[str], str]:
    """Return the class names of an error and all its causes, and the message of the first cause. Libraries wrap failed
    connections, broken connections and time-outs in one class; the causes tell them apart."""
    class_names = set[str]()
    cause: BaseException | None = error
    message = str(error)
    while cause:
        class_names |= {kind.__name__ for kind in type(cause).__mro__}
        message, cause = str(cause) or message, cause.__cause__
    return class_names, message


def error_details(content: bytes) -> tuple[str, str, str]:
    """Return the message, code and parameter of an error from a server."""
    text = content.decode(errors="replace")
    try:
        data = json.loads(text)
    except ValueError:
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
    """Return the tokens of the prompt and of the answer, or None if the server does not report them."""
    counts = data.get("usage") if isinstance(data, dict) else None
    if not isinstance(counts, dict):
        return None
    prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return (prompt, completion) if isinstance(prompt, int) and isinstance(completion, int) else None


def finish_reason(choice: dict[str, Any]) -> str:
    """Return how an answer ended: `stop`, `length` or `refusal` (by a filter); empty for any other reason."""
    reason = str(choice.get("finish_reason") or "").casefold()
    return "refusal" if re.match(FILTER_FINISH_PATTERN, reason) else FINISH_REASONS.get(reason, "")


def invalid_reason(data: Any, model: str, kind: str) -> tuple[str, str] | None:
    """Return why `data` is not an answer of `model` at this endpoint, as (cause, message), or None."""
    if kind == "models":
        return None  # an unreadable list counts as empty
    choices = data.get("choices") if isinstance(data, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return "invalid", f"an answer without choices: {str(data)[:200]}"
    finish, message = (
        finish_reason(choice),
        choice.get("message") if kind == "chat" else {"content": choice.get("text")},
    )
    has_text = isinstance(message, dict) and isinstance(message.get("content"), str | None)
    if not has_text and not (finish == "refusal" and message is None):
        return "invalid", f"a choice without text: {str(choice)[:200]}"
    reported = data.get("model") or model
    if not isinstance(reported, str) or not is_same_model(model, reported):
        return "model", f"an answer by another model, {reported!r}, not by {model!r}"
    return None if finish else ("finish", f"an answer that finished by {choice.get('finish_reason')!r}")


def is_filter_error(message: str) -> bool:
    """Return whether this is the message or the code of an error by which a filter refuses a prompt."""
    return bool(re.search(FILTER_ERROR_PATTERN, message, re.IGNORECASE))


def rejects_system_role(message: str) -> bool:
    """Return whether an error says that the model has no system role."""
    rejected = re.search(rf"{REJECTED_PATTERN}|invalid|must|only", message, re.IGNORECASE)
    return bool(rejected and re.search(SYSTEM_ROLE_PATTERN, message, re.IGNORECASE))


def rejected_parameters(message: str, parameter: str, sent: dict[str, Any]) -> list[str]:
    """Return the optional parameters in `sent` that an error rejects."""
    named = [name for name in OPTIONAL_PARAMETERS if re.search(rf"(?<![a-z_]){name}(?![a-z_])", parameter or message)]
    if not named or not re.search(REJECTED_PATTERN, message, re.IGNORECASE):
        return []
    dependent = ["top_logprobs"] if "logprobs" in named else []  # it needs logprobs
    return [name for name in (*named, *dependent) if name in sent]


def clean_surrogates(data: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON with lone surrogates (halves of an emoji) replaced, because files cannot contain them."""
    text = json.dumps(data, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def retry_after_seconds(headers: Any) -> float:
    """Return the wait in seconds from `Retry-After`, given as seconds or as a date; 0 without one."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            date = email.utils.parsedate_tz(value)
            if date:
                return max(0.0, email.utils.mktime_tz(date) - time.time())
    return 0.0
