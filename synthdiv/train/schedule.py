"""Which rows each step trains on: settled before the first step, so that a budget is exact and a resume exact too."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from synthdiv.core.lazy import np
from synthdiv.train.rows import Row


class Match(Enum):
    """What is held equal between arms, and so what a budget counts."""

    rows = "rows"
    supervised_tokens = "supervised_tokens"
    steps = "steps"


def order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the rows for one epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(rows)


def schedule(
    supervised: list[int], batch_rows: int, match: Match, budget: int, seed: int, parted: bool = False
) -> list[list[int]]:
    """Row numbers of each optimizer step: `batch_rows` rows, epoch after epoch, that stop exactly at `budget`.

    `supervised` are supervised tokens per row. The budget counts row presentations, optimizer steps or supervised
    tokens; of tokens the last row is the one that reaches the budget (`exact` cuts it there).
    `parted`: no step takes rows of two epochs, as in the Trainer of transformers; the last of an epoch may be short.
    """
    steps: list[list[int]] = []
    pending: list[int] = []
    spent, epoch = 0, 0
    while True:
        for row in order(len(supervised), seed, epoch):
            pending.append(int(row))
            spent += supervised[row] if match is Match.supervised_tokens else match is Match.rows
            full = len(pending) == batch_rows
            spent_all = spent >= budget if match is not Match.steps else full and len(steps) + 1 == budget
            if full or spent_all:
                steps.append(pending)
                pending = []
            if spent_all:
                return steps
        if parted and pending:
            steps.append(pending)
            pending = []
        epoch += 1


def exact(rows: list[Row], steps: list[list[int]], budget: int) -> tuple[list[Row], list[list[int]]]:
    """The last row of the last step without its supervised tokens beyond `budget`: arms then differ by none."""
    surplus = sum(rows[number].supervised for step in steps for number in step) - budget
    if not surplus:
        return rows, steps
    last = rows[steps[-1][-1]]
    return [*rows, replace(last, ids=last.ids[:-surplus])], [*steps[:-1], [*steps[-1][:-1], len(rows)]]
