"""Nodes into jobs of a cluster: those that share a model and need the same resources go together, in few jobs.

A job begins when all jobs are over that build what its nodes take. So a node joins a job only if that makes no other
job wait longer than it must: where it takes the model that this job makes or has open, or waits for the same jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError

Alike = tuple[Hashable, frozenset[int], frozenset[str]]  # a shape, the jobs to wait for, the models that are opened


@dataclass
class Packed:
    """A job to be. `shape` is what it needs; `after` are the jobs that must be over; `before` those and theirs."""

    shape: Hashable
    nodes: list[Node] = field(default_factory=list)
    models: set[str] = field(default_factory=set)
    after: set[int] = field(default_factory=set)
    before: set[int] = field(default_factory=set)
    level: int = 0
    closed: bool = False  # a training waits for it: nothing may make it longer


def pack(nodes: Iterable[Node], shape: Callable[[Node], Hashable], group: int, most: int) -> list[Packed]:
    """Jobs of at most `group` nodes, each after those it waits for; larger ones where there would be over `most`.

    `nodes` come inputs first; inputs that are not among them are there already. A job trains at most one model.
    """
    nodes = list(nodes)
    awaited = {inner.key for node in nodes if node.stage.model for inner in node.inputs.values() if inner.stage.model}
    jobs: list[Packed] = []
    where: dict[str, int] = {}
    alike: dict[Alike, int] = {}  # the last job of its kind
    for node in nodes:
        models = {inner.key for inner in node.inputs.values() if inner.stage.model}
        after = {where[inner.key] for inner in node.inputs.values() if inner.key in where}
        after -= set().union(*(jobs[other].before for other in after))  # what these wait for is over then
        kind = (shape(node), frozenset(after), frozenset(models))
        number = _joins(node, models, after, kind, jobs, alike, group)
        if number is None:
            number = len(jobs)
            before = after.union(*(jobs[other].before for other in after))
            level = max((jobs[other].level for other in after), default=-1) + 1
            jobs.append(Packed(kind[0], after=after, before=before, level=level))
            if not node.stage.model:  # who joins would wait for the training
                alike[kind] = number
        jobs[number].nodes.append(node)
        jobs[number].closed |= node.key in awaited
        jobs[number].models |= models | ({node.key} if node.stage.model else set())
        where[node.key] = number
    return _fitted(jobs, most)


def _joins(
    node: Node,
    models: set[str],
    after: set[int],
    kind: Alike,
    jobs: list[Packed],
    alike: dict[Alike, int],
    group: int,
) -> int | None:
    """The job that a node joins, or None."""
    if node.stage.model:
        return None
    for number in sorted(after, reverse=True):
        job = jobs[number]
        open_ = job.shape == kind[0] and len(job.nodes) < group and not job.closed
        if open_ and models & job.models and after <= job.before | {number}:
            return number
    found = alike.get(kind)
    return found if found is not None and len(jobs[found].nodes) < group else None


def _fitted(jobs: list[Packed], most: int) -> list[Packed]:
    """Join jobs two by two until there are `most`, and no more than that takes."""
    while len(jobs) > most:
        joins = _pairs(jobs, len(jobs) - most)
        if not joins:
            raise ConfigError(
                f"this sweep needs {len(jobs)} jobs one after the other and the cluster lets you queue {most}; "
                "wait until some of yours are over, or launch a part of the sweep"
            )
        kept: list[Packed] = []
        place: dict[int, int] = {}
        for number, job in enumerate(jobs):
            if number in joins:
                place[number] = place[joins[number]]
                kept[place[number]].nodes += job.nodes
                kept[place[number]].after |= job.after
            else:
                place[number] = len(kept)
                kept.append(job)
        jobs = kept
        for job in jobs:
            job.after = {place[number] for number in job.after}
    return jobs


def _pairs(jobs: list[Packed], most: int) -> dict[int, int]:
    """Up to `most` jobs, each with an earlier one to join: of one shape and level, so neither waits for the other.
    Those that train nothing come first: of all that a job may have to wait for, a training takes longest."""
    found: dict[int, int] = {}
    alone: dict[tuple[int, Hashable], int] = {}
    for number in sorted(range(len(jobs)), key=lambda number: any(node.stage.model for node in jobs[number].nodes)):
        if len(found) == most:
            break
        kind = (jobs[number].level, jobs[number].shape)
        if kind in alone:
            one, other = sorted((alone.pop(kind), number))
            found[other] = one
        else:
            alone[kind] = number
    return found


def arrays(jobs: list[Packed], most: int) -> list[list[int]]:
    """The numbers of the jobs that go into one array of at most `most` elements: of one shape, after the same jobs.

    Arrays come after those that they wait for.
    """
    found: dict[tuple[int, Hashable, frozenset[int]], list[int]] = {}
    for number, job in enumerate(jobs):
        found.setdefault((job.level, job.shape, frozenset(job.after)), []).append(number)
    ordered = sorted(found.items(), key=lambda item: item[0][0])
    return [numbers[start : start + most] for _, numbers in ordered for start in range(0, len(numbers), most)]
