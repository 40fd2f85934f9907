"""Prompt tables: the rows of a file or a hub dataset, by column names that are fields."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.fields import locator
from synthdiv.core.resolver import Resolver, Unresolved, pinned
from synthdiv.core.types import ConfigError, DataError
from synthdiv.prompts.formats import ENDINGS, FORMATS, FileRows, read_columns, require_columns

SHOWN = 12  # values of a column in a message


@dataclass
class Columns:
    """Which column of a table holds what."""

    prompt: str = "prompt"
    """The instruction."""
    response: str | None = "response"
    """The human answer; null: the set has none."""
    id: str | None = None
    """The id of a row; null: a hash of its normalised prompt."""
    context: str | None = None
    """Text that precedes the prompt, with a blank line between; null: none."""
    category: str | None = None
    """The stratum of a row, in which splits and shards are balanced; null: one stratum."""


@dataclass
class Table:
    """A local file or a hub dataset, and the rows of it that count."""

    path: str | None = locator()
    """A file: .jsonl, .json, .csv, .tsv (each also with .gz) or .parquet; null: `hub`."""
    hub: str | None = locator()
    """A dataset on the hub, like `org/name`, or its local folder; null: `path`."""
    subset: str | None = None
    """The configuration of the hub dataset; null: its default."""
    part: str = "train"
    """The split of the hub dataset."""
    revision: str | None = locator()
    """Branch, tag or commit on the hub; null: the main branch."""
    where: list[str] = field(default_factory=list)
    """Keeps the rows whose columns equal the given text, each `column=value`; empty: all rows."""
    columns: Columns = field(default_factory=Columns)
    """Which column holds what."""
    sha256: str = ""
    """Content of the file, filled in by resolving; given beforehand it pins the content."""
    commit: str = ""
    """Commit of the hub dataset, filled in by resolving; given beforehand it pins the content."""
    rows: int = 0
    """Rows that count, filled in by resolving; given beforehand it pins the number."""

    def check(self, name: str) -> list[str]:
        problems = []
        if bool(self.path) == bool(self.hub):
            problems.append(f"{name}.path={self.path}, {name}.hub={self.hub}: give one of the two")
        if self.path and not self.path.lower().endswith(ENDINGS):
            problems.append(f"{name}.path={self.path}: the name must end in {FORMATS}")
        problems += [
            f"{name}.where: {term!r} is not of the form column=value" for term in self.where if "=" not in term
        ]
        return problems

    def resolve(self, name: str, resolver: Resolver, records: Callable[[Table, str], list[Any]], *more: Any) -> None:
        """Fill in content hash and row count. `records` reads and checks every row, before anything runs; `more` is
        what else decides what it does."""
        if self.path:
            self.sha256 = resolver.pinned_file(name, self.path, self.sha256)
        elif self.hub and Path(self.hub).is_dir():
            self.sha256 = pinned(f"{name}.sha256", self.sha256, resolver.folder(Path(self.hub)))
        elif self.hub:
            commit = resolver.hub_commit(self.hub, self.commit or self.revision, "dataset")
            self.commit = pinned(f"{name}.commit", self.commit, commit)
            if not resolver.online:
                raise Unresolved(f"{self.hub}: its rows are counted at launch")
        content = [self.sha256, self.commit, self.subset, self.part, self.where, vars(self.columns)]
        key = ["rows", *content, *more]
        self.rows = pinned(f"{name}.rows", self.rows, resolver.remember(key, lambda: len(records(self, name))))


def table_rows(table: Table, name: str, fields: Mapping[str, str | None]) -> FileRows:
    """The rows of `table` that pass `where`, with the columns that `fields` names by field (null: not needed)."""
    terms = [term.split("=", 1) for term in table.where]
    columns = {f"{name}.{field}={column}": column for field, column in fields.items() if column}
    columns |= {f"{name}.where {'='.join(term)!r}": term[0] for term in terms}
    rows = hub_columns(table, columns) if table.hub else read_columns(Path(table.path or ""), columns)
    indices = [
        index
        for index in range(len(rows.numbers))
        if all(value in spellings(rows.cells[column][index]) for column, value in terms)
    ]
    if not indices:
        wanted_rows = f" with {' and '.join(table.where)}" if terms else ""
        values = {column: sorted({*map(str, rows.cells[column])})[:SHOWN] for column, _ in terms}
        choices = "".join(f"; {column} is {', '.join(each)}" for column, each in values.items())
        raise ConfigError(f"{name}: {rows.source} has no row{wanted_rows}{choices}")
    return rows.take(indices)


def spellings(cell: Any) -> tuple[str, ...]:
    """How a cell may be written in `where`: booleans as in JSON, too."""
    return (str(cell), str(cell).lower()) if isinstance(cell, bool) else (str(cell),)


def hub_columns(table: Table, fields: Mapping[str, str]) -> FileRows:
    import datasets

    hub = str(table.hub)
    try:
        dataset = datasets.load_dataset(hub, table.subset, split=table.part, revision=table.commit or table.revision)
    except Exception as error:  # datasets passes on whatever a damaged file raises
        cause = str(error.__cause__ or error).splitlines() or [type(error).__name__]
        raise DataError(f"{hub}: the data set cannot be read ({cause[0]})") from error
    require_columns(hub, fields, dataset.column_names)
    columns = dataset.select_columns(list(dict.fromkeys(fields.values())))
    return FileRows(hub, "row", range(1, len(columns) + 1), columns[:])


def normalise(text: str) -> str:
    """The text in lower case with collapsed white space: equal instructions have equal normalised texts."""
    return " ".join(text.lower().split())


def with_context(context: str, instruction: str) -> str:
    """The context, if there is one, a blank line and the instruction (S1)."""
    return f"{context}\n\n{instruction}" if context.strip() else instruction


def prompt_records(table: Table, name: str) -> list[dict[str, Any]]:
    """Rows as `id, prompt, instruction, context, response (or None), category`, every one checked."""
    columns = table.columns
    fields = {f"columns.{field}": column for field, column in vars(columns).items()}
    try:
        rows = table_rows(table, name, fields)
    except ConfigError as error:
        hint = f"; set {name}.columns.id=null if there are no ids"
        raise ConfigError(text + hint * text.startswith(f"{name}.columns.id=") for text in error.problems) from error
    empty = [""] * len(rows.numbers)
    instructions = rows.require(columns.prompt, has_words, "; it needs a text with words")
    contexts = rows.labels(columns.context) if columns.context else empty
    prompts = [with_context(*pair) for pair in zip(contexts, instructions, strict=True)]
    responses: list[str | None] = [None] * len(empty)
    if columns.response:
        null = f"{name}.columns.response=null"
        advice = f": it holds no answer. Remove the row, or set {null} if this set has no human answers"
        responses = rows.require(columns.response, has_words, advice)
    categories = [str(cell) for cell in rows.cells[columns.category]] if columns.category else empty
    ids = unique_ids(rows, columns.id) if columns.id else text_ids(prompts)
    names = ("id", "prompt", "instruction", "context", "response", "category")
    values = zip(ids, prompts, instructions, contexts, responses, categories, strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def has_words(cell: Any) -> bool:
    return isinstance(cell, str) and cell.strip() != ""


def unique_ids(rows: FileRows, column: str) -> list[str]:
    ids, first = rows.ids(column), dict[str, int]()
    for index, key in enumerate(ids):
        if first.setdefault(key, index) != index:
            place = f"{rows.unit} {rows.numbers[first[key]]}"
            raise DataError(f"{rows.place(index)}: {column}={key} is listed twice (first in {place}); ids are unique")
    return ids


def text_ids(prompts: list[str]) -> list[str]:
    """A hash of each normalised prompt, and of how often it occurred before."""
    ids, counts = [], Counter[str]()
    for text in map(normalise, prompts):
        counts[text] += 1
        ids.append("p-" + hashlib.sha256(f"{text}\0{counts[text]}".encode()).hexdigest()[:16])
    return ids
