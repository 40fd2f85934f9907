"""Whether the builders of running nodes are alive, seen from any machine that shares the folder of outputs.

On its own machine a builder is looked up as a process. Elsewhere its heartbeat counter is watched: clocks of two hosts
are never compared, so silence is measured on this machine's monotonic clock since the counter last changed.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from synthdiv.core.claim import Claim, ClaimWatch, current, process_start
from synthdiv.core.events import Event
from synthdiv.core.store import MANIFEST, unfinished


@dataclass(frozen=True)
class Liveness:
    """What is known of the process that builds a node whose last event says `running`."""

    state: str
    """`running`, `stopped` (the builder is certainly dead) or `done` (the artifact exists; its event is missing)."""
    seconds: float = 0.0
    """How long it has worked at least, by its heartbeat counter."""
    seen_seconds_ago: float | None = None
    """Seconds since a sign of life; 0 on this machine, None if one look cannot tell."""
    late: bool = False
    """Whether its heartbeat has not changed for five intervals."""


@dataclass
class Heartbeats:
    """Watches the builders of running nodes, from one look to the next."""

    root: Path
    watches: dict[str, ClaimWatch] = field(default_factory=dict)
    """By node."""

    def check(self, running: Iterable[tuple[str, Event]]) -> dict[str, Liveness]:
        """The liveness of each running node, given as (stage, event)."""
        result = {}
        for stage, event in running:
            final = self.root / "artifacts" / stage / event.node
            folder = unfinished(final)
            if (final / MANIFEST).exists():
                result[event.node] = Liveness("done")
            elif (claim := current(folder)) and claim.token:
                result[event.node] = self._with_claim(folder, event, claim)
            else:
                result[event.node] = without_claim(event)
        return result

    def _with_claim(self, folder: Path, event: Event, claim: Claim) -> Liveness:
        if claim.gone():
            return Liveness("stopped")
        before = self.watches.get(event.node)
        watch = before if before and before.claim == claim else ClaimWatch(folder, claim, 1.0)
        self.watches[event.node] = watch
        silence = watch.silence()
        seconds = max(int(watch.counter) - 1, 0) * claim.interval if watch.counter.isdigit() else 0.0
        if claim.here:
            return Liveness("running", seconds, 0.0)
        return Liveness("running", seconds, silence if before else None, silence > watch.longest)


def without_claim(event: Event) -> Liveness:
    """A running event without a claim: the node ended a moment ago, or its process died before it wrote an event."""
    if event.host != platform.node():
        return Liveness("running")
    alive = process_start(event.process) is not None
    return Liveness("running", seen_seconds_ago=0.0) if alive else Liveness("stopped")
