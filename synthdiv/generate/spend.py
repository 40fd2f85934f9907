"""Costs of requests: one ledger for all processes that share an output folder, so that none exceeds a budget."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.claim import boot_id, process_start
from synthdiv.core.types import Unavailable

FILE = "spent.jsonl"  # below `runtime.outputs`, appended to and never rewritten
COSTS = ("attempts", "retries", "usage", "usd", "unsure")  # what a line of the log has of `Account`


class OverBudget(Unavailable):
    """The next request may cost more than is left of the budget."""


@dataclass
class Account:
    """Attempts at one answer, the causes of failed ones, and tokens of prompt and answer as reported by the server.

    `usage` is None if the server never reported any. `unsure` counts attempts of unknown cost, which is at most
    `max_tokens`.
    """

    attempts: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    usage: tuple[int, int] | None = None
    unsure: int = 0
    max_tokens: tuple[int, int] = (0, 0)

    def add(self, usage: tuple[int, int] | None, reserve: tuple[int, int]) -> None:
        """Add an attempt that may have cost something: the reported usage, or at most `reserve`."""
        if usage:
            self.usage = _add_pairs(self.usage or (0, 0), usage)
        else:
            self.unsure, self.max_tokens = self.unsure + 1, _add_pairs(self.max_tokens, reserve)

    def log_entry(self, spending: Spending | None) -> dict[str, Any]:
        """Return the account as an entry of the log, with USD if prices are known."""
        entry: dict[str, Any] = {"attempts": self.attempts}
        if self.retries:
            entry["retries"] = dict(self.retries)
        if self.usage:
            entry |= {"usage": dict(zip(("prompt", "completion"), self.usage, strict=True))}
            entry |= _usd_entry(spending, self.usage)
        if self.unsure:
            entry["unsure"] = {"attempts": self.unsure, "tokens": sum(self.max_tokens)} | _usd_entry(
                spending, self.max_tokens
            )
        return entry


def add_counts(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return `one` with the numbers of `other` added by name, recursively."""
    both = dict(one)
    for name, value in other.items():
        both[name] = add_counts(both.get(name, {}), value) if isinstance(value, dict) else both.get(name, 0) + value
    return both


