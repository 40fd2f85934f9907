"""What every engine does: which node it builds next, which ones it leaves to others, and what it tries again."""

from __future__ import annotations

import threading
import time

import pytest

from synthdiv.core.claim import take
from synthdiv.core.events import Event
from synthdiv.core.ledger import Ledger
from synthdiv.core.stage import Node
from synthdiv.core.store import Store, unfinished
from synthdiv.engine.failure import LOST, MEMORY
from synthdiv.engine.inline import Inline
from tests.engine.stages import Act, Given, cell
from tests.graphs import taking


@pytest.fixture
def launch(tmp_path):
    """An engine for these nodes, whose launch is in the ledger."""

    def start(*ends: Node, **runtime) -> Inline:
        engine = Inline(Given(list(ends)), cell(tmp_path, **runtime))
        engine.ledger.add(engine.records, Given(list(ends)).graph())
        return engine

    return start


FIRST, SECOND = Node(Act(number=1)), Node(Act(number=2))


def claim(engine: Inline, node: Node) -> None:
    assert take(unfinished(engine.store.path(node)), None)


def test_nodes_of_other_workers_and_of_other_launches_are_left_to_them(launch):
    engine = launch(FIRST, SECOND)
    assert engine.next_node(None, busy={FIRST.key}) is SECOND
    claim(engine, FIRST)
    assert engine.next_node(None) is SECOND
    claim(engine, SECOND)
    assert engine.next_node(None) is None, "it looks again later, and does not wait in one of them"


@pytest.mark.timeout(60)
def test_choosing_a_node_costs_the_same_however_many_are_ready(launch):
    """Looking at all 20,000 for each of them takes minutes."""
    model = Node(Act(number=-1))
    engine = launch(*(taking(Act(number=number), model) for number in range(20_000)))
    engine.frontier.settle(model, "built")
    for number in range(20_000):
        node = engine.next_node([None, model.key][number % 2], frozenset(["other"]))
        engine.frontier.settle(node, "built")
    assert not engine.frontier.ready
    assert not any(engine.frontier.takers.values())


def test_an_engine_waits_while_others_build_all_that_is_ready(launch):
    engine = launch(FIRST)
    claim(engine, FIRST)
    folder = unfinished(engine.store.path(FIRST))
    threading.Timer(0.5, (folder / "claim.0").unlink).start()
    begun = time.monotonic()
    assert engine.run() == 0
    assert time.monotonic() - begun > 0.4
    assert engine.states == {FIRST.key: "built"}


def test_a_builder_on_another_host_that_shows_no_life_does_not_keep_a_node_for_ever(launch, monkeypatch):
    engine = launch(FIRST, heartbeat_seconds=0.01)
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    claim(engine, FIRST)
    monkeypatch.undo()
    assert engine.next_node(None) is None
    time.sleep(0.3)
    assert engine.next_node(None) is FIRST


def test_a_worker_keeps_its_model_and_leaves_the_models_of_others(launch):
    class Model(Act):
        model = True

    models = [Node(Model(number=number)) for number in (1, 2)]
    users = [taking(Act(number=10 * place + number), models[number]) for place in (1, 2) for number in (0, 1)]
    engine = launch(*users)
    for model in models:
        engine.frontier.settle(model, "built")
    for number in (0, 1):
        assert models[number] in engine.next_node(models[number].key).inputs.values()
        other = engine.next_node(None, frozenset({models[number].key}))
        assert models[1 - number] in other.inputs.values()


@pytest.mark.parametrize(
    ("event", "attempts"),
    [(None, [1, 1]), (Event("", "running", attempt=1), [2, 3]), (Event("", "stopped", attempt=1), [2, 3])],
)
def test_a_node_whose_worker_died_is_queued_a_bounded_number_of_times(launch, event, attempts):
    engine = launch(FIRST)
    for attempt in attempts:
        engine.ended_before(FIRST, event, "it died", LOST, "", final=False)
        assert engine.ledger.attempt(FIRST.key) == attempt
        assert Ledger(engine.ledger.root, "s").states()[FIRST.key].state == "queued"
        event = event and Event("", event.state, attempt=attempt)
    engine.ended_before(FIRST, event, "it died", LOST, "a.log", final=False)
    assert engine.states == {FIRST.key: "failed"}
    assert engine.failures[FIRST.key].note == "it died; given up after 3 attempts"


def test_half_the_rows_are_no_loss_and_what_is_final_is_not_tried_again(launch):
    engine = launch(FIRST, SECOND)
    for attempt in range(1, 9):
        event = Event("", "stopped", attempt=attempt, failure=MEMORY)
        engine.ended_before(FIRST, event, "less rows", LOST, "", final=False)
    assert not engine.failures
    engine.ended_before(SECOND, None, "cancelled", LOST, "", final=True)
    assert engine.failures[SECOND.key].note == "cancelled"


def test_a_damaged_artifact_fails_and_what_was_built_from_it_is_used(launch, tmp_path):
    user = taking(Act(number=3), FIRST)
    assert launch(user).run() == 0
    (Store(tmp_path).path(FIRST) / "world.txt").write_text("damaged")
    again = launch(user)
    assert again.run() == 1
    assert again.states == {user.key: "reused", FIRST.key: "failed"}
    assert "is damaged" in again.failures[FIRST.key].note
