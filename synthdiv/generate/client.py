"""Client of one server with OpenAI's protocol: concurrent requests, rate limits, retries and costs."""

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
from synthdiv.core.types import SynthdivError, Unavailable
from synthdiv.generate.endpoint import Endpoint
from synthdiv.generate.protocol import (
    PromptFiltered,
    RequestAdjusted,
    Retryable,
    clean_surrogates,
    invalid_reason,
    token_usage,
)
from synthdiv.generate.spend import Account, OverBudget, Spending

CHUNK_ANSWERS, FLUSH_SECONDS = 64, 1.0  # answers per chunk, and seconds after which a smaller chunk is handed over
STOP_GRACE_SECONDS = 30.0  # seconds for requests in flight after a stop was requested
FIRST_BACKOFF, MAX_BACKOFF = 1.0, 60.0  # seconds before the second attempt, doubled for each further one
RATE_LIMIT_WINDOW = 60.0  # seconds; `attempts` times this may pass with only HTTP 429
TEMPLATE_TOKENS = 64  # most tokens that a chat template adds to a prompt


@dataclass(frozen=True)
class ApiRequest:
    """A request to send. `context` is passed back with the reply, errors contain `name`, `prompt_bytes` is the size of
    the prompt in UTF-8, and `max_new_tokens` limits the answer."""

    context: Any
    name: str
    payload: dict[str, Any]
    prompt_bytes: int
    max_new_tokens: int

    @property
    def max_tokens(self) -> tuple[int, int]:
        """The most tokens of the prompt and of the answer; a token has at least one byte."""
        return self.prompt_bytes + TEMPLATE_TOKENS, self.max_new_tokens


@dataclass(frozen=True)
class Reply:
    """The JSON of an answer, or the message with which a filter refused the prompt.

    `at` is the epoch time at which the last attempt began and `seconds` its duration. `folded` means that the system
    message was sent in the user turn. `account` counts all attempts.
    """

    data: dict[str, Any]
    refusal: str
    at: float
    seconds: float
    folded: bool
    account: Account

    @property
    def attempts(self) -> int:
        return self.account.attempts


