"""Makes docs/fields.md and the table of docs/generators.md from docstrings: `python -m tests.fields_page --write`."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
import textwrap
import typing
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hydra_plugins.synthdiv import plugins
from synthdiv.core.fields import MISSING, expected, type_hints, without_none
from synthdiv.core.runtime import Runtime
from synthdiv.evaluate.suite import own_suites, suite_class
from synthdiv.generate.spec import Backend
from synthdiv.study.config import Cell, Report, Track
from synthdiv.study.generators import Facts
from tests.structure import with_part

PAGE = Path(__file__).resolve().parent.parent / "docs" / "fields.md"
LABELS = ("", "Needs: ", "Tested on: ")  # of the paragraphs of a backend's docstring
GENERATORS = PAGE.with_name("generators.md")
NOT_IDENTITY = (Runtime, Track, Report, Facts)  # blocks that enter no key
LAUNCHERS = {"local": plugins.LocalConfig, "slurm": plugins.SlurmConfig}
HEADER = "| field | type | default | meaning |\n|---|---|---|---|\n"
HEAD = """\
# Every field

Set a field on the command line with `FIELD=VALUE`, as in `synthdiv mix=multi train.lr=1e-4`; select a preset of a group
with `GROUP=NAME`. `synthdiv --cfg job` prints the values that a command line gives, presets included. This page is made
from the documentation in the code by `python -m tests.fields_page --write`.

- **Default** is that of the schema. A preset in `conf/` may set another value.
- **`null`** means that a field has no value; its text says what then happens. On the command line: `FIELD=null`. A
  block whose default is `null` can be set only after a preset of its group has selected it.
- **`n/a`** is not a value of a field. Tables show it where a field makes no difference to a cell, for example the seed
  of the training for a student that is not trained.
- A **seed** tells the replicates of an arm apart: cells that differ only in seeds are one arm.
- A **locator** says where something lies: a path, a repository, a revision. A launch replaces it by what it finds there
  (a content hash, a commit, a number of rows), and only that enters a key.
- Items of a list are written with their number: `generators.models.0.sampling.temperature=1`.
- Fields marked ○ change no result and enter no key: where and how fast things run, what is shown, and facts about a
  model that only plans and reports read. Every other field is part of the key of a stage.
"""


@cache
def docstrings(kind: type) -> dict[str, str]:
    """The documentation of each field of a dataclass, inherited fields included: the string below the field."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for line, below in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                text = getattr(below.value, "value", None)
                texts |= {line.target.id: " ".join(text.split())} if isinstance(text, str) else {}
    return texts


def block_of(hint: Any) -> tuple[Any, bool]:
    """The dataclass that a field holds, None if it holds none, and whether it is a list of them."""
    hint = without_none(hint)
    many = typing.get_origin(hint) is list
    inner = typing.get_args(hint)[0] if many else hint
    return (inner if dataclasses.is_dataclass(inner) else None), many


