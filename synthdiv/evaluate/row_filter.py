"""Filters of a round's rows: those that a judge accepts, or those that surprise the vanilla student."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.evaluate.likelihood import read_likelihood
from synthdiv.evaluate.verdicts import read_verdicts
from synthdiv.mix.mix import FILE, FineTuningSet, read_mix


class RoundFilter(Enum):
    """Which rows of a round are kept: all, those that a judge accepts (verifier), or those that surprise the vanilla
    student most by NLL per token (as the surplexity filter of Gambetta et al. 2024, arXiv 2410.12341)."""

    none = "none"
    verifier = "verifier"
    surprise = "surprise"


@dataclass
class RowFilter(FineTuningSet):
    """The rows of a fine-tuning set that pass a filter, in their places; human rows pass. Inputs: `prompts`, `mix`, and
    `values`: the verdicts on its rows, or their likelihood under the vanilla student. Output: as of the mix."""

    name = "row_filter"

    rows: int = 0
    """The most rows of the set."""
    filter: RoundFilter = RoundFilter.none
    """The filter."""
    least: float = 0.0
    """The lowest rating that a row may have, of a verifier."""
    drop: float = 0.0
    """The share of the generated rows that is left out, of a filter by surprise."""

    def input_names(self) -> tuple[str, ...]:
        return ("prompts", "mix", "values")

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        rows = read_mix(inputs["mix"])
        written = {row["id"] for row in rows if row["source"] != "human"}
        if self.filter is RoundFilter.verifier:
            values = {row["prompt_id"]: row["value"] for row in read_verdicts(inputs["values"])}
            kept = {key for key in written if values[key] >= self.least}  # no verdict is NaN, and no acceptance
        else:
            values = {row["id"]: row["nll"] / row["tokens"] for row in read_likelihood(inputs["values"])}
            ranked = sorted(written, key=lambda key: (-values[key], key))
            kept = {*ranked[: len(written) - round(self.drop * len(written))]}
        if written and not kept:
            raise DataError(
                f"rounds.filter={self.filter.value}: accepts none of {len(written)} rows; lower rounds.least="
                f"{self.least:g}, or look at what the students of the round before wrote with `synthdiv trace`"
            )
        passed = [row for row in rows if row["source"] == "human" or row["id"] in kept]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(passed), out / FILE)
        removed = Counter(row["source"] for row in rows) - Counter(row["source"] for row in passed)
        return {"rows": len(passed), "removed": dict(sorted(removed.items()))}
