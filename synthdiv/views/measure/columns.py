"""Some columns of a file, and what their cells must be: texts, names of groups, names of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from synthdiv.core.types import DataError

NONE = "(none)"  # the group of the rows that name none


@dataclass
class Columns:
    """The cells of the columns asked for, by name; `places` says on which `unit` (line or row) each record begins."""

    path: Path
    unit: str
    places: list[int]
    cells: dict[str, list[Any]]

    def texts(self, name: str) -> list[str]:
        """The cells of a column of texts. DataError where one is anything else; an empty text is a text."""
        cells = self.cells[name]
        wrong = [index for index, cell in enumerate(cells) if not isinstance(cell, str)]
        if wrong:
            advice = 'remove such rows, or write "" for an empty answer' if cells[wrong[0]] is None else "write texts"
            self._refuse(name, wrong, f"is {kind(cells[wrong[0]])} and no text; {advice}")
        return self._whole(name, cells)

    def groups(self, name: str) -> list[str]:
        """The cells of a column that names groups, as text. Null, missing and empty cells make the group `(none)`."""
        return [NONE if cell is None or cell == "" else cell for cell in self._plain(name)]

    def prompts(self, name: str) -> list[str]:
        """The cells of a column that names prompts, as text. DataError where one is null, missing or empty."""
        cells = self._plain(name)
        wrong = [index for index, cell in enumerate(cells) if cell is None or not cell.strip()]
        if wrong:
            self._refuse(name, wrong, "names no prompt; without --prompt each row is its own prompt")
        return [cell for cell in cells if cell is not None]

    def _plain(self, name: str) -> list[str | None]:
        cells = self.cells[name]
        wrong = [index for index, cell in enumerate(cells) if isinstance(cell, dict | list | bytes)]
        if wrong:
            self._refuse(name, wrong, f"is {kind(cells[wrong[0]])}; needs a text or a number")
        self._whole(name, [cell for cell in cells if isinstance(cell, str)])
        return [None if cell is None else str(cell) for cell in cells]

    def _whole(self, name: str, cells: list[str]) -> list[str]:
        """JSON can spell halves of characters (`"\\ud83d"`), which nothing can write or compress."""
        try:
            "".join(cells).encode()
        except UnicodeEncodeError:
            wrong = [index for index, cell in enumerate(self.cells[name]) if isinstance(cell, str) and halved(cell)]
            self._refuse(name, wrong, "has half a character (a lone surrogate, \\ud800 to \\udfff)")
        return cells

    def _refuse(self, name: str, wrong: list[int], problem: str) -> NoReturn:
        count = f" ({len(wrong):,} of {len(self.places):,} rows are like this)" if len(wrong) > 1 else ""
        raise DataError(f"{self.path}, {self.unit} {self.places[wrong[0]]}: column {name} {problem}{count}")


def kind(cell: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return "null or missing" if cell is None else names.get(type(cell), type(cell).__name__)


def halved(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
