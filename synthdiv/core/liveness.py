"""Whether the builders of running nodes are alive, seen from any machine that shares the folder of outputs.

On its own machine a builder is looked up as a process. Elsewhere its heartbeat counter is watched: clocks of two hosts
are never compared, so silence is measured on this machine's monotonic clock since the counter last changed.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from synthdiv.core.claim import Claim, current, process_start
from synthdiv.core.events import Event
from synthdiv.core.store import MANIFEST, unfinished


@dataclass(frozen=True)
class Liveness:
    """What is known of the process that builds a node whose last event says `running`."""

    state: str
    """`running`, `stopped` (the builder is certainly dead) or `done` (the artifact exists; its event is missing)."""
    seconds: float = 0.0
    """How long it has worked: its heartbeat counter times the interval."""
    seen_seconds_ago: float | None = None
    """Seconds since a sign of life; 0 on this machine, None if one look cannot tell."""
    late: bool = False
    """Whether its heartbeat has not changed for five intervals."""


@dataclass
class Heartbeats:
    """Remembers when each heartbeat counter last changed."""

    root: Path
    seen: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By node: token and counter, and the monotonic time at which they were first seen."""

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
        try:
            beat = (folder / f"{claim.token}.partial" / "heartbeat").read_text(encoding="utf-8")
        except OSError:
            beat = ""
        now, mark, known = time.monotonic(), f"{claim.token} {beat}", self.seen.get(event.node)
        since = known[1] if known and known[0] == mark else now
        self.seen[event.node] = (mark, since)
        seconds = max(int(beat) - 1, 0) * claim.interval if beat.isdigit() else 0.0
        if claim.host == platform.node():
            return Liveness("running", seconds, 0.0)
        return Liveness("running", seconds, now - since if known else None, now - since > 5 * max(claim.interval, 1.0))


def without_claim(event: Event) -> Liveness:
    """A running event without a claim: the node ended a moment ago, or its process died before it wrote an event."""
    if event.host != platform.node():
        return Liveness("running")
    alive = process_start(event.process) is not None
    return Liveness("running", seen_seconds_ago=0.0) if alive else Liveness("stopped")
