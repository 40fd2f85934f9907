"""From cells to a frozen sweep: resolve locators, check everything, build the graphs, write the ledger's records."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from synthdiv.core.fields import blocks
from synthdiv.core.fields import problems as problems_of
from synthdiv.core.ledger import CellRecord
from synthdiv.core.resolver import Resolver, Unresolved
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError, DataError
from synthdiv.mix.written import REPLACED
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.gguf import Gguf
from synthdiv.study.answerable import unanswerable
from synthdiv.study.config import SINGLES, By, Cell, Kind
from synthdiv.study.expand import Point
from synthdiv.study.generators import Generator, Model
from synthdiv.study.lineage import problems_of_rounds
from synthdiv.study.match import mismatches, problems_of_filters
from synthdiv.study.pipeline import Graph, Known, fine_tuning_set, graph, once, shares
from synthdiv.study.records import cell_record
from synthdiv.study.relations import active_judges, problems_of_judges
from synthdiv.study.student_fit import unfit
from synthdiv.train.pretrain import Pretrain

LEVEL_STEP = 0.05  # by which a level may differ from the one that a number of topics gives
UNKNOWN = "unresolved:"  # prefix of a placeholder for a commit that only the hub knows


@dataclass
class Frozen:
    """A sweep ready to run: its points with their graphs (None where not even their shape is known), and the union of
    the nodes. `unresolved` says what a launch will have to ask for."""

    points: list[Point]
    graphs: list[Graph | None]
    unresolved: list[str] = field(default_factory=list)

    def nodes(self) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for item in self.graphs:
            if item:
                item.gather(nodes)
        return nodes

    def records(self) -> list[CellRecord]:
        pairs, known = zip(self.points, self.graphs, strict=True), Known()
        return [cell_record(point, item, known) for point, item in pairs if item]


def freeze(points: list[Point], resolver: Resolver, problems: Iterable[str] = ()) -> Frozen:
    """Resolve and check every cell before anything runs; all problems come at once, beside those given."""
    wrong: dict[str, list[str]] = {}  # each problem with the cells that have it
    frozen, known = Frozen(points, []), Known()
    for point in points:
        try:
            inside = (once(known, problems_of, block, name) for name, block in blocks(point.cell, ""))
            messages = [*point.cell.check(""), *itertools.chain(*inside)]
            messages = messages or resolve(point.cell, resolver, frozen.unresolved) or check(point.cell)
        except Unresolved as note:
            frozen.graphs.append(None)
            frozen.unresolved.append(str(note))
            continue
        words = " ".join(word for word in point.overrides if not word.startswith("runtime."))  # these may be secret
        for message in messages:
            wrong.setdefault(message, []).append(words or "(no overrides)")
        frozen.graphs.append(item := None if wrong else graph(point.cell, known))
        if item and not item.suites:
            wrong["evaluate.suites: none applies to this cell; choose another preset of evaluate"] = [words]
    resolver.save()
    refused = [*problems, *listed(wrong, len(points))]
    if not wrong:
        nodes = frozen.nodes().values()
        refused += [*mismatches(points, frozen.graphs), *unfit(nodes), *unanswerable(nodes)]
    if refused:
        raise ConfigError(refused)
    return frozen


def listed(wrong: dict[str, list[str]], cells: int) -> list[str]:
    """Each problem with the cells that have it; those that differ in numbers alone are one line."""
    alike: dict[str, list[str]] = {}
    for text in wrong:
        alike.setdefault(re.sub(r"\d[\d.e+-]*", "0", text), []).append(text)
    lines = []
    for first, *others in alike.values():
        cells_of = list(dict.fromkeys(cell for text in (first, *others) for cell in wrong[text]))
        more = f" (and {len(others)} more like this)" if others else ""
        place = f" [in {len(cells_of)} of {cells} cells, first: {cells_of[0]}]" if cells > 1 else ""
        lines.append(f"{first}{more}{place}")
    return lines


def resolve(cell: Cell, resolver: Resolver, unresolved: list[str]) -> list[str]:
    """Fill in the identities of all that this cell reads; return the problems. What it does not use is left alone.

    A commit that cannot be known offline is marked in its place, so that a plan still has the shape of the graph.
    """
    parts: list[tuple[str, Callable[[], None]]] = []

    def add(prefix: str, *located: Any) -> None:
        parts.extend((prefix, partial(settle, part, resolver, unresolved)) for part in located)

    add("", cell.prompts)
    add("student.", *models(cell.student))
    for index, student in enumerate(cell.rounds.students):
        add(f"rounds.students.{index}.", *models(student))
    for index, suite in enumerate(cell.evaluate.suites):
        for name, part in [*suite.models().items(), *suite.prompt_sets().items()]:
            add(f"evaluate.suites.{index}.{name}: ", part)
    if (diversity := cell.mix.diversity) and diversity.encoder and cell.mix.kind is not Kind.none:
        add("mix.diversity.encoder: ", diversity.encoder)
    for index, judge in enumerate(active_judges(cell)):
        add(f"judge.models.{index}.", *models(judge))
    problems = problems_of_sources(cell)
    if cell.mix.kind is not Kind.none and not problems:
        matched = cell.mix.kind is Kind.single_matched
        used = [source.name for source in (cell.generators.models if matched else shares(cell)[0])]
        for index, source in enumerate(cell.generators.models):
            name = f"generators.models.{index}"
            if source.name in used:
                add(f"{name}.", *models(source))
                if source.recorded:
                    place = (resolver, f"{name}.recorded", cell.generators.samples)
                    parts.append(("", partial(source.recorded.resolve, *place)))
    for prefix, part in parts:
        try:
            part()
        except ConfigError as error:
            problems += [f"{prefix}{problem}" for problem in error.problems]
        except DataError as error:
            problems.append(str(error))
    return problems


def settle(part: Any, resolver: Resolver, unresolved: list[str]) -> None:
    """Resolve a model or a prompt set. One of the hub whose commit is unknown offline gets a placeholder of its own, a
    prompt set only if its number of rows is pinned: a graph needs that."""
    try:
        part.resolve(resolver)
    except Unresolved as note:
        place: Any = part if isinstance(part, Checkpoint) else part.table
        if place is not part and not place.rows:
            raise
        place.commit = f"{UNKNOWN} {place.hub} {place.revision}"
        unresolved.append(str(note))


def unresolved(node: Node) -> bool:
    """Whether this is a hub model or data set whose commit is unknown offline."""
    place = getattr(node.stage, "table", None) or node.stage
    return getattr(place, "commit", "").startswith(UNKNOWN)


def models(spec: Model) -> list[Checkpoint | Pretrain | Gguf]:
    """The models of a student or a generator."""
    return [part for part in (spec.checkpoint, spec.pretrain, spec.gguf) if part]


def problems_of_sources(cell: Cell) -> list[str]:
    """Problems of the sources of the mix."""
    mix, models = cell.mix, cell.generators.models
    names, kind = [source.name for source in models], mix.kind.value
    if mix.kind is Kind.none or mix.kind is Kind.human:
        return []
    if not models:
        return [f"mix={kind}: needs generators, and generators.models is empty; choose generators=…"]
    if mix.kind in SINGLES:
        if mix.source is not None and mix.source not in names:
            return [f"mix.source={mix.source}: no such generator; choose {', '.join(names)}"]
        fixed = [source for source in shares(cell)[0] if source.recorded]
        if mix.kind is Kind.single or not shares(cell)[0]:
            return []
        if fixed:
            return [f"mix={kind}: {fixed[0].name} answers from a file, at one temperature; choose another mix.source"]
        kind = Kind.multi.value  # whose likelihood it has
    weights = mix.weights or [1.0] * len(models)
    if len(weights) != len(models) or not all(math.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
        return [f"mix.weights={mix.weights}: needs one weight of 0 or more, not all 0, for each of {', '.join(names)}"]
    used = [source for source, weight in zip(models, weights, strict=True) if weight > 0]
    return problems_of_families(kind, used)


def problems_of_families(kind: str, used: list[Generator]) -> list[str]:
    """`multi` is several families; several decodings of one family are `multi_decoding`."""
    families = {source.facts.family for source in used}
    families_of = ", ".join(f"{source.name} of {source.facts.family or '?'}" for source in used)
    if len(used) < 2:
        return [f"mix={kind}: needs at least two generators with a weight, has {families_of}"]
    if "" in families:
        return [f"mix={kind}: needs facts.family of each generator to tell families apart; has {families_of}"]
    if kind == "multi" and len(families) < 2:
        return [
            f"mix=multi: needs at least two families, has {families_of}; decodings of one family are mix=multi_decoding"
        ]
    if kind == "multi_decoding" and len(families) > 1:
        return [f"mix=multi_decoding: needs one family, has {families_of}; several families are mix=multi"]
    return []


def check(cell: Cell) -> list[str]:
    """Problems that only a resolved cell shows: rows that do not exist, answers that are missing."""
    mix, have = cell.mix, cell.prompts.train_rows
    problems = [*cell.prompts.check("prompts"), *problems_of_judges(cell), *problems_of_rounds(cell)]
    sources = [] if mix.kind is Kind.none else shares(cell)[0]
    specs: list[Model] = [cell.student, *cell.rounds.students, *sources]
    for spec in specs:
        if not cell.prompts.toy and ((spec.pretrain and spec.pretrain.toy) or getattr(spec, "law", None)):
            problems.append(f"{spec.name}: a toy model speaks of the world of prompts=toy; choose that, or another one")
    if mix.kind is Kind.none or problems:
        return problems
    diversity = mix.diversity_of_level() if sources else None
    diversity = diversity if diversity and diversity.by is By.selection else None
    if diversity and not mix.rows:
        mix.rows = max(1, have // 4)
    rows = mix.rows or have
    if rows > have:
        less = f"{cell.prompts.rows} rows less {cell.prompts.test} test and {cell.prompts.target} target"
        return [f"mix.rows={rows}: needs {rows} train prompts and there are {have} ({less})"]
    rounds = cell.rounds
    taken = cell.generators.samples
    if sources and not 0 <= mix.sample < taken:
        problems.append(f"mix.sample={mix.sample}: the answers to a prompt are {taken} a source here, counted from 0")
    if mix.real_rows and mix.kind is not Kind.human and (mix.real_share or mix.real_rows > rows):
        problems.append(f"mix.real_rows={mix.real_rows}: at most the {rows:,} rows of the mix, and mix.real_share=0")
    if diversity and rows >= have + (taken > 1):
        problems.append(f"mix.rows={rows}: mix.level has no choice among {have} prompts; set mix.rows={have // 4}")
    problems += problems_of_written(cell) if sources else []
    if diversity and (rounds.round or rounds.size > 1):
        problems.append("mix.level: rows are selected in round 0 of one student; choose rounds=none, or by=sampling")
    if diversity and diversity.near < 1 and not cell.prompts.target:
        problems.append(
            f"mix.diversity.near={diversity.near}: needs the split that it is near to; set prompts.target=200"
        )
    problems += [problem for index, each in enumerate(sources) for problem in each.check(f"generators.models.{index}")]
    stage = fine_tuning_set(cell)
    problems += problems_of_filters(cell, stage)
    if 0 < mix.max_words < mix.min_words:
        problems.append(f"mix.max_words={mix.max_words}: needs mix.min_words={mix.min_words} or more")
    allocation = stage.allocation()
    real = allocation.count(-1)
    free = have - real - stage.further * (real > 0)
    if diversity and (pool := round(diversity.near * taken * free)) < rows - real:
        problems.append(
            f"mix.diversity.near={diversity.near}: leaves {pool} answers to select {rows - real} rows from; raise it, "
            "or generators.samples, or lower mix.rows"
        )
    if real and not cell.prompts.human:
        problems.append(
            f"the mix needs {real:,} human answers and the prompts have none (prompts.table.columns.response=null)"
        )
    for index, source in enumerate(sources):
        if not source.recorded:
            continue
        need = allocation.count(index)
        if source.recorded.rows + len(mix.leave_out) < need:
            enough = f" prompts with {taken} answers (generators.samples)" if taken > 1 else ""
            problems.append(
                f"{source.name}: the mix needs {need} answers of it and {source.recorded.path} has "
                f"{source.recorded.rows}{enough}; lower mix.rows, give it less weight, or take another source"
            )
    return problems


def problems_of_written(cell: Cell) -> list[str]:
    """What rows that are written cannot stand beside, and a level that its topics do not give."""
    mix, diversity = cell.mix, cell.mix.diversity_of_level()
    if not diversity or diversity.by not in (By.paraphrase, By.topics):
        return []
    option = f"mix.diversity.by={diversity.by.value}"
    problems = [f"mix.real_rows: {option} has a share of human rows; set mix.real_share"] * bool(mix.real_rows)
    if cell.rounds.round or cell.rounds.size > 1:
        problems.append(f"{option}: is of round 0 of one student; choose rounds=none")
    if diversity.by is By.paraphrase and not problems:
        written = (mix.rows or cell.prompts.train_rows) - fine_tuning_set(cell).allocation().count(-1)
        if round(REPLACED * (1 - (mix.level or 0.0)) * written) >= written:
            problems.append(
                f"mix.level={mix.level}: of {written} generated rows none stays to be paraphrased; set mix.rows=10 or "
                "more, or a higher level"
            )
    if diversity.by is By.topics:
        level, most = mix.level or 0.0, len(diversity.topics) - 1
        closest = (len(diversity.topics_at(level)) - 1) / most
        if abs(closest - level) > LEVEL_STEP:
            problems.append(f"mix.level={level}: {most + 1} topics do not give it; the closest is {closest:.3g}")
    return problems
