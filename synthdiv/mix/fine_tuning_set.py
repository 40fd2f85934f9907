"""What all fine-tuning sets share, whoever selects their rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthdiv.core.files import read_rows, write_rows
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact

FILE = "mix.parquet"


class FineTuningSet(Stage):
    """A stage whose artifact is a fine-tuning set, `mix.parquet`. Each has a field `rows`: how many at most."""

    rows: int
    unit = "rows"
    bytes_per_unit = 500

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        return Work(self.rows)


def write_mix(rows: list[dict[str, Any]], out: Path) -> None:
    """Write the rows of a fine-tuning set, in order, into the folder of its artifact."""
    write_rows(rows, out / FILE)


def read_mix(artifact: Artifact) -> list[dict[str, Any]]:
    """The rows of a mix in order."""
    return read_rows(artifact.path / FILE)
