"""The points of a grid as words, before anything is composed: products, zipped axes, unions, exclusions, the cap."""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hydra.core.override_parser.types import Override

from synthdiv.core.types import ConfigError
from synthdiv.study.schema import refuse_unknown

CELLS = 1000  # more are asked for first
COUNTED = 1_000_000  # combinations that are looked through; a larger product is asked for as it stands

Words = tuple[str, ...]
Parser = Callable[[list[str]], list[Override]]


@dataclass
class GridSpec:
    """What `hydra.sweeper` holds: values are written as on the command line.

    `params` are the axes, each of `also` a further grid: `params` with these keys changed. Each of `zip` is a group of
    axes that go together, value by value, in every grid. A combination that has one of the values of every key of one
    of `exclude` is left out. More than `cells` cells are asked for first.
    """

    params: dict[str, str] = field(default_factory=dict)
    also: list[dict[str, str]] = field(default_factory=list)
    zip: list[dict[str, str]] = field(default_factory=list)
    exclude: list[dict[str, str]] = field(default_factory=list)
    cells: int = CELLS

    @classmethod
    def read(cls, params: Any, cells: int, **groups: Any) -> GridSpec:
        """From a composed configuration, where a value may be a bare number or word."""
        return cls(texts(params), cells=cells, **{name: list(map(texts, given)) for name, given in groups.items()})

    def check(self) -> list[str]:
        """Problems of the file's own blocks: keys without values, and keys that stand in two of them."""
        blocks = {"params": [self.params], "also": self.also, "zip": self.zip, "exclude": self.exclude}
        problems = [
            f'hydra.sweeper.{name}: {key} has no value; write {key}: "a,b", or "\'\'" for an empty text'
            for name, block in blocks.items()
            for part in block
            for key, value in part.items()
            if not value.strip()
        ]
        problems += [f"hydra.sweeper.{name}: an empty group" for name in ("zip", "exclude") if {} in blocks[name]]
        zipped = [key for group in self.zip for key in group]
        for key in dict.fromkeys(zipped):
            if key in self.params or zipped.count(key) > 1:
                where = "params and in zip" if key in self.params else "two groups of zip"
                problems.append(f"hydra.sweeper: {key} stands in {where}; an axis has one place")
        return problems


def texts(block: Any) -> dict[str, str]:
    """Values as they would be typed; a list could be several values or one, and is refused."""
    words = {None: "null", True: "true", False: "false"}
    found = {}
    for key, value in block.items():
        if not isinstance(value, str | int | float | None):
            raise ConfigError(f'hydra.sweeper: {key}: write the values as text, {key}: "a,b"')
        found[key] = words[value] if value is None or isinstance(value, bool) else str(value)
    return found


def combinations(spec: GridSpec, arguments: list[str], parse: Parser) -> list[Words]:
    """The words of every point, each once: the first axis varies slowest, and the command line wins over the file."""
    blocks = [spec.params, *spec.also, *spec.zip, *spec.exclude]
    refuse_unknown([*arguments, *(f"{key}={value}" for block in blocks for key, value in block.items())])
    problems = spec.check()
    if problems:
        raise ConfigError(problems)
    grids = [axes(spec.params | change, spec.zip, arguments, parse) for change in [{}, *spec.also]]
    total, most = sum(math.prod(map(len, grid)) for grid in grids), max(COUNTED, spec.cells)
    if total > most:
        ask(total, spec.cells)
    points = (tuple(itertools.chain(*point)) for grid in grids for point in itertools.product(*grid))
    found = list(dict.fromkeys(kept(points, spec, arguments, parse)))
    if not found:
        raise ConfigError(f"hydra.sweeper.exclude leaves none of {total:,} cells; exclude fewer combinations")
    if len(found) > spec.cells and total <= most:
        ask(len(found), spec.cells)
    return found


