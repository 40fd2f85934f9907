"""A model that a server hosts. Its node asks the server once whether it knows the name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import locator
from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact, Run


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
        from synthdiv.generate.client import listed

        facts = {"server": self.server, "id": self.id, "listed": listed(self, run)}
        (out / "model.json").write_text(json.dumps(facts), encoding="utf-8")
        return facts
