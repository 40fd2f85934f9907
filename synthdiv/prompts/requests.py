"""Requests to a student that are no prompts of the study: all rows of a set, each inside every template of a file."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.resolver import Resolver, unchanged
from synthdiv.core.types import DataError
from synthdiv.prompts.prompt_set import ToyPrompts, toy_records
from synthdiv.prompts.questions import WholeTable
from synthdiv.prompts.split import ordered
from synthdiv.prompts.table import Table, prompt_records

SLOT = "{prompt}"


@dataclass
class Requests(WholeTable):
    """Requests in a fixed order, balanced by category.

    Columns: those of a prompt set, where `prompt` has the template around it, with `request` (the bare text),
    `request_id` and `template_id` (empty without templates).
    """

    name = "requests"

    toy: ToyPrompts | None = None
    """Prompts of a toy world; null: `table`."""
    templates: Table | None = None
    """Templates: texts with {prompt} in the column `columns.prompt`; null: bare requests."""
    limit: int = setting(0, least=0)
    """How many requests are taken, balanced by category; 0: all."""
    confidential: bool = False
    """Only the owner of the files may read the requests and the answers to them: they have mode 0600."""

    @property
    def requests(self) -> int:
        """The number of bare requests."""
        rows = self.toy.rows if self.toy else super().test
        return min(self.limit or rows, rows)

    @property
    def test(self) -> int:
        return self.requests * (self.templates.rows if self.templates else 1)

    def resolve(self, resolver: Resolver) -> None:
        if self.table:
            self.table.resolve("table", resolver, request_records, "requests")
        if self.templates:
            self.templates.resolve("templates", resolver, template_records, "templates")

    def records(self) -> list[dict[str, Any]]:
        if self.templates:
            unchanged("templates.path", self.templates.path, self.templates.sha256)
        rows = toy_records(self.toy, 0) if self.toy else request_records(self.table or Table(), "table")
        rows = [rows[place] for place in ordered(rows, list(range(len(rows))), 0)[: self.requests]]
        templates = template_records(self.templates, "templates") if self.templates else [{"id": "", "prompt": SLOT}]
        return [
            row
            | {"id": "@".join(filter(None, [row["id"], template["id"]]))}
            | {"prompt": template["prompt"].replace(SLOT, row["prompt"]), "request": row["prompt"]}
            | {"request_id": row["id"], "template_id": template["id"]}
            for row, template in itertools.product(rows, templates)
        ]


def request_records(table: Table, name: str) -> list[dict[str, Any]]:
    """The rows of a table, without answers."""
    return prompt_records(replace(table, columns=replace(table.columns, response=None)), name)


def template_records(table: Table, name: str) -> list[dict[str, Any]]:
    """Templates, every one checked."""
    rows = request_records(table, name)
    for row in rows:
        if SLOT not in row["prompt"]:
            raise DataError(f"{name}: template {row['id']} has no {SLOT}, where the request belongs")
    return rows
