"""The points of a grid as words, before anything is composed: products, zipped axes, unions, exclusions, the cap."""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, Quote, QuotedString

from synthdiv.core.fields import setting
from synthdiv.core.terminal import echo
from synthdiv.core.types import ConfigError
from synthdiv.study.schema import refuse_unknown

MAX_COMBINATIONS = 1_000_000  # that are enumerated to count the cells; a larger product is confirmed as it stands

Words = tuple[str, ...]
Parser = Callable[[list[str]], list[Override]]


@dataclass
class GridSpec:
    """The grid of a sweep, as `hydra.sweeper` holds it."""

    params: dict[str, Any] = field(default_factory=dict)
    """The axes of an experiment file: key → values, written as on the command line ("a,b")."""
    also: list[dict[str, Any]] = field(default_factory=list)
    """Further grids, joined with the first: each is `params` with these keys changed."""
    zip: list[dict[str, Any]] = field(default_factory=list)
    """Groups of axes that vary together, value by value."""
    exclude: list[dict[str, Any]] = field(default_factory=list)
    """Combinations to leave out: those that have one of the values of every key of one of these."""
    cells: int = setting(1000, least=1)
    """How many cells need no confirmation; 1 (the value without -m): several cells are refused."""

    @classmethod
    def read(cls, params: Any, cells: int, _target_: str = "", **groups: Any) -> GridSpec:
        """From a composed configuration, where a value may be a bare number or word."""
        return cls(
            as_text(params), cells=cells, **{name: list(map(as_text, blocks)) for name, blocks in groups.items()}
        )

    def placed(self, folder: str, parse: Parser) -> GridSpec:
        """The grid of a file below `folder`, to which its relative paths are relative."""

        def place(block: dict[str, str]) -> dict[str, str]:
            paths = {key: parse(settings(parse([f"{key}={text}"])[0])) for key, text in block.items() if is_path(key)}
            return block | {key: ",".join(placed_path(folder, word) for word in words) for key, words in paths.items()}

        groups = {name: list(map(place, getattr(self, name))) for name in ("also", "zip", "exclude")}
        return GridSpec(place(self.params), cells=self.cells, **groups)

    def check(self) -> list[str]:
        """Problems of the blocks: keys without values, empty groups, and keys that stand in two places."""
        blocks = {"params": [self.params], "also": self.also, "zip": self.zip, "exclude": self.exclude}
        problems = [
            f'hydra.sweeper.{name}: {key} has no value; write {key}: "a,b", or "\'\'" for an empty text'
            for name, parts in blocks.items()
            for part in parts
            for key, value in part.items()
            if not value.strip()
        ]
        problems += [f"hydra.sweeper.{name}: has an empty group" for name in ("zip", "exclude") if {} in blocks[name]]
        zipped = [key for group in self.zip for key in group]
        for key in dict.fromkeys(zipped):
            if key in self.params or zipped.count(key) > 1:
                places = "params and in zip" if key in self.params else "two groups of zip"
                problems.append(f"hydra.sweeper: {key} stands in {places}; an axis has one place")
        return problems


def is_path(key: str) -> bool:
    """Whether a key is a locator of a file or a folder: all of them have this name."""
    return key.rpartition(".")[2] == "path"


def placed_path(folder: str, override: Override) -> str:
    """The value of an override that sets a path, quoted; null and interpolations stay."""
    path = override.value()
    if not isinstance(path, str) or not path or "${" in path:
        return override.get_value_element_as_str()
    return QuotedString(str(Path(folder, Path(path).expanduser())), Quote.single).with_quotes()


def as_text(block: Any) -> dict[str, str]:
    """Values as typed on the command line. A list is refused: it could be several values or one."""
    words = {None: "null", True: "true", False: "false"}
    values = {}
    for key, value in block.items():
        if not isinstance(value, str | int | float | None):
            raise ConfigError(f'hydra.sweeper: {key} is a list or a mapping; write the values as text, {key}: "a,b"')
        values[key] = words[value] if value is None or isinstance(value, bool) else str(value)
    return values


def combinations(spec: GridSpec, arguments: list[str], parse: Parser, command: str) -> list[Words]:
    """The words of every point, each once: the first axis varies slowest, and the command line overrides the file.
    Without -m, arguments that set every axis of the file are one cell, as the printed command of a cell."""
    blocks = [spec.params, *spec.also, *spec.zip, *spec.exclude]
    refuse_unknown([*arguments, *(f"{key}={value}" for block in blocks for key, value in block.items())])
    problems = spec.check()
    if problems:
        raise ConfigError(problems)
    override_keys = {override.get_key_element() for override in parse(arguments)}
    if spec.cells == 1 and override_keys.issuperset(key for block in [spec.params, *spec.zip] for key in block):
        spec = GridSpec(cells=1)
    grids = [axes(spec.params | change, spec.zip, arguments, parse) for change in [{}, *spec.also]]
    total, most = sum(math.prod(map(len, grid)) for grid in grids), max(MAX_COMBINATIONS, spec.cells)
    if total > most:
        confirm_cells(total, spec.cells, command)
    excluded = exclusion(spec, arguments, parse)
    products = (tuple(itertools.chain(*point)) for grid in grids for point in itertools.product(*grid))
    points = list(dict.fromkeys(words for words in products if not excluded(words)))
    if not points:
        raise ConfigError(f"hydra.sweeper.exclude leaves none of {total:,} cells; exclude fewer combinations")
    if len(points) > spec.cells and total <= most:
        confirm_cells(len(points), spec.cells, command)
    return points


