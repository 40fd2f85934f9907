"""Early stopping: the best step so far, and whether to stop. Both are computed from the curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Curve = list[dict[str, float]]
HELD_OUT = "validation_loss"  # a column of the curve: NaN where it was not evaluated


@dataclass(frozen=True)
class Early:
    """`loss` of the trained module is taken after each `every` steps; training ends after `patience` evaluations
    without a better one."""

    every: int
    patience: int
    loss: Callable[[Any], float]

    def evaluate(self, step: int, steps: int, tuning: Any) -> float:
        """The loss where it is due, infinite if it is not finite; NaN where it is not evaluated."""
        if not self.due(step, steps):
            return math.nan
        loss = self.loss(tuning)
        return loss if math.isfinite(loss) else math.inf

    def due(self, step: int, steps: int) -> bool:
        """Whether this step is evaluated; of a training shorter than `every`, the last one is."""
        return step % self.every == 0 or (step == steps < self.every)

    def exhausted(self, curve: Curve) -> bool:
        return len(evaluations(curve[best_step(curve) or 0 :])) >= self.patience


def evaluations(curve: Curve) -> dict[int, float]:
    """Held-out losses by step."""
    losses = {int(point["step"]): point.get(HELD_OUT, math.nan) for point in curve}
    return {step: loss for step, loss in losses.items() if not math.isnan(loss)}


def best_step(curve: Curve) -> int | None:
    """The step of the least held-out loss, the first of equals; None before the first that is a number."""
    losses = {step: loss for step, loss in evaluations(curve).items() if math.isfinite(loss)}
    return min(losses, key=lambda step: losses[step], default=None)
