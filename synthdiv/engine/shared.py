"""One graph for several workers of a launch: each chooses what to build next, and no two build the same node."""

from __future__ import annotations

import time
from collections.abc import Mapping

from synthdiv.core.events import DONE, Event, next_attempts
from synthdiv.core.ledger import Ledger
from synthdiv.core.local_run import Stop
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.engine.frontier import Frontier, model_cost

POLL = 0.1  # seconds between two looks while nothing is ready, or ten times as long as a look takes


class SharedGraph:
    """The graph as worker `number` of `launch` sees it.

    The ledger says which nodes are done, which ones other workers build, and which ones failed; those are skipped. A
    node that a worker of this launch left unfinished is free once the launcher has queued it again.
    """

    def __init__(self, nodes: Mapping[str, Node], store: Store, ledger: Ledger, launch: str, number: int):
        self.store, self.ledger, self.launch, self.number = store, ledger, launch, number
        self.first = {key: ledger.attempt(key) for key in nodes}  # attempt of this launch: failures before it are old
        self.frontier = Frontier(nodes)

    def take(self, opened: str | None, stop: Stop) -> Node | None:
        """The next node to build, as soon as one is free; None once `stop` has a reason. `opened` is the open model."""
        while not stop.reason:
            begun = time.thread_time()
            events = self.ledger.states()
            free = self._free(opened, events)
            if node := next((node for node in free if not self.store.claimed(node)), None):
                attempts = next_attempts({node.key: events[node.key]}) if node.key in events else {}
                self.ledger.number(node.key, attempts.get(node.key, 1))
                return node
            time.sleep(max(POLL, 10 * (time.thread_time() - begun)))
        return None

    def _free(self, opened: str | None, events: Mapping[str, Event]) -> list[Node]:
        """Nodes that are ready and that no worker of this launch has begun, in the order in which to build them."""
        for node in self.frontier.pending():
            event = events.get(node.key)
            if event and (event.state in DONE or self._failed(event)):
                self.frontier.settle(node, event.state)
        free = [node for key, node in self.frontier.ready.items() if self._startable(events.get(key))]
        running = [key for key in self.frontier.ready if key in events and events[key].state == "running"]
        elsewhere = {
            inner.key for key in running for inner in self.frontier.nodes[key].inputs.values() if inner.stage.model
        }
        turn = (self.number - 1) % max(1, len(free))  # workers that look at the same moment choose different nodes
        return sorted(free[turn:] + free[:turn], key=model_cost(opened, frozenset(elsewhere)))

    def _failed(self, event: Event) -> bool:
        return event.state == "failed" and event.attempt >= self.first[event.node]

    def _startable(self, event: Event | None) -> bool:
        return event is None or event.state == "queued" or not event.job.startswith(self.launch)
