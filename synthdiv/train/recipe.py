"""How a model is trained: the choices of the configuration, and the record that says all of one training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import Run

if TYPE_CHECKING:
    from synthdiv.train.early import Early
    from synthdiv.train.rows import Row


class Method(Enum):
    """Which weights are trained: all, or an adapter; of `qlora` the frozen weights are held in 4 bits."""

    full = "full"
    lora = "lora"
    qlora = "qlora"


class Stop(Enum):
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