def settings(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields that a user may set, each with its annotation."""
    return [(item, type_hints(kind)[item.name]) for item in dataclasses.fields(kind) if not item.name.startswith("_")]


@cache
def schema() -> tuple[type, ...]:
    """Every class whose fields a command line can set: of the cell, of the suites, of the launchers and the sweeper."""
    waiting: list[Any] = [Cell, *map(suite_class, own_suites()), *LAUNCHERS.values(), plugins.SweeperConfig]
    kinds: list[Any] = []
    while waiting:
        kind = waiting.pop(0)
        if kind not in kinds:
            kinds.append(kind)
            waiting += [block for _, hint in settings(kind) if (block := block_of(hint)[0])]
    return tuple(kinds)


def undocumented() -> list[str]:
    """Every field of the schema without a docstring."""
    names = [(kind, item.name) for kind in schema() for item, _ in settings(kind)]
    return [f"{kind.__module__}.{kind.__name__}.{name}" for kind, name in names if name not in docstrings(kind)]


@cache
def shared() -> list[type]:
    """The blocks that several fields of the schema hold. They have a table of their own."""
    counts = Counter(block for kind in schema() for _, hint in settings(kind) if (block := block_of(hint)[0]))
    return sorted((block for block, count in counts.items() if count > 1), key=lambda block: str(block.__name__))


def type_text(item: dataclasses.Field[Any], hint: Any) -> str:
    """The type in words: `whole number, 1 or more`."""
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    many = {float: "list of numbers", str: "list of texts"}
    plain = without_none(hint)
    if isinstance(plain, type) and issubclass(plain, Enum):
        text = ", ".join(f"`{member.value}`" for member in plain)
    elif typing.get_origin(plain) is list:
        text = many.get(typing.get_args(plain)[0], "list of mappings")
    else:
        text = names.get(plain, "mapping")
    parts = [text, *([expected(item.metadata["bounds"])] if item.metadata.get("bounds") else [])]
    parts += [name for name in ("seed", "locator") if item.metadata.get(name)]
    return ", ".join(parts) + (" or null" if plain is not hint and not item.metadata.get("locator") else "")


def default_text(item: dataclasses.Field[Any]) -> str:
    value = item.default if item.default_factory is MISSING else item.default_factory()
    value = value.value if isinstance(value, Enum) else value
    if value is None or isinstance(value, bool):
        return f"`{'null' if value is None else str(value).lower()}`"
    text = value if isinstance(value, str) else ", ".join(map(str, value)) if isinstance(value, list) else repr(value)
    return "long, in the code" if len(text) > 80 else "empty" if text in ("", "{}") else f"`{text}`"


def rows(kind: type, prefix: str, free: bool = False) -> Iterator[str]:
    """Table rows of a class and of the blocks that it alone holds. `free` fields enter no key."""
    for item, hint in settings(kind):
        block, many = block_of(hint)
        key, inner = f"{prefix}{item.name}", free or block in NOT_IDENTITY
        if not block:
            cells = [type_text(item, hint), default_text(item)]
        else:
            link = f"[{block.__name__}](#{block.__name__.lower()})" if block in shared() else "block"
            cells = [f"list of {link}s" if many else link, "`null`" if item.default is None else "–"]
        cells = [f"`{key}`" + (" ○" if inner else ""), *cells, docstrings(kind).get(item.name, "")]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
        if block and block not in shared():
            yield from rows(block, f"{key}.{'0.' if many else ''}", inner)


def first_paragraph(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def section(title: str, text: str, lines: Iterator[str]) -> str:
    return f"## {title}\n\n{text}\n\n{HEADER}{''.join(lines)}"


def page() -> str:
    groups = {item.name: block for item, hint in settings(Cell) if (block := block_of(hint)[0])}
    own = (line for line in rows(Cell, "", True) if line.startswith(("| `sweep`", "| `rerun`")))
    parts = [HEAD, section("The whole cell", "Two fields that belong to no group.", own)]
    for name, block in groups.items():
        parts.append(section(name, docstrings(Cell)[name], rows(block, f"{name}.", block in NOT_IDENTITY)))
    for name in own_suites():
        text = f"An item `{{suite: {name}, …}}` of `evaluate.suites`; N is its number there. "
        text += first_paragraph(suite_class(name))
        parts.append(section(f"Suite {name}", text, rows(suite_class(name), "evaluate.suites.N.")))
    for name, kind in LAUNCHERS.items():
        parts.append(section(f"Launcher {name}", f"With `hydra/launcher={name}`. {first_paragraph(kind)}",
                             rows(kind, "hydra.launcher.", True)))  # fmt: skip
    parts.append(
        section("Sweeper", first_paragraph(plugins.SweeperConfig), rows(plugins.SweeperConfig, "hydra.sweeper."))
    )
    for kind in shared():
        text = f"A block that several fields hold. {first_paragraph(kind)}"
        parts.append(section(kind.__name__, text, rows(kind, "", kind in NOT_IDENTITY)))
    return "\n".join(parts)


def generators_page() -> str:
    """The page of generators, with a row for each backend: the three paragraphs of its module's docstring."""
    table = ["| backend | runs | needs | tested on |", "|---|---|---|---|"]
    for backend in Backend:
        text = inspect.getdoc(importlib.import_module(f"synthdiv.generate.{backend.value}")) or ""
        lines = (" ".join(paragraph.split()).removesuffix(".") for paragraph in text.split("\n\n"))
        runs, needs, tested = (line.removeprefix(label) for line, label in zip(lines, LABELS, strict=True))
        table.append(f"| `{backend.value}` | {runs} | {needs} | {tested} |")
    return with_part(GENERATORS, "\n".join(table))


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
        GENERATORS.write_text(generators_page(), encoding="utf-8")
    else:
        print(page())
