"""A training that has gone wrong: what its loss says, and which rows were there."""

from __future__ import annotations

import math
from typing import Any

import torch

from synthdiv.train.loss import loss_sum
from synthdiv.train.rows import Rows
from synthdiv.train.strategies import Alone

WINDOW, TIMES, MORE = 10, 2.0, 1.0  # steps, and how far above the beginning they may be (nats)
ROWS = 4  # one row that is easily said is no beginning
NAMED = 5


class Unusable(Exception):
    """Training cannot go on; `good` says whether the weights are worth keeping."""

    def __init__(self, told: str, good: bool):
        super().__init__(told)
        self.good = good


def limit(curve: list[dict[str, float]]) -> float:
    """The loss above which a step is no good: twice that of the beginning and one nat more. The beginning is that part
    of the first ten steps whose mean is least: a training may diverge from its second step on."""
    loss = tokens = rows = 0.0
    least = math.inf
    for point in curve[:WINDOW]:
        loss += point["loss"] * point["supervised_tokens"]
        tokens += point["supervised_tokens"]
        rows += point["rows"]
        if rows >= ROWS:
            least = min(least, loss / tokens)
    return TIMES * min(least, loss / tokens) + MORE


def diverging(curve: list[dict[str, float]], steps: int) -> bool:
    """Whether the last ten steps are above the limit (of a shorter training all but the first); one may be, by its
    rows."""
    size = min(WINDOW, max(1, steps - 1))
    last = [point["loss"] for point in curve[-size:]]
    return len(curve) > size and sum(last) / size > limit(curve)


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
