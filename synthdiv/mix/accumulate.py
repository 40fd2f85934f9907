"""The fine-tuning set of a round that keeps the rows of earlier rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.types import Artifact, Run
from synthdiv.mix.mix import FILE, FineTuningSet, read_mix
from synthdiv.prompts.split import rank


@dataclass
class Accumulate(FineTuningSet):
    """Rows of several rounds. Inputs: `prompts`, and by number the fine-tuning set of each round.

    Output: as of `Mix`, with a column `round` in every row. Positions count on from round to round; those of a sample
    are numbered anew.
    """

    name = "accumulate"

    rounds: int = 1
    """How many rounds there are."""
    rows: int = 0
    """The most rows of the set."""
    sampled: bool = False
    """Whether `rows` are drawn from all rounds alike, without replacement; else all are taken."""
    seed: int = 0
    """Seed of the draw."""

    def input_names(self) -> list[str]:
        return ["prompts", *map(str, range(self.rounds))]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        rows, before = list[dict[str, Any]](), 0
        for number in range(self.rounds):
            part = inputs[str(number)]
            rows += [row | {"round": number, "position": before + row["position"]} for row in read_mix(part)]
            before += part.stage.rows
        if self.sampled:
            drawn = sorted(range(len(rows)), key=lambda at: rank(self.seed, "accumulate", self.rounds, at))[: self.rows]
            rows = [rows[at] | {"position": place} for place, at in enumerate(sorted(drawn))]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out / FILE)
        rounds = [row["round"] for row in rows]
        return {"rows": len(rows), "rounds": {str(number): rounds.count(number) for number in range(self.rounds)}}
