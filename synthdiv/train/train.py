"""Fine-tuning: one code path for full, LoRA and QLoRA, loss on the answer, a budget that is met exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Stage, added
from synthdiv.core.strategy import Strategy
from synthdiv.core.types import Artifact, Run
from synthdiv.models.load import Precision
from synthdiv.train.checkpoints import CHECKPOINTS
from synthdiv.train.recipe import LossOn, Method, Overlong, Shape, Stop
from synthdiv.train.schedule import Match


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
    `steps` stop at `budget`. The last step is what is evaluated, unless `stop` is `early`: then the loss on the arm's
    own held-out rows is taken each `evaluate_every` steps, the best step is evaluated, and training ends after
    `patience` evaluations without a better one; arms that stop early are not matched. `validation` is the share of
    prompts held out of training, the same ids in every arm of one size. `packing` puts several rows of a step into one
    sequence of at most `max_tokens`, where they do not see one another. Under `overlong=drop` arms train on different
    prompts: `left_out` declares what share of the rows that may cost.
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
    stop: Stop = added(Stop.budget, Stop.budget)  # noqa: RUF009
    evaluate_every: int = added(20, 20)
    patience: int = added(5, 5)
    left_out: float = added(0.0, 0.0)

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
        problems += self.problems_of_early()
        if not 0 <= self.left_out < 1:
            problems.append(f"train.left_out={self.left_out}: needs 0 or more and less than 1")
        elif self.left_out and (self.overlong is Overlong.cut or self.match is not Match.rows):
            problems.append(f"train.left_out={self.left_out}: is for train.overlong=drop with train.match=rows")
        if self.lora.r < 1 or self.lora.alpha <= 0 or not 0 <= self.lora.dropout < 1:
            problems.append("train.lora: needs r ≥ 1, alpha > 0 and dropout from 0 to below 1")
        return problems

    def problems_of_early(self) -> list[str]:
        if self.stop is Stop.budget:
            unused = {"evaluate_every": 20, "patience": 5}
            return [
                f"train.{name}={getattr(self, name)}: only train.stop=early looks at it"
                for name, usual in unused.items()
                if getattr(self, name) != usual
            ]
        problems = []
        if self.evaluate_every < 1 or self.patience < 1:
            problems.append("train.evaluate_every, train.patience: need 1 or more")
        if self.match is not Match.rows:
            problems.append(f"train.stop=early, train.match={self.match.value}: needs train.match=rows, which ends it")
        if not self.validation:
            problems.append("train.stop=early, train.validation=0: needs rows to stop by; 0.05 holds out every 20th")
        return problems

    def problems_on(self, runtime: Runtime) -> list[str]:
        """What this cannot do there: weights in 4 bits are on an accelerator, whole."""
        if self.method is not Method.qlora:
            return []
        problems = []
        if runtime.strategy not in (Strategy.auto, Strategy.ddp):
            problems.append(
                f"runtime.strategy={runtime.strategy.value}, train.method=qlora: the 4-bit weights of bitsandbytes "
                "cannot be cut into parts; choose runtime.strategy=ddp, or train.method=lora"
            )
        if runtime.device in ("cpu", "mps"):
            problems.append(
                f"runtime.device={runtime.device}, train.method=qlora: 4-bit weights need an NVIDIA GPU; choose "
                "train.method=lora"
            )
        return problems

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        from synthdiv.train.tune import tune

        return tune(self, inputs, out, run)
