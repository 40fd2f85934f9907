"""Costs of requests: one ledger for all processes that share an output folder, so that none exceeds a budget."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.types import Unavailable

FILE = "spent.jsonl"  # below `runtime.outputs`, appended to and never rewritten


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


class Totals:
    """USD and tokens of the ledger lines read so far: settled, and still reserved."""

    def __init__(self) -> None:
        self._settled = (0.0, 0)
        self._open: dict[str, tuple[float, int]] = {}
        self._reserved = (0.0, 0)  # the sum of `_open`

    @property
    def total(self) -> tuple[float, int]:
        return self._settled[0] + self._reserved[0], self._settled[1] + self._reserved[1]

    def take(self, line: dict[str, Any]) -> None:
        cost = (line["usd"], line["tokens"])
        if "reserve" in line:
            self._open[line["reserve"]] = cost
            self._reserved = (self._reserved[0] + cost[0], self._reserved[1] + cost[1])
            return
        released = self._open.pop(line["settle"], (0.0, 0))
        self._reserved = (self._reserved[0] - released[0], self._reserved[1] - released[1]) if self._open else (0.0, 0)
        self._settled = (self._settled[0] + cost[0], self._settled[1] + cost[1])


class Spending(Totals):
    """Spending below `outputs`, in USD and in tokens of prompts and answers.

    With a budget, a request reserves its highest cost before it is sent, and settles its real cost after. A reservation
    that is never settled counts in full: the server did not report the cost, or the process was killed. Without a
    budget only settled costs are written. Prices are USD per million tokens, None if unknown.
    """

    def __init__(
        self,
        outputs: Path,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        price_in: float | None = None,
        price_out: float | None = None,
    ):
        self.budget_usd, self.budget_tokens = budget_usd, budget_tokens
        self.prices = (price_in, price_out)
        super().__init__()
        self._read_bytes, self._count, self._name = 0, 0, uuid.uuid4().hex[:12]
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

    def reserve(self, prompt: int, completion: int) -> str:
        """Reserve the cost of these tokens and return the name of the reservation. Raises OverBudget."""
        if self.budget_usd is None and self.budget_tokens is None:
            return ""
        usd, tokens = self.usd(prompt, completion) or 0.0, prompt + completion
        with self._locked():
            spent, used = self.total
            if self.budget_usd is not None and spent + usd > self.budget_usd + 1e-9:  # tolerance for sums of floats
                raise OverBudget(
                    _over_budget_message("budget_usd", self.budget_usd, f"{spent:.4g} USD are", f"{usd:.2g} USD")
                )
            if self.budget_tokens is not None and used + tokens > self.budget_tokens:
                parts = (f"{used} tokens are", f"{tokens} tokens")
                raise OverBudget(_over_budget_message("budget_tokens", self.budget_tokens, *parts))
            self._count += 1
            reservation = f"{self._name}-{self._count}"
            self._append({"reserve": reservation, "usd": usd, "tokens": tokens})
        return reservation

    def settle(self, reservation: str, prompt: int, completion: int) -> None:
        """Record the cost of a request and release its reservation."""
        line = {"settle": reservation, "usd": self.usd(prompt, completion) or 0.0, "tokens": prompt + completion}
        if reservation or line["tokens"]:
            with self._locked():
                self._append(line)

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


def _over_budget_message(field: str, budget: float, spent: str, next_one: str) -> str:
    return (
        f"runtime.{field}={budget}: {spent} spent or reserved, and the next answer may cost {next_one}. Answers that "
        f"arrived are kept: raise the budget and run the same command again"
    )


def _add_pairs(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _usd_entry(spending: Spending | None, tokens: tuple[int, int]) -> dict[str, float]:
    usd = spending.usd(*tokens) if spending else None
    return {} if usd is None else {"usd": usd}
