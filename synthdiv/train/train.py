"""Fine-tuning: one code path for full, LoRA and QLoRA, loss on the answer, a budget that is met exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import ANSWER_TOKENS, PROMPT_TOKENS, Measured, Node, Stage, Work
from synthdiv.core.strategy import Strategy
from synthdiv.core.types import Artifact, Run
from synthdiv.models.load import Precision
from synthdiv.train.checkpoints import CHECKPOINTS
from synthdiv.train.recipe import LossOn, Method, Overlong, Shape, Stop
from synthdiv.train.schedule import Match


@dataclass
class Lora:
    """Low-rank adapters (Hu et al. 2021)."""

    r: int = setting(16, least=1)
    """The rank."""
    alpha: float = setting(32.0, above=0)
    """The scale: the adapter's output is multiplied by alpha / r."""
    dropout: float = setting(0.1, least=0, below=1)
    """Dropout on the adapter's input."""
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    """Names of the linear layers that get an adapter."""


@dataclass
class Train(Stage):
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

    method: Method = Method.lora
    """Which weights are trained."""
    lora: Lora = field(default_factory=Lora)
    """The adapters of `lora` and `qlora`."""
    match: Match = Match.rows
    """What is equal between arms: row presentations (`epochs` times the train rows), supervised tokens or steps."""
    epochs: float = setting(3.0, above=0)
    """How often each row is seen, with match=rows."""
    budget: int | None = setting(None, least=1)
    """Supervised tokens or optimizer steps, with match=supervised_tokens or steps; else null."""
    batch_rows: int = setting(64, above=0)
    """Rows of one optimizer step, over all devices."""
    max_tokens: int = setting(1024, above=0)
    """The longest row, prompt and answer together."""
    loss_on: LossOn = LossOn.answer
    """Which tokens are supervised."""
    lr: float = setting(5e-5, above=0)
    """Peak learning rate of AdamW."""
    schedule: Shape = Shape.cosine
    """The learning rate after warm-up."""
    warmup: float = setting(0.03, least=0, below=1)
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float = setting(0.01, least=0)
    """Decoupled weight decay of matrices; norms and biases have none."""
    clip: float = setting(1.0, least=0)
    """Largest norm of the gradient; 0: not clipped."""
    validation: float = setting(0.05, least=0, below=1)
    """Share of the prompts held out of training, the same ids in every arm of one size."""
    precision: Precision = Precision.fp32
    """The format of the computation; trained weights are held in fp32."""
    seed: int = setting(0, least=0, below=2**32, seed=True)
    """Seed of the order of rows, of dropout and of the adapter's start."""
    overlong: Overlong = Overlong.cut
    """What happens to rows longer than `max_tokens`."""
    packing: bool = False
    """Puts several rows of a step into one sequence of at most `max_tokens`; they cannot attend to each other."""
    stop: Stop = Stop.budget
    """`budget` evaluates the last step; `early` the best one, and is not matched between arms."""
    evaluate_every: int = setting(20, least=1)
    """Steps between two evaluations on held-out rows, with stop=early."""
    patience: int = setting(5, least=1)
    """Evaluations without improvement after which training ends, with stop=early."""
    left_out: float = setting(0.0, least=0, below=1)
    """Declares the share of rows that overlong=drop may leave out: arms then train on different prompts."""

    @property
    def trained_share(self) -> float:
        """Trained weights as a share of all, for planning."""
        return 1.0 if self.method is Method.full else 0.02

    def input_names(self) -> tuple[str, ...]:
        return ("student", "mix", "prompts", "tokens")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        """Tokens that pass through the training, prompts included."""
        mix = inputs["mix"]
        if self.match is Match.supervised_tokens:
            share = measured.ratio(self.name, "tokens", "supervised_tokens")
            tokens = (self.budget or 0) * (share or (PROMPT_TOKENS + ANSWER_TOKENS) / ANSWER_TOKENS)
        else:
            row = min(self.max_tokens, measured.ratio(self.name, "tokens", "rows_seen") or row_tokens(mix, measured))
            rows: int = mix.stage.rows  # type: ignore[attr-defined]
            seen = (rows - math.ceil(rows * self.validation)) * self.epochs
            tokens = row * (seen if self.match is Match.rows else (self.budget or 0) * self.batch_rows)
        return Work(round(tokens), trained_tokens=round(tokens))

    def check(self, name: str) -> list[str]:
        problems = []
        if (self.match is Match.rows) != (self.budget is None):
            problems.append(
                f"{name}.match={self.match.value}, {name}.budget={self.budget}: rows counts by {name}.epochs and takes "
                "no budget; supervised_tokens and steps need one"
            )
        problems += self.problems_of_early(name)
        if self.left_out and (self.overlong is Overlong.cut or self.match is not Match.rows):
            problems.append(f"{name}.left_out={self.left_out}: is for {name}.overlong=drop with {name}.match=rows")
        return problems

    def problems_of_early(self, name: str) -> list[str]:
        if self.stop is Stop.budget:
            unused = {"evaluate_every": 20, "patience": 5}
            return [
                f"{name}.{field}={getattr(self, field)}: only {name}.stop=early uses it"
                for field, default in unused.items()
                if getattr(self, field) != default
            ]
        problems = []
        if self.match is not Match.rows:
            problems.append(
                f"{name}.stop=early, {name}.match={self.match.value}: needs {name}.match=rows, which ends it"
            )
        if not self.validation:
            problems.append(
                f"{name}.stop=early, {name}.validation=0: needs held-out rows; 0.05 holds out every 20th prompt"
            )
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

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        from synthdiv.train.tune import tune

        return tune(self, inputs, out, run)


def row_tokens(mix: Node, measured: Measured) -> float:
    """Tokens of a prompt and its answer in a mix, where no training was measured: as its sources answer."""
    shards = [node for name, node in mix.inputs.items() if name != "prompts" and "model" in node.inputs]
    lengths: list[float] = [node.stage.answer_tokens(node.inputs, measured) for node in shards]  # type: ignore[attr-defined]
    return PROMPT_TOKENS + (sum(lengths) / len(lengths) if lengths else ANSWER_TOKENS)
