"""What requests cost: one ledger for all processes of these outputs, so that a budget is crossed by none of them."""

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
    """The next request might cost more than is left."""


@dataclass
class Account:
    """What the attempts at one answer took: how many, the causes of those that failed, and the tokens of prompt and
    answer as far as the server told (None: it never did). Of `unsure` attempts nobody knows what they cost; it is at
    most `most` tokens."""

    attempts: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    usage: tuple[int, int] | None = None
    unsure: int = 0
    most: tuple[int, int] = (0, 0)

    def add(self, usage: tuple[int, int] | None, reserve: tuple[int, int]) -> None:
        """An attempt that was answered, or may have been: what the server reports, or at most `reserve`."""
        if usage:
            self.usage = _both(self.usage or (0, 0), usage)
        else:
            self.unsure, self.most = self.unsure + 1, _both(self.most, reserve)

    def told(self, spending: Spending | None) -> dict[str, Any]:
        """The same for a line of a log, with USD where prices are known."""
        said: dict[str, Any] = {"attempts": self.attempts}
        if self.retries:
            said["retries"] = dict(self.retries)
        if self.usage:
            said |= {"usage": dict(zip(("prompt", "completion"), self.usage, strict=True))}
            said |= _priced(spending, self.usage)
        if self.unsure:
            said["unsure"] = {"attempts": self.unsure, "tokens": sum(self.most)} | _priced(spending, self.most)
        return said


def summed(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`one`, with the numbers of `other` added to those of the same names."""
    both = dict(one)
    for name, value in other.items():
        both[name] = summed(both.get(name, {}), value) if isinstance(value, dict) else both.get(name, 0) + value
    return both


class Totals:
    """USD and tokens of the lines of such a file that were taken: what was settled, and what is still reserved."""

    def __init__(self) -> None:
        self._settled = (0.0, 0)
        self._open: dict[str, tuple[float, int]] = {}
        self._held = (0.0, 0)  # the sum of `_open`

    @property
    def total(self) -> tuple[float, int]:
        return self._settled[0] + self._held[0], self._settled[1] + self._held[1]

    def take(self, line: dict[str, Any]) -> None:
        cost = (line["usd"], line["tokens"])
        if "reserve" in line:
            self._open[line["reserve"]] = cost
            self._held = (self._held[0] + cost[0], self._held[1] + cost[1])
            return
        was = self._open.pop(line["settle"], (0.0, 0))
        self._held = (self._held[0] - was[0], self._held[1] - was[1]) if self._open else (0.0, 0)
        self._settled = (self._settled[0] + cost[0], self._settled[1] + cost[1])


class Spending(Totals):
    """What was spent below `outputs`, in USD and in tokens of both ways.

    Where a budget is set, a request reserves the most that it may cost before it is sent and settles what it did cost
    after. A reserve that nobody settled counts in full: the server did not say what the request cost, or whoever made
    it was killed. Without a budget only what was settled is written. Prices are USD per million tokens, None where
    nobody knows.
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
        self._read, self._count, self._name = 0, 0, uuid.uuid4().hex[:12]
        outputs.mkdir(parents=True, exist_ok=True)
        self._file = os.open(outputs / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)

    def __enter__(self) -> Spending:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def usd(self, prompt: int, completion: int) -> float | None:
        """The price of so many tokens."""
        price_in, price_out = self.prices
        return None if price_in is None or price_out is None else (prompt * price_in + completion * price_out) / 1e6

    def reserve(self, prompt: int, completion: int) -> str:
        """Set aside what so many tokens cost, and return the name to settle it by. Raises OverBudget."""
        if self.budget_usd is None and self.budget_tokens is None:
            return ""
        usd, tokens = self.usd(prompt, completion) or 0.0, prompt + completion
        with self._alone():
            spent, used = self.total
            if self.budget_usd is not None and spent + usd > self.budget_usd + 1e-9:  # sums of floats
                raise OverBudget(_crossed("budget_usd", self.budget_usd, f"{spent:.4g} USD are", f"{usd:.2g} USD"))
            if self.budget_tokens is not None and used + tokens > self.budget_tokens:
                told = (f"{used} tokens are", f"{tokens} tokens")
                raise OverBudget(_crossed("budget_tokens", self.budget_tokens, *told))
            self._count += 1
            mark = f"{self._name}-{self._count}"
            self._append({"reserve": mark, "usd": usd, "tokens": tokens})
        return mark

    def settle(self, mark: str, prompt: int, completion: int) -> None:
        """Write down what a request did cost; what was reserved for it as `mark` is free again."""
        line = {"settle": mark, "usd": self.usd(prompt, completion) or 0.0, "tokens": prompt + completion}
        if mark or line["tokens"]:
            with self._alone():
                self._append(line)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else reads or writes meanwhile, and all that others wrote is known."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._look()
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        os.write(self._file, data)
        self._read += len(data)
        self.take(line)

    def _look(self) -> None:
        """Read what is new. A last line without an end was cut when its writer was killed: it is ended, and skipped."""
        data = os.pread(self._file, os.fstat(self._file).st_size - self._read, self._read)
        if data and not data.endswith(b"\n"):
            os.write(self._file, b"\n")
            data += b"\n"
        self._read += len(data)
        for line in data.splitlines():
            with contextlib.suppress(ValueError):
                self.take(json.loads(line))


def _crossed(field: str, budget: float, spent: str, next_one: str) -> str:
    return (
        f"runtime.{field}={budget}: {spent} spent or reserved, and the next answer may cost {next_one}; what arrived "
        f"is kept: raise it and run the same command again"
    )


def _both(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _priced(spending: Spending | None, tokens: tuple[int, int]) -> dict[str, float]:
    usd = spending.usd(*tokens) if spending else None
    return {} if usd is None else {"usd": usd}
