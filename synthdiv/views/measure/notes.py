"""The notes below a table: each once, and those that differ in their numbers alone as one."""

from __future__ import annotations

import re

NUMBER = re.compile(r"(?<![\w.,-])\d+(?:[.,]\d+)*(?![\w-])")  # not those within names
HOLE = "\0"  # where a number was


class Notes:
    """Reasons by what they say without their numbers, in the order in which they were met."""

    def __init__(self) -> None:
        self.found: dict[str, list[list[str]]] = {}

    def mark(self, note: str) -> str:
        """Where the parts of a score's note are listed: `(2)`, `(2, 5)`, or nothing for no note."""
        places = []
        for part in filter(None, note.split("; ")):
            shape = shape_of(part)
            self.found.setdefault(shape, []).append(NUMBER.findall(part))
            places.append(str(list(self.found).index(shape) + 1))
        return f"({', '.join(dict.fromkeys(places))})" if places else ""

    def lines(self) -> list[str]:
        """Each note with its number; a number that is not the same everywhere as `smallest–largest`."""
        return [f"({place}) {filled(*item)}" for place, item in enumerate(self.found.items(), 1)]


def shape_of(note: str) -> str:
    return NUMBER.sub(HOLE, note)


def filled(shape: str, numbers: list[list[str]]) -> str:
    """The shape with its numbers, or with their ranges."""
    for met in zip(*numbers, strict=True):
        ordered = sorted(set(met), key=lambda number: float(number.replace(",", "")))
        shape = shape.replace(HOLE, ordered[0] if len(ordered) == 1 else f"{ordered[0]}–{ordered[-1]}", 1)
    return shape
