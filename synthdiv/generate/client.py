"""One server, asked by many at a time."""

from __future__ import annotations

from typing import Any

from synthdiv.types import Run


def listed(hosted: Any, run: Run) -> bool:
    raise NotImplementedError
