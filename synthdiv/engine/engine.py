"""What the engines share: the nodes of a frozen sweep, which is built next, what became of each, what is tried again,
and the summary at the end."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from synthdiv.core.events import DONE, Event, alike
from synthdiv.core.ledger import Ledger, NodeRecord, new_job
from synthdiv.core.local_run import Stop
from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.core.terminal import echo
from synthdiv.core.types import SynthdivError
from synthdiv.engine.build import log_event
from synthdiv.engine.failure import INPUT, MEMORY
from synthdiv.engine.frontier import Frontier
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Cell
from synthdiv.study.freeze import Frozen
from synthdiv.study.records import node_record

INTERRUPTED = 130
LOG_LINES = 5  # shown of the log of a failure
POLL = 0.02  # seconds between two looks at workers and ledger, or ten times as long as a look takes
RETRIES = 2  # of a node whose worker or job ended before it: twice may be chance, three times is not
SHOWN_FAILURES = 20  # at the end: a server that is down fails every shard


class Engine:
    """Builds every node once; a failure blocks only what depends on it. `cell` is any one of the sweep: its
    runtime and tracker hold for all."""

    name = ""

    def __init__(self, frozen: Frozen, cell: Cell, watcher: Watcher | None = None):
        self.cell = cell
        root = Path(cell.runtime.outputs)
        self.store = Store(root, cell.runtime.heartbeat_seconds)
        self.ledger = Ledger(root, cell.sweep, new_job(self.name))
        self.nodes, self.records = frozen.nodes(), frozen.records()
        self.suites = sorted({name for record in self.records for name in (*record.suites, *record.vanilla)})
        self.frontier = Frontier(self.nodes)
        self.failures: dict[str, Event] = {}
        self.losses: Counter[str] = Counter()  # by node: how often its worker or job ended before it
        self.log_ends: dict[str, list[str]] = {}  # by failed node; the log goes on with other nodes
        self.watcher = watcher or Watcher()

    @cached_property
    def node_records(self) -> dict[str, NodeRecord]:
        return {key: node_record(node) for key, node in self.nodes.items()}

    @property
    def states(self) -> dict[str, str]:
        return self.frontier.states

    def work(self, stop: Stop) -> None:
        """Build all nodes, calling `became` for each, until `stop` has a reason."""
        raise NotImplementedError

    def run(self) -> int:
        """Build all. Returns the exit code: 0; 1 if a cell failed, after all others were built; 130 if interrupted."""
        self.ledger.add(self.records, list(self.node_records.values()))
        begun, stop = time.monotonic(), Stop()
        stop.listen()
        try:
            self.work(stop)
        finally:
            stop.leave()
        states = list(self.states.values())
        if stop.reason or len(states) == len(self.nodes):  # a detached launch leaves the rest to the cluster
            cells = f"{len(self.records)} cells ({len({record.key for record in self.records})} unique)"
            nodes = f"{states.count('built')} nodes built, {states.count('reused')} reused"
            echo(f"{self.cell.sweep}: {cells}, {nodes}, in {time.monotonic() - begun:.1f} s", error=True)
        self.print_failures()
        if stop.reason:
            echo(f"{stop.reason}; unfinished work is kept, the same command goes on", error=True)
            return INTERRUPTED
        return 1 if self.failures else 0

    def next_node(
        self, opened: str | None, elsewhere: frozenset[str] = frozenset(), busy: Collection[str] = ()
    ) -> Node | None:
        """A ready node that no process builds, no worker of this launch (`busy`) and no other; best one that takes the
        model `opened` and none of those that are open `elsewhere`. None where there is none at the moment."""
        ready, near = self.frontier.ready.values(), self.frontier.takers.get(opened or "", {})
        free = (node for node in ready if elsewhere.isdisjoint(inner.key for inner in node.inputs.values()))
        best_first = (node for node in itertools.chain(near.values(), free, ready) if node.key not in busy)
        return next((node for node in best_first if node.stage.located or not self.store.claimed(node)), None)

    def reuse(self) -> None:
        """Settle the nodes whose artifacts are complete, and queue those that were built before and are not. A damaged
        one is left to a worker, which reports it; what was built from it is used."""
        stored = (node for node in self.nodes.values() if not node.stage.located and self.store.has(node))
        complete = [node for node in stored if not any(self.store.damage(self.store.path(node), hashes=False))]
        for node in complete:
            self.frontier.settle(node, "reused")
        self.ledger.mark([node.key for node in complete], "reused")
        pending, events = self.frontier.pending(), self.ledger.states()
        self.ledger.mark([n.key for n in pending if n.key in events and events[n.key].state in DONE], "queued")
        if complete:
            self.watcher.cells(self.records, self.done)

    def fetch(self) -> None:
        """Bring the models of the hub that pending nodes take to this machine, each once: the nodes of a cluster often
        have no network, and workers that start together would load them at the same time."""
        taken = {inner.key for node in self.frontier.pending() for inner in node.inputs.values()}
        located = [node for node in self.frontier.pending() if node.stage.located]
        fetched = []
        for node in located:
            try:
                if node.key in taken:
                    node.stage.fetch()
            except SynthdivError as error:
                self.became(node, self.ledger.event(node.key, "failed", note=str(error), failure=INPUT))
            else:
                self.frontier.settle(node, "reused")
                fetched.append(node.key)
        self.ledger.mark(fetched, "reused")

    def done(self, key: str) -> bool:
        return self.states.get(key) in DONE

    def became(self, node: Node, event: Event) -> None:
        """Note the final state of a node, log it, and show the cells that are complete with it."""
        self.frontier.settle(node, event.state)
        if event.state == "failed":
            self.failures[node.key] = event
            self.log_ends[node.key] = end_of_log(event.log, node)
        if event.state in ("built", "failed"):
            total = len(self.nodes)
            log_event(self.store, node, event, f"{len(self.states):{len(str(total))}d}/{total} ")
        if event.state in DONE:
            self.watcher.cells(self.records, self.done)

    def ended_before(self, node: Node, event: Event | None, message: str, failure: str, log: str, final: bool) -> None:
        """Queue a node again whose worker or job ended before it; if that is `final`, or happened too often, it failed.
        `event` is its last one."""
        attempt = self.ledger.attempt(node.key)
        if event and event.attempt >= attempt and event.state in ("running", "stopped"):
            self.ledger.set_attempt(node.key, attempt := event.attempt)
        else:
            event = None
        self.losses[node.key] += event is None or event.failure != MEMORY
        if not final and self.losses[node.key] <= RETRIES:
            if event and event.state == "running":
                self.ledger.event(node.key, "stopped", event.seconds, message, failure, log)
            self.ledger.set_attempt(node.key, attempt + (event is not None))
            self.ledger.mark([node.key], "queued")
            return
        if not final:
            message = f"{message}; given up after {RETRIES + 1} attempts"
        self.became(node, self.ledger.event(node.key, "failed", event.seconds if event else 0.0, message, failure, log))

    def print_failures(self) -> None:
        """For nodes that failed for one reason its class, the message and end of the log of the first, and one command
        that repeats it."""
        groups = alike(self.failures.values(), lambda each: (self.nodes[each.node].stage.name, each.failure, each.note))
        for event, *others in groups[:SHOWN_FAILURES]:
            key, more = event.node, f" (and {len(others)} more nodes like this)" if others else ""
            records = [record for record in self.records if key in record.nodes]
            head = f"failed: {self.nodes[key].label} ({event.failure}; {len(records)} cells depend on it): "
            lines = [head + event.note + more, *(f"  | {line}" for line in self.log_ends[key])]
            echo("\n".join([*lines, f"  again: {records[0].command(self.cell.sweep)}"]), error=True)
        if len(groups) > SHOWN_FAILURES:
            rest = len(self.failures) - sum(map(len, groups[:SHOWN_FAILURES]))
            echo(f"and {rest} more failures: synthdiv status {self.cell.sweep} --json", error=True)


def end_of_log(path: str, node: Node) -> list[str]:
    """The last lines of a log up to the failure of `node`; empty where there is no log."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace") if path else ""
    except OSError:
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    failed = [number for number, line in enumerate(lines, 1) if line.startswith(f"{node.label} failed")]
    return lines[: failed[-1] if failed else None][-LOG_LINES:]
