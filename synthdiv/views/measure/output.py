"""The table of `synthdiv measure`: groups as columns where the terminal is wide enough for them, else as rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from synthdiv.core.types import Score
from synthdiv.views.measure.notes import Notes, shape_of
from synthdiv.views.report.labels import arrow, number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Measured = Mapping[str, Mapping[str, Score]]  # measure → group → score
ENDLESS = 100_000  # columns of a terminal on which everything fits
NAME, GROUP = (
    26,
    16,
)  # columns before a name is broken: with an interval of 16 three groups, or two measures, fit into 80
LONGEST = 80  # characters of a group's name that are shown


def show(
    scores: Mapping[str, Sequence[Score]], sizes: Mapping[str, int], about: Sequence[str], console: Console
) -> None:
    """Print `scores` by group; `sizes` are the texts of each group and `about` the lines above the table."""
    names = list(dict.fromkeys(score.name for own in scores.values() for score in own))
    by_name = {
        name: {group: score for group, own in scores.items() for score in own if score.name == name} for name in names
    }
    for line in about:
        console.print(plain(line))
    notes = Notes()
    for table in tables(by_name, sizes, notes, console):
        console.print()
        console.print(table)
    console.print()
    for line in notes.lines():
        console.print(plain(line))


def tables(by_name: Measured, sizes: Mapping[str, int], notes: Notes, console: Console) -> Iterator[Table]:
    """One line a measure, else two, else the groups as rows and as many measures side by side as fit."""
    for layout in (one_line, two_lines):
        table = layout(by_name, sizes, notes)
        if len(sizes) == 1 or fits(table, console):
            yield table
            return
    chosen: dict[str, Mapping[str, Score]] = {}
    for name, own in by_name.items():
        if chosen and not fits(groups_as_rows(chosen | {name: own}, sizes, Notes()), console):
            yield groups_as_rows(chosen, sizes, notes)
            chosen = {}
        chosen[name] = own
    yield groups_as_rows(chosen, sizes, notes)


def one_line(by_name: Measured, sizes: Mapping[str, int], notes: Notes) -> Table:
    """A column for each group; direction, unit and n of a measure beside its name."""
    marks = {name: shared_mark(own, sizes, notes) for name, own in by_name.items()}
    columns = [aligned([parts(own.get(group), notes, marks[name]) for name, own in by_name.items()]) for group in sizes]
    table = framed("measure", *(head(group, sizes) for group in sizes), "unit", "n")
    for index, (name, own) in enumerate(by_name.items()):
        score = next(iter(own.values()))
        texts = [broken(name, NAME) + arrow(score), *(column[index] for column in columns)]
        texts += [score.unit, f"{counts(own)} {marks[name]}".strip()]
        table.add_row(*map(plain, texts), end_section=last_of_family(name, by_name))
    return table


def two_lines(by_name: Measured, sizes: Mapping[str, int], notes: Notes) -> Table:
    """A column for each group, each interval under its value; direction, unit and n of a measure under its name."""
    table = framed("measure", *(head(group, sizes) for group in sizes))
    for name, own in by_name.items():
        mark = shared_mark(own, sizes, notes)
        pairs = [parts(own.get(group), notes, mark) for group in sizes]
        first = broken(name, NAME)
        lines = "\n" * (first.count("\n") + 1)  # the interval stands beside the last line
        table.add_row(
            plain(f"{first}\n  {facts(own, mark)}"),
            *(plain(f"{value}{lines}{rest}") for value, rest in pairs),
            end_section=last_of_family(name, by_name),
        )
    return table


def groups_as_rows(by_name: Measured, sizes: Mapping[str, int], notes: Notes) -> Table:
    """A column for each measure."""
    marks = {name: shared_mark(own, sizes, notes) for name, own in by_name.items()}
    heads = [f"{broken(name, NAME)}\n{facts(own, marks[name])}" for name, own in by_name.items()]
    columns = [aligned([parts(own.get(group), notes, marks[name]) for group in sizes]) for name, own in by_name.items()]
    table = framed("group", *heads)
    for index, group in enumerate(sizes):
        table.add_row(*map(plain, [label(group, NAME), *(column[index] for column in columns)]))
    return table


def parts(score: Score | None, notes: Notes, marked: str) -> tuple[str, str]:
    """The value, and what stands behind it: the interval and the number of its note, unless that is `marked`."""
    if score is None:
        return "", ""
    value = "—" if math.isnan(score.value) else number(score.value)
    known = not (math.isnan(score.low) or math.isnan(score.high))
    interval = f"[{number(score.low)}, {number(score.high)}]" if known else ""
    return value, f"{interval} {'' if marked else notes.mark(score.note)}".strip()


def aligned(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Values end, and intervals begin, below each other."""
    widest = max(len(value) for value, _ in pairs)
    behind = max(len(rest) for _, rest in pairs)
    return [f"{value:>{widest}} {rest:<{behind}}".rstrip() for value, rest in pairs]


def facts(own: Mapping[str, Score], mark: str) -> str:
    """The direction, unit, n and note of a measure, for a line below its name."""
    score = next(iter(own.values()))
    words = [arrow(score).strip(), score.unit, f"n {counts(own)}", mark]
    return " ".join(word for word in words if word)


def shared_mark(own: Mapping[str, Score], sizes: Mapping[str, int], notes: Notes) -> str:
    """Where a note stands that all of several groups have: it is marked with the measure, once."""
    if len(sizes) == 1 or len(own) < len(sizes) or len({shape_of(score.note) for score in own.values()}) > 1:
        return ""
    marks = [notes.mark(score.note) for score in own.values()]  # of all of them: a note may become a range
    return marks[0]


def counts(own: Mapping[str, Score]) -> str:
    """How many independent units the groups have."""
    numbers = sorted(score.n for score in own.values())
    return f"{numbers[0]:,}" + (f"–{numbers[-1]:,}" if numbers[-1] > numbers[0] else "")


def last_of_family(name: str, by_name: Measured) -> bool:
    """Whether the next measure is on another budget."""
    names = list(by_name)
    behind = names[names.index(name) + 1 :]
    return bool(behind) and family(name) != family(behind[0])


def family(name: str) -> tuple[str, bool]:
    return name.partition("@")[2], name.startswith("published")


def head(group: str, sizes: Mapping[str, int]) -> str:
    return f"{label(group, GROUP)}\n{sizes[group]:,} text{'s' if sizes[group] != 1 else ''}"


def label(group: str, width: int) -> str:
    """A group's name as a terminal can show it: it may be any text."""
    clean = " ".join("".join(letter if letter.isprintable() else " " for letter in group[: 2 * LONGEST]).split())
    return broken(clean if len(clean) <= LONGEST else clean[: LONGEST - 1] + "…", width)


def broken(name: str, width: int) -> str:
    """`name` in lines of at most `width` characters, broken behind a separator where there is one."""
    lines = []
    while len(name) > width:
        end = max(name.rfind(separator, 1, width) for separator in "_-@/. ") + 1 or width
        lines.append(name[:end])
        name = name[end:]
    return "\n".join([*lines, name])


def framed(*heads: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    for text in heads:
        table.add_column(plain(text), overflow="fold")
    return table


def plain(text: str) -> Text:
    """Text without markup: names of groups come from files."""
    from rich.text import Text

    return Text(text)


def fits(table: Table, console: Console) -> bool:
    return console.measure(table, options=console.options.update_width(ENDLESS)).maximum <= console.width
