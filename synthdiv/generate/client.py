"""One server that speaks OpenAI's protocol, asked by many at a time: its limits, retries, and what a failure costs."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from synthdiv.core.runtime import Server
from synthdiv.core.types import DataError, Run, SynthdivError, Unavailable
from synthdiv.generate.endpoint import Endpoint, known, server_of
from synthdiv.generate.protocol import Again, Changed, Filtered, fits, flaw, names_of, sound, usage_of
from synthdiv.generate.spend import Account, OverBudget, Spending

CHUNK, TICK = 64, 1.0  # answers that are handed over at once, and the seconds after which fewer are
GRACE = 30.0  # seconds that requests in flight have to come back when this process is asked to stop
FIRST, LONGEST = 1.0, 60.0  # seconds to the second attempt, doubled for each after; unless the server wants more
MINUTE = 60.0  # `attempts` of these may pass with nothing but 429
MARKUP = 64  # tokens that the template of a chat adds to a prompt, or fewer


@dataclass(frozen=True)
class Ask:
    """A request to send. `about` is the caller's own, `name` stands in errors, `size` is the UTF-8 bytes of what is
    asked and `new` the most tokens that may come back."""

    about: Any
    name: str
    payload: dict[str, Any]
    size: int
    new: int


@dataclass(frozen=True)
class Reply:
    """What came back: the JSON, or the words with which a filter refused the prompt. `at` is the epoch time at which
    the last attempt began, `seconds` what it took. `folded`: without a system role. `account` has all attempts."""

    data: dict[str, Any]
    refusal: str
    at: float
    seconds: float
    folded: bool
    account: Account

    @property
    def attempts(self) -> int:
        return self.account.attempts


def listed(hosted: Any, run: Run) -> bool:
    """Whether the server's list has the model; False where it has no list. Raises DataError where the list lacks it."""
    client = Client(server_of(hosted.server, run.runtime), hosted.id, "models")
    names: list[str] = []
    with contextlib.closing(client.ask([Ask(None, "the list of its models", {}, 0, 0)])) as chunks:
        for chunk in chunks:
            names += [name for _, reply in chunk for name in names_of(reply.data)]
            run.boundary()
    if names and not any(fits(hosted.id, name) for name in names):
        raise DataError(f"{client.endpoint.place} does not know hosted.id={hosted.id}; {known(names)}")
    return bool(names)


