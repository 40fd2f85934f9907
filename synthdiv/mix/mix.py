"""The fine-tuning set: each prompt with the answer of the source that owns it, in exact counts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Stage, added
from synthdiv.core.types import Artifact, DataError, Run, Sample
from synthdiv.generate.generate import read_samples
from synthdiv.mix.allocate import allocate
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.shards import Grid
from synthdiv.prompts.table import normalise

FILE = "mix.parquet"
TOLD = 0.01  # share of refusals from which the person watching is told


@dataclass
class Mix(Stage):
    """Inputs: prompts, then the shards that the sources answered. Output: `mix.parquet`, one row a prompt, in order,
    with the columns of `Sample` and `position`.

    `sources` and `weights` say who shares the generated rows, `real_share` how many are human; `train_rows` and
    `shard_rows` are the grid; `sample` is which of several answers is taken.
    """

    name = "mix"

    rows: int = 0
    sources: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    real_share: float = 0.0
    rotation: int = 0
    train_rows: int = 0
    shard_rows: int = 0
    sample: int = added(0, 0)

    def owners(self) -> list[str]:
        """The source of each position."""
        grid = Grid(self.train_rows, self.shard_rows)
        shares = allocate(grid, self.rows, self.weights, self.real_share, self.rotation)
        return ["human" if index < 0 else self.sources[index] for index in shares]

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        prompts, *shards = inputs
        answers = {
            (row.source, row.id): row
            for shard in shards
            for row in read_samples(shard.path)
            if row.sample == self.sample
        }
        rows: list[dict[str, Any]] = []
        for prompt, owner in zip(read_prompts(prompts, "train", self.rows), self.owners(), strict=True):
            if owner == "human":
                row = Sample(prompt["id"], prompt["prompt"], prompt["response"], "human")
            elif (owner, prompt["id"]) in answers:
                row = answers[owner, prompt["id"]]
            else:
                raise DataError(f"{owner} has no answer to prompt {prompt['id']}, which it owns")
            rows.append(dataclasses.asdict(row) | {"position": prompt["position"]})
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out / FILE)
        return {
            "rows": len(rows),
            "sources": dict(Counter(row["source"] for row in rows)),
            "empty": sum(not row["response"].strip() for row in rows),
            "finish": finished(rows, run),
            "test_answers_seen": seen_in_test(prompts, rows),
        }


def finished(rows: list[dict[str, Any]], run: Run) -> dict[str, dict[str, int]]:
    """How the answers of each source ended. A refusal is an empty answer: trained on, it teaches to say nothing."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["source"], Counter())[row["finish"]] += 1
    for source, count in sorted(found.items()):
        if count["refusal"] > TOLD * count.total():
            run.log(f"mix: {count['refusal']} of the {count.total()} answers of {source} are refusals, and so empty")
    return {source: dict(count) for source, count in sorted(found.items())}


def seen_in_test(prompts: Artifact, rows: list[dict[str, Any]]) -> dict[str, int]:
    """Per source, answers that are word for word a human test answer: a generator may have memorised them."""
    held_out = {normalise(row["response"]) for row in read_prompts(prompts, "test") if row["response"]}
    seen = Counter(row["source"] for row in rows if normalise(row["response"]) in held_out)
    return {source: seen[source] for source in sorted({row["source"] for row in rows})}


def read_mix(artifact: Artifact) -> list[dict[str, Any]]:
    """The rows of a mix in order."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(artifact.path / FILE).to_pylist()
    return rows
