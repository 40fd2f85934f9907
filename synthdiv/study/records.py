"""A cell and a node as rows of the ledger: axes, seeds, arm."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from synthdiv.core.fields import blocks, dotted
from synthdiv.core.ledger import NOT_APPLICABLE, CellRecord, NodeRecord
from synthdiv.core.stage import Node
from synthdiv.generate.spec import Backend
from synthdiv.study.config import Cell, Kind
from synthdiv.study.expand import Point
from synthdiv.study.generators import Generator
from synthdiv.study.lineage import of_member, population
from synthdiv.study.match import unmatched
from synthdiv.study.origin import NOT_IDENTITY
from synthdiv.study.pipeline import Graph, Known, graph, rotates, shares
from synthdiv.study.relations import relations
from synthdiv.study.rounds import STUDENTS_OF, Lineage, Writers

SHOWN = ("mix.rows", "mix.real_share", "mix.source", "mix.kind")  # axes of every cell, under a shorter name
BY_SOURCES = ("mix.real_rows", "mix.level", "mix.diversity", "mix.temperatures", "mix.tolerance")
OF_FAMILIES = ("generators.overlap", "generators.shift")


def cell_record(point: Point, item: Graph, known: Known | None = None) -> CellRecord:
    """The row of `cells.jsonl` for one point. Points with the same `known` share what their graphs have alike."""
    in_rounds = item.mix and point.cell.rounds.round
    return CellRecord(
        key=item.key,
        arm=arm(point.cell, known),
        overrides=list(point.overrides),
        axes=axes(point, item),
        seeds=seeds(point.cell, item),
        responses={name: node.key for name, node in item.responses.items()},
        suites={name: node.key for name, node in item.suites.items()},
        vanilla={name: node.key for name, node in item.vanilla.items()},
        nodes=list(item.nodes()),
        train=item.train.key if item.train else None,
        prompts=item.prompts.key,
        config=list(point.config),
        unmatched=unmatched(item, point.cell.report.unmatched),
        relations=relations(of_member(point.cell), used_sources(point.cell, item)),
        licences={"student": of_member(point.cell).student.facts.licence}
        | {source.name: source.facts.licence for source in used_sources(point.cell, item)}
        | {f"student-{at}": each.facts.licence for at, (each, _) in enumerate(population(point.cell)) if in_rounds},
    )


def node_record(node: Node) -> NodeRecord:
    """The row of `graph.jsonl`: all fields, locators included, so that a worker can build it."""
    inputs = {name: inner.key for name, inner in node.inputs.items()}
    return NodeRecord(node.key, node.stage.name, inputs, plain(node.stage))


def plain(record: Any) -> Any:
    """A dataclass as JSON data."""
    return json.loads(json.dumps(dataclasses.asdict(record), default=attrgetter("value")))  # of an enum


def used_sources(cell: Cell, item: Graph) -> list[Generator]:
    return shares(cell)[0] if item.mix else []


def axes(point: Point, item: Graph) -> dict[str, Any]:
    """Flat axes of a cell, `n/a` where the graph shows that an axis made no difference."""
    cell, sources = point.cell, used_sources(point.cell, item)
    groups = {
        group: point.choices.get(group, "")
        for group in ("prompts", "generators", "student", "train", "evaluate", "judge")
    }
    mix = "human" if item.mix and not sources else cell.mix.kind.value
    later = item.mix is not None and cell.rounds.round > 0 and cell.rounds.writers is Writers.students
    values: dict[str, Any] = {
        **groups,
        "mix": STUDENTS_OF + mix if later and mix == "human" else mix,
        "source": source_label(cell, sources),
        "rows": cell.mix.rows or cell.prompts.train_rows,
        "real_share": (cell.rounds.real_share if later else shares(cell)[2]) if item.mix else NOT_APPLICABLE,
    }
    if point.choices.get("rounds", "none") != "none":
        values |= {"rounds": point.choices["rounds"], "rounds.round": str(cell.rounds.round)}
        values["mix.real_share"] = shares(cell)[2] if sources else NOT_APPLICABLE  # in round 0 that of all rows
    seed_names = {name for name, _, _ in seed_fields(cell)}
    for override in point.overrides:
        key, value = override.split("=", 1)
        if "." in key and key not in SHOWN and key not in seed_names and key.split(".")[0] not in NOT_IDENTITY:
            values[key] = value
            if key in OF_FAMILIES and takes_speech(cell, key):
                values[f"student.pretrain.toy.{key.split('.')[1]}"] = value
    if (diversity := cell.mix.diversity_of_level()) and sources:
        level = "random" if cell.mix.level is None else cell.mix.level
        values |= {"mix.diversity.by": diversity.by.value, "mix.level": level}
    return {key: value if matters(key, cell, item) else NOT_APPLICABLE for key, value in values.items()}


def source_label(cell: Cell, sources: list[Generator]) -> str:
    """The one source of a mix; where nobody chose it, it says of how many it is the first."""
    if len(sources) != 1:
        return NOT_APPLICABLE
    count = len(cell.generators.models)
    return sources[0].name + (f" (1 of {count} sources)" if cell.mix.source is None and count > 1 else "")


def matters(key: str, cell: Cell, item: Graph) -> bool:
    """Whether the axis or the seed `key` can make a difference to this cell."""
    group, sources = key.split(".")[0], used_sources(cell, item)
    if key.startswith("generators.models."):
        return cell.generators.models[int(key.split(".")[2])].name in [source.name for source in sources]
    matched = bool(sources) and cell.mix.kind is Kind.single_matched
    sampled = any(source.backend is not Backend.recorded for source in sources)
    if key == "generators.seed":
        return sampled
    if key == "mix.sample":
        return sampled or (bool(sources) and cell.generators.samples > 1)
    if key == "mix.real_rotation":
        return item.mix is not None and rotates(cell)
    if key in OF_FAMILIES:
        return any(speaks_by(source, key.split(".")[1], matched) for source in sources)
    if group == "generators":
        return bool(sources)
    if group == "judge":
        return any(suite.rubrics for suite in cell.evaluate.suites)
    if key in ("mix.weights", "mix.rotation"):
        return len(sources) > 1 or matched
    if key in ("mix.temperatures", "mix.tolerance"):
        return matched
    if key.startswith(BY_SOURCES):
        return bool(sources)
    if group == "rounds":
        return key == "rounds.round" or matters_in_rounds(key, cell)
    if group in ("train", "rows") or key.startswith("mix."):
        return item.train is not None
    return True


def speaks_by(source: Generator, name: str, matched: bool) -> bool:
    """Whether a source is a family of the toy world that takes `overlap` or `shift` from all: the first one has no
    shift, but where it is matched to several its temperature depends on theirs."""
    speech = source.law or (source.pretrain and source.pretrain.toy)
    if not speech:
        return False
    return matched or (getattr(speech, name) is None and (name != "shift" or bool(speech.family)))


def takes_speech(cell: Cell, key: str) -> bool:
    """Whether the student is pre-trained as a family of the toy world, which takes what it leaves out from `key`."""
    corpus = cell.student.pretrain and cell.student.pretrain.toy
    return bool(corpus and corpus.family is not None and getattr(corpus, key.split(".")[1]) is None)


def matters_in_rounds(key: str, cell: Cell) -> bool:
    """Whether an axis of the rounds can make a difference. Round 0 is that of any study, but for segments."""
    rounds = cell.rounds
    if key == "rounds.member":
        return rounds.size > 1
    if cell.mix.kind is Kind.none:
        return False
    if key in ("rounds.seeds", "rounds.students") and rounds.lineage is Lineage.single:
        return False  # how many others there are
    return rounds.round > 0 or rounds.lineage is Lineage.segmented


def seed_fields(record: Any, name: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every field that is marked as a seed: its dotted name, the block it is in, and its name there."""
    for item in dataclasses.fields(record):
        if item.metadata.get("seed"):
            yield dotted(name, item.name), record, item.name
    for place, block in blocks(record, name):
        yield from seed_fields(block, place)


def seeds(cell: Cell, item: Graph) -> dict[str, Any]:
    """What tells the replicates of an arm apart; those of generators are in `generators.seed`."""
    values = {name: getattr(block, field) for name, block, field in seed_fields(cell)}
    values = {name: value for name, value in values.items() if not name.startswith(("generators.models.", "rounds."))}
    values.setdefault("student.pretrain.seed", NOT_APPLICABLE)
    return {name: value if matters(name, cell, item) else NOT_APPLICABLE for name, value in values.items()}


def arm(cell: Cell, known: Known | None = None) -> str:
    """The key of a cell with all seeds at 0: the cells of one arm differ in seeds and rotation alone."""
    bare = copy.deepcopy(cell)
    for _, block, field in seed_fields(bare):
        setattr(block, field, 0)
    return graph(bare, known).key
