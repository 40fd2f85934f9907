"""The limits of one server for all processes that share its outputs: requests in flight, and starts a minute."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from synthdiv.core.runtime import Server

FOLDER = "limits"  # below `runtime.outputs`, one file for each server
MINUTE = 60.6  # seconds; a little more, because requests take time to arrive
STATE, PLACES = 2**40, 2**41  # bytes of the file that are locked; it is never so long


@cache
def shared_limits(server: Server, outputs: Path) -> Limits:
    """Return the limits of a server. One object for each server: locks of a file are those of the whole process."""
    return Limits(server, outputs)


class Limits:
    """Who may send the next request to `server`, and when. `outputs` is None if no other process uses the server.

    A place in flight is the lock of one byte of the file, so the system frees those of a dead process. The file holds
    `next` (the earliest next start) and `recent` (pairs of second and tokens started in it), in epoch seconds: clocks
    of two hosts that differ shift starts by as much.
    """

    def __init__(self, server: Server, outputs: Path | None = None):
        self.server, self._mutex = server, threading.Lock()
        self._taken, self._state = set[int](), {"next": 0.0, "recent": []}
        self._file = None
        if outputs is not None:
            (outputs / FOLDER).mkdir(parents=True, exist_ok=True)
            name = hashlib.sha256(server.url.encode()).hexdigest()[:16]
            self._file = os.open(outputs / FOLDER / name, os.O_RDWR | os.O_CREAT, 0o644)

    def take(self) -> int | None:
        """Take a place in flight; None if all are in use."""
        with self._mutex:
            for place in range(self.server.concurrency):
                if place not in self._taken and self._lock(PLACES + place):
                    self._taken.add(place)
                    return place
        return None

    def free(self, place: int) -> None:
        with self._mutex:
            self._taken.discard(place)
            if self._file is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, PLACES + place)

    def start(self, tokens: int, now: float) -> float:
        """Return when a request of so many tokens may start, at `now` or later.

        Starts are spaced evenly, and no minute has more tokens than the limit, unless a single request has.
        """
        requests, limit = self.server.requests_per_minute, self.server.tokens_per_minute
        if not requests and not limit:
            return now
        with self._locked() as state:
            start = max(now, state["next"])
            while limit:  # seconds that end within a minute before the start count
                recent = [pair for pair in state["recent"] if pair[0] + 1 + MINUTE > start]
                if not recent or sum(count for _, count in recent) + tokens <= limit:
                    before = recent.pop()[1] if recent and recent[-1][0] == int(start) else 0
                    state["recent"] = [*recent, [int(start), before + tokens]]
                    break
                start = recent[0][0] + 1 + MINUTE
            state["next"] = start + MINUTE * max(1 / requests if requests else 0.0, tokens / limit if limit else 0.0)
        return start

    def _lock(self, byte: int) -> bool:
        if self._file is not None:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except OSError:
                return False
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        """Lock the state, and write it when done. What a killed process left half written counts as empty."""
        with self._mutex:
            if self._file is None:
                yield self._state
                return
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, STATE)
            try:
                state: dict[str, Any] = {"next": 0.0, "recent": []}
                with contextlib.suppress(ValueError):
                    state |= json.loads(os.pread(self._file, 2**20, 0))
                yield state
                os.ftruncate(self._file, os.pwrite(self._file, json.dumps(state).encode(), 0))
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, STATE)
