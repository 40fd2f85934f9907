"""Where answers come from: sampled from a model with these settings, or read from a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

from synthdiv.core.fields import locator, setting
from synthdiv.core.resolver import Resolver, pinned
from synthdiv.core.types import ConfigError, DataError
from synthdiv.prompts.table import Table, normalise, table_rows, with_context


class Backend(Enum):
    """What runs a generator: transformers in this process, vLLM in its own process, a hosted server with OpenAI's
    protocol, or a file of recorded answers."""

    hf = "hf"
    vllm = "vllm"
    api = "api"
    recorded = "recorded"


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


@dataclass
class Recorded:
    """Recorded answers in a file."""

    path: str | None = locator()
    """A file: .jsonl, .json, .csv, .tsv (each also with .gz) or .parquet."""
    where: list[str] = field(default_factory=list)
    """Keeps the rows whose columns equal the given text, each `column=value`; empty: all rows."""
    id: str | None = None
    """The column with the prompt's id; null: rows are matched by the normalised text of column `prompt`."""
    prompt: str = "prompt"
    """The column with the prompt."""
    context: str | None = None
    """The column with text that precedes the prompt; null: none."""
    response: str = "response"
    """The column with the answer."""
    source: str = "source"
    """The column that names the source of the answer."""
    answerer: str | None = None
    """The value of column `source` whose rows count; null: every row."""
    sha256: str = ""
    """Content of the file, filled in by resolving; given beforehand it pins the content."""
    rows: int = 0
    """Prompts answered, filled in by resolving; given beforehand it pins the number."""

    def check(self, name: str) -> list[str]:
        return Table(self.path, where=self.where).check(name)

    @property
    def _columns(self) -> tuple[str | None, ...]:
        return (self.id, self.prompt, self.context, self.response, self.source if self.answerer is not None else None)

    def answers(self, name: str) -> dict[str, str]:
        """The answers by prompt id, or by normalised prompt. Each process reads a file once."""
        path = Path(self.path or "")
        answers = _answers_by_source(str(path), path.stat().st_mtime_ns, tuple(self.where), self._columns, name)
        if self.answerer not in answers:
            sources = ", ".join(sorted(map(str, answers))[:40])
            raise ConfigError(f"{name}.answerer={self.answerer}: no row of that source; there are {sources}")
        return answers[self.answerer]

    def resolve(self, resolver: Resolver, name: str) -> None:
        path = Path(self.path or "")
        if not path.is_file():
            raise ConfigError(f"{name}.path={self.path}: no such file")
        self.sha256 = pinned(f"{name}.sha256", self.sha256, resolver.file(path))
        key = ["recorded", self.sha256, self.where, list(self._columns), self.answerer]
        count = resolver.remember(key, lambda: len(self.answers(name)))
        self.rows = pinned(f"{name}.rows", self.rows, count)


@cache
def _answers_by_source(
    path: str, changed: int, where: tuple[str, ...], columns: tuple[str | None, ...], name: str
) -> dict[str | None, dict[str, str]]:
    """Answers by source, then by prompt; under None if no column names the source. `changed` (ns) is the file's time
    of modification; `columns` are those of `Recorded._columns`."""
    id_column, prompt, context, response, source = columns
    wanted = {"id": id_column} if id_column else {"prompt": prompt, "context": context}
    rows = table_rows(Table(path, where=list(where)), name, wanted | {"response": response, "source": source})
    texts = rows.texts(str(response))
    if id_column:
        keys = rows.ids(id_column)
    else:
        contexts = rows.labels(context) if context else [""] * len(texts)
        keys = [normalise(with_context(*pair)) for pair in zip(contexts, rows.labels(str(prompt)), strict=True)]
    sources = rows.labels(source) if source else [None] * len(texts)
    answers: dict[str | None, dict[str, str]] = {}
    for index, (writer, key, text) in enumerate(zip(sources, keys, texts, strict=True)):
        if answers.setdefault(writer, {}).setdefault(key, text) != text:
            raise DataError(
                f"{rows.place(index)}: a second, different answer{f' of {writer}' if writer else ''} to {key!r}; "
                f"choose one with {name}.where"
            )
    return answers
