"""How numbers and tables look. A table is a list of rows; here a row becomes CSV, Markdown or a line of a terminal."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from synthdiv.core.terminal import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

Row = Mapping[str, Any]  # by the name of the column; a column that a row lacks is empty
WIDTH = 160  # columns where the output is no terminal


def number(value: float) -> str:
    """Four digits; undefined is a dash."""
    if math.isfinite(value):
        return f"{value:.4g}"
    return "—" if math.isnan(value) else "∞" if value > 0 else "−∞"


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def interval(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"[{number(low)}, {number(high)}]"


def arrow(higher_is_better: bool | None) -> str:
    return {None: "", True: " ↑", False: " ↓"}[higher_is_better]


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float | None) -> str:
    """Seconds as text: `12.3 s`, from a minute on `0:12:40` or `4 days, 3:00:00`; `?` if unknown."""
    if seconds is None:
        return "?"
    return f"{seconds:.1f} s" if seconds < 59.95 else str(timedelta(seconds=round(seconds)))


def bytes_text(size: float) -> str:
    """Bytes with three digits and a decimal unit, such as `12.3 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"


def common_words(overrides: Sequence[Sequence[str]]) -> list[str]:
    """The overrides that all of several cells have."""
    shared = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()
    return [word for word in overrides[0] if word in shared] if shared else []


def columns(rows: Sequence[Row], empty: bool = False) -> list[str]:
    """The columns of a table that have any value, where NaN alone is none; or with those that are `empty`."""
    names = dict.fromkeys(name for row in rows for name in row)
    known = {name for row in rows for name, value in row.items() if value not in (None, "") and value == value}
    return [name for name in names if empty or name in known]


def csv_text(rows: Sequence[Row]) -> str:
    """CSV with all digits. NaN is written as `nan` and infinity as `inf`; None and a missing value are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(rows, empty=True), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, its numbers with four digits; a column without any value is left out."""
    names = columns(rows)
    lines = [names, ["---"] * len(names), *([cell_text(row.get(name)) for name in names] for row in rows)]
    cells = ([clean(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def cell_text(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return f"{value:,}" if isinstance(value, int) else str(value or "")


def text(words: str, style: str = "") -> Text:
    """Text for a terminal, in which brackets are no markup."""
    from rich.text import Text

    return Text(clean(words), style)


def unbroken(line: str, style: str = "") -> Text:
    """A line that users copy into a shell: it stays one line, however narrow the terminal is."""
    words = text(line, style)
    words.no_wrap, words.overflow = True, "ignore"
    return words


def table(header: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without rules. Columns whose name begins with `>` are aligned to the right, with `!` never broken."""
    from rich.table import Table

    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in header:
        justify, whole = "right" if ">" in name[:2] else "left", "!" in name[:2]
        result.add_column(text("\n" + name.lstrip(">!")), justify=justify, overflow="fold", no_wrap=whole)  # type: ignore[arg-type]
    for row in rows:
        result.add_row(*(text(cell) if isinstance(cell, str) else cell for cell in row))
    return result


def console(error: bool = False) -> Console:
    from rich.console import Console

    result = Console(stderr=error, highlight=False, markup=False)
    if not result.is_terminal and "COLUMNS" not in os.environ:
        result.width = WIDTH
    return result


def show(*parts: RenderableType) -> None:
    """Print tables and lines."""
    from rich.console import Group

    console().print(Group(*(text(part) if isinstance(part, str) else part for part in parts)), crop=False)
