"""A training that diverges: when a loss is too high, and the error that names the rows of the step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection

from synthdiv.core.types import DataError

STEPS, ROWS, BEGINNING = 10, 64, 32  # a window has at least so many steps and rows, the beginning so many rows
TIMES, MORE = 2.0, 1.0  # how far above the least mean so far another may be (nats)
SHORT = (3, 8)  # steps and rows after the beginning by which a training without a window is judged at its end
NAMED = 5
Point = tuple[float, float, float]  # of one step: summed loss, supervised tokens, rows


class Diverged(DataError):
    """Training cannot go on. `rows` are loss and name of each row of the step; `before`: under the weights before it,
    which are worth keeping (`good`) if most of these losses are within `limit`."""

    def __init__(self, problem: str, rows: list[tuple[float, str]], limit: float, before: bool):
        order = sorted(rows, key=lambda row: (math.isfinite(row[0]), -row[0]))
        named = ", ".join(f"{name} ({loss:.3g})" for loss, name in order[:NAMED])
        super().__init__(f"{problem}; its rows with the highest loss are {named}")
        fine = sum(loss <= limit for loss, _ in rows)  # NaN is not
        self.good = before and 2 * fine > len(rows)


class LossWatch:
    """Losses of a training by windows, weighted by supervised tokens: single steps differ by their rows."""

    def __init__(self, curve: list[dict[str, float]]):
        self.window: deque[Point] = deque()
        self.later: list[Point] = []  # the steps after the beginning, until there is a window
        self.least, self.mean, self.complete = math.inf, math.nan, False
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
            self.complete, self.least = True, min(self.least, self.mean)
        elif self.least < math.inf:
            self.later.append(self.window[-1])
        elif rows >= BEGINNING:
            self.least = self.mean

    def diverges(self, last: bool) -> bool:
        """Whether the mean loss of the window is above the limit. A training too short for a window is judged at its
        `last` step, by all steps after its beginning."""
        if last and not self.complete and len(self.later) >= SHORT[0]:
            self.mean = mean(self.later)
            return sum(rows for *_, rows in self.later) >= SHORT[1] and self.mean > self.limit
        return self.complete and self.mean > self.limit


def mean(points: Collection[Point]) -> float:
    return sum(loss for loss, *_ in points) / sum(tokens for _, tokens, _ in points)
