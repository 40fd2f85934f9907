"""The inline engine: this process builds the nodes of a frozen sweep, those that share a model in a row."""

from __future__ import annotations

import time

from synthdiv.core.local_run import Stop
from synthdiv.engine.build import Builder
from synthdiv.engine.engine import POLL, Engine


class Inline(Engine):
    """Builds every node once, in this process."""

    name = "inline"

    def work(self, stop: Stop) -> None:
        self.reuse()
        builder = Builder(self.store, self.ledger, self.cell.runtime, stop, watcher=self.watcher)
        while self.frontier.ready and not stop.reason:
            if node := self.next_node(builder.run.opened):
                for built, event in builder.build_group(node, self.frontier.ready.values()):
                    self.became(built, event)
            else:
                time.sleep(5 * POLL)  # other processes build all that is ready
