"""Fine-tuning: one code path for full and LoRA, loss on the answer, a budget that is met exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.models.load import Precision
from synthdiv.stage import Stage, added
from synthdiv.train.fit import CHECKPOINTS
from synthdiv.train.schedule import Match
from synthdiv.types import Artifact, Run


class Method(Enum):
    """Which weights are trained."""

    full = "full"
    lora = "lora"


class LossOn(Enum):
    """Which tokens are supervised: the answer and the token that ends it, or the prompt as well."""

    answer = "answer"
    all = "all"


class Shape(Enum):
    """The learning rate after warm-up."""

    cosine = "cosine"
    constant = "constant"


class Overlong(Enum):
    """What becomes of a row of more than `max_tokens`: the end of its answer is cut, or it is left out."""

    cut = "cut"
    drop = "drop"


@dataclass
class Lora:
    """Low-rank adapters (Hu et al. 2021). `targets` are names of linear layers."""

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.1
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )


@dataclass
class Train(Stage):
    """Inputs: student, mix, prompts, tokens. Output: `model/` or `adapter/`, `metrics.parquet`.

    `match` says what is equal between arms: `rows` trains `epochs` times on the train rows; `supervised_tokens` and
    `steps` stop at `budget`. There is no early stopping and the last step is what is evaluated. `validation` is the
    share of prompts held out of training, the same ids in every arm of one size. `packing` puts several rows of a step
    into one sequence of at most `max_tokens`, where they do not see one another.
    """

    name = "train"
    ranks = "many"
    version = 2
    model = True
    kept = (CHECKPOINTS,)

    method: Method = Method.lora
    lora: Lora = field(default_factory=Lora)
    match: Match = Match.rows
    epochs: float = 3.0
    budget: int | None = None
    batch_rows: int = 64
    max_tokens: int = 1024
    loss_on: LossOn = LossOn.answer
    lr: float = 5e-5
    schedule: Shape = Shape.cosine
    warmup: float = 0.03
    weight_decay: float = 0.01
    clip: float = 1.0
    validation: float = 0.05
    precision: Precision = Precision.fp32
    seed: int = 0
    overlong: Overlong = added(Overlong.cut, Overlong.cut)  # noqa: RUF009
    packing: bool = added(False, False)

    def check(self) -> list[str]:
        problems = []
        for name in ("lr", "epochs", "batch_rows", "max_tokens"):
            if not 0 < getattr(self, name) < math.inf:
                problems.append(f"train.{name}={getattr(self, name)}: needs more than 0, and finite")
        if not 0 <= self.seed < 2**32:
            problems.append(f"train.seed={self.seed}: needs 0 to 2^32 - 1")
        if self.budget is not None and self.budget < 1:
            problems.append(f"train.budget={self.budget}: needs 1 or more")
        for name in ("weight_decay", "clip"):
            if getattr(self, name) < 0:
                problems.append(f"train.{name}={getattr(self, name)}: needs 0 or more")
        for name in ("warmup", "validation"):
            if not 0 <= getattr(self, name) < 1:
                problems.append(f"train.{name}={getattr(self, name)}: needs 0 or more and less than 1")
        if (self.match is Match.rows) != (self.budget is None):
            problems.append(
                f"train.match={self.match.value}, train.budget={self.budget}: rows counts by train.epochs and takes "
                "no budget; supervised_tokens and steps need one"
            )
        if self.lora.r < 1 or self.lora.alpha <= 0 or not 0 <= self.lora.dropout < 1:
            problems.append("train.lora: needs r ≥ 1, alpha > 0 and dropout from 0 to below 1")
        return problems

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        from synthdiv.train.tune import tune

        return tune(self, inputs, out, run)