class Client:
    """Requests answers of `model` from `server`, at an endpoint of PATHS; use one client for one call of `replies`.

    `attempts` counts requests sent and `retries` those that failed, by cause. `unanswered` holds the requests without
    an answer, with their accounts.
    """

    def __init__(self, server: Server, model: str, kind: str = "chat", spending: Spending | None = None):
        self.server, self.spending = server, spending
        self.endpoint = Endpoint(server, model, kind)
        self.attempts, self.retries = 0, Counter[str]()
        self.unanswered: list[tuple[ApiRequest, Account]] = []
        self._random = random.Random()  # does not disturb the random state of a stage
        self._queue: queue.SimpleQueue[list[tuple[ApiRequest, Reply]] | None] = queue.SimpleQueue()
        self._pending: list[tuple[ApiRequest, Reply]] = []
        self._error: Exception | None = None
        self._stop, self._reply_landed, self._in_flight = asyncio.Event(), asyncio.Event(), 0
        self._next_start = self._hold_until = 0.0  # next start, and end of a 429 hold; on the clock of the loop
        self._limit_waves, self._wave_begin, self._limited_since = 0, 0.0, 0.0  # HTTP 429: count, last and first begin
        self._recent, self._recent_tokens = deque[tuple[float, int]](), 0  # (start, tokens) of the last minute

    def replies(
        self, requests: Iterable[ApiRequest], stopping: Callable[[], bool] = lambda: False
    ) -> Generator[list[tuple[ApiRequest, Reply]], None, None]:
        """Yield replies as they arrive, and empty lists while none arrive. Once `stopping` is true, no request is sent
        and those in flight are awaited. An error is raised after all replies that arrived were yielded."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._work(iter(requests)))

        def run_loop() -> None:
            try:
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)
                loop.run_until_complete(loop.shutdown_default_executor())
            except Exception as error:
                self._error = self._error or error
            finally:
                self._queue.put(None)

        thread = threading.Thread(target=run_loop, name="requests", daemon=True)
        thread.start()
        stop_requested = False
        try:
            while (chunk := self._queue.get()) is not None:
                yield chunk
                if stopping() and not stop_requested:
                    stop_requested = True
                    loop.call_soon_threadsafe(self._request_stop, task)
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join()
            loop.close()
        if self._error:
            raise self._error

    def _request_stop(self, task: asyncio.Task[None]) -> None:
        self._stop.set()
        asyncio.get_running_loop().call_later(STOP_GRACE_SECONDS, task.cancel)

    async def _work(self, requests: Iterator[ApiRequest]) -> None:
        async with self.endpoint.connect():
            tasks = {asyncio.create_task(self._worker(requests)) for _ in range(self.server.concurrency)}
            try:
                while tasks:
                    _, tasks = await asyncio.wait(tasks, timeout=FLUSH_SECONDS)
                    self._flush()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._flush()

    def _flush(self) -> None:
        self._queue.put(self._pending)
        self._pending = []

    async def _worker(self, requests: Iterator[ApiRequest]) -> None:
        """Send requests one after the other. Workers share the iterator, so a request is made only when it is sent."""
        try:
            for request in requests:
                reply = None if self._stop.is_set() else await self._reply(request)
                if reply is None:
                    return
                self._pending.append((request, reply))
                if len(self._pending) >= CHUNK_ANSWERS:
                    self._flush()
        except Exception as error:  # the first error is raised; the other workers finish their request
            self._error = self._error or error
            self._stop.set()

    async def _reply(self, request: ApiRequest) -> Reply | None:
        """Send a request until it is answered; None if this client stops."""
        account, reply = Account(), None
        try:
            reply = await self._retry(request, account)
        finally:
            if not reply and account.attempts:
                self.unanswered.append((request, account))
        return reply

    async def _retry(self, request: ApiRequest, account: Account) -> Reply | None:
        failures, first_begin, clock = 0, 0.0, asyncio.get_running_loop().time
        while await self._wait_for_start(request) and (reservation := await self._reserve(request)) is not None:
            begun, begin_time, folded = clock(), round(time.time(), 3), self.endpoint.folds(request.payload)
            first_begin = first_begin or begun
            try:
                data, refusal = await self._attempt(request, reservation, account)
                self._limit_waves = 0
                return Reply(clean_surrogates(data), refusal, begin_time, round(clock() - begun, 3), folded, account)
            except RequestAdjusted:
                self._count_failure("parameter", account)
            except Retryable as error:
                self._count_failure(error.kind, account)
                rate_limited = error.kind == "429"
                failures += not rate_limited
                if not self._hold_all(error, begun) if rate_limited else failures >= self.server.attempts:
                    wait_note = f" (the server asks to wait {error.after:g} s)" if error.after else ""
                    raise Unavailable(
                        f"{self.endpoint.label}: no answer to {request.name} after {account.attempts} attempts in "
                        f"{clock() - first_begin:.0f} s; the last got {error}{wait_note}. Answers that arrived "
                        f"are kept: run the same command again once the server answers"
                    ) from None
                backoff = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** (failures - 1)) * self._random.uniform(0.5, 1.0)
                if not rate_limited and not await self._pause(max(backoff, error.after)):
                    return None
        return None

    def _count_failure(self, cause: str, account: Account) -> None:
        self.retries[cause] += 1
        account.retries[cause] += 1

    def _hold_all(self, error: Retryable, begun: float) -> bool:
        """Hold all requests after a 429 to a request that began at `begun`.

        The hold is as long as the server asks for, or grows until a request is answered. Returns False if the server
        has been limiting for too long, or asks for too long a wait.
        """
        now = asyncio.get_running_loop().time()
        if not self._limit_waves:
            self._limited_since = now
        if not self._limit_waves or begun >= self._wave_begin:  # requests in flight together make one wave
            self._limit_waves, self._wave_begin = self._limit_waves + 1, now
        left = self._limited_since + self.server.attempts * RATE_LIMIT_WINDOW - now
        if left <= 0 or error.after > left:
            return False
        wait = error.after or min(
            MAX_BACKOFF, left, FIRST_BACKOFF * 2 ** min(self._limit_waves - 1, 9) * self._random.uniform(1.0, 1.2)
        )
        self._hold_until = max(self._hold_until, now + wait)
        return True

    async def _pause(self, seconds: float) -> bool:
        """Wait; return False once this client stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        return not self._stop.is_set()

    async def _wait_for_start(self, request: ApiRequest) -> bool:
        """Wait until the rate limits allow a start, at three bytes per token; return False once this client stops."""
        clock = asyncio.get_running_loop().time
        while (start := self._start_time(request.prompt_bytes // 3 + request.max_new_tokens, clock())) > clock():
            if not await self._pause(start - clock()):
                return False
            if start >= self._hold_until:
                break
        return not self._stop.is_set()

    def _start_time(self, tokens: int, now: float) -> float:
        """Return the time of the next start. Starts are spaced evenly, and no minute has more tokens than the limit,
        unless a single request has. The minute is one percent longer here, because requests take time to arrive."""
        limit, minute = self.server.tokens_per_minute, 60.6
        start = max(now, self._next_start, self._hold_until)
        if limit:
            while self._recent and (self._recent[0][0] + minute <= start or self._recent_tokens + tokens > limit):
                earlier, earlier_tokens = self._recent.popleft()
                start, self._recent_tokens = max(start, earlier + minute), self._recent_tokens - earlier_tokens
            self._recent.append((start, tokens))
            self._recent_tokens += tokens
        minimum_gaps = [1 / self.server.requests_per_minute] if self.server.requests_per_minute else [0.0]
        self._next_start = start + minute * max(*minimum_gaps, tokens / limit if limit else 0.0)
        return start

    async def _reserve(self, request: ApiRequest) -> str | None:
        """Reserve the highest cost of a request; if the budget is too small, wait for requests in flight to be settled.
        Returns None once this client stops."""
        while self.spending:
            try:
                return self.spending.reserve(*request.max_tokens)
            except OverBudget:
                if not self._in_flight:
                    raise
            self._reply_landed.clear()
            await self._reply_landed.wait()
            if self._stop.is_set():
                return None
        return ""

    async def _attempt(self, request: ApiRequest, reservation: str, account: Account) -> tuple[dict[str, Any], str]:
        """Send one request and return its JSON, or the message of a refusal. Its cost is settled; if the cost is
        unknown, the whole reservation counts."""
        usage: tuple[int, int] | None = None
        unbilled = False
        self._in_flight += 1
        self.attempts += 1
        account.attempts += 1
        try:
            data = await self.endpoint.send(request.name, request.payload)
            usage = token_usage(data)
            invalid = invalid_reason(data, self.endpoint.model, self.endpoint.kind)
            if invalid:
                raise Retryable(invalid[0], self.endpoint.clean(invalid[1]))
            return data, ""
        except PromptFiltered as error:
            return {}, str(error)
        except (RequestAdjusted, SynthdivError):
            unbilled = True
            raise
        except Retryable as error:
            unbilled = error.unbilled
            raise
        finally:
            if not unbilled:
                account.add(usage, request.max_tokens)
            if self.spending and (usage or unbilled):
                self.spending.settle(reservation, *(usage or (0, 0)))
            self._in_flight -= 1
            self._reply_landed.set()
