"""Nodes into jobs of a cluster: those that share a model and need the same resources go together, in few jobs.

A job starts when all jobs have ended that build the inputs of its nodes. So a node joins a job only where no other job
waits longer for it: where it takes the model that this job makes or has open, or waits for the same jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError

Kind = tuple[Hashable, frozenset[int], frozenset[str]]  # a shape, the jobs to wait for, the models that are opened


@dataclass
class Packed:
    """A job before it is submitted."""

    shape: Hashable
    """The resources that it needs."""
    nodes: list[Node] = field(default_factory=list)
    """What it builds, in this order."""
    models: set[str] = field(default_factory=set)
    """Keys of the models that it makes or opens."""
    after: set[int] = field(default_factory=set)
    """Numbers of the jobs that must have ended before it starts."""
    before: set[int] = field(default_factory=set)
    """Those, the jobs that they wait for, and so on."""
    level: int = 0
    """The longest chain of jobs before it."""
    closed: bool = False
    """Whether a training waits for it: then nothing may make it longer."""


def pack(nodes: Iterable[Node], shape: Callable[[Node], Hashable], group: int, most: int) -> list[Packed]:
    """Jobs of at most `group` nodes, each after those it waits for; larger ones where there would be more than `most`.

    `nodes` come inputs first; inputs that are not among them are built already. A job trains at most one model.
    """
    nodes = list(nodes)
    awaited = {inner.key for node in nodes if node.stage.model for inner in node.inputs.values() if inner.stage.model}
    jobs: list[Packed] = []
    job_of: dict[str, int] = {}
    last_of_kind: dict[Kind, int] = {}
    for node in nodes:
        models = {inner.key for inner in node.inputs.values() if inner.stage.model}
        after = {job_of[inner.key] for inner in node.inputs.values() if inner.key in job_of}
        after -= set().union(*(jobs[other].before for other in after))  # ended before these start
        kind = (shape(node), frozenset(after), frozenset(models))
        last = last_of_kind.get(kind)
        number = None if node.stage.model else next(_with_model(jobs, after, models, kind[0], group), last)
        if number is None or len(jobs[number].nodes) >= group:
            number = len(jobs)
            before = after.union(*(jobs[other].before for other in after))
            level = max((jobs[other].level for other in after), default=-1) + 1
            jobs.append(Packed(kind[0], after=after, before=before, level=level))
            if not node.stage.model:  # a node that joined would wait for the training
                last_of_kind[kind] = number
        jobs[number].nodes.append(node)
        jobs[number].closed |= node.key in awaited
        jobs[number].models |= models | ({node.key} if node.stage.model else set())
        job_of[node.key] = number
    return _fitted(jobs, most)


def _with_model(jobs: list[Packed], after: set[int], models: set[str], shape: Hashable, group: int) -> Iterator[int]:
    """Jobs with room that make or open one of these models and wait for all that a node is `after`."""
    for number in sorted(after, reverse=True):
        job = jobs[number]
        has_room = job.shape == shape and len(job.nodes) < group and not job.closed
        if has_room and models & job.models and after <= job.before | {number}:
            yield number


def _fitted(jobs: list[Packed], most: int) -> list[Packed]:
    """Join jobs two by two until there are `most`, and no further."""
    while len(jobs) > most:
        joins = _pairs(jobs, len(jobs) - most)
        if not joins:
            raise ConfigError(
                f"this sweep needs {len(jobs)} jobs one after the other and the cluster lets you queue {most}; "
                "wait until some of your jobs have ended, or launch a part of the sweep"
            )
        joined: list[Packed] = []
        place: dict[int, int] = {}
        for number, job in enumerate(jobs):
            if number in joins:
                place[number] = place[joins[number]]
                joined[place[number]].nodes += job.nodes
                joined[place[number]].after |= job.after
            else:
                place[number] = len(joined)
                joined.append(job)
        jobs = joined
        for job in jobs:
            job.after = {place[number] for number in job.after}
    return jobs


def _pairs(jobs: list[Packed], most: int) -> dict[int, int]:
    """Up to `most` jobs, each with an earlier one to join: of one shape and level, so neither waits for the other. Jobs
    without a training are joined first: a training takes longest of all that a job may wait for."""
    pairs: dict[int, int] = {}
    single: dict[tuple[int, Hashable], int] = {}
    for number in sorted(range(len(jobs)), key=lambda number: any(node.stage.model for node in jobs[number].nodes)):
        if len(pairs) == most:
            break
        kind = (jobs[number].level, jobs[number].shape)
        if kind in single:
            one, other = sorted((single.pop(kind), number))
            pairs[other] = one
        else:
            single[kind] = number
    return pairs


def arrays(jobs: list[Packed], most: int) -> list[list[int]]:
    """The numbers of the jobs that go into one array of at most `most` elements: of one shape, after the same jobs.

    Arrays come after those that they wait for.
    """
    groups: dict[tuple[int, Hashable, frozenset[int]], list[int]] = {}
    for number, job in enumerate(jobs):
        groups.setdefault((job.level, job.shape, frozenset(job.after)), []).append(number)
    ordered = sorted(groups.items(), key=lambda item: item[0][0])
    return [numbers[start : start + most] for _, numbers in ordered for start in range(0, len(numbers), most)]
