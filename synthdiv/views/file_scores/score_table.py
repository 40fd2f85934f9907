"""The output of `synthdiv measure`: one row for each measure and group, notes below; or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from synthdiv.core.terminal import echo
from synthdiv.core.types import Score
from synthdiv.views.layout import arrow, interval, number, show, table

NUMBER = re.compile(r"(?<![\w.,-])\d+(?:[.,]\d+)*(?![\w-])")  # not those within names
PLACEHOLDER = "\0"  # in place of a number
JSON_FIELDS = ("name", "value", "n", "low", "high", "unit", "higher_is_better", "note")
LONGEST_LABEL = 80  # characters of a group's name that are shown
HEADER = ("measure", "!>value", "![low, high]", "!>n", "!note")


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


def show_scores(scores: Mapping[str, Sequence[Score]], sizes: Mapping[str, int], about: Sequence[str]) -> None:
    """Print the scores of each group. `sizes` are the numbers of its texts, `about` the lines above the table."""
    notes = Notes()
    counts = {group: [f"{size:,}", "", "", ""] for group, size in sizes.items()}
    rows = [*group_rows("texts", counts)] if counts else []
    for name in dict.fromkeys(score.name for members in scores.values() for score in members):
        by_group = {group: score for group, members in scores.items() for score in members if score.name == name}
        first = next(iter(by_group.values()))
        title = f"{name}{arrow(first.higher_is_better)} {first.unit}".strip()
        rows += group_rows(title, {
            group: [number(score.value), interval(score.low, score.high), f"{score.n:,}", notes.mark(score.note)]
            for group, score in by_group.items()
        })  # fmt: skip
    show(*about, table(HEADER, rows), "", *notes.lines())


def group_rows(title: str, cells: Mapping[str, list[str]]) -> Iterator[list[str]]:
    """A row with the title and the only group, or a row with the title and one for each group below."""
    if len(cells) == 1:
        yield [title, *next(iter(cells.values()))]
    else:
        yield [title, "", "", "", ""]
        yield from ([f"  {label(group)}", *row] for group, row in cells.items())


def label(group: str) -> str:
    """The name of a group on one line."""
    name = " ".join(group[: 2 * LONGEST_LABEL].split())
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"


def records(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Scores as JSON can hold them: NaN is null and an infinity a string, as in the `scores.json` of a suite."""
    from synthdiv.evaluate.suite import json_number

    values = ([(name, getattr(score, name)) for name in JSON_FIELDS] for score in scores)
    return [{name: json_number(value) if isinstance(value, float) else value for name, value in each}
            for each in values]  # fmt: skip


def print_scores(
    scores: Mapping[str, Sequence[Score]], sizes: Mapping[str, int], about: Sequence[str], as_json: bool
) -> None:
    """Print the scores of each group as a table, or as a list of objects, with `about` in the other stream."""
    if not as_json:
        show_scores(scores, sizes, about)
        return
    lines = [{"group": group} | record for group, members in scores.items() for record in records(members)]
    echo(json.dumps(lines, indent=1, allow_nan=False))
    echo("\n".join(about), error=True)
