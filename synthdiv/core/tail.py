"""The whole lines of a file that grows: each reading gives what came since the one before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Tail:
    """Reads a file of JSON lines from where it stopped. A file that is not there yet is empty."""

    path: Path
    place: int = 0  # bytes that were read as whole lines
    broken: int = 0  # whole lines that are no JSON object
    open_end: bool = False  # the last line has no end: its writer is in the middle of it, or died there

    @property
    def cut(self) -> int:
        """Lines that a crash cut; one that is being written just now counts until it is whole."""
        return self.broken + self.open_end

    def read(self) -> list[dict[str, Any]]:
        """The rows that came since the last reading, in the order of the file."""
        try:
            size = self.path.stat().st_size
            if size < self.place:  # replaced by a shorter file: begin again
                self.place = self.broken = 0
            if size == self.place:
                self.open_end = False
                return []
            with self.path.open("rb") as handle:
                handle.seek(self.place)
                new = handle.read()
        except FileNotFoundError:
            return []
        end = new.rfind(b"\n") + 1
        self.place, self.open_end = self.place + end, end < len(new)
        return [row for line in new[:end].split(b"\n") if line and (row := self._row(line)) is not None]

    def _row(self, line: bytes) -> dict[str, Any] | None:
        try:
            row = json.loads(line)
        except ValueError:  # no JSON, or no UTF-8
            row = None
        if isinstance(row, dict):
            return row
        self.broken += 1
        return None