class Client:
    """Asks `server` for answers of `model`, at an endpoint of PATHS; one client is for one `ask`. `requests` counts
    attempts, and `retries` those that failed, by cause. `unanswered` has what was asked in vain, and what that took."""

    def __init__(self, server: Server, model: str, kind: str = "chat", spending: Spending | None = None):
        self.server, self.spending = server, spending
        self.endpoint = Endpoint(server, model, kind)
        self.requests, self.retries = 0, Counter[str]()
        self.unanswered: list[tuple[Ask, Account]] = []
        self._random = random.Random()  # a stage's own is left alone
        self._queue: queue.SimpleQueue[list[tuple[Ask, Reply]] | None] = queue.SimpleQueue()
        self._arrived: list[tuple[Ask, Reply]] = []
        self._error: Exception | None = None
        self._stop, self._landed, self._flying = asyncio.Event(), asyncio.Event(), 0
        self._free = self._hold = 0.0  # when the next slot is, and before when nobody starts: on the clock of the loop
        self._waves, self._wave, self._since = 0, 0.0, 0.0  # of 429: how many, when the last and the first began
        self._recent, self._used = deque[tuple[float, int]](), 0  # tokens of the starts of the last minute

    def ask(
        self, asks: Iterable[Ask], stopping: Callable[[], bool] = lambda: False
    ) -> Generator[list[tuple[Ask, Reply]], None, None]:
        """Answers as they come, and empty lists while none do. Once `stopping`, those in flight are waited for and no
        more are asked. An error is raised after all that arrived was given."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._work(iter(asks)))

        def work() -> None:
            try:
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)
                loop.run_until_complete(loop.shutdown_default_executor())
            except Exception as error:
                self._error = self._error or error
            finally:
                self._queue.put(None)

        thread = threading.Thread(target=work, name="requests", daemon=True)
        thread.start()
        told = False
        try:
            while (chunk := self._queue.get()) is not None:
                yield chunk
                if stopping() and not told:
                    told = True
                    loop.call_soon_threadsafe(self._end, task)
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join()
            loop.close()
        if self._error:
            raise self._error

    def _end(self, task: asyncio.Task[None]) -> None:
        self._stop.set()
        asyncio.get_running_loop().call_later(GRACE, task.cancel)

    async def _work(self, asks: Iterator[Ask]) -> None:
        async with self.endpoint.connect():
            tasks = {asyncio.create_task(self._worker(asks)) for _ in range(self.server.concurrency)}
            try:
                while tasks:
                    _, tasks = await asyncio.wait(tasks, timeout=TICK)
                    self._hand_over()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._hand_over()

    def _hand_over(self) -> None:
        self._queue.put(self._arrived)
        self._arrived = []

    async def _worker(self, asks: Iterator[Ask]) -> None:
        """One of those that ask at a time; they share the iterator, so that nothing is prepared before its turn."""
        try:
            for ask in asks:
                reply = None if self._stop.is_set() else await self._answer(ask)
                if reply is None:
                    return
                self._arrived.append((ask, reply))
                if len(self._arrived) >= CHUNK:
                    self._hand_over()
        except Exception as error:  # the first is told; the other workers end with what they have in flight
            self._error = self._error or error
            self._stop.set()

    async def _answer(self, ask: Ask) -> Reply | None:
        """Ask until it is answered. None: this client stops, and the request is not in flight."""
        account, reply = Account(), None
        try:
            reply = await self._try(ask, account)
        finally:
            if not reply and account.attempts:
                self.unanswered.append((ask, account))
        return reply

    async def _try(self, ask: Ask, account: Account) -> Reply | None:
        tried, first, clock = 0, 0.0, asyncio.get_running_loop().time
        while await self._turn(ask) and (mark := await self._reserve(ask)) is not None:
            begun, at, folded = clock(), round(time.time(), 3), self.endpoint.folds(ask.payload)
            first = first or begun
            try:
                data, refusal = await self._attempt(ask, mark, account)
                self._waves = 0
                return Reply(sound(data), refusal, at, round(clock() - begun, 3), folded, account)
            except Changed:
                self._failed("parameter", account)
            except Again as error:
                self._failed(error.kind, account)
                limited = error.kind == "429"
                tried += not limited
                if not self._limit(error, begun) if limited else tried >= self.server.attempts:
                    wants = f" (wait {error.after:g} s, it says)" if error.after else ""
                    raise Unavailable(
                        f"{self.endpoint.place}: no answer to {ask.name} after {account.attempts} attempts in "
                        f"{clock() - first:.0f} s; the last got {error}{wants}. What arrived is kept: when it answers, "
                        f"run the same command again"
                    ) from None
                backoff = min(LONGEST, FIRST * 2 ** (tried - 1)) * self._random.uniform(0.5, 1.0)
                if not limited and not await self._pause(max(backoff, error.after)):
                    return None
        return None

    def _failed(self, cause: str, account: Account) -> None:
        self.retries[cause] += 1
        account.retries[cause] += 1

    def _limit(self, error: Again, begun: float) -> bool:
        """Hold everybody after a 429 to a request that began then: as long as it says or, where it does not, longer
        each time until somebody is answered. False: nobody was for too long, or would be."""
        now = asyncio.get_running_loop().time()
        if not self._waves:
            self._since = now
        if not self._waves or begun >= self._wave:  # those that were in flight with the first of a wave are of it
            self._waves, self._wave = self._waves + 1, now
        left = self._since + self.server.attempts * MINUTE - now
        if left <= 0 or error.after > left:
            return False
        wait = error.after or min(LONGEST, left, FIRST * 2 ** min(self._waves - 1, 9) * self._random.uniform(1.0, 1.2))
        self._hold = max(self._hold, now + wait)
        return True

    async def _pause(self, seconds: float) -> bool:
        """Wait. False once this client stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return not self._stop.is_set()

    async def _turn(self, ask: Ask) -> bool:
        """Wait for a start that the limits allow, with three bytes to a token. False once this client stops."""
        clock = asyncio.get_running_loop().time
        while (start := self._slot(ask.size // 3 + ask.new, clock())) > clock():
            if not await self._pause(start - clock()):
                return False
            if start >= self._hold:
                break
        return not self._stop.is_set()

    def _slot(self, tokens: int, now: float) -> float:
        """The time of the next start. Starts are spaced evenly, and no minute has more tokens than the limit, but where
        one request alone has. A minute is one percent longer here: requests take a moment to get there."""
        limit, minute = self.server.tokens_per_minute, 60.6
        start = max(now, self._free, self._hold)
        if limit:
            while self._recent and (self._recent[0][0] + minute <= start or self._used + tokens > limit):
                at, was = self._recent.popleft()
                start, self._used = max(start, at + minute), self._used - was
            self._recent.append((start, tokens))
            self._used += tokens
        shares = [1 / self.server.requests_per_minute] if self.server.requests_per_minute else [0.0]
        self._free = start + minute * max(*shares, tokens / limit if limit else 0.0)
        return start

    async def _reserve(self, ask: Ask) -> str | None:
        """Set aside the most that it may cost; where that is too much, wait for what is in flight to cost less. None
        once this client stops."""
        while self.spending:
            try:
                return self.spending.reserve(*most(ask))
            except OverBudget:
                if not self._flying:
                    raise
            self._landed.clear()
            await self._landed.wait()
            if self._stop.is_set():
                return None
        return ""

    async def _attempt(self, ask: Ask, mark: str, account: Account) -> tuple[dict[str, Any], str]:
        """One request: the JSON that came, or the words of a refusal. What it cost is settled, unless nobody knows:
        then all that was reserved counts."""
        used: tuple[int, int] | None = None
        free = False
        self._flying += 1
        self.requests += 1
        account.attempts += 1
        try:
            data = await self.endpoint.send(ask.name, ask.payload)
            used = usage_of(data)
            wrong = flaw(data, self.endpoint.model, self.endpoint.kind)
            if wrong:
                raise Again(wrong[0], self.endpoint.clean(wrong[1]))
            return data, ""
        except Filtered as words:
            return {}, str(words)
        except (Changed, SynthdivError):
            free = True
            raise
        except Again as error:
            free = error.free
            raise
        finally:
            if not free:
                account.add(used, most(ask))
            if self.spending and (used or free):
                self.spending.settle(mark, *(used or (0, 0)))
            self._flying -= 1
            self._landed.set()


def most(ask: Ask) -> tuple[int, int]:
    """The tokens of the prompt and of the answer at most: a token has at least one byte."""
    return ask.size + MARKUP, ask.new
