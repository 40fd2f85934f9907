"""OpenAI's protocol: what makes an answer, and what an error means for the request and for those after it."""

from __future__ import annotations

import email.utils
import json
import re
import time
from typing import Any

PATHS = {"chat": "/chat/completions", "completions": "/completions", "models": "/models"}
FINISHED = {"stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop"}  # how servers say it
FINISHED |= {"length": "length", "max_tokens": "length"}
FILTERS = r"content_filter|safety|recitation|prohibited_content|blocklist|spii"  # so begins a finish by a filter
FILTERED = r"content[ _-]?(filter|policy|management policy|exists risk)|moderation|inappropriate content"  # so an error
PASSING = (408, 409, 429)  # and 500 and more: another attempt may succeed
UNSURE = (504, 524)  # a gateway lost patience; the server behind it may have answered, and may be paid
BROKEN = {"HTTPError", "ClientError", "OSError"}  # classes of what goes wrong with a connection
# what a server may refuse, and what is sent in its place: the same by another name, or nothing
OPTIONAL = {"max_tokens": "max_completion_tokens", "seed": "", "top_logprobs": "", "logprobs": ""}
NOT_TAKEN = r"unsupported|n[o'’]t support|unknown|unrecogni|unexpected|not permitted|not allowed|not enabled|extra"
SYSTEM = r"\b(system|developer)\W{1,2}(role|message|prompt|instruction)|\brole\b.{0,60}\bsystem\b|roles must alternate"
# what may stand behind a name: a date, a number of a version, a tag
DATED = r"(-\d{4}-[01]\d-[0-3]\d|-20\d\d[01]\d[0-3]\d|-[01]\d[0-3]\d|-2\d[01]\d|-0\d\d)?([:@].*)?"


class Again(Exception):
    """An attempt failed and another may not. `after` is the seconds that the server wants; what is `free` was surely
    not paid."""

    def __init__(self, kind: str, words: str, after: float = 0.0, free: bool = False):
        super().__init__(words)
        self.kind, self.after, self.free = kind, after, free


class Changed(Exception):
    """The server does not take an optional parameter, or no system role; the next attempt goes without."""


class Filtered(Exception):
    """The server's filter refuses the prompt, in these words."""


def fits(asked: str, reported: str) -> bool:
    """Whether the model that a server reports may be the one asked for: the same but for folders in front, and a date
    or a tag behind, as with aliases."""
    names = [name.rsplit("/", 1)[-1].casefold().removesuffix("-latest") for name in (asked, reported)]
    short, long = sorted(names, key=len)
    return long.startswith(short) and bool(re.fullmatch(DATED, long[len(short) :]))


def behind(error: BaseException) -> tuple[set[str], str]:
    """The classes by name of an error and all that caused it, and the words of the first cause: on the way up, what
    could not connect, broke, or took too long all become a time-out."""
    kinds = set[str]()
    cause: BaseException | None = error
    words = str(error)
    while cause:
        kinds |= {kind.__name__ for kind in type(cause).__mro__}
        words, cause = str(cause) or words, cause.__cause__
    return kinds, words


def said(content: bytes) -> tuple[str, str, str]:
    """The words of a server about an error, the code that it gives it, and the parameter that it is about."""
    text = content.decode(errors="replace")
    try:
        data = json.loads(text)
    except ValueError:
        return text, "", ""
    data = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else data  # as Google wraps it
    error = data.get("error", data) if isinstance(data, dict) else data
    facts = error if isinstance(error, dict) else {"message": error}
    words = facts.get("message") or facts.get("detail") or text
    return str(words), str(facts.get("code") or ""), str(facts.get("param") or "")


def names_of(data: Any) -> list[str]:
    """The ids in a list of models, bare or wrapped; none where it is no such list."""
    models = data.get("data") if isinstance(data, dict) else data
    items = models if isinstance(models, list) else []
    return [item["id"] for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]


def usage_of(data: Any) -> tuple[int, int] | None:
    """Tokens of the prompt and of the answer, None where the server does not say."""
    counts = data.get("usage") if isinstance(data, dict) else None
    if not isinstance(counts, dict):
        return None
    prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return (prompt, completion) if isinstance(prompt, int) and isinstance(completion, int) else None


def finish_of(choice: dict[str, Any]) -> str:
    """How an answer ended: `stop`, `length` or `refusal`, which is a filter's; empty where it did not."""
    reason = str(choice.get("finish_reason") or "").casefold()
    return "refusal" if re.match(FILTERS, reason) else FINISHED.get(reason, "")


def flaw(data: Any, model: str, kind: str) -> tuple[str, str] | None:
    """What makes `data` no answer of `model` at this endpoint: in a word, and in words."""
    if kind == "models":
        return None  # a list that nobody can read is none
    choices = data.get("choices") if isinstance(data, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return "invalid", f"an answer without choices: {str(data)[:200]}"
    finish, message = finish_of(choice), choice.get("message") if kind == "chat" else {"content": choice.get("text")}
    texts = isinstance(message, dict) and isinstance(message.get("content"), str | None)
    if not texts and not (finish == "refusal" and message is None):
        return "invalid", f"a choice without text: {str(choice)[:200]}"
    reported = data.get("model") or model
    if not isinstance(reported, str) or not fits(model, reported):
        return "model", f"an answer by another model, {reported!r}, where {model!r} was asked"
    return None if finish else ("finish", f"an answer that finished by {choice.get('finish_reason')!r}")


def filtered(words: str) -> bool:
    """Whether these are the words, or the code, of an error by which a filter refuses a prompt."""
    return bool(re.search(FILTERED, words, re.IGNORECASE))


def no_system(words: str) -> bool:
    """Whether an error says that a model takes no system role."""
    told = re.search(rf"{NOT_TAKEN}|invalid|must|only", words, re.IGNORECASE)
    return bool(told and re.search(SYSTEM, words, re.IGNORECASE))


def not_taken(words: str, parameter: str, sent: dict[str, Any]) -> list[str]:
    """The optional parameters of those `sent` that an error is about."""
    named = [name for name in OPTIONAL if re.search(rf"(?<![a-z_]){name}(?![a-z_])", parameter or words)]
    if not named or not re.search(NOT_TAKEN, words, re.IGNORECASE):
        return []
    with_them = ["top_logprobs"] if "logprobs" in named else []  # one is nothing without the other
    return [name for name in (*named, *with_them) if name in sent]


def sound(data: dict[str, Any]) -> dict[str, Any]:
    """The same JSON, each half of a surrogate pair (an emoji that was cut) replaced: no file could hold it."""
    text = json.dumps(data, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def seconds_after(headers: Any) -> float:
    """What `Retry-After` asks for, as seconds or as a date; 0 where it does not."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            date = email.utils.parsedate_tz(value)
            if date:
                return max(0.0, email.utils.mktime_tz(date) - time.time())
    return 0.0
