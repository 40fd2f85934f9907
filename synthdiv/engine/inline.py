"""The inline engine: this process builds the nodes of a frozen sweep, those that share a model in a row."""

from __future__ import annotations

from synthdiv.core.local_run import Stop
from synthdiv.engine.build import Builder
from synthdiv.engine.engine import Engine
from synthdiv.engine.frontier import model_cost


class Inline(Engine):
    """Builds every node once, in this process."""

    name = "inline"

    def work(self, stop: Stop) -> None:
        builder = Builder(self.store, self.ledger, self.cell.runtime, stop, watcher=self.watcher)
        while self.frontier.ready and not stop.reason:
            node = min(self.frontier.ready.values(), key=model_cost(builder.opened))
            self.became(node, builder.build(node))
