"""Reads a growing file of JSON lines: each call returns the lines that were added since the call before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Tail:
    """A position in a file of JSON lines. A file that does not exist yet is empty."""

    path: Path
    position: int = 0
    """Bytes that were read as complete lines."""
    invalid: int = 0
    """Complete lines that are no JSON object."""
    incomplete: bool = False
    """Whether the last line has no end: its writer is still writing it, or died there."""

    @property
    def cut(self) -> int:
        """Lines that a crash cut; a line that is being written counts until it is complete."""
        return self.invalid + self.incomplete

    def read(self) -> list[dict[str, Any]]:
        """The rows that were added since the last call, in the order of the file."""
        try:
            size = self.path.stat().st_size
            if size < self.position:  # replaced by a shorter file: start again
                self.position = self.invalid = 0
            if size == self.position:
                self.incomplete = False
                return []
            with self.path.open("rb") as handle:
                handle.seek(self.position)
                added = handle.read()
        except FileNotFoundError:
            return []
        end = added.rfind(b"\n") + 1
        self.position, self.incomplete = self.position + end, end < len(added)
        return [row for line in added[:end].split(b"\n") if line and (row := self._row(line)) is not None]

    def _row(self, line: bytes) -> dict[str, Any] | None:
        try:
            row = json.loads(line)
        except ValueError:  # invalid JSON or UTF-8
            row = None
        if isinstance(row, dict):
            return row
        self.invalid += 1
        return None
