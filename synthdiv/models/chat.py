"""Rendering of prompts and answers as token ids, in one place for training and inference."""

from __future__ import annotations

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


class Chat:
    """Renders with the tokenizer's chat template, or with `default_template` if it has none.

    `folded` counts prompts whose system message was moved to the front of the user turn, because the template has no
    system role. `end` is the id of the token that ends an answer. `date` is the current date for a template that asks
    for it, by `date_string` or `strftime_now`.
    """

    @classmethod
    def for_prompts(cls, tokenizer: Any, prompts: Artifact) -> Chat:
        """Return the renderer with the settings of a prompt set."""
        return cls(tokenizer, prompts.stage.system, prompts.stage.date, prompts.stage.template)

    def __init__(
        self, tokenizer: Any, system: str | None = None, date: str = "", default_template: str = DEFAULT_TEMPLATE
    ):
        self.tokenizer, self.system, self.date = tokenizer, system, date
        self.template = DATE_MACRO + (tokenizer.get_chat_template() if tokenizer.chat_template else default_template)
        self.folded = 0
        self._fold = system is not None and not self._accepts_system()
        self.end = self._end_id()

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool, subject: str) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.template,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    date_string=self.date,
                )
            )
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

    def _end_id(self) -> int:
        """Return the first special token that the template writes after an answer, else the tokenizer's EOS."""
        answer = "answer"
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": answer}]
        text = self._render(turns, False, "an answer after a question")
        tail = text[text.rfind(answer) + len(answer) :]
        added = self.tokenizer.added_tokens_decoder.items()  # <|end|> of Phi is marked as special only here
        special = {*self.tokenizer.all_special_ids, *(number for number, token in added if token.special)}
        for token in self.tokenizer(tail, add_special_tokens=False)["input_ids"]:
            if token in special:
                return int(token)
        if self.tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end-of-sequence token, so a model cannot learn to stop; set eos_token in its "
                "tokenizer_config.json"
            )
        return int(self.tokenizer.eos_token_id)

    @property
    def stop_ids(self) -> list[int]:
        """The token ids that stop generation: the token that ends an answer, and the tokenizer's EOS if it has one."""
        eos = self.tokenizer.eos_token_id
        return sorted({self.end} | ({eos} if eos is not None else set()))

    def prompt(self, prompt: str) -> list[int]:
        """Return the token ids of everything before the answer, with at most one BOS."""
        return self.prompts([prompt])[0]

    def prompts(self, prompts: list[str], row_ids: list[str] | None = None) -> list[list[int]]:
        """Return the token ids of many prompts, tokenised together; errors name a prompt by its entry in `row_ids`.

        BOS tokens at the front become one BOS, whether they come from the template, the tokenizer or the prompt. Text
        that spells a special token elsewhere in a prompt becomes that token.
        """
        texts = []
        for index, prompt in enumerate(prompts):
            subject = f"the row {row_ids[index]}" if row_ids else f"the prompt {prompt[:60]!r}"
            texts.append(self._render(self._messages(prompt), True, subject))
        if not texts:
            return []
        token_ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return token_ids
        stripped = [list(dropwhile(lambda token: token == bos, ids)) for ids in token_ids]
        needed = self._prepends_bos()
        return [
            [bos, *rest] if needed or len(rest) < len(ids) else ids
            for ids, rest in zip(token_ids, stripped, strict=True)
        ]

    def _prepends_bos(self) -> bool:
        if not hasattr(self, "_bos"):
            self._bos = bool(self.tokenizer("x")["input_ids"][:1] == [self.tokenizer.bos_token_id])
        return self._bos

    def answers(self, answers: list[str]) -> list[list[int]]:
        """Return the token ids of each answer and its end token; text that spells a special token stays text."""
        if not answers:
            return []
        token_ids = self.tokenizer(answers, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [[*ids, self.end] for ids in token_ids]
