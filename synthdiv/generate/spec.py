"""How answers come about: sampled with these settings, or read from a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

from synthdiv.core.resolver import Resolver, pinned
from synthdiv.core.stage import added, locator
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
    """`temperature` 0 is greedy decoding. `max_new_tokens` counts tokens of the generator's own tokenizer. `overlong`
    prompts are refused, or lose tokens from their left (counted); a server of others decides by itself."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 1024
    overlong: Overlong = added(Overlong.error, Overlong.error)  # noqa: RUF009

    def check(self, name: str) -> list[str]:
        problems = []
        if not 0 <= self.temperature <= 10:
            problems.append(f"{name}.temperature={self.temperature}: needs 0 (greedy) to 10")
        if not 0 < self.top_p <= 1:
            problems.append(f"{name}.top_p={self.top_p}: needs more than 0 and at most 1")
        if self.max_new_tokens < 1:
            problems.append(f"{name}.max_new_tokens={self.max_new_tokens}: needs 1 token or more")
        return problems


@dataclass
class Recorded:
    """Answers in a file, matched to prompts by column `id` (null: by the normalised text of column `prompt`).

    Rows count where column `source` equals `answerer`; every row where that is null. `context` precedes the prompt and
    `where` selects as in a prompt table. `sha256` and `rows` (prompts answered) are filled in by resolving; given
    beforehand they pin the content.
    """

    path: str | None = locator()
    where: list[str] = field(default_factory=list)
    id: str | None = None
    prompt: str = "prompt"
    context: str | None = None
    response: str = "response"
    source: str = "source"
    answerer: str | None = None
    sha256: str = ""
    rows: int = 0

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
