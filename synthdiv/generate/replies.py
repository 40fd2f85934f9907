"""A request to a server, its reply, and the queue between the event loop of a client and the thread that writes."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from synthdiv.generate.spend import Account

FLUSH_SECONDS = 1.0  # after which the caller gets an empty list if nothing arrived
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
    """What became of a request, and the account of all its attempts.

    `data` is the JSON of an answer. Without it, `outcome` is `refusal` (by a filter), `failed` (the server never
    answers this prompt), or empty (not answered in this session), and `message` says why. `at` is the epoch time at
    which the last attempt began and `seconds` its duration. `folded`: the system message was sent in the user turn.
    """

    account: Account
    data: dict[str, Any] | None = None
    outcome: str = ""
    message: str = ""
    at: float = 0.0
    seconds: float = 0.0
    folded: bool = False


Arrival = tuple[ApiRequest, Reply, asyncio.Future[None] | None]  # the future is done when the reply is written


class Batch:
    """The requests of one call of `Client.replies`, and the queue of replies to its thread; None ends it."""

    def __init__(self, requests: Iterable[ApiRequest]):
        self.requests, self.arrived = iter(requests), queue.SimpleQueue[Arrival | None]()
        self.stop, self.error = asyncio.Event(), dict[str, Exception]()

    async def hand_over(self, request: ApiRequest, reply: Reply) -> None:
        """Return when the caller has written the reply: until then it counts as in flight, so a kill loses no more."""
        written = asyncio.get_running_loop().create_future()
        self.arrived.put((request, reply, written))
        await written

    def take(self) -> tuple[list[Arrival], bool]:
        """Wait for replies; return them, and whether they are the last."""
        items: list[Arrival | None] = []
        with contextlib.suppress(queue.Empty):
            items.append(self.arrived.get(timeout=FLUSH_SECONDS))
            while True:
                items.append(self.arrived.get_nowait())
        return [item for item in items if item], None in items

    async def pause(self, seconds: float) -> bool:
        """Wait; return False once the batch stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        return not self.stop.is_set()
