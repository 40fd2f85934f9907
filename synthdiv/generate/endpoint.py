"""An endpoint of a server: sends a request and raises what its failure means."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import re
import urllib.parse
from typing import Any

from synthdiv.core.runtime import Runtime, Server
from synthdiv.core.types import ConfigError, DataError, Unavailable
from synthdiv.generate.protocol import (
    MAYBE_BILLED_STATUSES,
    OPTIONAL_PARAMETERS,
    PATHS,
    RETRIED_STATUSES,
    PromptRejected,
    RequestAdjusted,
    Retryable,
    error_details,
    model_names,
    prompt_outcome,
    rejected_parameters,
    rejects_system_role,
    retry_after_seconds,
)

MOST_BYTES = 2**25  # of one answer, after decompression
CONNECT_SECONDS = 20.0


def server_of(name: str, runtime: Runtime) -> Server:
    for server in runtime.servers:
        if server.name == name:
            return server
    names = ", ".join(server.name for server in runtime.servers) or "none"
    raise ConfigError(f"hosted.server={name}: no such server in runtime.servers; choose one of {names}")


def secret(server: Server, variable: str) -> str:
    """Return the value of an environment variable that goes into a header or an address."""
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"server {server.name}: the environment variable {variable} is not set; export its value")
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(
            f"server {server.name}: the environment variable {variable} has characters that keys do not contain"
        )
    return value


def known_models(names: list[str]) -> str:
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return f"it has {', '.join(sorted(names)[:40])}{more}" if names else "it has no list of models"


def loopback(url: str) -> bool:
    """Return whether an address is on the loopback interface, which needs no proxy."""
    host = urllib.parse.urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


class OversizedAnswer(DataError):
    """An answer that is not read to its end, but may be paid."""

    unbilled = False


class Endpoint:
    """One of PATHS at `server`, for `model`. `refused` holds the optional parameters that the server rejects. `folded`
    means that it rejects the system role; the system message then goes to the front of the user turn."""

    def __init__(self, server: Server, model: str, kind: str):
        self.server, self.model, self.kind = server, model, kind
        self.label = f"server {server.name} ({server.url})"
        self.refused, self.folded = set[str](), False
        parts = re.findall(r"{(\w+)}", server.url)
        self._secrets = [secret(server, name) for name in ([server.key] if server.key else []) + parts]
        self._key = self._secrets[0] if server.key else "none"
        self._url = re.sub(r"{(\w+)}", lambda match: secret(server, match[1]), server.url).rstrip("/")

    async def open(self) -> None:
        """Open the connections, in the running event loop."""
        import aiohttp

        seconds = self.server.timeout_seconds
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(seconds, sock_connect=min(seconds, CONNECT_SECONDS)),
            trust_env=not loopback(self.server.url),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )

    async def close(self) -> None:
        await self._http.close()

    def folds(self, payload: dict[str, Any]) -> bool:
        """Return whether the system message of this payload is sent in the user turn."""
        messages = payload.get("messages", [])
        return self.folded and len(messages) > 1 and messages[0]["role"] == "system"

    def _body(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the payload without the parameters that the server rejected."""
        body = dict(payload)
        for refused in self.refused & body.keys():
            value, other = body.pop(refused), OPTIONAL_PARAMETERS.get(refused)
            body |= {other: value} if other else {}
        if self.folds(payload):
            system, user, *more = body["messages"]
            body["messages"] = [user | {"content": f"{system['content']}\n\n{user['content']}"}, *more]
        return body

    async def send(self, name: str, payload: dict[str, Any]) -> Any:
        """Return the JSON of an answer. Raises Retryable, RequestAdjusted, PromptRejected or a final SynthdivError."""
        body = self._body(payload)
        status, headers, content = await self._exchange(self.kind, body)
        if status >= 300:
            return await self._refusal(name, body, status, headers, content)
        try:
            data = json.loads(content)
        except (ValueError, RecursionError):
            if self.kind == "models":
                return {}
            raise Retryable("invalid", "an answer that is not JSON") from None
        return clean_surrogates(data) if b"\\ud" in content.lower() else data

    async def _exchange(self, kind: str, body: dict[str, Any]) -> tuple[int, Any, bytes]:
        """Return status, headers and content. Redirects are not followed: they may lead to another host."""
        import aiohttp

        method, data = ("GET", None) if kind == "models" else ("POST", json.dumps(body).encode())
        try:
            async with self._http.request(
                method, self._url + PATHS[kind], data=data, allow_redirects=False
            ) as response:
                return response.status, response.headers, await self._content(response)
        except TimeoutError:
            raise Retryable("timeout", f"no answer for {self.server.timeout_seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
                raise DataError(
                    f"{self.label}: this process has too many open files. Raise the limit (ulimit -n), or lower the "
                    f"server's concurrency={self.server.concurrency} in runtime.servers"
                ) from None
            unbilled = isinstance(error, aiohttp.ClientConnectorError)
            raise Retryable("connection", f"a broken connection ({self.clean(str(error))})", 0.0, unbilled) from None

    async def _content(self, response: Any) -> bytes:
        content = bytearray()
        async for part in response.content.iter_any():
            content += part
            if len(content) > MOST_BYTES:
                raise OversizedAnswer(
                    f"{self.label} sends an answer of more than {MOST_BYTES >> 20} MiB; it is not read on"
                )
        return bytes(content)

    async def _refusal(self, name: str, body: dict[str, Any], status: int, headers: Any, content: bytes) -> Any:
        """Raise the error that an HTTP status means; return an empty list of models if the server has none."""
        message, code, parameter = error_details(content)
        message = self.clean(message)
        if status < 400:
            target = urllib.parse.urlsplit(headers.get("Location", ""))
            place = self.clean(f"{target.scheme}://{target.netloc}" if target.netloc else "another path")
            raise DataError(
                f"{self.label} redirects to {place} ({status}), where no prompt is sent; give the address of the "
                "server itself in runtime.servers"
            )
        if status == 401:  # its message may contain parts of the key
            raise ConfigError(
                f"{self.label} rejects the key in the environment variable {self.server.key or 'none'} (401); "
                f"renew it, or name another variable in runtime.servers"
            )
        if code == "insufficient_quota" or status == 402:
            raise Unavailable(
                f"{self.label}: the account has no credit left ({message}). Answers that arrived are kept"
            )
        if status in RETRIED_STATUSES or (status >= 500 and self.kind != "models") or status > 501:
            after, unbilled = retry_after_seconds(headers), status not in MAYBE_BILLED_STATUSES
            raise Retryable(str(status), f"HTTP {status}: {message}", after, unbilled)
        if self.kind == "models":
            return {}
        self._adjust(status, message, parameter, body)
        outcome = prompt_outcome(status, message, code)
        if outcome:
            raise PromptRejected(message, outcome)
        if status == 404 or code == "model_not_found":
            raise DataError(
                f"{self.label} does not know {self.model} ({message}); {known_models(await self._model_names())}"
            )
        raise DataError(f"{self.label} refuses {name} ({status}): {message}{self._advice(status)}")

    def _adjust(self, status: int, message: str, parameter: str, body: dict[str, Any]) -> None:
        """Raise RequestAdjusted if the next attempt can be sent without what the server rejects."""
        rejected, needed = rejected_parameters(message, parameter, body)
        if rejected:
            self.refused |= {*rejected}
            raise RequestAdjusted
        if status in (400, 422) and needed:
            values = ", ".join(f"sampling.{name}={body[name]}" for name in needed)
            raise DataError(
                f"{self.label} refuses {values} for {self.model}: {message}. Leave it at its neutral value, which is "
                "not sent if the server refuses it, or choose another model"
            )
        if body.get("messages", [{}])[0].get("role") == "system" and status == 400 and rejects_system_role(message):
            self.folded = True
            raise RequestAdjusted

    def _advice(self, status: int) -> str:
        """Return advice about such a refusal, as a further sentence."""
        if status == 403:
            key = f"the key in the environment variable {self.server.key}" if self.server.key else "a missing key"
            return f". The cause may be the prompt, the region or {key}"
        if status in (400, 422):
            return ". If only this prompt is rejected, leave it out (prompts.table.where), or use another source"
        return ""

    async def _model_names(self) -> list[str]:
        with contextlib.suppress(Exception):  # the list only adds to an error message
            return model_names(json.loads((await self._exchange("models", {}))[2]))
        return []

    def clean(self, message: str) -> str:
        """Return a message of the server as one line, without secrets and without words that begin like one."""
        for value in self._secrets:
            message = message.replace(value, "***")
            message = re.sub(rf"{re.escape(value[:8])}\S*", "***", message) if len(value) > 16 else message
        return " ".join(message.split())[:500]


def clean_surrogates(data: Any) -> Any:
    """Return the JSON with lone surrogates (halves of an emoji) replaced, because files cannot contain them."""
    text = json.dumps(data, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
