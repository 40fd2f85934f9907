"""The inline engine: this process builds the nodes of a frozen sweep, those that share a model in a row."""

from __future__ import annotations

from synthdiv.core.runtime import Stop
from synthdiv.core.stage import Node
from synthdiv.engine.build import Builder
from synthdiv.engine.engine import Engine


class Inline(Engine):
    """Runs every node once, in this process."""

    name = "inline"

    def work(self, stop: Stop) -> None:
        builder = Builder(self.store, self.ledger, self.cell.runtime, stop, watcher=self.watcher)
        while self.open and not stop.reason:
            node = self._next(builder.opened)
            del self.open[node.key]
            self.became(node, builder.build(node))

    def _next(self, opened: str | None) -> Node:
        """The first node that is ready, one that takes the open model before others."""
        ready = iter(self.open.values())
        first = next(ready)
        takes = (node for node in self.open.values() if any(inner.key == opened for inner in node.inputs.values()))
        return next(takes, first)
