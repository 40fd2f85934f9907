"""A server that speaks OpenAI's protocol and fails on purpose: which request fails, and how, follows from a seed."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KINDS = ("429", "500", "slow", "cut", "dropped", "truncated", "invalid", "empty", "finish", "duplicate")
Headers = dict[str, str]


def text_of(prompt: str) -> str:
    """What the server answers."""
    return f"You said: {prompt[::-1]}"


def prompt_of(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"] if "messages" in body else body["prompt"]


@dataclass
class FaultServer:
    """Answers after `latency` seconds. A `share` of requests fails, none `most` times in a row. `rule` may answer in
    its place with a status and JSON. `bare`: its list of models is an array alone; `ends` is how it says `stop` and
    `length`; `counts` is whether it reports usage. `asked` counts requests by prompt and `whole` the good answers,
    `bodies` and `starts` (seconds) tell of each request, `peak` is the most that were answered at a time."""

    latency: float = 0.0
    share: float = 0.0
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    most: int = 3
    slow: float = 1.0
    retry_after: str = "0.1"
    models: tuple[str, ...] | None = ("tiny-chat", "other-chat")
    bare: bool = False
    ends: tuple[str, str] = ("stop", "length")
    counts: bool = True
    key: str = ""
    more: str = ""
    raw: bytes = b""
    rule: Callable[[dict[str, Any]], tuple[int, dict[str, Any]] | None] = lambda body: None
    asked: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    peak: int = 0
    garbled: int = 0  # answers of which nobody can read the usage
    busy: int = 0
    url: str = ""

    def __enter__(self) -> FaultServer:
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**25))
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _close(self) -> None:
        self.server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._reply(first.split()[1], headers, json.loads(body or b"{}"), writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        writer.close()

    async def _reply(self, path: str, headers: Headers, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Answer one request. False: the connection ends here."""
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            key = headers.get("authorization", "").removeprefix("Bearer ")
            self.asked["without the key"] += 1
            return await send(writer, 401, {"error": {"message": f"Incorrect API key provided: {key}"}})
        self.paths.append(path)
        if path.endswith("/models"):
            self.asked["/models"] += 1
            if self.models is None:
                return await send(writer, 404, {"detail": "Not Found"})
            models = [{"id": name} for name in self.models]
            return await send(writer, 200, models if self.bare else {"object": "list", "data": models})
        prompt = prompt_of(body)
        fault = self._fault(prompt)
        self.asked[prompt] += 1
        self.bodies.append(body)
        self.starts.append(time.monotonic())
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        try:
            await asyncio.sleep(self.slow if fault == "slow" else self.latency)
        finally:
            self.busy -= 1
        return await self._say(fault, prompt, body, writer)

    def _fault(self, prompt: str) -> str:
        nth = self.asked[prompt]
        dice = random.Random(f"{self.seed}/{prompt}/{nth}")
        return dice.choice(self.kinds) if nth < self.most and dice.random() < self.share else ""

    async def _say(self, fault: str, prompt: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        ruled = self.rule(body)
        if self.raw:
            writer.write(head_of(200, len(self.raw), self.more) + self.raw)
            return True
        if ruled:
            return await send(writer, *ruled, self.more)
        if fault == "429":
            error = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
            return await send(writer, 429, error, f"Retry-After: {self.retry_after}\r\n")
        if fault == "500":
            return await send(writer, 500, {"error": {"message": "it broke"}})
        if fault == "dropped":
            return False
        data = completion(body, "same" if fault == "duplicate" else f"id-{self.asked.total()}", self.ends)
        if not self.counts:
            del data["usage"]
        if fault == "empty":
            data["choices"] = []
        if fault == "finish":
            data["choices"][0]["finish_reason"] = None
        raw = json.dumps(data).encode()
        if fault == "cut":
            writer.write(head_of(200, len(raw)) + raw[: len(raw) // 2])
            await writer.drain()
            return False
        self.garbled += fault in ("truncated", "invalid")
        if fault == "truncated":
            raw = raw[: len(raw) // 2]
        if fault == "invalid":
            raw = b"<html>no gateway</html>"
        if fault in ("", "slow", "duplicate"):
            self.whole[prompt] += 1
        writer.write(head_of(200, len(raw)) + raw)
        await writer.drain()
        return True


def completion(body: dict[str, Any], name: str, ends: tuple[str, str]) -> dict[str, Any]:
    """A good answer, as the endpoint gives it."""
    prompt = prompt_of(body)
    text = text_of(prompt)
    chat = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
    choice = chat | {"index": 0, "finish_reason": ends[prompt.endswith("0")]}
    if body.get("logprobs"):
        choice["logprobs"] = {"content": [{"token": "You", "logprob": -0.5, "top_logprobs": []}]}
    return {
        "id": name,
        "model": body["model"],
        "system_fingerprint": "fp_1",
        "provider": "alder",
        "choices": [choice],
        "usage": {"prompt_tokens": len(prompt.split()) + 8, "completion_tokens": len(text.split())},
    }


def head_of(status: int, length: int, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n".encode()


async def send(writer: asyncio.StreamWriter, status: int, data: Any, more: str = "") -> bool:
    raw = json.dumps(data).encode()
    writer.write(head_of(status, len(raw), more) + raw)
    await writer.drain()
    return True


if __name__ == "__main__":  # for a process of its own: the latency in, the address out, until the input ends
    with FaultServer(latency=float(sys.argv[1])) as own:
        print(own.url, flush=True)
        sys.stdin.read()
