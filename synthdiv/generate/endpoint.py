"""An endpoint of a server: one request sent, and what its failure means for it and for those after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Any

from synthdiv.generate.protocol import (
    BROKEN,
    FILTERED,
    OPTIONAL,
    PASSING,
    PATHS,
    UNSURE,
    Again,
    Changed,
    Filtered,
    behind,
    names_of,
    not_taken,
    said,
    seconds_after,
)
from synthdiv.runtime import Runtime, Server
from synthdiv.types import ConfigError, DataError


def server_of(name: str, runtime: Runtime) -> Server:
    for server in runtime.servers:
        if server.name == name:
            return server
    told = ", ".join(server.name for server in runtime.servers) or "none"
    raise ConfigError(f"hosted.server={name}: no such server in runtime.servers; there are {told}")


def key_of(server: Server) -> str:
    """The key, from the environment and nowhere else; `none` where the server needs none."""
    if not server.key:
        return "none"
    key = os.environ.get(server.key, "").strip()
    if not key:
        raise ConfigError(f"server {server.name}: the environment variable {server.key} is not set; export its key")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"server {server.name}: the environment variable {server.key} has characters that no key has")
    return key


def known(names: list[str]) -> str:
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return f"it has {', '.join(sorted(names)[:40])}{more}" if names else "it gives no list of those it has"


class Endpoint:
    """One of PATHS at `server`, for `model`. `refused` are the optional parameters that the server does not take."""

    def __init__(self, server: Server, model: str, kind: str):
        self.server, self.model, self.kind = server, model, kind
        self.place = f"server {server.name} ({server.url})"
        self.refused = set[str]()
        self._key = key_of(server)

    def connect(self) -> Any:
        """A context within which requests can be sent, of the running event loop. Address, headers and connections are
        those of the openai package; its own `post` would take as long again as all else that a request takes."""
        import openai

        seconds = self.server.timeout_seconds
        self._http = openai.DefaultAioHttpClient(timeout=openai.Timeout(seconds, connect=min(seconds, 20.0)))
        client = openai.AsyncOpenAI(api_key=self._key, base_url=self.server.url, http_client=self._http)
        headers = {**client.default_headers, **client.auth_headers}
        self._http.headers = {  # without those that say how the package's own `post` sends
            name: value
            for name, value in headers.items()
            if isinstance(value, str) and not name.startswith("X-Stainless")
        }
        self._url = str(client.base_url).rstrip("/")
        return client

    async def send(self, name: str, payload: dict[str, Any]) -> Any:
        """The JSON of an answer. Raises Again, Changed, Filtered, or the error that ends it all."""
        body = dict(payload)
        for refused in self.refused & body.keys():
            value = body.pop(refused)
            body |= {OPTIONAL[refused]: value} if OPTIONAL[refused] else {}
        try:
            async with asyncio.timeout(self.server.timeout_seconds):
                if self.kind == "models":
                    response = await self._http.get(self._url + PATHS["models"])
                else:
                    response = await self._http.post(self._url + PATHS[self.kind], content=json.dumps(body).encode())
        except Exception as error:
            kinds, words = behind(error)
            if "TimeoutError" in kinds:
                raise Again("timeout", f"no answer for {self.server.timeout_seconds:g} s") from None
            if not kinds & BROKEN:
                raise
            words = f"a broken connection ({self.clean(words)})"
            raise Again("connection", words, free="ClientConnectorError" in kinds) from None
        if response.status_code >= 300:
            return await self._refusal(name, body, response)
        try:
            return json.loads(response.content)
        except ValueError:
            raise Again("invalid", "an answer that is not JSON") from None

    async def _refusal(self, name: str, body: dict[str, Any], response: Any) -> Any:
        """Raise what an HTTP status means; a server that has no list of models has an empty one."""
        status, (words, code, parameter) = response.status_code, said(response.content)
        words = self.clean(words)
        if status in (401, 403):  # its words may show parts of the key
            raise ConfigError(
                f"{self.place} refuses the key in the environment variable {self.server.key or 'none'} ({status}); "
                f"renew it, or name another in runtime.servers"
            )
        if code == "insufficient_quota":
            raise DataError(f"{self.place}: the account has nothing left ({words}). What arrived is kept")
        if status in PASSING or (status >= 500 and self.kind != "models") or status > 501:
            after = seconds_after(response.headers)
            raise Again(str(status), f"HTTP {status}: {words}", after, free=status not in UNSURE)
        if self.kind == "models":
            return {}
        if code in FILTERED:
            raise Filtered(words)
        dropped = not_taken(words, parameter, body)
        if dropped:
            self.refused |= {*dropped}
            raise Changed
        if status == 404 or code == "model_not_found":
            raise DataError(f"{self.place} does not know {self.model} ({words}); {known(await self._names())}")
        raise DataError(f"{self.place} refuses {name} ({status}): {words}")

    async def _names(self) -> list[str]:
        with contextlib.suppress(Exception):  # the error that it is for is told in any case
            return names_of((await self._http.get(self._url + PATHS["models"])).json())
        return []

    def clean(self, words: str) -> str:
        """One line of what a server said, without the key."""
        words = words.replace(self._key, "***") if self.server.key else words
        return " ".join(words.split())[:500]
