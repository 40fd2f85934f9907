"""An endpoint of a server: sends a request and raises what its failure means."""

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
    CONNECTION_ERRORS,
    MAYBE_BILLED_STATUSES,
    OPTIONAL_PARAMETERS,
    PATHS,
    RETRIED_STATUSES,
    PromptFiltered,
    RequestAdjusted,
    Retryable,
    error_causes,
    error_details,
    is_filter_error,
    model_names,
    rejected_parameters,
    rejects_system_role,
    retry_after_seconds,
)


def server_of(name: str, runtime: Runtime) -> Server:
    for server in runtime.servers:
        if server.name == name:
            return server
    names = ", ".join(server.name for server in runtime.servers) or "none"
    raise ConfigError(f"hosted.server={name}: no such server in runtime.servers; choose one of {names}")


def key_of(server: Server) -> str:
    """Return the API key from the environment; `none` if the server needs no key."""
    if not server.key:
        return "none"
    key = os.environ.get(server.key, "").strip()
    if not key:
        raise ConfigError(f"server {server.name}: the environment variable {server.key} is not set; export its key")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"server {server.name}: the environment variable {server.key} has characters that keys do not contain"
        )
    return key


def known_models(names: list[str]) -> str:
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return f"it has {', '.join(sorted(names)[:40])}{more}" if names else "it has no list of models"


def loopback(url: str) -> bool:
    """Return whether an address is on the loopback interface, which needs no proxy."""
    host = urllib.parse.urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


class Endpoint:
    """One of PATHS at `server`, for `model`. `refused` holds the optional parameters that the server rejects. `folded`
    means that it rejects the system role; the system message then goes to the front of the user turn."""

    def __init__(self, server: Server, model: str, kind: str):
        self.server, self.model, self.kind = server, model, kind
        self.label = f"server {server.name} ({server.url})"
        self.refused, self.folded = set[str](), False
        self._key = key_of(server)

    def connect(self) -> Any:
        """Return a context of the running event loop in which requests can be sent. Address, headers and connections
        are those of the openai package; its `post` would double the time of a request."""
        import openai

        seconds = self.server.timeout_seconds
        timeout = openai.Timeout(seconds, connect=min(seconds, 20.0))
        self._http = openai.DefaultAioHttpClient(timeout=timeout, trust_env=not loopback(self.server.url))
        client = openai.AsyncOpenAI(api_key=self._key, base_url=self.server.url, http_client=self._http)
        headers = {**client.default_headers, **client.auth_headers}
        self._http.headers = {  # without the headers that describe the package's `post`
            name: value
            for name, value in headers.items()
            if isinstance(value, str) and not name.startswith("X-Stainless")
        }
        self._url = str(client.base_url).rstrip("/")
        return client

    def folds(self, payload: dict[str, Any]) -> bool:
        """Return whether the system message of this payload is sent in the user turn."""
        messages = payload.get("messages", [])
        return self.folded and len(messages) > 1 and messages[0]["role"] == "system"

    def _body(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the payload without the parameters that the server rejected."""
        body = dict(payload)
        for refused in self.refused & body.keys():
            value = body.pop(refused)
            body |= {OPTIONAL_PARAMETERS[refused]: value} if OPTIONAL_PARAMETERS[refused] else {}
        if self.folds(payload):
            system, user, *more = body["messages"]
            body["messages"] = [user | {"content": f"{system['content']}\n\n{user['content']}"}, *more]
        return body

    async def send(self, name: str, payload: dict[str, Any]) -> Any:
        """Return the JSON of an answer. Raises Retryable, RequestAdjusted, PromptFiltered or a final SynthdivError."""
        body = self._body(payload)
        try:
            async with asyncio.timeout(self.server.timeout_seconds):
                if self.kind == "models":
                    response = await self._http.get(self._url + PATHS["models"])
                else:
                    response = await self._http.post(self._url + PATHS[self.kind], content=json.dumps(body).encode())
        except Exception as error:
            class_names, message = error_causes(error)
            if "TimeoutError" in class_names:
                raise Retryable("timeout", f"no answer for {self.server.timeout_seconds:g} s") from None
            if not class_names & CONNECTION_ERRORS:
                raise
            message = f"a broken connection ({self.clean(message)})"
            raise Retryable("connection", message, unbilled="ClientConnectorError" in class_names) from None
        if response.status_code >= 300:
            return await self._refusal(name, body, response)
        try:
            return json.loads(response.content)
        except ValueError:
            if self.kind == "models":
                return {}
            raise Retryable("invalid", "an answer that is not JSON") from None

    async def _refusal(self, name: str, body: dict[str, Any], response: Any) -> Any:
        """Raise the error that an HTTP status means; return an empty list of models if the server has none."""
        status, (message, code, parameter) = response.status_code, error_details(response.content)
        message = self.clean(message)
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
            after = retry_after_seconds(response.headers)
            raise Retryable(
                str(status), f"HTTP {status}: {message}", after, unbilled=status not in MAYBE_BILLED_STATUSES
            )
        if self.kind == "models":
            return {}
        rejected = rejected_parameters(message, parameter, body)
        if rejected:
            self.refused |= {*rejected}
            raise RequestAdjusted
        if body.get("messages", [{}])[0].get("role") == "system" and status == 400 and rejects_system_role(message):
            self.folded = True
            raise RequestAdjusted
        if is_filter_error(code) or (status == 400 and is_filter_error(message)):
            raise PromptFiltered(message)
        if status == 404 or code == "model_not_found":
            raise DataError(
                f"{self.label} does not know {self.model} ({message}); {known_models(await self._model_names())}"
            )
        raise DataError(f"{self.label} refuses {name} ({status}): {message}{self._advice(status)}")

    def _advice(self, status: int) -> str:
        """Return advice about such a refusal, as a further sentence."""
        if status == 403:
            key = f"the key in the environment variable {self.server.key}" if self.server.key else "a missing key"
            return f". The cause may be the prompt, the region or {key}"
        if status in (400, 413, 422):
            return ". If only this prompt is rejected, leave it out (prompts.table.where), or use another source"
        return ""

    async def _model_names(self) -> list[str]:
        with contextlib.suppress(Exception):  # the list only adds to an error message
            return model_names((await self._http.get(self._url + PATHS["models"])).json())
        return []

    def clean(self, message: str) -> str:
        """Return a message of the server as one line, without the key and without words that begin like it."""
        if self.server.key:
            message = message.replace(self._key, "***")
            message = re.sub(rf"{re.escape(self._key[:8])}\S*", "***", message) if len(self._key) > 16 else message
        return " ".join(message.split())[:500]
