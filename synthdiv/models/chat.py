"""Prompts and answers as token ids: rendered in one place, so that training and inference cannot differ."""

from __future__ import annotations

from typing import Any

from synthdiv.types import Artifact, DataError

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

    def _render(self, messages: list[dict[str, str]], ask: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=ask,
                date_string=self.date,
            )
        )

    def _accepts_system(self) -> bool:
        import jinja2

        mark = "a system role that is shown"
        turns = [{"role": "system", "content": mark}, {"role": "user", "content": "x"}]
        try:
            return mark in self._render(turns, True)
        except jinja2.TemplateError:
            return False

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
        text = self._render(turns, False)
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
        """The same of many prompts, tokenised together; `names` are what an error calls them."""
        texts = [self._asked(prompt, names[place] if names else None) for place, prompt in enumerate(prompts)]
        if not texts:
            return []
        every: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        if bos is None or not self._prepends_bos():
            return every
        return [ids if ids[:1] == [bos] else [bos, *ids] for ids in every]

    def _asked(self, prompt: str, name: str | None) -> str:
        import jinja2

        try:
            return self._render(self._messages(prompt), True)
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            row = f"the row {name}" if name else f"the prompt {prompt[:60]!r}"
            raise DataError(f"the chat template cannot render {row}: {error}") from error

    def _prepends_bos(self) -> bool:
        if not hasattr(self, "_bos"):
            self._bos = bool(self.tokenizer("x")["input_ids"][:1] == [self.tokenizer.bos_token_id])
        return self._bos

    def answers(self, answers: list[str]) -> list[list[int]]:
        """Ids of each answer and the one token that ends it."""
        if not answers:
            return []
        return [[*ids, self.end] for ids in self.tokenizer(answers, add_special_tokens=False)["input_ids"]]
