"""Client of one source at a server with OpenAI's protocol: concurrent requests, retries and costs.

All shards of a source that this process builds at the same time share one client: its event loop, its connections, its
places in flight and what it has learnt about the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import Any

from synthdiv.core.runtime import Server
from synthdiv.core.types import DataError, SynthdivError, Unavailable
from synthdiv.generate.endpoint import Endpoint
from synthdiv.generate.limits import Limits
from synthdiv.generate.protocol import PromptRejected, RequestAdjusted, Retryable, invalid_reason, token_usage
from synthdiv.generate.replies import ApiRequest, Batch, Reply
from synthdiv.generate.spend import Account, Spending

POLL_SECONDS = 0.05  # between two looks at what other processes release
STOP_GRACE_SECONDS = 30.0  # for requests in flight after a stop was requested
FIRST_BACKOFF, MAX_BACKOFF = 1.0, 60.0  # seconds before the second attempt, doubled for each further one
RATE_LIMIT_WINDOW = 60.0  # seconds; `attempts` times this may pass with only HTTP 429
PROMPT_FAULTS = ("500", "invalid", "finish", "timeout")  # failures that a prompt can cause


class Client:
    """Requests answers of `model` from `server`, at an endpoint of PATHS. Threads may call `replies` at the same time.

    `reports` are further names under which the server may report the model. `attempts` counts requests sent.
    """

    def __init__(
        self, server: Server, model: str, kind: str = "chat", spending: Spending | None = None,
        limits: Limits | None = None, reports: Iterable[str] = (),
    ):  # fmt: skip
        self.server, self.spending, self.limits = server, spending, limits or Limits(server)
        self.endpoint, self.names = Endpoint(server, model, kind), {model, *reports}
        self.attempts = self._users = 0
        self._known = kind != "chat"  # whether the server has given an answer by this model
        self._random = random.Random()  # does not disturb the random state of a stage
        self._mutex = threading.Lock()
        self._hold_until = self._answered_at = 0.0  # end of a hold after HTTP 429, and the last answer; monotonic

    def replies(
        self, requests: Iterable[ApiRequest], stopping: Callable[[], bool] = lambda: False
    ) -> Generator[list[tuple[ApiRequest, Reply]], None, None]:
        """Yield replies as they arrive, and empty lists while none arrive. Once `stopping` is true, no request is sent
        and those in flight are awaited. An error is raised after all replies that arrived were yielded."""
        batch = Batch(requests)
        with self._session() as loop:
            task = asyncio.run_coroutine_threadsafe(self._begin(batch), loop).result()
            ended = stop_requested = False
            try:
                while not ended:
                    items, ended = batch.take()
                    yield [(request, reply) for request, reply, _ in items]
                    loop.call_soon_threadsafe(confirm, [written for *_, written in items])
                    if stopping() and not stop_requested:
                        stop_requested = True
                        loop.call_soon_threadsafe(request_stop, batch, task)
            finally:
                loop.call_soon_threadsafe(task.cancel)
                while not ended:
                    ended = batch.take()[1]
        for error in batch.error.values():
            raise error

    @contextlib.contextmanager
    def _session(self) -> Iterator[asyncio.AbstractEventLoop]:
        """The event loop with open connections, in a thread that lives as long as somebody uses it."""
        with self._mutex:
            if not self._users:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="requests", daemon=True)
                self._thread.start()
                asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
            self._users += 1
            loop = self._loop
        try:
            yield loop
        finally:
            with self._mutex:
                self._users -= 1
                if not self._users:
                    asyncio.run_coroutine_threadsafe(self._close(), loop).result()
                    loop.call_soon_threadsafe(loop.stop)
                    self._thread.join()
                    loop.close()

    async def _open(self) -> None:
        self._in_flight = asyncio.Semaphore(self.server.concurrency)
        self._first, self._looking, self._reserving = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        await self.endpoint.open()

    async def _close(self) -> None:
        await self.endpoint.close()
        await asyncio.get_running_loop().shutdown_default_executor()

    async def _begin(self, batch: Batch) -> asyncio.Future[Any]:
        workers = [asyncio.create_task(self._worker(batch)) for _ in range(self.server.concurrency)]
        task = asyncio.gather(*workers, return_exceptions=True)
        task.add_done_callback(lambda _: batch.arrived.put(None))
        return task

    async def _worker(self, batch: Batch) -> None:
        """Send requests one after the other. Workers share the iterator, so a request is made only when it is sent."""
        try:
            while not batch.stop.is_set():
                async with self._place():
                    request = None if batch.stop.is_set() else next(batch.requests, None)
                    reply = await self._reply(request, batch) if request else None
                    if not request or not reply:
                        return
                    await batch.hand_over(request, reply)
        except Exception as error:  # the first error is raised; the other workers finish their request
            batch.error.setdefault("first", error)
            batch.stop.set()

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the server's places in flight."""
        async with self._in_flight:
            async with self._looking:  # one at a time looks whether another process freed a place
                while (place := self.limits.take()) is None:
                    await asyncio.sleep(POLL_SECONDS)
            try:
                yield
            finally:
                self.limits.free(place)

    async def _reply(self, request: ApiRequest, batch: Batch) -> Reply | None:
        """Send a request until it is answered; None if the batch stops. The first request of a source is sent alone:
        what the server rejects is learnt once, and another model is not paid for many times."""
        account, reply = Account(), None
        try:
            if not self._known:
                async with self._first:
                    reply = await self._retry(request, account, batch) if not self._known else None
            reply = reply or await self._retry(request, account, batch)
        finally:
            if not reply and account.attempts:
                batch.arrived.put((request, Reply(account), None))
        return reply

    async def _retry(self, request: ApiRequest, account: Account, batch: Batch) -> Reply | None:
        failures = waits = 0
        first_begin = time.monotonic()
        while await self._start(request, batch) and (reservation := await self._reserve(request, batch)) is not None:
            begun = time.monotonic()
            reply = Reply(account, at=round(time.time(), 3), folded=self.endpoint.folds(request.payload))
            try:
                data, outcome, message = await self._attempt(request, reservation, account), "", ""
            except PromptRejected as error:
                data, outcome, message = None, error.finish, str(error)
            except RequestAdjusted:
                account.retries["parameter"] += 1
                continue
            except Retryable as error:
                account.retries[error.kind] += 1
                limited = error.kind == "429"
                waits, failures = waits + limited, failures + (not limited)
                if limited and self._hold(error, waits, first_begin):
                    continue
                patience = self.server.attempts * RATE_LIMIT_WINDOW
                if not limited and failures < self.server.attempts and error.after <= patience:
                    backoff = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** (failures - 1)) * self._random.uniform(0.5, 1.0)
                    await batch.pause(max(backoff, error.after))
                    continue
                if not await self._is_fault_of(request, account, error, begun, batch):
                    raise self._unavailable(request, account, first_begin, error) from None
                data, outcome, message = None, "failed", f"{error} ({failures} attempts)"
            if outcome != "failed":  # which is no sign that the server works
                self._answered_at = time.monotonic()
            return replace(
                reply, data=data, outcome=outcome, message=message, seconds=round(time.monotonic() - begun, 3)
            )
        return None

    def _unavailable(self, request: ApiRequest, account: Account, first_begin: float, error: Retryable) -> Unavailable:
        wait_note = f" (the server asks to wait {error.after:g} s)" if error.after else ""
        return Unavailable(
            f"{self.endpoint.label}: no answer to {request.name} after {account.attempts} attempts in "
            f"{time.monotonic() - first_begin:.0f} s; the last got {error}{wait_note}. Answers that arrived "
            f"are kept: run the same command again once the server answers"
        )

    async def _is_fault_of(
        self, request: ApiRequest, account: Account, error: Retryable, since: float, batch: Batch
    ) -> bool:
        """Whether such failures are the fault of the prompt: the server answered another one since the last attempt
        began, or answers one now."""
        if error.kind not in PROMPT_FAULTS or "messages" not in request.payload:
            return False
        if self._answered_at > since:
            return True
        probe = replace(request, payload=request.payload | {"messages": [{"role": "user", "content": "Say OK."}]})
        with contextlib.suppress(Retryable, RequestAdjusted, PromptRejected, SynthdivError):
            reservation = await self._reserve(probe, batch)
            return reservation is not None and bool(await self._attempt(probe, reservation, account))
        return False

    def _hold(self, error: Retryable, waits: int, first_begin: float) -> bool:
        """Hold all requests after a 429, for as long as the server asks for, or longer each time. Returns False if
        nothing was answered for too long, or the server asks for too long a wait."""
        now = time.monotonic()
        left = max(first_begin, self._answered_at) + self.server.attempts * RATE_LIMIT_WINDOW - now
        if left <= 0 or error.after > left:
            return False
        backoff = min(MAX_BACKOFF, left, FIRST_BACKOFF * 2 ** min(waits - 1, 9) * self._random.uniform(1.0, 1.2))
        self._hold_until = max(self._hold_until, now + (error.after or backoff))
        return True

    async def _start(self, request: ApiRequest, batch: Batch) -> bool:
        """Wait until the rate limits allow a start, at three bytes per token; return False once the batch stops."""
        while not batch.stop.is_set():
            if (hold := self._hold_until - time.monotonic()) > 0:
                await batch.pause(hold)
                continue
            start = self.limits.start(request.prompt_bytes // 3 + request.max_new_tokens, time.time())
            if (wait := start - time.time()) > 0:
                await batch.pause(wait)
            if self._hold_until <= time.monotonic():
                break
        return not batch.stop.is_set()

    async def _reserve(self, request: ApiRequest, batch: Batch) -> str | None:
        """Reserve the highest cost of a request, as soon as requests in flight leave enough of the budget. Returns None
        once the batch stops."""
        if not self.spending:
            return ""
        async with self._reserving:
            while (name := self.spending.reserve(*request.max_tokens)) is None:
                if not await batch.pause(POLL_SECONDS):
                    return None
        return name

    async def _attempt(self, request: ApiRequest, reservation: str, account: Account) -> dict[str, Any]:
        """Send one request and return its JSON. Its cost is settled; if it is unknown, the whole reservation counts."""
        usage: tuple[int, int] | None = None
        data, unbilled = None, False
        self.attempts += 1
        account.attempts += 1
        try:
            data = await self.endpoint.send(request.name, request.payload)
            usage = token_usage(data)
            invalid = invalid_reason(data, self.endpoint.kind)
            if invalid:
                raise Retryable(invalid[0], self.endpoint.clean(invalid[1]))
            self._check_model(data)
            return data
        except Exception as error:
            unbilled = getattr(error, "unbilled", data is None)
            raise
        finally:
            if not unbilled:
                account.add(usage, request.max_tokens)
            if self.spending and (reservation or usage):
                self.spending.settle(reservation, *(usage or ((0, 0) if unbilled else request.max_tokens)))

    def _check_model(self, data: Any) -> None:
        reported = data.get("model") if isinstance(data, dict) else None
        if self.endpoint.kind == "chat" and reported and reported not in self.names:
            raise DataError(
                f"{self.endpoint.label} reports the model {self.endpoint.clean(str(reported))}, not "
                f"{self.endpoint.model}. If it is the one you mean, accept it with hosted.reports=[{reported}] (in "
                "generators.models.N), and run the same command again"
            )
        self._known = True


def confirm(written: Iterable[asyncio.Future[None] | None]) -> None:
    for future in written:
        if future and not future.done():
            future.set_result(None)


def request_stop(batch: Batch, task: asyncio.Future[Any]) -> None:
    batch.stop.set()
    asyncio.get_running_loop().call_later(STOP_GRACE_SECONDS, task.cancel)
