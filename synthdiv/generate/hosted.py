"""A model that a server hosts. Its node asks the server once whether it knows the name."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import locator
from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact, DataError, Run


@dataclass
class Hosted(Stage):
    """A model behind a server: server and id are all that is known of its identity. Output: `model.json`."""

    name = "hosted"

    server: str = ""
    """The name of one of `runtime.servers`."""
    id: str = ""
    """The model's name there, best with its date (`gpt-4o-2024-08-06`)."""
    price_in: float | None = locator()
    """USD per million prompt tokens; filled in from `facts.price_in`."""
    price_out: float | None = locator()
    """USD per million new tokens; filled in from `facts.price_out`."""

    def check(self, name: str) -> list[str]:
        if not self.server or not self.id:
            return [f"{name}.server={self.server!r}, {name}.id={self.id!r}: need the name of a server and of its model"]
        return []

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        facts = {"server": self.server, "id": self.id, "listed": listed(self, run)}
        (out / "model.json").write_text(json.dumps(facts), encoding="utf-8")
        return facts


def listed(hosted: Hosted, run: Run) -> bool:
    """Whether the server lists the model; False if it has no list. Raises DataError if the list lacks it."""
    from synthdiv.generate.client import ApiRequest, Client
    from synthdiv.generate.endpoint import known_models, server_of
    from synthdiv.generate.protocol import is_same_model, model_names

    client = Client(server_of(hosted.server, run.runtime), hosted.id, "models")
    names: list[str] = []
    with contextlib.closing(client.replies([ApiRequest(None, "the list of its models", {}, 0, 0)])) as chunks:
        for chunk in chunks:
            names += [name for _, reply in chunk for name in model_names(reply.data)]
            run.boundary()
    if names and not any(is_same_model(hosted.id, name) for name in names):
        raise DataError(f"{client.endpoint.label} does not know hosted.id={hosted.id}; {known_models(names)}")
    return bool(names)
