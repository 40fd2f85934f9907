"""Where answers come from: sampled from a model with these settings, or read from a file."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

from synthdiv.core.fields import locator, setting
from synthdiv.core.resolver import Resolver, pinned
from synthdiv.core.types import ConfigError, DataError
from synthdiv.prompts.conversation import prompt_of
from synthdiv.prompts.table import Table, normalise, table_rows, with_context


class Backend(Enum):
    """What runs a generator: the module of this name, whose docstring is its row in docs/generators.md."""

    hf = "hf"
    vllm = "vllm"
    api = "api"
    recorded = "recorded"
    law = "law"
    logits = "logits"
    rules = "rules"
    exact = "exact"


MODELLESS = (Backend.recorded, Backend.rules, Backend.exact)  # they run no model
JUDGES_ONLY = (Backend.logits, Backend.rules, Backend.exact)  # they answer judge prompts
AT_ONCE = (*MODELLESS, Backend.law)  # they give all rows at once
RESUMING = (Backend.hf, Backend.vllm, Backend.api, Backend.logits)  # they keep the rows of an earlier session
SERVERS = (Backend.vllm, Backend.api)  # their answers arrive in any order, and have costs


class LongPrompt(Enum):
    """What to do with a prompt that does not fit into the context with the new tokens: fail, or cut its start."""

    error = "error"
    truncate = "truncate"


@dataclass
class Sampling:
    """How tokens are drawn from a model's distribution."""

    temperature: float = setting(0.7, least=0, most=10)
    """Divides the logits; 0 is greedy decoding."""
    top_p: float = setting(0.9, above=0, most=1)
    """Probability mass of the tokens that may be drawn (nucleus sampling); 1 keeps all."""
    max_new_tokens: int = setting(1024, least=1)
    """Longest answer, in tokens of the model's tokenizer."""
    overlong: LongPrompt = LongPrompt.error
    """What to do with a prompt that does not fit into the context with the new tokens. Hosted servers decide that."""
    top_k: int = setting(0, least=0)
    """How many of the most likely tokens may be drawn; 0: all."""
    min_p: float = setting(0.0, least=0, most=1)
    """Probability, relative to the most likely token, below which no token is drawn; 0: none is left out."""
    repetition_penalty: float = setting(1.0, above=0)
    """Divides positive and multiplies negative logits of tokens of prompt and answer (Keskar et al. 2019); 1: none."""
    stop: list[str] = field(default_factory=list)
    """Strings before which an answer ends."""

    @property
    def plain(self) -> bool:
        """Whether tokens are drawn from the model's own distribution."""
        return (self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty) == (1, 1, 0, 0, 1)


@dataclass
class Recorded:
    """Recorded answers in a file."""

    path: str | None = locator()
    """A file: .jsonl, .json, .csv, .tsv (each also with .gz or .zst) or .parquet. A column may be a path: a.b.0."""
    where: list[str] = field(default_factory=list)
    """Keeps the rows whose columns equal the given text, each `column=value`; empty: all rows."""
    id: str | None = None
    """The column with the prompt's id (1.0 is 1); null: rows are matched by the normalised text of column `prompt`."""
    prompt: str = "prompt"
    """The column with the prompt, a text or a conversation."""
    context: str | None = None
    """The column with text that precedes the prompt; null: none."""
    response: str = "response"
    """The column with the answer: a text, a list of samples, a conversation, or a response of OpenAI's protocol."""
    source: str = "source"
    """The column that names the source of the answer."""
    answerer: str | None = None
    """The value of column `source` whose rows count; null: every row."""
    sha256: str = ""
    """Content of the file, filled in by resolving; given beforehand it pins the content."""
    rows: int = 0
    """Prompts with enough answers, filled in by resolving; given beforehand it pins the number."""

    def check(self, name: str) -> list[str]:
        return Table(self.path, where=self.where).check(name)

    @property
    def _columns(self) -> tuple[str | None, ...]:
        return (self.id, self.prompt, self.context, self.response, self.source if self.answerer is not None else None)

    def key(self, id: str, prompt: str) -> str:
        """What a prompt of the study and a row of the file have in common: their id, however a table wrote a number, or
        their text, in whichever form of Unicode."""
        return id_key(id) if self.id else text_key(prompt)

    def answers(self, name: str, samples: int = 1) -> dict[str, list[str]]:
        """The first `samples` answers to each prompt that has so many, by `key`. Each process reads a file once."""
        path = Path(self.path or "")
        changed = path.stat().st_mtime_ns
        answers, conflicts = _answers_by_source(str(path), changed, tuple(self.where), self._columns, name)
        if self.answerer not in answers:
            sources = ", ".join(sorted(map(str, answers))[:40])
            raise ConfigError(f"{name}.answerer={self.answerer}: no row of that source; there are {sources}")
        if self.answerer in conflicts:
            raise DataError(conflicts[self.answerer])
        return {key: texts[:samples] for key, texts in answers[self.answerer].items() if len(texts) >= samples}

    def resolve(self, resolver: Resolver, name: str, samples: int = 1) -> None:
        self.sha256 = resolver.pinned_file(name, self.path, self.sha256)
        key = ["recorded", self.sha256, self.where, list(self._columns), self.answerer, samples]
        count = resolver.remember(key, lambda: len(self.answers(name, samples)))
        self.rows = pinned(f"{name}.rows", self.rows, count)


def id_key(id: str) -> str:
    """An id however a table wrote a number: 1.0 is 1."""
    return re.sub(r"(?<=\d)\.0+$", "", id)


def text_key(prompt: str) -> str:
    """A normalised prompt, in one form of Unicode."""
    return normalise(unicodedata.normalize("NFC", prompt))


@cache
def _answers_by_source(
    path: str, changed: int, where: tuple[str, ...], columns: tuple[str | None, ...], name: str
) -> tuple[dict[str | None, dict[str, list[str]]], dict[str | None, str]]:
    """Answers by source, then by prompt; under None if no column names the source. And by source, what is wrong with
    its answers. `changed` (ns) is the file's time of modification; `columns` are those of `Recorded._columns`."""
    id_column, prompt, context, response, source = columns
    key_columns = {"id": id_column} if id_column else {"prompt": prompt, "context": context}
    rows = table_rows(Table(path, where=list(where)), name, key_columns | {"response": response, "source": source})
    samples = rows.answers(str(response))
    if id_column:
        keys = [id_key(id) for id in rows.ids(id_column)]
    else:
        contexts = rows.labels(context) if context else [""] * len(samples)
        prompts = map(str, map(prompt_of, rows.require(str(prompt), prompt_of, "; it needs a text or a conversation")))
        keys = [text_key(with_context(*pair)) for pair in zip(contexts, prompts, strict=True)]
    answers: dict[str | None, dict[str, list[str]]] = {}
    conflicts: dict[str | None, str] = {}
    writers = rows.labels(source) if source else [None] * len(samples)
    for index, (writer, key, texts) in enumerate(zip(writers, keys, samples, strict=True)):
        if answers.setdefault(writer, {}).setdefault(key, texts) != texts:
            second = f"{rows.place(index)}: a second, different answer{f' of {writer}' if writer else ''} to {key!r}"
            conflicts.setdefault(writer, f"{second}; choose one with {name}.where")
    return answers, conflicts
