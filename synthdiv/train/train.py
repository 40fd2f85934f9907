"""Fine-tuning: one code path for full, LoRA and QLoRA, loss on the answer, a budget that is met exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, Run
from synthdiv.generate.generate import Generate
from synthdiv.train.checkpoints import CHECKPOINTS
from synthdiv.train.recipe import Method, Recipe
from synthdiv.train.schedule import Match


@dataclass
class Train(Recipe, Stage):
    """Fine-tunes a student on a mix. Inputs: `student`, `mix`, `prompts`, `tokens`.

    Output: `model/` or `adapter/`, and `metrics.parquet`, the training curve.
    """

    name = "train"
    ranks = "many"
    version = 2
    model = True
    kept = (CHECKPOINTS,)
    model_input = "student"
    unit = "tokens"
    less_memory = "not even one row fits: lower train.max_tokens, or choose train.method=lora or a smaller student"

    @property
    def trained_share(self) -> float:
        return 1.0 if self.method is Method.full else 0.02

    def input_names(self) -> tuple[str, ...]:
        return ("student", "mix", "prompts", "tokens")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        """Tokens that pass through the training, prompts included."""
        mix = inputs["mix"]
        if self.match is Match.supervised_tokens:
            share = measured.ratio(self.name, "tokens", "supervised_tokens")
            prompt, answer = mix.inputs["prompts"].stage.assumed_tokens  # type: ignore[attr-defined]
            tokens = (self.budget or 0) * (share or (prompt + answer) / answer)
        else:
            row = min(self.max_tokens, measured.ratio(self.name, "tokens", "rows_seen") or row_tokens(mix, measured))
            rows: int = mix.stage.rows  # type: ignore[attr-defined]
            seen = (rows - math.ceil(rows * self.validation)) * self.epochs
            tokens = row * (seen if self.match is Match.rows else (self.budget or 0) * self.batch_rows)
        return Work(round(tokens), trained_tokens=round(tokens))

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        from synthdiv.train.tune import tune

        return tune(self, inputs, out, run)


def row_tokens(mix: Node, measured: Measured) -> float:
    """Tokens of a prompt and its answer in a mix, where no training was measured: as its sources answer."""
    shards = [node for node in mix.inputs.values() if isinstance(node.stage, Generate) and "model" in node.inputs]
    lengths = [node.stage.answer_tokens(node.inputs, measured) for node in shards]  # type: ignore[attr-defined]
    prompt, answer = mix.inputs["prompts"].stage.assumed_tokens  # type: ignore[attr-defined]
    return float(prompt + (sum(lengths) / len(lengths) if lengths else answer))
