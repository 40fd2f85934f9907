"""Early stopping: which step is the best so far, and when to wait no longer. All of it is read off the curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Curve = list[dict[str, float]]
HELD_OUT = "validation_loss"  # a column of the curve: NaN where nobody looked


@dataclass(frozen=True)
class Early:
    """`loss` of the trained module is taken after each `every` steps; training ends after `patience` evaluations
    without a better one."""

    every: int
    patience: int
    loss: Callable[[Any], float]

    def look(self, step: int, steps: int, tuning: Any) -> float:
        """The loss where it is due, infinite if it is no number; NaN where nobody looks."""
        if not self.due(step, steps):
            return math.nan
        loss = self.loss(tuning)
        return loss if math.isfinite(loss) else math.inf

    def due(self, step: int, steps: int) -> bool:
        """Of a training that is too short to be looked at, the last step is."""
        return step % self.every == 0 or (step == steps < self.every)

    def over(self, curve: Curve) -> bool:
        return len(looks(curve[best_step(curve) or 0 :])) >= self.patience


def looks(curve: Curve) -> dict[int, float]:
    """Held-out losses by step."""
    found = {int(point["step"]): point.get(HELD_OUT, math.nan) for point in curve}
    return {step: loss for step, loss in found.items() if not math.isnan(loss)}


def best_step(curve: Curve) -> int | None:
    """The step of the least held-out loss, the first of equals; None before the first that is a number."""
    found = {step: loss for step, loss in looks(curve).items() if math.isfinite(loss)}
    return min(found, key=lambda step: found[step]) if found else None
