"""What the Hydra plugins hand over to: expand, freeze, and give all to an engine or to the plan's printer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthdiv.config import Cell
from synthdiv.resolve import Resolver
from synthdiv.sweep.bill import Estimate
from synthdiv.sweep.engine import Engine
from synthdiv.sweep.expand import Expander, Point
from synthdiv.sweep.grid import GridSpec
from synthdiv.sweep.prepare import Frozen, freeze
from synthdiv.sweep.room import shortage, unwritable
from synthdiv.types import ConfigError

PLAN = "SYNTHDIV_PLAN"  # `text` or `json`, set by the verb `plan`: the engine is replaced by a printer


def expand(loader: Any, config: Any, spec: GridSpec, arguments: list[str]) -> list[Point]:
    """All cells of a sweep, composed before anything runs: a later edit of a YAML file changes none of them."""
    hydra = config.hydra
    return Expander(loader, hydra.job.config_name, list(hydra.overrides.hydra)).points(spec, arguments)


def launch(points: list[Point], engine: Callable[[Frozen, Cell], Engine]) -> int:
    """Freeze the points and run them with an engine, or print the plan. Returns the exit code."""
    cell = points[0].cell
    names = {point.cell.sweep for point in points}
    if len(names) > 1 or len({repr(point.cell.runtime) for point in points}) > 1:
        raise ConfigError("sweep and runtime belong to a whole launch and cannot be swept; start one launch for each")
    root, plan = Path(cell.runtime.outputs), os.environ.get(PLAN)
    planning = plan in ("text", "json")
    frozen = freeze(points, Resolver(root, online=not planning), () if planning else unwritable(root))
    estimate = Estimate(frozen, cell)
    missing = estimate.missing()
    bill = estimate.bill(missing)
    if planning:
        from synthdiv.sweep.plan import Plan, print_json, print_plan

        (print_json if plan == "json" else print_plan)(Plan(frozen, cell, set(missing), bill))
        return 0
    problems = shortage(bill.disk_bytes, root)
    if problems:
        raise ConfigError(problems)
    return engine(frozen, cell).run()
