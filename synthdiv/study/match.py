"""Matching of budgets: cells that are compared train on equally much, or say that they do not."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import NamedTuple

from synthdiv.core.ledger import EARLY, LEFT_OUT
from synthdiv.core.stage import canonical_fields, digest
from synthdiv.generate.generate import Generate, Split
from synthdiv.mix.filters import Duplicates
from synthdiv.mix.fine_tuning_set import FineTuningSet
from synthdiv.mix.mix import Mix
from synthdiv.study.config import By, Cell
from synthdiv.study.expand import Point
from synthdiv.study.pipeline import Graph
from synthdiv.train.recipe import StopRule
from synthdiv.train.schedule import Match
from synthdiv.train.train import Train

BUDGET = ("match", "epochs", "budget", "stop", "evaluate_every", "patience", "overlong", "left_out")


class Budget(NamedTuple):
    """How much a cell trains: what is counted, how often, over how many rows of mix (0: it does not matter), whether it
    may end before, which share of the rows it may leave out, which prompts its mix leaves out, and by what filter."""

    match: str
    amount: float
    rows: int
    early: bool = False
    left_out: float = 0.0
    prompts: tuple[str, ...] = ()
    filter: str = ""

    def __str__(self) -> str:
        amount = f"{self.amount:g} epochs of {self.rows:,} rows" if self.rows else f"{self.amount:,g} {self.match}"
        amount += f" {LEFT_OUT} {self.left_out:.1%} of them" if self.left_out else ""
        amount += f", without {', '.join(self.prompts)}" if self.prompts else ""
        amount += f", {self.filter}" if self.filter else ""
        return f"{EARLY}, after at most {amount}" if self.early else amount


def mismatches(points: list[Point], graphs: list[Graph | None]) -> list[str]:
    """A problem for each comparison (equal prompts, student and recipe) whose arms do not have the same budgets.

    Several budgets are a budget sweep, and matched, where every arm has each of them. Cells that declare
    `report.unmatched` are left out.
    """
    compared: dict[tuple[str, ...], dict[Budget, list[tuple[Point, Graph]]]] = defaultdict(lambda: defaultdict(list))
    for point, graph in zip(points, graphs, strict=True):
        if graph and graph.train and not point.cell.report.unmatched:
            where = (graph.prompts.key, graph.student.key, recipe(graph))
            compared[where][budget(graph)].append((point, graph))
    writers: dict[str, str] = {}  # by the key of the mix: many cells share one
    problems = []
    for sizes in compared.values():
        arms: dict[str, dict[Budget, Point]] = defaultdict(dict)
        for size, cells in sizes.items() if len(sizes) > 1 else ():
            for point, graph in cells:
                assert graph.mix
                arm = writers.get(graph.mix.key) or writers.setdefault(graph.mix.key, sources(graph))
                arms[arm].setdefault(size, point)
        pairs = itertools.pairwise(arms.values())
        problems += [mismatch(one, other) for one, other in pairs if set(one) != set(other)]
    return problems


def mismatch(one: dict[Budget, Point], other: dict[Budget, Point]) -> str:
    """Both arms, each with a budget that the other does not have if there is one."""
    texts = []
    for budgets, others in ((one, other), (other, one)):
        size = next((size for size in budgets if size not in others), next(iter(budgets)))
        texts.append(f"`{' '.join(budgets[size].overrides) or 'no overrides'}` trains {size}")
    return (
        f"budgets of one comparison do not match: {' and '.join(texts)}. Give every arm the same mix.rows, "
        "mix.leave_out, filters, train.epochs and train.budget, or each of them to every arm (mix.spare replaces rows "
        "that filters remove); where they differ by design, say so with report.unmatched=true"
    )


def problems_of_filters(cell: Cell, stage: Mix) -> list[str]:
    """Filters that would change how much a cell trains, or that a level of diversity cannot have."""
    mix, removed = cell.mix, stage.filters()
    diversity = mix.diversity_of_level() if stage.sources else None
    if diversity and diversity.by is not By.sampling and mix.duplicates is not Duplicates.none:
        return [
            f"mix.duplicates={mix.duplicates.value}: equal answers are a part of a level of diversity, and a less "
            "diverse one would lose more rows; set mix.duplicates=none"
        ]
    needs, most = stage.further, cell.prompts.train_rows - stage.rows
    written = diversity and diversity.by in (By.paraphrase, By.topics)  # further pairs of these need no train prompts
    if most < needs and not (written and -1 not in stage.allocation()):
        return [f"mix.spare={mix.spare:g}: needs {needs:,} further prompts and there are {most:,}; lower mix.rows"]
    if not removed or mix.spare or cell.train.match is not Match.rows or cell.report.unmatched:
        return []
    return [
        f"mix.rows: the mix is {removed}, which leaves an unknown number of rows, and train.match=rows matches rows; "
        "set mix.spare=0.2, or train.match=steps train.budget=STEPS, or report.unmatched=true"
    ]


def mixed(graph: Graph) -> Mix:
    """The mix, or the newest one that the set of a round is made of."""
    assert graph.mix
    node = graph.mix
    while not isinstance(node.stage, Mix):
        node = node.inputs[str(node.stage.mixes - 1)]  # type: ignore[attr-defined]
    return node.stage


def budget(graph: Graph) -> Budget:
    """What is equal between arms by `train.match`, and how much of it."""
    assert graph.train
    stage = graph.train.stage
    assert isinstance(stage, Train)
    prompts = tuple(mixed(graph).leave_out)
    if stage.match is Match.rows:
        early = stage.stop is StopRule.early
        by = "" if mixed(graph).spare else mixed(graph).filters()
        return Budget(stage.match.value, stage.epochs, mixed(graph).rows, early, stage.left_out, prompts, by)
    return Budget(stage.match.value, stage.budget or 0, 0, prompts=prompts)


def unmatched(graph: Graph, declared: bool) -> str:
    """How much a cell trains, where that is not equal between arms: it says so, stops early, or leaves rows out."""
    size = budget(graph) if graph.train else None
    return str(size) if size and (declared or size.early or size.left_out) else ""


def recipe(graph: Graph) -> str:
    """How a cell trains, without how much and without its seed."""
    assert graph.train
    fields = canonical_fields(graph.train.stage)
    return digest({name: value for name, value in fields.items() if name not in (*BUDGET, "seed")})


def sources(graph: Graph) -> str:
    """Who wrote the mix and by what it is filtered, without how many rows and which."""
    assert graph.mix
    stage = mixed(graph)
    kinds, writers = set[str](), set[str]()
    for node in graph.mix.ancestry().values():  # the students of earlier rounds are told by what they were trained on
        if isinstance(node.stage, Generate) and node.stage.split is Split.train:
            model = node.inputs.get("model")
            known = "" if not model or isinstance(model.stage, Train) else model.key
            how = [node.stage.tuned, canonical_fields(node.stage.sampling)]
            writers.add(digest([node.stage.source, node.stage.round, *how, known]))
        elif isinstance(node.stage, FineTuningSet) and not isinstance(node.stage, Mix):
            kinds.add(digest(canonical_fields(node.stage) | {"rows": 0, "human": []}))
    real = (stage.real_share, stage.real_rows)
    return digest([stage.sources, stage.weights, real, stage.filters(), sorted(writers), sorted(kinds)])
