"""Events of nodes, and which of several events about one node counts.

No clock decides. Within the file of a job the last line counts. Between files the higher attempt counts: a launch reads
the ledger and numbers its attempts above all that it finds. Two launches that start at the same moment may use the same
number; then the state that comes last in `ORDER` counts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from synthdiv.core.fields import type_hints

DONE = ("built", "reused")
ORDER = ("queued", "blocked", "stopped", "running", "failed", "reused", "built")
Record = TypeVar("Record")
Failure = TypeVar("Failure")


@dataclass(frozen=True, slots=True)
class Event:
    """A transition of a node, or the progress of a running one."""

    node: str
    state: str
    """One of `ORDER`."""
    at: float = 0.0
    """Seconds since the epoch on the writer's clock, for people who read the file; nothing here compares it."""
    host: str = ""
    process: int = 0
    attempt: int = 1
    seconds: float = 0.0
    """Seconds since the attempt began, on the writer's monotonic clock."""
    note: str = ""
    """The message of a failure."""
    failure: str = ""
    """The class of a failure."""
    log: str = ""
    """The path of the job's log."""
    done: int = 0
    """Progress: `done` of `total` units of `what`; total 0 if the stage reports none."""
    total: int = 0
    what: str = ""
    job: str = ""
    """The name of the file without its suffix; not written into the file."""

    def row(self) -> dict[str, Any]:
        """The line to write: fields that have their default are left out."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) != FIELDS[name]}


FIELDS = {item.name: item.default for item in dataclasses.fields(Event) if item.name != "job"}
TYPES = type_hints(Event)


def record(kind: type[Record], row: dict[str, Any]) -> Record | None:
    """A row as a record, None if fields are missing. Unknown fields, which a later version writes, are dropped."""
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]
    try:
        return kind(**{name: value for name, value in row.items() if name in known})
    except TypeError:
        return None


def event_of(row: dict[str, Any], job: str) -> Event | None:
    """A row as an event; None if it is not a valid one."""
    row = row | {"job": job}
    for name, value in row.items():
        kind = TYPES.get(name)
        if kind and type(value) is not kind and not (kind is float and type(value) is int):
            return None
    return record(Event, row) if row.get("state") in ORDER else None


def newest(by_job: dict[str, Event]) -> Event:
    """The event that counts, given the last event in the file of each job."""
    if len(by_job) == 1:
        return next(iter(by_job.values()))
    return max(by_job.values(), key=lambda event: (event.attempt, ORDER.index(event.state), event.job))


def next_attempts(states: dict[str, Event]) -> dict[str, int]:
    """The number of each node's next attempt; a queued node has not used its number yet."""
    return {node: event.attempt + (event.state != "queued") for node, event in states.items()}


def same_work(one: Event, other: Event) -> bool:
    """Whether two figures of progress belong together: the same attempt and total, and `done` did not decrease."""
    return (one.attempt, one.total) == (other.attempt, other.total) and one.done <= other.done


def alike(failures: Iterable[Failure], facts: Callable[[Failure], tuple[str, ...]]) -> list[list[Failure]]:
    """Failures by their reason, in the order of the first of each: words with a number, such as ids, make no other."""
    groups: dict[tuple[str, ...], list[Failure]] = {}
    for failure in failures:
        groups.setdefault(tuple(re.sub(r"\w*\d[\w.+/-]*", "0", fact) for fact in facts(failure)), []).append(failure)
    return list(groups.values())