def axes(
    params: dict[str, str], groups: list[dict[str, str]], arguments: list[str], parse: Parser
) -> list[list[Words]]:
    """Each axis as its settings: one word, or those of a zipped group. A repeated key keeps its first place and its
    last value, as in Hydra.

    A zipped key that is set elsewhere to one value leaves its group; set to several, it takes these into the group.
    """
    overrides = parse(arguments)
    keys = {override.get_key_element() for override in overrides}
    overrides += parse([f"{key}={value}" for key, value in params.items() if key not in keys])
    single: dict[str, list[str]] = {}
    for override in overrides:
        key, words = override.get_key_element(), settings(override)
        if len(words) > 1 and len(single.get(key, [])) > 1:
            raise ConfigError(f"{key}: swept twice, {override.input_line} the second time; give all values at once")
        single[key] = words
    together = []
    for group in groups:
        columns = {
            key: single.pop(key) if key in single else settings(parse([f"{key}={value}"])[0])
            for key, value in group.items()
            if key not in single or len(single[key]) > 1
        }
        if columns:
            together.append(zipped(columns))
    free: list[list[Words]] = [[(word,) for word in words] for words in single.values()]
    return free + together


def zipped(columns: dict[str, list[str]]) -> list[Words]:
    """Axes that vary together, value by value."""
    if len(set(map(len, columns.values()))) > 1:
        counts = ", ".join(f"{key} has {len(words)} values" for key, words in columns.items())
        raise ConfigError(f"hydra.sweeper.zip: axes that vary together need equally many values; {counts}")
    return list(zip(*columns.values(), strict=True))


def settings(override: Override) -> list[str]:
    """`key=value` for each value of an override, each value once."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: an interval has no points; give values: {key}=a,b or range(…)")
    values = itertools.islice(override.sweep_string_iterator(), MAX_COMBINATIONS + 1)
    counts = Counter(f"{key}={value}" for value in values)
    if not 0 < counts.total() <= MAX_COMBINATIONS:
        problem = f"has more than {MAX_COMBINATIONS:,} values" if counts else "has no value"
        raise ConfigError(f"{override.input_line}: {problem}")
    repeated = [word for word, count in counts.items() if count > 1]
    if repeated:
        raise ConfigError(f"{override.input_line}: {', '.join(repeated)} is listed twice; give each value once")
    return list(counts)


def exclusion(spec: GridSpec, arguments: list[str], parse: Parser) -> Callable[[Words], bool]:
    """Whether `exclude` names a point. A key or a value that no axis has is a slip, and refused."""

    @cache
    def meaning(word: str) -> tuple[str, str]:
        (override,) = parse([word])
        return override.get_key_element(), canonical_value(override.value())

    def meanings(block: dict[str, str]) -> Iterator[tuple[str, str]]:
        for override in parse([f"{key}={value}" for key, value in block.items()]):
            yield from map(meaning, settings(override))

    if not spec.exclude:
        return lambda words: False
    known = {pair for block in [spec.params, *spec.also, *spec.zip] for pair in meanings(block)}
    known |= {meaning(word) for override in parse(arguments) for word in settings(override)}
    rules: list[dict[str, set[str]]] = []
    for block in spec.exclude:
        rule: dict[str, set[str]] = {}
        for key, value in meanings(block):
            if (key, value) not in known:
                values = ", ".join(value for other, value in sorted(known) if other == key)
                hint = f"the grid has {values}" if values else "the grid does not set this key"
                raise ConfigError(f"hydra.sweeper.exclude: {key}={value} is in no cell; {hint}")
            rule.setdefault(key, set()).add(value)
        rules.append(rule)

    def excluded(words: Words) -> bool:
        values = dict(map(meaning, words))
        return any(all(values.get(key) in rule[key] for key in rule) for rule in rules)

    return excluded


def canonical_value(value: Any) -> str:
    """A value as text that is equal where the meaning is: 1e-4 is 0.0001 and 1 is 1.0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{float(value):.17g}" if number else str(value)


def confirm_cells(count: int, cells: int, command: str) -> None:
    """Ask whether so many cells are meant; without -m they are refused."""
    if cells == 1:
        comma = """a comma within a text needs quotes, as 'prompts.system="a, b"'"""
        raise ConfigError(f"{count:,} cells are a sweep, which needs -m: `{command}`; {comma}")
    advice = f"to run them all add hydra.sweeper.cells={count}"
    confirm(f"{count:,} cells are more than the {cells:,} that need no confirmation", advice)


def confirm(message: str, advice: str) -> None:
    """Ask at a terminal whether to go on; elsewhere, or if not, refuse."""
    if sys.stdin.isatty() and sys.stderr.isatty():
        echo(f"{message}. Continue? [y/N] ", error=True, end="")
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise ConfigError(f"{message}; {advice}")
