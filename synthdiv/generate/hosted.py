"""A model that a server hosts. Its node asks the server once whether it knows the name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import locator, setting
from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact, DataError, Run

NOT_EXTRA = ("model", "messages", "stream", "n")


@dataclass
class Hosted(Stage):
    """A model behind a server: server and id are all that is known of its identity. Output: `model.json`."""

    name = "hosted"

    server: str = ""
    """The name of one of `runtime.servers`."""
    id: str = ""
    """The model's name there, best with its date (`gpt-4o-2024-08-06`)."""
    extra: str = ""
    """JSON object merged into the body of each request, null removes a field: `{"reasoning_effort": "low"}`."""
    reports: list[str] = setting(make=list, locator=True)  # noqa: RUF009
    """Further names under which the server may report the model. An answer by any other model is an error."""
    price_in: float | None = locator()
    """USD per million prompt tokens; filled in from `facts.price_in`."""
    price_out: float | None = locator()
    """USD per million new tokens; filled in from `facts.price_out`."""

    def check(self, name: str) -> list[str]:
        problems = []
        if not self.server or not self.id:
            problems.append(f"{name}.server={self.server!r}, {name}.id={self.id!r}: need the name of a server and of "
                            "its model")  # fmt: skip
        try:
            extra = json.loads(self.extra or "{}")
        except (ValueError, RecursionError):
            extra = None
        if not isinstance(extra, dict):
            example = f"""'{name}.extra="{{\\"reasoning_effort\\": \\"low\\"}}"'"""
            problems.append(f"{name}.extra={self.extra}: needs a JSON object as text; in a shell {example}")
        elif wrong := [field for field in NOT_EXTRA if field in extra]:
            problems.append(f"{name}.extra: {', '.join(wrong)} cannot be set there")
        return problems

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        facts = {"server": self.server, "id": self.id, "listed": listed(self, run)}
        (out / "model.json").write_text(json.dumps(facts), encoding="utf-8")
        return facts


def listed(hosted: Hosted, run: Run) -> bool:
    """Whether the server lists the model; False if it has no list. Raises DataError if the list has nothing like it:
    some lists have prefixes and tags, and the first answer is checked strictly."""
    from synthdiv.generate.client import Client
    from synthdiv.generate.endpoint import known_models, server_of
    from synthdiv.generate.protocol import model_names
    from synthdiv.generate.replies import ApiRequest

    client = Client(server_of(hosted.server, run.runtime), hosted.id, "models")
    names: list[str] = []
    with contextlib.closing(client.replies([ApiRequest(None, "the list of its models", {}, 0, 0)])) as chunks:
        for chunk in chunks:
            names += [name for _, reply in chunk for name in model_names(reply.data)]
            run.boundary()
    words = hosted.id.rsplit("/", 1)[-1].casefold()
    if names and not any(words in name.casefold() for name in (*names, *hosted.reports)):
        raise DataError(f"{client.endpoint.label} does not know hosted.id={hosted.id}; {known_models(names)}")
    return bool(names)
