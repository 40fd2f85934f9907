"""How a model is trained: the choices of the configuration, and the record that says all of one training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.runtime import Runtime
from synthdiv.core.strategy import Strategy
from synthdiv.core.types import Run
from synthdiv.models.load import Precision
from synthdiv.train.early import Early
from synthdiv.train.rows import Row
from synthdiv.train.schedule import Match


class Method(Enum):
    """Which weights are trained: all, or an adapter; of `qlora` the frozen weights are held in 4 bits."""

    full = "full"
    lora = "lora"
    qlora = "qlora"


class StopRule(Enum):
    """When training ends: with its budget, or before it, when the loss on held-out rows falls no more."""

    budget = "budget"
    early = "early"


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
    """Low-rank adapters (Hu et al. 2021)."""

    r: int = setting(16, least=1)
    """The rank."""
    alpha: float = setting(32.0, above=0)
    """The scale: the adapter's output is multiplied by alpha / r, or by alpha / √r with rslora."""
    dropout: float = setting(0.1, least=0, below=1)
    """Dropout on the adapter's input."""
    targets: list[str] = field(default_factory=lambda: ["all-linear"])
    """Names or paths of the linear layers that get an adapter; all-linear: those of the language model but the output
    layer. Experts that are stored as one tensor are no linear layers."""
    rslora: bool = False
    """Divides alpha by the root of r instead of r (rank-stabilised LoRA, Kalajdzievski 2023)."""
    dora: bool = False
    """Trains magnitudes of weights beside their directions (DoRA, Liu et al. 2024)."""
    modules_to_save: list[str] = field(default_factory=list)
    """Names of modules that are trained whole beside the adapter, such as embed_tokens."""


@dataclass
class Recipe:
    """How a student is fine-tuned."""

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
    stop: StopRule = StopRule.budget
    """`budget` evaluates the last step; `early` the best one, and is not matched between arms."""
    evaluate_every: int = setting(20, least=1)
    """Steps between two evaluations on held-out rows, with stop=early."""
    patience: int = setting(5, least=1)
    """Evaluations without improvement after which training ends, with stop=early."""
    left_out: float = setting(0.0, least=0, below=1)
    """Declares the share of rows that overlong=drop may leave out: arms then train on different prompts."""

    def check(self, name: str) -> list[str]:
        early, by_rows = self.stop is StopRule.early, self.match is Match.rows
        match = f"{name}.match={self.match.value}"
        changed = [
            f"{name}.{option}={getattr(self, option)}: only {name}.stop=early uses it"
            for option in ("evaluate_every", "patience")
            if not early and getattr(self, option) != getattr(Recipe, option)
        ]
        rules = (
            (by_rows != (self.budget is None), f"{match}, {name}.budget={self.budget}: rows counts by {name}.epochs "
             "and takes no budget; supervised_tokens and steps need one"),
            (early and not by_rows, f"{name}.stop=early, {match}: needs {name}.match=rows, which ends it"),
            (early and not self.validation, f"{name}.stop=early, {name}.validation=0: needs held-out rows; 0.05 holds "
             "out every 20th prompt"),
            (self.left_out and (self.overlong is Overlong.cut or not by_rows),
             f"{name}.left_out={self.left_out}: is for {name}.overlong=drop with {name}.match=rows"),
        )  # fmt: skip
        return [problem for wrong, problem in rules if wrong] + changed

    def problems_on(self, runtime: Runtime) -> list[str]:
        """What this cannot do there: weights in 4 bits are on an accelerator, whole."""
        qlora = self.method is Method.qlora
        rules = (
            (runtime.strategy not in (Strategy.auto, Strategy.ddp), f"runtime.strategy={runtime.strategy.value}, "
             "train.method=qlora: the 4-bit weights of bitsandbytes cannot be cut into parts; choose "
             "runtime.strategy=ddp, or train.method=lora"),
            (runtime.device in ("cpu", "mps"), f"runtime.device={runtime.device}, train.method=qlora: 4-bit weights "
             "need an NVIDIA GPU; choose train.method=lora"),
        )  # fmt: skip
        cut = runtime.strategy.value.removesuffix("_offload") in ("fsdp2", "deepspeed_stage_3")
        problems = [problem for wrong, problem in rules if qlora and wrong]
        if self.lora.dora and self.method is not Method.full and cut:
            problems.append(
                f"runtime.strategy={runtime.strategy.value}, train.lora.dora=true: DoRA reads whole weights, and this "
                "strategy cuts them into parts; choose ddp or deepspeed_stage_2"
            )
        return problems


@dataclass(frozen=True)
class Optimizing:
    """AdamW with warm-up and decay. `warmup` is the share of steps; `clip` bounds the gradient norm (0: no bound)."""

    lr: float
    schedule: str
    warmup: float
    weight_decay: float
    clip: float
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass
class Training:
    """A model, its rows, and how it is trained on them in which order. `fit` trains the parameters that need a
    gradient, in place, and writes metrics and checkpoints below `out`."""

    model: Any
    rows: list[Row]
    steps: list[list[int]]  # row numbers of each optimizer step
    optimizing: Optimizing
    seed: int  # of dropout: with the number of a step it determines that step
    pad: int  # the token that fills batches up; it is never supervised
    out: Path
    run: Run
    precision: str = "fp32"  # or bf16: mixed precision
    packed: int = 0  # most tokens of a sequence that takes several rows; 0: each row has its own
    student: str = ""  # the key of what is trained: checkpoints of another are refused
    early: Early | None = None  # ends the training early, with the weights of its best step
    validation: dict[str, list[Row]] = field(default_factory=dict)  # sets whose loss is taken before and after
    save: Callable[[Any], None] = lambda tuning: None  # called by all ranks while the weights are spread over them
    one_device: bool = False  # whatever `runtime.strategy` says: the stage has one rank and saves the whole model
    present: int | None = None  # how many of `rows` are whole ones; those behind are cut copies for an exact budget
