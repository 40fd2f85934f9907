"""What the rounds of a cell are made of: the members of its population, their prompts, and the rows that they keep."""

from __future__ import annotations

from dataclasses import dataclass, replace

from synthdiv.core.stage import Node
from synthdiv.mix.accumulate import Accumulate
from synthdiv.prompts.split import rank
from synthdiv.study.config import Cell
from synthdiv.study.generators import Student
from synthdiv.study.rounds import Data
from synthdiv.train.tokens import Tokens
from synthdiv.train.train import Train


@dataclass(frozen=True)
class Block:
    """The prompts of a round: `rows` of the train prompts from `first` on, those of human rows from `real_first` on.
    The grid of its shards covers `grid_rows`."""

    rows: int
    grid_rows: int
    first: int = 0
    real_first: int = 0
    round: int = 0


def population(cell: Cell) -> list[tuple[Student, Train]]:
    """The base and the recipe of each member."""
    rounds, train = cell.rounds, cell.train
    seeds = [train.seed, *(rank(train.seed, "member", number) % 2**32 for number in range(1, rounds.seeds))]
    if rounds.seeds > 1:
        return [(cell.student, replace(train, seed=seed)) for seed in seeds]
    return [(student, train) for student in (cell.student, *rounds.students)]


def of_member(cell: Cell) -> Cell:
    """The cell with the base and the recipe of the member that it evaluates."""
    student, train = population(cell)[cell.rounds.member]
    return replace(cell, student=student, train=train)


def fine_tuned(prompts: Node, base: Node, recipe: Train, mix: Node, start: Node | None = None) -> Node:
    """A student trained on a mix, from `start` or from its base."""
    tokens = Node(Tokens(), {"student": base, "mix": mix, "prompts": prompts})
    return Node(recipe, {"student": start or base, "mix": mix, "prompts": prompts, "tokens": tokens})


def decoded(cell: Cell, number: int) -> Cell:
    """The cell whose sources answer as if they had sampled from themselves `number` times, without a training."""
    sharper = cell.rounds.sampling.temperature**number
    models = [
        replace(each, sampling=replace(each.sampling, temperature=each.sampling.temperature * sharper))
        for each in cell.generators.models
    ]
    return replace(cell, generators=replace(cell.generators, models=models))


def kept(cell: Cell, sets: list[Node]) -> Node:
    """The rows that a member trains on, of those of its rounds so far."""
    if cell.rounds.data is Data.replace or len(sets) == 1:
        return sets[-1]
    counts: list[int] = [each.stage.rows for each in sets]  # type: ignore[attr-defined]
    if cell.rounds.data is Data.accumulate:
        stage = Accumulate(len(sets), sum(counts))
    else:
        stage = Accumulate(len(sets), counts[0], True, cell.generators.seed)
    return Node(stage, {"prompts": Node(cell.prompts)} | {str(number): each for number, each in enumerate(sets)})
