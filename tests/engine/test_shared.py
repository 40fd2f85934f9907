"""One graph for several workers: which node a worker takes, and which ones it leaves to others."""

from __future__ import annotations

import pytest

from synthdiv.core.claim import current, take
from synthdiv.core.ledger import Ledger
from synthdiv.core.local_run import Stop
from synthdiv.core.stage import Node
from synthdiv.core.store import Store, unfinished
from synthdiv.engine.shared import SharedGraph
from tests.engine.stages import Act, Given
from tests.graphs import taking


class OneLook(Stop):
    """A stop after one look: `take` then returns None instead of waiting."""

    def __getattribute__(self, name):
        if name == "reason":
            self.looks = getattr(self, "looks", 0) + 1
            return "enough" if self.looks > 1 else ""
        return super().__getattribute__(name)


@pytest.fixture
def graph(tmp_path):
    """A launch `l` of two roots, of which the first has a user; `graph(number)` is what one of its workers sees."""
    first, second = Node(Act(number=1)), Node(Act(number=2))
    user = taking(Act(number=3), first)
    given = Given([user, second])
    Ledger(tmp_path, "s", "l").add(given.records(), given.graph())
    nodes = {"first": first, "second": second, "user": user}

    def see(number: int) -> SharedGraph:
        ledger = Ledger(tmp_path, "s", f"l-{number}", {})
        return SharedGraph(given.nodes(), Store(tmp_path), ledger, "l", number)

    return see, nodes, tmp_path


def taken_by(graph, nodes, opened=None, worker=2):
    """The name of the node that a worker takes; None where nothing is free."""
    node = graph(worker).take(opened, OneLook())
    return next((name for name, other in nodes.items() if other is node), None)


def test_two_workers_that_look_at_the_same_moment_take_different_nodes(graph):
    see, nodes, _ = graph
    assert {taken_by(see, nodes, worker=1), taken_by(see, nodes, worker=2)} == {"first", "second"}


def test_a_worker_leaves_nodes_that_another_began_or_claimed(graph):
    see, nodes, root = graph
    Ledger(root, "s", "l-1", {}).event(nodes["first"].key, "running")
    assert taken_by(see, nodes) == "second"
    folder = unfinished(Store(root).path(nodes["second"]))
    Ledger(root, "s", "l-1", {nodes["first"].key: 1}).mark([nodes["first"].key], "queued")
    assert take(folder, None)
    assert taken_by(see, nodes, worker=1) == taken_by(see, nodes, worker=2) == "first"
    assert current(folder)


@pytest.mark.parametrize(("state", "taken"), [("failed", None), ("built", "user"), ("reused", "user")])
def test_a_failed_node_is_skipped_with_all_that_depends_on_it(graph, state, taken):
    see, nodes, root = graph
    ledger = Ledger(root, "s", "l-1", {})
    ledger.event(nodes["first"].key, state)
    ledger.event(nodes["second"].key, "running")
    assert taken_by(see, nodes) == taken


def test_the_node_of_a_dead_worker_is_free_for_the_next_attempt_once_the_launcher_queued_it(graph):
    see, nodes, root = graph
    key = nodes["first"].key
    Ledger(root, "s", "l-3", {}).event(nodes["second"].key, "running")
    Ledger(root, "s", "l-1", {}).event(key, "running")
    assert taken_by(see, nodes) is None
    launcher = Ledger(root, "s", "l", {})
    launcher.event(key, "stopped", failure="killed")
    assert taken_by(see, nodes) is None, "the launcher counts the attempts"
    launcher.mark([key], "queued")
    worker = see(2)
    assert worker.take(None, OneLook()) is nodes["first"]
    assert worker.ledger.attempt(key) == 2


def test_a_failure_of_an_earlier_attempt_than_that_of_this_launch_does_not_count(graph):
    see, nodes, root = graph
    for name in ("first", "second"):
        Ledger(root, "s", "other-1", {}).event(nodes[name].key, "failed")
    ledger = Ledger(root, "s", "l-1", {nodes["first"].key: 2})
    worker = SharedGraph(see(1).frontier.nodes, Store(root), ledger, "l", 1)
    assert worker.take(None, OneLook()) is nodes["first"]
    assert ledger.attempt(nodes["first"].key) == 2


def test_nodes_of_a_dead_launch_are_free(graph):
    see, nodes, root = graph
    for name in ("first", "second"):
        Ledger(root, "s", "other-1", {}).event(nodes[name].key, "running")
    assert taken_by(see, nodes) in ("first", "second")


def test_a_worker_keeps_its_model_and_leaves_the_models_of_others(tmp_path):
    models = [Node(Act(number=number)) for number in (1, 2)]
    users = [taking(Act(number=10 * place + model), models[model]) for place in (1, 2) for model in (0, 1)]
    given = Given(users)
    Ledger(tmp_path, "s", "l").add(given.records(), given.graph())
    ledger = Ledger(tmp_path, "s", "l-1", {})
    ledger.mark([node.key for node in models], "built")
    graph = SharedGraph(given.nodes(), Store(tmp_path), Ledger(tmp_path, "s", "l-2", {}), "l", 2)
    assert models[1] in graph.take(models[1].key, OneLook()).inputs.values()
    assert models[0] in graph.take(models[0].key, OneLook()).inputs.values()
