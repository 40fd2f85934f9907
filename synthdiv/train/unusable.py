"""A training that has gone wrong: what its loss says, and which rows were there."""

from __future__ import annotations

import math
from typing import Any

import torch

from synthdiv.train.loss import loss_sum
from synthdiv.train.rows import Rows
from synthdiv.train.strategies import Alone

WINDOW, TIMES, MORE = 10, 2.0, 1.0  # steps, and how far above the first of them the last may be (nats)
NAMED = 5


class Unusable(Exception):
    """Training cannot go on; `good` says whether the weights are worth keeping."""

    def __init__(self, told: str, good: bool):
        super().__init__(told)
        self.good = good


def limit(curve: list[dict[str, float]]) -> float:
    """The loss above which a step is no good: twice that of the first ten steps and one nat more."""
    first = [point["loss"] for point in curve[:WINDOW]]
    return TIMES * sum(first) / len(first) + MORE


def diverging(curve: list[dict[str, float]]) -> bool:
    """Whether the last ten steps are above the limit; one step may be, by its rows."""
    last = [point["loss"] for point in curve[-WINDOW:]]
    return len(curve) >= 2 * WINDOW and sum(last) / WINDOW > limit(curve)


def row_losses(over: Alone, rows: Rows, chosen: list[int]) -> dict[int, float]:
    """Loss of each row of a step, one by one; all ranks look at the same."""
    losses, training = {}, over.model.training
    over.model.eval()
    with torch.no_grad():
        for number in chosen:
            loss: Any = over.call(loss_sum, rows.tensors([[number]], over.device))[0]
            losses[number] = float(loss) / rows.rows[number].supervised
    over.model.train(training)
    return losses


def unusable(
    told: str, step: int, curve: list[dict[str, float]], losses: dict[int, float], rows: Rows, before: bool
) -> Unusable:
    """`before`: the weights are still those before this step. They are good if most of its rows find them so."""
    order = sorted(losses, key=lambda number: (math.isfinite(losses[number]), -losses[number]))
    named = ", ".join(f"{rows.rows[number].id or number} ({losses[number]:.3g})" for number in order[:NAMED])
    most = limit(curve) if curve else math.inf
    fine = sum(loss <= most for loss in losses.values())  # NaN is not
    good = before and 2 * fine > len(losses)
    return Unusable(f"{told} at step {step}; its rows with the highest loss are {named}", good)
