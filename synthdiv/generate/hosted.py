"""A model that others hold: what it is called, and by whom. Its node asks the server once whether it knows the name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Stage, locator
from synthdiv.core.types import Artifact, Run


@dataclass
class Hosted(Stage):
    """`server` names one of `runtime.servers` and `id` the model there, best with its date (`gpt-4o-2024-08-06`): both
    are all that is known of its identity. Prices are USD per million tokens. Output: `model.json`."""

    name = "hosted"

    server: str = ""
    id: str = ""
    price_in: float | None = locator()
    price_out: float | None = locator()

    def check(self) -> list[str]:
        if not self.server or not self.id:
            return [f"hosted.server={self.server!r}, hosted.id={self.id!r}: need the name of a server and of its model"]
        return []

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        from synthdiv.generate.client import listed

        facts = {"server": self.server, "id": self.id, "listed": listed(self, run)}
        (out / "model.json").write_text(json.dumps(facts), encoding="utf-8")
        return facts
