"""What the engines share: the nodes of a frozen sweep, what became of each, and the last words."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from synthdiv.core.events import DONE
from synthdiv.core.ledger import Ledger, new_job
from synthdiv.core.runtime import Stop
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.engine.build import Outcome
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen
from synthdiv.study.records import node_record

LOGGER = logging.getLogger("synthdiv")
INTERRUPTED = 130
LINES = 5  # of a log, at the end
MOST = 20  # failures that are told at the end: a server that is down fails every shard


class Engine:
    """Runs every node once; a failure blocks what stands on it and nothing else. `cell` is one of the sweep: its
    runtime and tracker count, which are no part of any node."""

    name = ""

    def __init__(self, frozen: Frozen, cell: Cell, watcher: Watcher | None = None):
        self.cell = cell
        root = Path(cell.runtime.outputs)
        self.store = Store(root, cell.runtime.heartbeat_seconds)
        self.ledger = Ledger(root, cell.sweep, new_job(self.name))
        self.nodes, self.records = frozen.nodes(), frozen.records()
        self.suites = sorted({name for record in self.records for name in (*record.suites, *record.vanilla)})
        self.states: dict[str, str] = {}
        self.missing = {key: len(node.inputs) for key, node in self.nodes.items()}  # inputs of unknown fate
        self.users: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            for inner in node.inputs.values():
                self.users.setdefault(inner.key, []).append(node)
        self.open = {key: node for key, node in self.nodes.items() if not node.inputs}  # ready, not yet taken
        self.failures: dict[str, Outcome] = {}
        self.tails: dict[str, list[str]] = {}  # of the log of each failure; the log goes on with other nodes
        self.watcher = watcher or Watcher()

    def work(self, stop: Stop) -> None:
        """Build all nodes, calling `became` for each, until `stop` has a reason."""
        raise NotImplementedError

    def run(self) -> int:
        """Build all; return the exit code: 0, or 1 if a cell failed, after all others have run; 130 if interrupted."""
        self.ledger.add(self.records, [node_record(node) for node in self.nodes.values()])
        begun, stop = time.monotonic(), Stop()
        stop.listen()
        try:
            self.work(stop)
        finally:
            stop.leave()
        states = list(self.states.values())
        if stop.reason or len(states) == len(self.nodes):  # else what is queued goes on without us
            LOGGER.info(
                "%s: %d cells (%d unique), %d nodes built, %d reused, in %.1f s",
                self.cell.sweep, len(self.records), len({record.key for record in self.records}),
                states.count("built"), states.count("reused"), time.monotonic() - begun,
            )  # fmt: skip
        self.last_words()
        if stop.reason:
            print(f"{stop.reason}; unfinished work is kept, the same command goes on", file=sys.stderr)
            return INTERRUPTED
        return 1 if self.failures else 0

    def known(self, node: Node, state: str) -> None:
        """Note the state of a node. What it was the last input of is ready, or blocked: that follows from the graph."""
        fresh = [(node, state)]
        while fresh:
            node, state = fresh.pop()
            self.states[node.key] = state
            for user in self.users.get(node.key, ()):
                self.missing[user.key] -= 1
                if self.missing[user.key] or user.key in self.states:
                    continue
                if all(self.states[inner.key] in DONE for inner in user.inputs.values()):
                    self.open[user.key] = user
                else:
                    fresh.append((user, "blocked"))

    def reuse(self) -> None:
        """What is there already needs no worker; one that finds it damaged says so."""
        made = (node for node in self.nodes.values() if not node.stage.located and self.store.has(node))
        there = [node for node in made if not any(self.store.damage(self.store.path(node), hashes=False))]
        for node in there:
            self.open.pop(node.key, None)
            self.known(node, "reused")
        self.ledger.mark([node.key for node in there], "reused")
        if there:
            self.watcher.cells(self.records, lambda key: self.states.get(key) in DONE)

    def became(self, node: Node, outcome: Outcome) -> None:
        """Note what became of a node, tell the person who watches, and show the cells that are done by it."""
        self.known(node, outcome.state)
        if outcome.state == "built":
            place, total = len(self.states), len(self.nodes)
            width = len(str(total))
            LOGGER.info("%*d/%d %s built in %.1f s%s", width, place, total, node.label, outcome.seconds, outcome.told)
        elif outcome.state == "failed":
            self.failures[node.key], self.tails[node.key] = outcome, end_of(outcome.trace or outcome.log)
            LOGGER.error("%s failed: %s", node.label, outcome.message)
            if outcome.trace:
                LOGGER.error("  the traceback is in %s", outcome.trace)
        if outcome.state in DONE:
            self.watcher.cells(self.records, lambda key: self.states.get(key) in DONE)

    def last_words(self) -> None:
        """For each node that failed its class, message, the end of its log and one command that repeats it."""
        for key, outcome in list(self.failures.items())[:MOST]:
            hit = [record for record in self.records if key in record.nodes]
            print(
                f"failed: {self.nodes[key].label} ({outcome.failure}; {len(hit)} cells stand on it): {outcome.message}",
                *(f"  | {line}" for line in self.tails[key]),
                f"  again: {hit[0].command(self.cell.sweep)}",
                sep="\n",
                file=sys.stderr,
            )
        if len(self.failures) > MOST:
            more = f"and {len(self.failures) - MOST} failures more: synthdiv status {self.cell.sweep} --json"
            print(more, file=sys.stderr)


def end_of(log: str) -> list[str]:
    """The last lines of a log; none where there is none."""
    try:
        text = Path(log).read_text(encoding="utf-8", errors="replace") if log else ""
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-LINES:]
