"""Which nodes of a graph are ready: every engine chooses from here."""

from __future__ import annotations

from collections.abc import Mapping

from synthdiv.core.events import DONE
from synthdiv.core.stage import Node


class Frontier:
    """The nodes of a graph by what is known of them.

    `states` has the final state of each node that has one: built, reused, failed or blocked. `ready` are nodes whose
    inputs are all done and that have no final state, inputs first; `takers` are those by the key of each input.
    """

    def __init__(self, nodes: Mapping[str, Node]):
        self.nodes = nodes
        self.states: dict[str, str] = {}
        self.ready = {key: node for key, node in nodes.items() if not node.inputs}
        self.takers: dict[str, dict[str, Node]] = {}
        self._unsettled_inputs = {key: len(node.inputs) for key, node in nodes.items()}
        self._users: dict[str, list[Node]] = {}
        for node in nodes.values():
            for inner in node.inputs.values():
                self._users.setdefault(inner.key, []).append(node)

    def pending(self) -> list[Node]:
        """Nodes without a final state, inputs first."""
        return [node for key, node in self.nodes.items() if key not in self.states]

    def settle(self, node: Node, state: str) -> None:
        """Note the final state of a node. A node whose last input this was becomes ready, or blocked."""
        settled = [(node, state)]
        while settled:
            node, state = settled.pop()
            self.states[node.key] = state
            self.ready.pop(node.key, None)
            for inner in node.inputs.values():
                self.takers.get(inner.key, {}).pop(node.key, None)
            for user in self._users.get(node.key, ()):
                self._unsettled_inputs[user.key] -= 1
                if self._unsettled_inputs[user.key] or user.key in self.states:
                    continue
                if all(self.states[inner.key] in DONE for inner in user.inputs.values()):
                    self.ready[user.key] = user
                    for inner in user.inputs.values():
                        self.takers.setdefault(inner.key, {})[user.key] = user
                else:
                    settled.append((user, "blocked"))
