"""An endpoint of a server: one request sent, and what its failure means for it and for those after it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import re
import urllib.parse
from typing import Any

from synthdiv.core.runtime import Runtime, Server
from synthdiv.core.types import ConfigError, DataError, Unavailable
from synthdiv.generate.protocol import (
    BROKEN,
    OPTIONAL,
    PASSING,
    PATHS,
    UNSURE,
    Again,
    Changed,
    Filtered,
    behind,
    filtered,
    names_of,
    no_system,
    not_taken,
    said,
    seconds_after,
)


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


def loopback(url: str) -> bool:
    """Whether an address is this machine's own, which no proxy knows."""
    host = urllib.parse.urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


class Endpoint:
    """One of PATHS at `server`, for `model`. `refused` are the optional parameters that the server does not take, and
    `folded` is whether it takes no system role: its words then go to the front of the user's turn."""

    def __init__(self, server: Server, model: str, kind: str):
        self.server, self.model, self.kind = server, model, kind
        self.place = f"server {server.name} ({server.url})"
        self.refused, self.folded = set[str](), False
        self._key = key_of(server)

    def connect(self) -> Any:
        """A context within which requests can be sent, of the running event loop. Address, headers and connections are
        those of the openai package; its own `post` would take as long again as all else that a request takes."""
        import openai

        seconds = self.server.timeout_seconds
        timeout = openai.Timeout(seconds, connect=min(seconds, 20.0))
        self._http = openai.DefaultAioHttpClient(timeout=timeout, trust_env=not loopback(self.server.url))
        client = openai.AsyncOpenAI(api_key=self._key, base_url=self.server.url, http_client=self._http)
        headers = {**client.default_headers, **client.auth_headers}
        self._http.headers = {  # without those that say how the package's own `post` sends
            name: value
            for name, value in headers.items()
            if isinstance(value, str) and not name.startswith("X-Stainless")
        }
        self._url = str(client.base_url).rstrip("/")
        return client

    def folds(self, payload: dict[str, Any]) -> bool:
        """Whether the system role of this payload goes to the user's turn."""
        messages = payload.get("messages", [])
        return self.folded and len(messages) > 1 and messages[0]["role"] == "system"

    def _body(self, payload: dict[str, Any]) -> dict[str, Any]:
        """What is sent, as far as is known of what the server takes."""
        body = dict(payload)
        for refused in self.refused & body.keys():
            value = body.pop(refused)
            body |= {OPTIONAL[refused]: value} if OPTIONAL[refused] else {}
        if self.folds(payload):
            system, user, *more = body["messages"]
            body["messages"] = [user | {"content": f"{system['content']}\n\n{user['content']}"}, *more]
        return body

    async def send(self, name: str, payload: dict[str, Any]) -> Any:
        """The JSON of an answer. Raises Again, Changed, Filtered, or the error that ends it all."""
        body = self._body(payload)
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
            if self.kind == "models":
                return {}
            raise Again("invalid", "an answer that is not JSON") from None

    async def _refusal(self, name: str, body: dict[str, Any], response: Any) -> Any:
        """Raise what an HTTP status means; a server that does not show its list of models has an empty one."""
        status, (words, code, parameter) = response.status_code, said(response.content)
        words = self.clean(words)
        if status == 401:  # its words may show parts of the key
            raise ConfigError(
                f"{self.place} refuses the key in the environment variable {self.server.key or 'none'} (401); "
                f"renew it, or name another in runtime.servers"
            )
        if code == "insufficient_quota" or status == 402:
            raise Unavailable(f"{self.place}: the account has nothing left ({words}). What arrived is kept")
        if status in PASSING or (status >= 500 and self.kind != "models") or status > 501:
            after = seconds_after(response.headers)
            raise Again(str(status), f"HTTP {status}: {words}", after, free=status not in UNSURE)
        if self.kind == "models":
            return {}
        dropped = not_taken(words, parameter, body)
        if dropped:
            self.refused |= {*dropped}
            raise Changed
        if body.get("messages", [{}])[0].get("role") == "system" and status == 400 and no_system(words):
            self.folded = True
            raise Changed
        if filtered(code) or (status == 400 and filtered(words)):
            raise Filtered(words)
        if status == 404 or code == "model_not_found":
            raise DataError(f"{self.place} does not know {self.model} ({words}); {known(await self._names())}")
        raise DataError(f"{self.place} refuses {name} ({status}): {words}{self._way_out(status)}")

    def _way_out(self, status: int) -> str:
        """What a person may do about such a refusal, as another sentence."""
        if status == 403:
            key = f"the key in the environment variable {self.server.key}" if self.server.key else "a key that it wants"
            return f". It may be about the prompt, the region or {key}"
        if status in (400, 413, 422):
            return ". If it is about this one prompt, leave it out (prompts.table.where), or take another source"
        return ""

    async def _names(self) -> list[str]:
        with contextlib.suppress(Exception):  # the error that it is for is told in any case
            return names_of((await self._http.get(self._url + PATHS["models"])).json())
        return []

    def clean(self, words: str) -> str:
        """One line of what a server said, without the key, and without a word that begins as the key does."""
        if self.server.key:
            words = words.replace(self._key, "***")
            words = re.sub(rf"{re.escape(self._key[:8])}\S*", "***", words) if len(self._key) > 16 else words
        return " ".join(words.split())[:500]
