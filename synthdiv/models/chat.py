"""Rendering of prompts and answers as token ids, in one place for training and inference."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from itertools import dropwhile
from typing import Any

from synthdiv.core.types import Artifact, DataError

DEFAULT_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}### Instruction:\n{{ message['content'] }}\n\n"
    "{% else %}### Response:\n{{ message['content'] }}{{ eos_token or '' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)  # for tokenizers without a chat template
DATE_MACRO = "{% macro strftime_now(form) %}{{ date_string }}{% endmacro %}"  # for templates that call `strftime_now`
MAX_SECONDS, MAX_CHARACTERS = 10.0, 10**7  # of one rendering: a template is a program and may have no end
# what spells a special token of some model, for servers whose tokenizer is not known
SPELLED = re.compile(
    r"<[|｜][^<>\n]{1,60}[|｜]>|</?s>|<(?:bos|eos|pad|(?:start|end)_of_turn)>|\[/?(?:INST|SYSTEM_PROMPT)\]|<</?SYS>>"
)
THINK, END_OF_THINKING = "<think>", "</think>"
# token ids of everything before the answer; of the answer and the token that ends it
Pair = tuple[list[int], list[int]]


class Chat:
    """Renders with the tokenizer's chat template, or with `default_template` if it has none.

    `folded` counts prompts whose system message was moved to the front of the user turn, because the template has no
    system role. `end` is the id of the token that ends an answer; `stop_ids` are those that stop generation: it, the
    tokenizer's EOS, and the checkpoint's `ends`. `date` is the current date for a template that asks for it, by
    `date_string` or `strftime_now`. Prompts that quote what models wrote (`quotes`), as those of judges do, have a
    blank in what spells a special token: a quoted text must not end its turn and write the verdict.
    """

    quotes = False

    @classmethod
    def for_prompts(cls, tokenizer: Any, prompts: Artifact, ends: Iterable[int] = ()) -> Chat:
        """Return the renderer with the settings of a prompt set."""
        chat = cls(tokenizer, prompts.stage.system, prompts.stage.date, prompts.stage.template, ends)
        chat.quotes = prompts.stage.quotes_models
        return chat

    def __init__(
        self, tokenizer: Any, system: str | None = None, date: str = "", default_template: str = DEFAULT_TEMPLATE,
        ends: Iterable[int] = (),
    ):  # fmt: skip
        self.tokenizer, self.system, self.date = tokenizer, system, date
        self.template = DATE_MACRO + (tokenizer.get_chat_template() if tokenizer.chat_template else default_template)
        self.folded = 0
        self._prepends_bos = tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
        self._fold = system is not None and not self._accepts_system()
        added = tokenizer.added_tokens_decoder.items()  # <|end|> of Phi is marked as special only here
        self._special = {*tokenizer.all_special_ids, *(number for number, token in added if token.special)}
        names = sorted(map(str, tokenizer.convert_ids_to_tokens([*self._special])), key=len, reverse=True)
        self._spelled = re.compile("|".join(re.escape(name) for name in names if len(name) > 1) or "(?!)")
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "answer"}]
        self._whole = self._render(turns, False, "an answer after a question")
        self._start = self._render(turns[:1], True, "a question")
        lead, separator, tail = self._whole.removeprefix(self._start).rpartition("answer")
        self._lead = lead if separator and self._whole.startswith(self._start) else None
        self._lead_ids = self._token_ids([self._lead or ""])[0]
        self._lead_text = tokenizer.decode(self._lead_ids, skip_special_tokens=True)
        self.end = self._end_id(tail if separator else "")
        eos = tokenizer.eos_token_id
        self.stop_ids = sorted({self.end, *ends} | ({eos} if eos is not None else set()))

    def _render(
        self, messages: list[dict[str, str]], add_generation_prompt: bool, subject: str, **options: bool
    ) -> str:
        try:
            with time_limit(MAX_SECONDS):
                text: str = self.tokenizer.apply_chat_template(
                    messages, chat_template=self.template, tokenize=False, add_generation_prompt=add_generation_prompt,
                    date_string=self.date, **options,
                )  # fmt: skip
            if len(text) > MAX_CHARACTERS:
                raise ValueError(f"the text has more than {MAX_CHARACTERS:,} characters")
            return text
        except Exception as error:  # a template is a program and may raise anything
            raise DataError(
                f"the chat template cannot render {subject}: {error}. Correct the template, or remove what it rejects"
            ) from error

    def _accepts_system(self) -> bool:
        import jinja2

        system_text = "a system role that is shown"
        turns = [{"role": "system", "content": system_text}, {"role": "user", "content": "x"}]
        try:
            return system_text in self._render(turns, True, "a system role before a user's")
        except DataError as error:
            if isinstance(error.__cause__, jinja2.TemplateError):  # the template rejects system messages
                return False
            raise

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        if self.system is None:
            return [{"role": "user", "content": prompt}]
        if self._fold:
            self.folded += 1
            return [{"role": "user", "content": f"{self.system}\n\n{prompt}"}]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": prompt}]

    def conversation(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the text of a conversation up to the next answer; without the generation prompt, up to where the last
        message goes on. A system message moves to the user turn where the template has no system role."""
        system, *rest = messages
        if system["role"] == "system" and not self._accepts_system():
            self.folded += 1
            messages = [rest[0] | {"content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
        goes_on = not add_generation_prompt
        return self._render(messages, add_generation_prompt, "a conversation", continue_final_message=goes_on)

    def continuation(self, text: str, more: str) -> Pair:
        """Return the token ids of a rendered text, with at most one BOS, and of what follows it; no end token."""
        before, whole = self._token_ids([text, text + more])
        joined = whole[: len(before)] == before
        return self._one_bos(before), whole[len(before) :] if joined else self._token_ids([more])[0]

    def _end_id(self, tail: str) -> int:
        """Return the first special token of what the template writes after an answer, else the tokenizer's EOS."""
        if special := [token for token in self._token_ids([tail])[0] if token in self._special]:
            return special[0]
        if self.tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end-of-sequence token, so a model cannot learn to stop; set eos_token in its "
                "tokenizer_config.json"
            )
        return int(self.tokenizer.eos_token_id)

    def text(self, generated: str, ids: list[int]) -> str:
        """Return what a model generated, as text without special tokens and as `ids`, as an answer: with the tag of
        thinking that the generation prompt opens, and without what the template writes before an answer."""
        opened = THINK if self._start.rstrip().endswith(THINK) else ""
        with_lead = ids[: len(self._lead_ids)] == self._lead_ids
        return opened + generated.removeprefix(self._lead_text if with_lead else self._lead or "")

    def prompt(self, prompt: str) -> list[int]:
        """Return the token ids of everything before the answer, with at most one BOS."""
        return self.prompts([prompt])[0]

    def prompts(self, prompts: list[str], row_ids: list[str] | None = None) -> list[list[int]]:
        """Return the token ids of many prompts, tokenised together; errors name a prompt by its entry in `row_ids`.

        BOS tokens at the front become one BOS, whether they come from the template, the tokenizer or the prompt. Text
        that spells a special token elsewhere in a prompt becomes that token.
        """
        return [self._one_bos(ids) for ids in self._token_ids(self._texts(prompts, row_ids))]

    def pairs(self, prompts: list[str], answers: list[str], row_ids: list[str] | None = None) -> list[Pair]:
        """Return the token ids of each prompt, as `prompts` does, and of its answer and the end token.

        An answer has the tokens that it has behind its prompt: a tokenizer may join them, or put a blank before a text
        that stands alone. Where the prompt then has other tokens, and where the answer spells a special token, which
        stays text, the answer is tokenised by itself. Raises DataError if the template renders a prompt and its answer
        otherwise than the generation prompt and the answer.
        """
        return self._pairs(self._texts(prompts, row_ids), self._checked_lead(), answers)

    def scored_pairs(self, prompts: list[str], answers: list[str]) -> list[Pair]:
        """Return `pairs` for likelihoods of answers: what the template writes before is part of the prompt."""
        lead = self._checked_lead()
        return self._pairs([text + lead for text in self._texts(prompts, None)], "", answers)

    def _checked_lead(self) -> str:
        if self._lead is None:
            raise DataError(
                f"the chat template begins an answer with {self._start[-60:]!r} and renders a whole conversation as "
                f"{self._whole[-60:]!r}: a student would be trained on a text that it never answers to. Set "
                "checkpoint.template_kwargs, such as '{\"enable_thinking\": false}', or checkpoint.chat_template"
            )
        return self._lead

    def _pairs(self, texts: list[str], lead: str, answers: list[str]) -> list[Pair]:
        lead_ids = self._token_ids([lead])[0]
        special = [token for token in lead_ids if token in self._special]
        wholes = [text + lead + answer for text, answer in zip(texts, answers, strict=True)]
        pairs = []
        for before, whole, answer in zip(self._token_ids(texts), self._token_ids(wholes), answers, strict=True):
            rest = whole[len(before) :]
            joined = whole[: len(before)] == before and [token for token in rest if token in self._special] == special
            ids = [*rest, self.end] if joined else [*lead_ids, *self.answers([answer])[0]]
            pairs.append((self._one_bos(before), ids))
        return pairs

    def answers(self, answers: list[str]) -> list[list[int]]:
        """Return the token ids of each answer by itself and its end token; special tokens that it spells stay text."""
        return [[*ids, self.end] for ids in self._token_ids(answers, split_special_tokens=True)]

    def _texts(self, prompts: list[str], row_ids: list[str] | None) -> list[str]:
        names = [f"the row {row}" for row in row_ids] if row_ids else [f"the prompt {text[:60]!r}" for text in prompts]
        if self.quotes:
            prompts = [quoted(text, self._spelled) for text in prompts]
        return [self._render(self._messages(prompt), True, name) for prompt, name in zip(prompts, names, strict=True)]

    def _token_ids(self, texts: list[str], **options: bool) -> list[list[int]]:
        if not texts:
            return []
        try:
            ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, **options)["input_ids"]
            return ids
        except (TypeError, UnicodeEncodeError) as error:
            wrong = next((text for text in texts if re.search("[\ud800-\udfff]", text)), None)
            if wrong is None:
                raise
            raise DataError(
                f"{wrong[:60]!r} has half of a surrogate pair, which is no character; correct the text or leave it out"
            ) from error

    def _one_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return ids
        rest = list(dropwhile(lambda token: token == bos, ids))
        return [bos, *rest] if self._prepends_bos or len(rest) < len(ids) else ids


def quoted(text: str, special: re.Pattern[str] = SPELLED) -> str:
    """Return a text with a blank in whatever spells a special token, so that it cannot end the turn that quotes it."""
    return special.sub(lambda name: f"{name[0][0]} {name[0][1:]}", text)


def part_thinking(text: str) -> tuple[str, str]:
    """Return the thinking that begins an answer, and the answer. Thinking that does not end leaves no answer. An end
    without a beginning counts where it is a line, as an answer may name it."""
    thinking, _, answer = text.partition(END_OF_THINKING)
    if not text.lstrip().startswith(THINK):
        end = re.search(rf"^{END_OF_THINKING}[^\S\n]*$", text, re.MULTILINE)
        if not end or THINK in text[: end.start()]:
            return "", text
        thinking, answer = text[: end.start()], text[end.end() :]
    return thinking.strip().removeprefix(THINK).strip(), answer.lstrip()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer. Only the main thread, which builds stages, can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(*_: object) -> None:
        raise TimeoutError(f"it takes more than {seconds:g} s")

    handler, timer = signal.signal(signal.SIGALRM, expire), signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
