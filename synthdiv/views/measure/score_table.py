"""The output of `synthdiv measure`: one row for each measure and group, notes below; or JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from synthdiv.core.types import Score
from synthdiv.views.report.labels import arrow, number

if TYPE_CHECKING:
    from rich.console import Console

NUMBER = re.compile(r"(?<![\w.,-])\d+(?:[.,]\d+)*(?![\w-])")  # not those within names
PLACEHOLDER = "\0"  # in place of a number
JSON_FIELDS = ("name", "value", "n", "low", "high", "unit", "higher_is_better", "note")
LONGEST_LABEL = 80  # characters of a group's name that are shown


class Notes:
    """The notes of all scores, each listed once; notes that differ only in their numbers are one with ranges."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[list[str]]] = {}  # note without its numbers → the numbers of each occurrence

    def mark(self, note: str) -> str:
        """Add the parts of a score's note. Returns where they are listed: `(2)`, `(2, 5)`, or nothing for no note."""
        marks = []
        for part in filter(None, note.split("; ")):
            pattern = NUMBER.sub(PLACEHOLDER, part)
            self.numbers.setdefault(pattern, []).append(NUMBER.findall(part))
            marks.append(str(list(self.numbers).index(pattern) + 1))
        return f"({', '.join(dict.fromkeys(marks))})" if marks else ""

    def lines(self) -> list[str]:
        """Each note with its mark; numbers that differ as `smallest–largest`."""
        return [f"({index}) {with_ranges(*note)}" for index, note in enumerate(self.numbers.items(), 1)]


def with_ranges(pattern: str, numbers: list[list[str]]) -> str:
    for values in zip(*numbers, strict=True):
        ordered = sorted(set(values), key=lambda value: float(value.replace(",", "")))
        text = ordered[0] if len(ordered) == 1 else f"{ordered[0]}–{ordered[-1]}"
        pattern = pattern.replace(PLACEHOLDER, text, 1)
    return pattern


def show(
    scores: Mapping[str, Sequence[Score]], sizes: Mapping[str, int], about: Sequence[str], console: Console
) -> None:
    """Print the scores of each group. `sizes` are the numbers of its texts, `about` the lines above the table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table, notes = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False), Notes()
    table.add_column("measure", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column(Text("[low, high]"), no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("note", no_wrap=True)

    def add_measure(title: str, rows: Mapping[str, Sequence[str]]) -> None:
        """A row with the title and the only group, or a row with the title and one for each group below."""
        if len(sizes) > 1:
            table.add_row(Text(title))
        for group, cells in rows.items():
            table.add_row(*map(Text, [f"  {label(group)}" if len(sizes) > 1 else title, *cells]))

    add_measure("texts", {group: [f"{size:,}"] for group, size in sizes.items()})
    for name in dict.fromkeys(score.name for members in scores.values() for score in members):
        by_group = {group: score for group, members in scores.items() for score in members if score.name == name}
        first = next(iter(by_group.values()))
        title = f"{name}{arrow(first)} {first.unit}".strip()
        add_measure(title, {group: score_cells(score, notes) for group, score in by_group.items()})
    for line in [*about, ""]:
        console.print(Text(line))
    console.print(table)
    for line in ["", *notes.lines()]:
        console.print(Text(line))


def score_cells(score: Score, notes: Notes) -> list[str]:
    """The value, the interval, n and where the note is listed."""
    value = "—" if math.isnan(score.value) else number(score.value)
    known = not (math.isnan(score.low) or math.isnan(score.high))
    interval = f"[{number(score.low)}, {number(score.high)}]" if known else ""
    return [value, interval, f"{score.n:,}", notes.mark(score.note)]


def label(group: str) -> str:
    """The name of a group in characters that a terminal can show: it comes from a file."""
    letters = "".join(letter if letter.isprintable() else " " for letter in group[: 2 * LONGEST_LABEL])
    clean = " ".join(letters.split())
    return clean if len(clean) <= LONGEST_LABEL else clean[: LONGEST_LABEL - 1] + "…"


def json_text(scores: Mapping[str, Sequence[Score]]) -> str:
    """A list of objects. NaN is null and an infinity a string, as in the `scores.json` of a suite."""
    from synthdiv.evaluate.suite import json_number

    records = []
    for group, members in scores.items():
        for score in members:
            values = {name: getattr(score, name) for name in JSON_FIELDS}
            numbers = {name: json_number(value) for name, value in values.items() if isinstance(value, float)}
            records.append({"group": group} | values | numbers)
    return json.dumps(records, indent=1, allow_nan=False)
