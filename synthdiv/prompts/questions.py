"""Questions with right answers, each file whole: for exact match, or with choices. Beside the prompts of a study."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.files import write_rows
from synthdiv.core.resolver import Resolver, unchanged
from synthdiv.core.stage import ANSWER_TOKENS, PROMPT_TOKENS, Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.measures.accuracy import normal_form
from synthdiv.models.chat import DEFAULT_TEMPLATE
from synthdiv.prompts.prompt_set import FILE
from synthdiv.prompts.table import Table, has_words, prompt_records, table_rows


@dataclass
class QuestionFile:
    """A file of questions with right answers."""

    name: str = ""
    """The name, which is part of the names of scores."""
    table: Table = field(default_factory=Table)
    """The rows; `columns.prompt` holds the question, `columns.response` the right answer: a text or number, or a list
    of those of which each is right. Of choices it is the text, the letter, or the index from 0."""
    choices: str | None = None
    """The column with the choices, a list of texts; null: the student writes the answer, which has to match."""
    pattern: str | None = None
    """A regular expression whose last match is compared, in the answer and in the right answer (its first group, if it
    has one); null: the whole text."""
    max_new_tokens: int = setting(256, least=1)
    """Longest answer, in tokens of the student's tokenizer."""

    def check(self, name: str) -> list[str]:
        problems = []
        if not self.name or "/" in self.name:
            problems.append(f"{name}.name={self.name!r}: needs a name without a slash")
        if not self.table.columns.response:
            problems.append(f"{name}.table.columns.response=null: needs the column with the right answer")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            problems.append(f"{name}.pattern={self.pattern!r}: is no regular expression ({error})")
        if self.choices and self.pattern:
            problems.append(f"{name}.pattern: is for answers that the student writes; with choices it has no use")
        return problems

    def resolve(self, resolver: Resolver) -> None:
        records = partial(question_records, choices=self.choices, pattern=self.pattern or "")
        self.table.resolve("table", resolver, records, "choices", self.choices, self.pattern)


@dataclass
class WholeSet(Stage):
    """A prompt set of which every row is in the split `test`, rendered as the prompts of the study are."""

    unit = "rows"
    bytes_per_unit = 500
    assumed_tokens = (PROMPT_TOKENS, ANSWER_TOKENS)  # for plans where nothing was measured

    system: str | None = None
    """The system prompt of the study."""
    date: str = "2026-01-01"
    """The date that chat templates may show."""
    template: str = DEFAULT_TEMPLATE
    """The chat template (Jinja) for tokenizers without one."""

    @property
    def test(self) -> int:
        """The number of its rows."""
        raise NotImplementedError

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        return Work(self.test)

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        records = self.records()
        self.split(records)
        write_rows(records, out / FILE)
        return {"rows": len(records)}

    def records(self) -> list[dict[str, Any]]:
        """The rows, every one checked."""
        raise NotImplementedError

    def split(self, records: list[dict[str, Any]]) -> None:
        """Every row is a test row."""
        for position, record in enumerate(records):
            record.update(group=position, split="test", position=position)


@dataclass
class WholeTable(WholeSet):
    """Every row of a table."""

    table: Table | None = None
    """The rows."""

    @property
    def test(self) -> int:
        return self.table.rows if self.table else 0

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        if self.table:
            unchanged("table.path", self.table.path, self.table.sha256)
        return super().build(inputs, out, run)


@dataclass
class Questions(WholeTable):
    """All questions of a file, in its order.

    Columns: those of a prompt set, with `choices` (empty without) and `right`: indices of the right choices, or the
    right texts as `answers`.
    """

    name = "questions"

    choices: str | None = None
    """The column with the choices; null: none."""

    def resolve(self, resolver: Resolver) -> None:
        assert self.table, "a file of questions has one"
        self.table.resolve("table", resolver, partial(question_records, choices=self.choices), "choices", self.choices)

    def records(self) -> list[dict[str, Any]]:
        assert self.table, "a file of questions has one"
        return question_records(self.table, "table", self.choices)


def question_records(table: Table, name: str, choices: str | None, pattern: str = "") -> list[dict[str, Any]]:
    """The rows of a file of questions, every one checked."""
    without = replace(table, columns=replace(table.columns, response=None))
    records = prompt_records(without, name)
    rows = table_rows(table, name, {"columns.response": table.columns.response, "choices": choices})
    for index, (record, label) in enumerate(zip(records, rows.cells[str(table.columns.response)], strict=True)):
        labels = label if isinstance(label, list) else [label]
        if not labels or any(isinstance(each, dict | list) or each is None or str(each) == "" for each in labels):
            raise DataError(f"{rows.place(index)}: column {table.columns.response} holds no right answer")
        if not choices and not any(normal_form(str(each), pattern) for each in labels):
            raise DataError(
                f"{rows.place(index)}: no answer can match {str(labels[0])[:60]!r}, in which pattern={pattern!r} finds "
                f"nothing to compare; correct the pattern of the file, or its column {table.columns.response}"
            )
        options = rows.cells[choices][index] if choices else []
        if choices and not (isinstance(options, list) and len(options) > 1 and all(map(has_words, options))):
            raise DataError(f"{rows.place(index)}: column {choices} needs a list of two or more texts with words")
        right = [right_choice(each, options) for each in labels] if choices else []
        if None in right:
            letters = string.ascii_uppercase[: len(options)]
            raise DataError(
                f"{rows.place(index)}: {label!r} is none of the {len(options)} choices; it needs the text of one, a "
                f"letter {letters[0]} to {letters[-1]}, or an index from 0"
            )
        record.update(choices=options, right=right, answers=[str(each) for each in labels])
    return records


def right_choice(label: Any, options: list[str]) -> int | None:
    """The index of the choice that a label names: by its text, else by a letter (A is the first), else by its index
    from 0; None: there is no such choice."""
    if label in options:
        return options.index(label)
    text = str(label).strip()
    index = string.ascii_uppercase.find(text) if len(text) == 1 and text.isalpha() else -1
    index = int(text) if text.isdecimal() else index
    return index if 0 <= index < len(options) else None
