"""Prompts and answers as token ids: rendered in one place, so that training and inference cannot differ."""

from __future__ import annotations

from itertools import dropwhile
from typing import Any

from synthdiv.core.types import Artifact, DataError

PLAIN = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}### Instruction:\n{{ message['content'] }}\n\n"
    "{% else %}### Response:\n{{ message['content'] }}{{ eos_token or '' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)  # for tokenizers without a template of their own
TODAY = "{% macro strftime_now(form) %}{{ date_string }}{% endmacro %}"  # for templates that ask the clock


class Chat:
    """Renders with the tokenizer's template, or `plain` where it has none.

    `folded` counts prompts whose system role had no place of its own and went to the front of the user turn. `end` is
    the id of the one token that ends an answer. `date` is today to a template that asks, as `date_string` or by the
    clock.
    """

    @classmethod
    def of(cls, tokenizer: Any, prompts: Artifact) -> Chat:
        """As this prompt set is rendered, wherever."""
        return cls(tokenizer, prompts.stage.system, prompts.stage.date, prompts.stage.template)

    def __init__(self, tokenizer: Any, system: str | None = None, date: str = "", plain: str = PLAIN):
        self.tokenizer, self.system, self.date = tokenizer, system, date
        self.template = TODAY + (tokenizer.get_chat_template() if tokenizer.chat_template else plain)
        self.folded = 0
        self._fold = system is not None and not self._accepts_system()
        self.end = self._end()

    def _render(self, messages: list[dict[str, str]], ask: bool, what: str) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.template,
                    tokenize=False,
                    add_generation_prompt=ask,
                    date_string=self.date,
                )
            )
        except Exception as error:  # a template is a program of others, and may raise anything
            raise DataError(
                f"the chat template cannot render {what}: {error}. Mend the template, or leave out what it refuses"
            ) from error

    def _accepts_system(self) -> bool:
        import jinja2

        mark = "a system role that is shown"
        turns = [{"role": "system", "content": mark}, {"role": "user", "content": "x"}]
        try:
            return mark in self._render(turns, True, "a system role before a user's")
        except DataError as error:
            if isinstance(error.__cause__, jinja2.TemplateError):  # its way to say that it has no place for one
                return False
            raise

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        if self.system is None:
            return [{"role": "user", "content": prompt}]
        if self._fold:
            self.folded += 1
            return [{"role": "user", "content": f"{self.system}\n\n{prompt}"}]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": prompt}]

    def _end(self) -> int:
        """The first special token that the template puts after an answer, else the tokenizer's EOS."""
        mark = "answer"
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": mark}]
        text = self._render(turns, False, "an answer after a question")
        tail = text[text.rfind(mark) + len(mark) :]
        added = self.tokenizer.added_tokens_decoder.items()  # Phi's <|end|> is special there and nowhere else
        special = {*self.tokenizer.all_special_ids, *(number for number, token in added if token.special)}
        for token in self.tokenizer(tail, add_special_tokens=False)["input_ids"]:
            if token in special:
                return int(token)
        if self.tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end-of-sequence token, so a model can never learn to stop; set eos_token in its "
                "tokenizer_config.json"
            )
        return int(self.tokenizer.eos_token_id)

    @property
    def ends(self) -> list[int]:
        """The ids at which generation stops: the token that ends an answer, and the tokenizer's EOS if it has one."""
        eos = self.tokenizer.eos_token_id
        return sorted({self.end} | ({eos} if eos is not None else set()))

    def prompt(self, prompt: str) -> list[int]:
        """Ids of everything before the answer, with at most one BOS."""
        return self.prompts([prompt])[0]

    def prompts(self, prompts: list[str], names: list[str] | None = None) -> list[list[int]]:
        """The same of many prompts, tokenised together; `names` are what an error calls them.

        Those at the front are one BOS, whoever wrote them: the template, the tokenizer or the text of the prompt. Text
        that spells a special token elsewhere in a prompt is that token.
        """
        texts = []
        for place, prompt in enumerate(prompts):
            what = f"the row {names[place]}" if names else f"the prompt {prompt[:60]!r}"
            texts.append(self._render(self._messages(prompt), True, what))
        if not texts:
            return []
        every: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return every
        rests = [list(dropwhile(lambda token: token == bos, ids)) for ids in every]
        needs = self._prepends_bos()
        return [[bos, *rest] if needs or len(rest) < len(ids) else ids for ids, rest in zip(every, rests, strict=True)]

    def _prepends_bos(self) -> bool:
        if not hasattr(self, "_bos"):
            self._bos = bool(self.tokenizer("x")["input_ids"][:1] == [self.tokenizer.bos_token_id])
        return self._bos

    def answers(self, answers: list[str]) -> list[list[int]]:
        """Ids of each answer and the one token that ends it: one that stands in the text is text, and ends nothing."""
        if not answers:
            return []
        every = self.tokenizer(answers, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [[*ids, self.end] for ids in every]