def totals(log: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the costs of the rows with these lines of the log, and who answered, as counts."""
    total: dict[str, Any] = {}
    for line in log:
        row: dict[str, Any] = {"requests": line.get("attempts", 0), "retries": line.get("retries", {})}
        usage = line.get("usage")
        row |= {f"{name}_tokens": tokens for name, tokens in usage.items()} if usage else {"without_usage": 1}
        row |= {name: line[name] for name in ("usd", "unsure") if name in line}
        row |= {"system_folded": 1} if line.get("folded") else {}
        row |= {f"{name}s": {str(line[name]): 1} for name in ("model", "fingerprint", "provider") if line.get(name)}
        total = add_counts(total, row)
    return total


class Totals:
    """USD and tokens of the ledger lines read so far: settled, and still reserved."""

    def __init__(self) -> None:
        self.settled = (0.0, 0)
        self.open: dict[str, dict[str, Any]] = {}  # lines of reservations by name

    @property
    def total(self) -> tuple[float, int]:
        usd, tokens = (sum(line[name] for line in self.open.values()) for name in ("usd", "tokens"))
        return self.settled[0] + usd, self.settled[1] + tokens

    def take(self, line: dict[str, Any]) -> None:
        if "reserve" in line:
            self.open[line["reserve"]] = line
        else:
            self.open.pop(line["settle"], None)
            self.settled = (self.settled[0] + line["usd"], self.settled[1] + line["tokens"])


class Spending(Totals):
    """Spending below `outputs`, in USD and in tokens of prompts and answers.

    With a budget, a request reserves its highest cost before it is sent, and settles its real cost after. A reservation
    counts in full while it is not settled, and is settled in full if the server did not report the cost or the process
    was killed. Without a budget only settled costs are written. Prices are USD per million tokens, None if unknown.
    """

    def __init__(
        self, outputs: Path, budget_usd: float | None = None, budget_tokens: int | None = None,
        price_in: float | None = None, price_out: float | None = None, patience: float = 300.0,
    ):  # fmt: skip
        """`patience` is the longest that a request takes, in seconds: a reservation of another host is not waited for
        any longer."""
        self.budget_usd, self.budget_tokens = budget_usd, budget_tokens
        self.prices, self.patience = (price_in, price_out), patience
        super().__init__()
        self._read_bytes, self._count, self._name = 0, 0, uuid.uuid4().hex[:12]
        self._process = [socket.gethostname(), boot_id(), os.getpid(), process_start(os.getpid())]
        self._first_waits: dict[str, float] = {}  # when a reservation was first waited for
        outputs.mkdir(parents=True, exist_ok=True)
        self._file = os.open(outputs / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)

    def __enter__(self) -> Spending:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def usd(self, prompt: int, completion: int) -> float | None:
        """Return the price of these tokens in USD, None without prices."""
        price_in, price_out = self.prices
        return None if price_in is None or price_out is None else (prompt * price_in + completion * price_out) / 1e6

    def reserve(self, prompt: int, completion: int) -> str | None:
        """Reserve the cost of these tokens and return the name of the reservation.

        Returns None while requests in flight, of any process, may leave enough. Raises OverBudget if they cannot.
        """
        if self.budget_usd is None and self.budget_tokens is None:
            return ""
        cost = (self.usd(prompt, completion) or 0.0, prompt + completion)
        with self._locked():
            if self._excess(self.total, cost):
                excess = self._excess(self.settled, cost)
                if not excess and self._in_flight():
                    return None
                raise OverBudget(excess or self._excess(self.total, cost))
            self._count += 1
            name = f"{self._name}-{self._count}"
            self._append({"reserve": name, "usd": cost[0], "tokens": cost[1], "process": self._process})
        return name

    def settle(self, reservation: str, prompt: int, completion: int) -> None:
        """Record the cost of a request and release its reservation."""
        line = {"settle": reservation, "usd": self.usd(prompt, completion) or 0.0, "tokens": prompt + completion}
        if reservation or line["tokens"]:
            with self._locked():
                self._append(line)

    def _excess(self, spent: tuple[float, int], cost: tuple[float, int]) -> str:
        """Return the message that this cost exceeds a budget; empty if it does not."""
        if self.budget_usd is not None and spent[0] + cost[0] > self.budget_usd + 1e-9:  # tolerance for sums of floats
            words = ("budget_usd", self.budget_usd, f"{spent[0]:.4g} USD", f"{cost[0]:.2g} USD")
        elif self.budget_tokens is not None and spent[1] + cost[1] > self.budget_tokens:
            words = ("budget_tokens", self.budget_tokens, f"{spent[1]} tokens", f"{cost[1]} tokens")
        else:
            return ""
        return (
            f"runtime.{words[0]}={words[1]}: {words[2]} are spent or reserved, and the next answer may cost {words[3]}"
            ". Answers that arrived are kept: raise the budget and run the same command again"
        )

    def _in_flight(self) -> bool:
        """Whether a request with a reservation may still be settled. Those of dead processes are settled in full."""
        now, waiting = time.monotonic(), False
        for name, line in list(self.open.items()):
            host, boot, process, started = line["process"]
            if host != self._process[0]:
                waiting |= now - self._first_waits.setdefault(name, now) < self.patience
            elif boot != self._process[1] or process_start(process) != started:
                self._append({"settle": name, "usd": line["usd"], "tokens": line["tokens"]})
            else:
                waiting = True
        return waiting

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the ledger and read what other processes wrote."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._read_new()
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        os.write(self._file, data)
        self._read_bytes += len(data)
        self.take(line)

    def _read_new(self) -> None:
        """Read new lines. A last line without an end is truncated, because its writer was killed: end and skip it."""
        data = os.pread(self._file, os.fstat(self._file).st_size - self._read_bytes, self._read_bytes)
        if data and not data.endswith(b"\n"):
            os.write(self._file, b"\n")
            data += b"\n"
        self._read_bytes += len(data)
        for line in data.splitlines():
            with contextlib.suppress(ValueError):
                self.take(json.loads(line))


def _add_pairs(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _usd_entry(spending: Spending | None, tokens: tuple[int, int]) -> dict[str, float]:
    usd = spending.usd(*tokens) if spending else None
    return {} if usd is None else {"usd": usd}
