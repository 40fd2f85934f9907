"""The fine-tuning set of a round that filters what students wrote, or keeps the rows of earlier rounds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from synthdiv.core.files import read_rows
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.mix.fine_tuning_set import FineTuningSet, read_mix, write_mix
from synthdiv.prompts.split import rank

RoundFilter = StrEnum("RoundFilter", "none verifier surprise")


@dataclass
class RoundRows(FineTuningSet):
    """Rows of one round or several. Inputs: `prompts`; by number the mix of each; with a filter `values/N` of each but
    the first `unfiltered` ones: verdicts on its rows, or their likelihood under the vanilla student.

    Output: as of `Mix`, with a column `round`. Positions count on from mix to mix, those of a draw are numbered anew.
    The summary counts what filters of the mixes and of the rounds removed, and what was refilled.
    """

    name = "round_rows"

    mixes: int = 1
    """How many mixes there are."""
    rows: int = 0
    """The most rows of the set."""
    drawn: bool = False
    """Whether `rows` are drawn from all mixes alike, without replacement; else all are taken."""
    seed: int = 0
    """Seed of the draw."""
    filter: RoundFilter = RoundFilter.none
    """Which rows are kept: of those that students wrote, since human rows pass every filter."""
    unfiltered: int = 0
    """How many mixes, the first ones, pass whole."""
    least: float = 0.0
    """The lowest rating of a row that a verifier accepts."""
    drop: float = 0.0
    """The share of the written rows that a filter by surprise leaves out, the least surprising."""

    def input_names(self) -> list[str]:
        judged = range(self.unfiltered, self.mixes) if self.filter is not RoundFilter.none else ()
        return ["prompts", *map(str, range(self.mixes)), *(f"values/{number}" for number in judged)]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        rows, before = list[dict[str, Any]](), 0
        removed, refilled = defaultdict[str, Counter[str]](Counter), Counter[str]()
        for number in range(self.mixes):
            artifact = inputs[str(number)]
            mix, summary = read_mix(artifact), artifact.manifest["summary"]
            for source, why in summary["removed"].items():
                removed[source].update(why)
            refilled.update(summary["refilled"])
            if values := inputs.get(f"values/{number}"):
                written = Counter(row["source"] for row in mix)
                mix = self.passed(mix, read_rows(next(values.path.glob("*.parquet"))))
                for source, count in (written - Counter(row["source"] for row in mix)).items():
                    removed[source][self.filter.value] += count
            rows += [{**row, "round": row.get("round", 0), "position": before + row["position"]} for row in mix]
            before += artifact.stage.rows + len(artifact.stage.spares())
        if self.drawn:
            order = sorted(range(len(rows)), key=lambda at: rank(self.seed, "drawn", self.mixes, at))
            rows = [rows[at] | {"position": place} for place, at in enumerate(sorted(order[: self.rows]))]
        write_mix(rows, out)
        counts = {name: Counter(str(row[name]) for row in rows) for name in ("round", "source")}
        facts = {"rows": len(rows), "rounds": dict(counts["round"]), "sources": dict(counts["source"])}
        why_removed = {source: dict(each) for source, each in sorted(removed.items())}
        return facts | {"removed": why_removed, "refilled": dict(refilled)}

    def passed(self, rows: list[dict[str, Any]], values: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of a mix that pass the filter, by the rows of verdicts or of a likelihood."""
        written = {row["id"] for row in rows if row["source"] != "human"}
        if self.filter is RoundFilter.verifier:
            ids = {row["prompt_id"] for row in values if row["value"] >= self.least}  # no verdict is NaN: not accepted
        else:
            nll = {row["id"]: row["nll"] / row["tokens"] for row in values}
            ids = {*sorted(written, key=lambda key: (nll[key], key))[round(self.drop * len(written)) :]}
        if written and not written & ids:
            raise DataError(
                f"rounds.filter={self.filter.value}: accepts none of {len(written)} rows; lower rounds.least="
                f"{self.least:g}, or look at what the students of the round before wrote with `synthdiv trace`"
            )
        return [row for row in rows if row["source"] == "human" or row["id"] in ids]
