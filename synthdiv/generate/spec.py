"""How answers come about: sampled with these settings, or read from a file."""

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
    """Who runs a generator: transformers in this process, vLLM in one of its own, a server of others that speaks
    OpenAI's protocol, or a file of answers that exist."""

    hf = "hf"
    vllm = "vllm"
    api = "api"
    recorded = "recorded"


class Overlong(Enum):
    """What becomes of a prompt that does not fit the context with the new tokens: an error, or its start is cut."""

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
    """Longest answer, in tokens of the model's own tokenizer."""
    overlong: Overlong = Overlong.error
    """What happens to a prompt that does not fit the context with the new tokens; hosted models decide themselves."""


@dataclass
class Recorded:
    """Answers that exist already, in a file."""

    path: str | None = locator()
    """A file: .jsonl, .jsonl.gz, .csv or .parquet."""
    where: list[str] = field(default_factory=list)
    """Keeps the rows whose columns equal the given text, each `column=value`; empty: all rows."""
    id: str | None = None
    """The column with the prompt's id; null: rows are matched by the normalised text of column `prompt`."""
    prompt: str = "prompt"
    """The column with the prompt."""
    context: str | None = None
    """The column with text that stands before the prompt; null: none."""
    response: str = "response"
    """The column with the answer."""
    source: str = "source"
    """The column that names who answered."""
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
        """Answer by prompt id or normalised prompt. A file is read once a process."""
        path = Path(self.path or "")
        found = _grouped(str(path), path.stat().st_mtime_ns, tuple(self.where), self._columns, name)
        if self.answerer not in found:
            told = ", ".join(sorted(map(str, found))[:40])
            raise ConfigError(f"{name}.answerer={self.answerer}: no row of that source; there are {told}")
        return found[self.answerer]

    def resolve(self, resolver: Resolver, name: str) -> None:
        path = Path(self.path or "")
        if not path.is_file():
            raise ConfigError(f"{name}.path={self.path}: no such file")
        self.sha256 = pinned(f"{name}.sha256", self.sha256, resolver.file(path))
        key = ["recorded", self.sha256, self.where, list(self._columns), self.answerer]
        count = resolver.remember(key, lambda: len(self.answers(name)))
        self.rows = pinned(f"{name}.rows", self.rows, count)


@cache
def _grouped(
    path: str, changed: int, where: tuple[str, ...], columns: tuple[str | None, ...], name: str
) -> dict[str | None, dict[str, str]]:
    """Answers by source, then by prompt; under None where no column names the source. `columns` as in `answers`."""
    id_column, prompt, context, response, source = columns
    found: dict[str | None, dict[str, str]] = {}
    wanted = {"id": id_column} if id_column else {"prompt": prompt, "context": context}
    wanted |= {"response": response, "source": source}
    for number, row in enumerate(table_rows(Table(path, where=list(where)), name, wanted), 1):
        text = row.get(str(response))
        if not isinstance(text, str):
            raise DataError(f"{path}, row {number}: column {response} holds no text")
        asked = with_context(str(row.get(context) or "") if context else "", str(row.get(str(prompt))))
        key = str(row.get(id_column)) if id_column else normalise(asked)
        who = str(row.get(source)) if source else None
        if found.setdefault(who, {}).setdefault(key, text) != text:
            raise DataError(
                f"{path}, row {number}: a second, different answer{f' of {who}' if who else ''} to {key!r}; "
                f"choose one with {name}.where"
            )
    return found
