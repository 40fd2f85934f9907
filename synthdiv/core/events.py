"""What happened to a node, and which of several events about it counts.

That never depends on a clock. Within the file of a job the last line counts. Between files it is the higher attempt: a
launch reads the ledger and numbers its attempts above all that it finds there. Two launches that began at the same
moment may give one number to a node; then the state that says most counts (`ORDER`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

DONE = ("built", "reused")
ORDER = ("queued", "blocked", "stopped", "running", "failed", "reused", "built")
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Event:
    """A transition of a node into one of `ORDER`, or progress of a running one: `done` of `total` units of `what`.

    `at` is seconds since the epoch on the writer's clock, for people; nothing compares it. `seconds` count from the
    beginning of the attempt on the writer's monotonic clock. `failure` is the class of a failure, `note` its message,
    `log` the path of the job's log. `job` is the name of the file and is not written into it.
    """

    node: str
    state: str
    at: float = 0.0
    host: str = ""
    process: int = 0
    attempt: int = 1
    seconds: float = 0.0
    note: str = ""
    failure: str = ""
    log: str = ""
    done: int = 0
    total: int = 0
    what: str = ""
    job: str = ""

    def row(self) -> dict[str, Any]:
        """As it is written: without what is as in the class."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) != FIELDS[name]}


FIELDS = {item.name: item.default for item in dataclasses.fields(Event) if item.name != "job"}
TYPES = {name: str if isinstance(value, str) or name in ("node", "state") else type(value)
         for name, value in FIELDS.items()}  # fmt: skip


def record(kind: type[Record], row: dict[str, Any], **more: Any) -> Record | None:
    """A row as a record, or None where fields are missing; those that only a later version knows are dropped."""
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]
    try:
        return kind(**{name: value for name, value in row.items() if name in known}, **more)
    except TypeError:
        return None


def event_of(row: dict[str, Any], job: str) -> Event | None:
    """A row as an event, or None where it is none."""
    for name, value in row.items():
        kind = TYPES.get(name)
        if kind and type(value) is not kind and not (kind is float and type(value) is int):
            return None
    return record(Event, {**row, "job": job}) if row.get("state") in ORDER else None


def newest(by_job: dict[str, Event]) -> Event:
    """The event that counts, of the last one in the file of each job."""
    if len(by_job) == 1:
        return next(iter(by_job.values()))
    return max(by_job.values(), key=lambda event: (event.attempt, ORDER.index(event.state), event.job))


def next_attempts(states: dict[str, Event]) -> dict[str, int]:
    """The number of the next attempt of each node; one that is only queued has not used its own yet."""
    return {node: event.attempt + (event.state != "queued") for node, event in states.items()}
