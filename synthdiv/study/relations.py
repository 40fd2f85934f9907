"""Relations of judges, student and sources, by the facts of their presets: who judges or teaches a relative.

A judge prefers texts of its own family, and traits pass between models of one base ("subliminal learning", Cloud et al.
2025, arXiv 2507.14805). So a related judge is never in a headline.
"""

from __future__ import annotations

from synthdiv.generate.spec import MODELLESS
from synthdiv.mix.round_rows import RoundFilter
from synthdiv.study.config import Cell
from synthdiv.study.generators import Generator, Judge, Model


def checkpoints(model: Model) -> set[str]:
    """The names of the checkpoint and of its base, in lower case; empty where none is known."""
    names = [model.facts.base]
    if model.checkpoint:
        names.append(model.checkpoint.hub or model.checkpoint.path or "")
    if model.gguf:
        names.append((model.gguf.package or "").partition("==")[0] or model.gguf.file or "")
    if isinstance(model, Generator) and model.hosted:
        names.append(model.hosted.id)
    return {name.casefold() for name in names if name}


def related(one: Model, other: Model) -> str:
    """How two models are related: `same_base`, `family`, or "" where nothing is known of a relation."""
    if checkpoints(one) & checkpoints(other):
        return "same_base"
    family = one.facts.family.casefold()
    return "family" if family and family == other.facts.family.casefold() else ""


def relations(cell: Cell, sources: list[Generator]) -> list[str]:
    """One sentence for each relation of this cell."""
    words = {"same_base": "has the base checkpoint of", "family": "is of the family of"}
    roles: list[tuple[str, Model]] = [("student", cell.student), *(("source", each) for each in sources)]
    lines = []
    for judge in active_judges(cell):
        lines += [
            f"judge {judge.name} {words[kind]} {role} {model.name}"
            for role, model in roles
            if (kind := related(judge, model))
        ]
    for source in sources:
        if kind := related(source, cell.student):
            lines.append(f"source {source.name} {words[kind]} student {cell.student.name}")
    return lines


def active_judges(cell: Cell) -> list[Judge]:
    """The judges, where a suite or a filter of rounds asks them."""
    verifies = cell.rounds.round and cell.rounds.filter is RoundFilter.verifier
    return cell.judge.models if verifies or any(suite.rubrics for suite in cell.evaluate.suites) else []


def problems_of_judges(cell: Cell) -> list[str]:
    """Members of the panel that are related to the student, to a generator of the preset or to each other, or of which
    no family is known, and suites that need judges where there are none. Every generator counts, so that all arms have
    the same panel."""
    problems = []
    for index, suite in enumerate(cell.evaluate.suites):
        if suite.rubrics and not cell.judge.models:
            problems.append(
                f"evaluate.suites.{index}: suite {suite.suite} asks judges and judge.models is empty; choose "
                "judge=rules, judge=toy or judge=panel, or leave the suite out"
            )
    members = [(index, judge) for index, judge in enumerate(active_judges(cell)) if judge.headline]
    for place, (index, judge) in enumerate(members):
        others: list[Model] = [cell.student, *cell.rounds.students, *cell.generators.models]
        others += [other for _, other in members[:place]]
        relatives = [other.name for other in others if related(judge, other)]
        if relatives:
            problems.append(
                f"judge.models.{index}.headline=true: {judge.name} is related to {', '.join(relatives)} (facts.family, "
                f"facts.base), so its scores cannot be a headline; set judge.models.{index}.headline=false"
            )
        elif judge.backend not in MODELLESS and not judge.facts.family:
            name = f"judge.models.{index}"
            problems.append(
                f"{name}.facts.family: the family of {judge.name} is not known, so it may be related to what it "
                f"judges; set {name}.facts.family=FAMILY, or {name}.headline=false"
            )
    return problems