def axes(
    params: dict[str, str], groups: list[dict[str, str]], arguments: list[str], parse: Parser
) -> list[list[Words]]:
    """Each axis as its settings: one word, or those of a zipped group. A repeated key keeps its first place and its
    last value, as in Hydra.

    A zipped key that is set elsewhere to one value leaves its group; to several, it takes these into the group.
    """
    given = parse(arguments)
    typed = {override.get_key_element() for override in given}
    given += parse([f"{key}={value}" for key, value in params.items() if key not in typed])
    single: dict[str, list[str]] = {}
    for override in given:
        key, words = override.get_key_element(), settings(override)
        if len(words) > 1 and len(single.get(key, [])) > 1:
            raise ConfigError(f"{key}: swept twice, {override.input_line} the second time; give all values at once")
        single[key] = words
    together = []
    for group in groups:
        own = {
            key: single.pop(key) if key in single else settings(parse([f"{key}={value}"])[0])
            for key, value in group.items()
            if len(single.get(key, "ab")) > 1
        }
        if own:
            together.append(zipped(own))
    alone: list[list[Words]] = [[(word,) for word in words] for words in single.values()]
    return alone + together


def zipped(columns: dict[str, list[str]]) -> list[Words]:
    """Axes that go together, value by value."""
    if len(set(map(len, columns.values()))) > 1:
        told = ", ".join(f"{key} has {len(words)} values" for key, words in columns.items())
        raise ConfigError(f"hydra.sweeper.zip: axes that go together need equally many values; {told}")
    return list(zip(*columns.values(), strict=True))


def settings(override: Override) -> list[str]:
    """`key=value` for each value of an override, each value once."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: an interval has no points; give values: {key}=a,b or range(…)")
    values = itertools.islice(override.sweep_string_iterator(), COUNTED + 1)
    counts = Counter(f"{key}={value}" for value in values)
    if not 0 < counts.total() <= COUNTED:
        many = f"more than {COUNTED:,} values" if counts else "no value at all"
        raise ConfigError(f"{override.input_line}: stands for {many}")
    twice = [word for word, count in counts.items() if count > 1]
    if twice:
        raise ConfigError(f"{override.input_line}: {', '.join(twice)} stands there twice; the same cell is one cell")
    return list(counts)


def kept(points: Iterable[Words], spec: GridSpec, arguments: list[str], parse: Parser) -> Iterable[Words]:
    """The points that `exclude` does not name. A key or a value that no axis has is a slip, and refused."""
    if not spec.exclude:
        return points

    @cache
    def meaning(word: str) -> tuple[str, str]:
        (override,) = parse([word])
        return override.get_key_element(), meant(override.value())

    def meanings(text: str) -> list[tuple[str, str]]:
        return [meaning(word) for word in settings(parse([text])[0])]

    blocks = [spec.params, *spec.also, *spec.zip]
    known = {pair for block in blocks for key, value in block.items() for pair in meanings(f"{key}={value}")}
    known |= {pair for argument in arguments for pair in meanings(argument)}
    rules: list[dict[str, set[str]]] = []
    for rule in spec.exclude:
        for text in (f"{key}={value}" for key, value in rule.items()):
            strange = [f"{key}={value}" for key, value in meanings(text) if (key, value) not in known]
            if strange:
                there = ", ".join(value for key, value in sorted(known) if key == text.split("=", 1)[0])
                told = f"the grid has {there}" if there else "the grid does not set this key"
                raise ConfigError(f"hydra.sweeper.exclude: {', '.join(strange)} is in no cell; {told}")
        rules.append({key: {value for _, value in meanings(f"{key}={text}")} for key, text in rule.items()})

    def named(words: Words) -> bool:
        have = dict(map(meaning, words))
        return any(all(have.get(key) in values for key, values in rule.items()) for rule in rules)

    return (words for words in points if not named(words))


def meant(value: Any) -> str:
    """A value as text that is equal where the meaning is: 1e-4 is 0.0001 and 1 is 1.0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{float(value):.17g}" if number else str(value)


def ask(count: int, cells: int) -> None:
    """Ask whether so many cells are meant where there is a terminal, else refuse."""
    told = f"{count:,} cells are more than the {cells:,} that need no asking"
    if sys.stdin.isatty() and sys.stderr.isatty():
        print(f"{told}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise ConfigError(f"{told}; if they are meant, add hydra.sweeper.cells={count}")
