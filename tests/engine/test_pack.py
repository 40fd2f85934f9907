"""Packing nodes into jobs: whatever the graph, nothing is lost, nothing waits in vain, and limits hold."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError
from synthdiv.engine.pack import Packed, arrays, pack
from tests.graphs import Taking, taking

MANY = 10_000


@dataclass
class Work(Taking):
    """A node of a resource shape; another number is another node."""

    name = "pack_work"
    number: int = 0
    shape: int = 0


@dataclass
class Training(Work):
    """One that makes a model."""

    name = "pack_training"
    model = True


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Up to 25 nodes, inputs first; an input comes from any of those before."""
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 25))):
        kind = Training if draw(st.integers(0, 3)) == 0 else Work
        places = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        nodes.append(taking(kind(number, draw(st.integers(0, 1))), *(nodes[place] for place in sorted(places))))
    return nodes


def shape(node: Node) -> int:
    return node.stage.shape


def trainings(job: Packed) -> int:
    return sum(node.stage.model for node in job.nodes)


def everything_before(jobs: list[Packed], number: int) -> set[int]:
    """The jobs that are over when a job begins."""
    actual: set[int] = set()
    fresh = set(jobs[number].after)
    while fresh:
        actual |= fresh
        fresh = {other for job in fresh for other in jobs[job].after} - actual
    return actual


def assert_sound(jobs: list[Packed], nodes: list[Node]) -> None:
    """What holds for any packing."""
    where = {node.key: number for number, job in enumerate(jobs) for node in job.nodes}
    assert sorted(node.key for job in jobs for node in job.nodes) == sorted(node.key for node in nodes), "each once"
    for number, job in enumerate(jobs):
        before, done = everything_before(jobs, number), set[str]()
        assert number not in before, "no job waits for itself"
        assert {shape(node) for node in job.nodes} == {job.shape}
        for node in job.nodes:
            for inner in node.inputs.values():
                if inner.key in where:
                    assert inner.key in done or where[inner.key] in before, "its inputs are there when its turn comes"
            done.add(node.key)


@given(graphs(), st.integers(1, 6), st.integers(0, 5))
def test_any_graph_is_packed_soundly(nodes, group, first):
    nodes = nodes[min(first, len(nodes) - 1) :]  # the first few are built already
    jobs = pack(nodes, shape, group, MANY)
    assert_sound(jobs, nodes)
    assert all(len(job.nodes) <= group for job in jobs)
    assert all(trainings(job) <= 1 for job in jobs)
    for job in jobs:
        assert not any(node.stage.model for node in job.nodes[1:]), "who is in a training's job needs that training"


@given(graphs(), st.integers(1, 6), st.integers(1, 8))
def test_a_limit_of_jobs_is_respected_or_refused(nodes, group, most):
    free = pack(nodes, shape, group, MANY)
    if len({(job.level, job.shape) for job in free}) > most:  # so many must follow one another
        with pytest.raises(ConfigError, match=f"the cluster lets you queue {most}"):
            pack(nodes, shape, group, most)
        return
    jobs = pack(nodes, shape, group, most)
    assert_sound(jobs, nodes)
    assert len(jobs) == min(most, len(free)), "no more are joined than that takes"
    if len(free) <= most:
        assert [job.nodes for job in jobs] == [job.nodes for job in free], "nothing is joined without need"


@given(graphs(), st.integers(1, 6), st.integers(1, 4), st.sampled_from([MANY, 12]))
def test_arrays_hold_each_job_once_and_come_after_those_they_wait_for(nodes, group, most, limit):
    try:
        jobs = pack(nodes, shape, group, limit)
    except ConfigError:
        return
    actual = arrays(jobs, most)
    assert sorted(number for members in actual for number in members) == list(range(len(jobs)))
    queued: set[int] = set()
    for members in actual:
        assert 1 <= len(members) <= most
        assert len({(jobs[number].shape, frozenset(jobs[number].after)) for number in members}) == 1
        assert jobs[members[0]].after <= queued, "what it names has an id by now"
        queued |= set(members)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 8))
def test_shards_that_share_a_model_share_their_jobs(shards, group):
    prompts = Node(Work(0))
    models = [Node(Training(number)) for number, _ in enumerate(shards)]
    asked = [  # one of each model in turn, as the cells of a sweep come
        taking(Work(1 + number), prompts, model)
        for number in range(max(shards))
        for model, count in zip(models, shards, strict=True)
        if number < count
    ]
    jobs = pack([prompts, *models, *asked], shape, group, MANY)
    answers = [job for job in jobs if any(len(node.inputs) == 2 for node in job.nodes)]
    assert all(len({node.inputs["input1"].key for node in job.nodes}) == 1 for job in answers), "one model is opened"
    assert len(answers) == sum(-(-count // group) for count in shards), "in as few jobs as fit"


def chain(number: int, prompts: Node, *, other: int = 0) -> list[Node]:
    """A training, two nodes that take its model, and a measure of their answers in the shape `other`."""
    model = taking(Training(number), prompts)
    answers = [taking(Work(100 * number + place), prompts, model) for place in (1, 2)]
    return [model, *answers, taking(Work(100 * number + 3, other), *answers)]


def test_answers_of_a_model_run_in_the_job_that_trains_it():
    prompts = Node(Work())
    one, two = chain(1, prompts), chain(2, prompts)
    jobs = pack([prompts, *one, *two], shape, 8, MANY)
    packed = [[node.key for node in job.nodes] for job in jobs]
    assert [node.key for node in one[:3]] in packed
    assert [node.key for node in two[:3]] in packed, "two trainings are two jobs that run at once"
    assert {frozenset(job.after) for job in jobs} == {frozenset(), frozenset({0}), frozenset({1}), frozenset({3})}
    assert [len(members) for members in arrays(jobs, 100)] == [1, 2, 1, 1], "both trainings are one array"


def test_trainings_are_joined_only_where_the_queue_takes_few_jobs():
    prompts = Node(Work())
    nodes = [prompts, *(node for number in range(1, 9) for node in chain(number, prompts, other=1))]
    assert len(pack(nodes, shape, 8, MANY)) == 17
    for most, trained in ((17, 1), (16, 1), (13, 1), (12, 2), (3, 8)):
        jobs = pack(nodes, shape, 8, most)
        assert_sound(jobs, nodes)
        assert len(jobs) == most
        assert max(trainings(job) for job in jobs) == trained
    with pytest.raises(ConfigError, match="needs 3 jobs one after the other and the cluster lets you queue 2"):
        pack(nodes, shape, 8, 2)


def test_nothing_to_pack():
    assert pack([], shape, 8, 0) == []
    assert arrays([], 10) == []
