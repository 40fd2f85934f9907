"""Whether running nodes live, seen from any machine that has the folder: their claims and heartbeat counters.

Clocks of two hosts are never compared: how long ago a builder was seen is counted on our own monotonic clock from the
moment when we saw its counter move, and how long it has worked is its counter times its interval.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from synthdiv.core.claim import Claim, process_start
from synthdiv.core.events import Event
from synthdiv.core.store import MANIFEST


@dataclass(frozen=True)
class Pulse:
    """`state` is running, stopped (its builder is certainly dead) or done (finished, and its event is not here yet).

    `seconds` is how long the builder has worked, as far as its counter says. `silent` is the seconds since we saw it
    live, None where one look cannot tell. `late` says that it should have been heard of long ago.
    """

    state: str
    seconds: float = 0.0
    silent: float | None = None
    late: bool = False


@dataclass
class Pulses:
    """Remembers when each counter moved last."""

    root: Path
    seen: dict[str, tuple[str, float]] = field(default_factory=dict)  # by node: token and counter, our monotonic time
    moved: set[str] = field(default_factory=set)

    def look(self, running: Iterable[tuple[str, Event]]) -> dict[str, Pulse]:
        """One look at all nodes that run, given with their stages: a listing of each stage's folder, however many."""
        by_stage: dict[str, list[Event]] = {}
        for stage, event in running:
            by_stage.setdefault(stage, []).append(event)
        found = {}
        for stage, events in by_stage.items():
            folder = self.root / "artifacts" / stage
            claims = claims_in(folder, {event.node for event in events})
            for event in events:
                if (folder / event.node / MANIFEST).exists():
                    found[event.node] = Pulse("done")
                elif event.node in claims:
                    found[event.node] = self._claimed(folder, event, claims[event.node])
                else:
                    found[event.node] = unclaimed(event)
        return found

    def _claimed(self, folder: Path, event: Event, claim: Claim) -> Pulse:
        if claim.gone():
            return Pulse("stopped")
        try:
            beat = (folder / f".{event.node}.{claim.token}.partial" / "heartbeat").read_text(encoding="utf-8")
        except OSError:
            beat = ""
        now, mark = time.monotonic(), f"{claim.token} {beat}"
        last, since = self.seen.get(event.node, ("", now))
        if mark != last:
            self.seen[event.node], since = (mark, now), now
            if last:
                self.moved.add(event.node)
        seconds = max(int(beat) - 1, 0) * claim.interval if beat.isdigit() else 0.0
        if is_here(claim.host):
            return Pulse("running", seconds, 0.0)
        first_look = event.node not in self.moved and now == since
        silent = None if first_look else now - since
        return Pulse("running", seconds, silent, now - since > 5 * max(claim.interval, 1.0))


def is_here(host: str) -> bool:
    return host == platform.node()


def unclaimed(event: Event) -> Pulse:
    """A running event without a claim: it ended a moment ago, or its process died before it could say so."""
    if is_here(event.host):
        return Pulse("running", silent=0.0) if process_start(event.process) is not None else Pulse("stopped")
    return Pulse("running")


def claims_in(folder: Path, keys: set[str]) -> dict[str, Claim]:
    """The claim that counts, that with the highest number, of each of `keys` that has one."""
    numbers: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            key, middle, last = entry.name.removeprefix(".").partition(".claim.")
            if middle and last.isdigit() and key in keys:
                numbers[key] = max(int(last), numbers.get(key, 0))
    found = {}
    for key, number in numbers.items():
        try:
            fields = json.loads((folder / f".{key}.claim.{number}").read_text(encoding="utf-8"))
            found[key] = Claim(number=number, **fields)
        except (OSError, ValueError, TypeError):  # cleared since the listing, or not all on this disk yet
            continue
    return found
