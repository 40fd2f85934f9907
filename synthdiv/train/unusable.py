"""A training that has gone wrong: what its loss says, and which rows were there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from synthdiv.train.held_out import mean_loss
from synthdiv.train.rows import Rows
from synthdiv.train.strategies import Alone

STEPS, ROWS, BEGINNING = 10, 64, 32  # a window has at least so many steps and rows, the beginning so many rows
TIMES, MORE = 2.0, 1.0  # how far above the least mean so far another may be (nats)
SHORT = (3, 8)  # steps and rows behind the beginning by which a training without a window is judged at its end
NAMED = 5


class Unusable(Exception):
    """Training cannot go on; `good` says whether the weights are worth keeping."""

    def __init__(self, told: str, good: bool):
        super().__init__(told)
        self.good = good


class Watch:
    """Losses of a training by windows, weighed by supervised tokens: single steps differ by their rows."""

    def __init__(self, curve: list[dict[str, float]]):
        self.window: deque[tuple[float, float, float]] = deque()
        self.behind: list[tuple[float, float, float]] = []  # the beginning, until there is a window
        self.least, self.mean, self.complete, self.high = math.inf, math.nan, False, False
        for point in curve:
            self.add(point)

    @property
    def limit(self) -> float:
        return TIMES * self.least + MORE

    def add(self, point: dict[str, float]) -> None:
        tokens = point["supervised_tokens"]
        self.window.append((point["loss"] * tokens, tokens, point["rows"]))
        while len(self.window) > STEPS and sum(rows for *_, rows in self.window) - self.window[0][2] >= ROWS:
            self.window.popleft()
        self.mean = mean(self.window)
        rows = sum(rows for *_, rows in self.window)
        if len(self.window) >= STEPS and rows >= ROWS:
            self.complete, self.high = True, self.mean > self.limit
            self.least = min(self.least, self.mean)
        elif self.least < math.inf:
            self.behind.append(self.window[-1])
        elif rows >= BEGINNING:
            self.least = self.mean

    def diverges(self, last: bool) -> bool:
        """Whether the window is above the limit; of a training too short for one (`last`: it ends here) all that is
        behind its beginning."""
        if last and not self.complete and len(self.behind) >= SHORT[0]:
            self.mean = mean(self.behind)
            return sum(rows for *_, rows in self.behind) >= SHORT[1] and self.mean > self.limit
        return self.high


def mean(points: Iterable[tuple[float, float, float]]) -> float:
    points = list(points)
    return sum(loss for loss, *_ in points) / sum(tokens for _, tokens, _ in points)


def row_losses(over: Alone, rows: Rows, chosen: list[int]) -> dict[int, float]:
    """Loss of each row of a step, one by one, the same on all ranks."""
    return {number: mean_loss(over, [rows.rows[number]], 0) for number in chosen}


def unusable(told: str, step: int, limit: float, losses: dict[int, float], rows: Rows, before: bool) -> Unusable:
    """`before`: the weights are still those before this step. They are good if most of its rows find them so."""
    order = sorted(losses, key=lambda number: (math.isfinite(losses[number]), -losses[number]))
    named = ", ".join(f"{rows.rows[number].id or number} ({losses[number]:.3g})" for number in order[:NAMED])
    fine = sum(loss <= limit for loss in losses.values())  # NaN is not
    good = before and 2 * fine > len(losses)
    return Unusable(f"{told} at step {step}; its rows with the highest loss are {named}", good)
