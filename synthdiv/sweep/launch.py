"""What the Hydra plugins hand over to: expand, freeze, and give all to an engine or to the plan's printer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from synthdiv.resolve import Resolver
from synthdiv.sweep.expand import Expander, Point
from synthdiv.sweep.grid import GridSpec
from synthdiv.sweep.prepare import freeze
from synthdiv.types import ConfigError

PLAN = "SYNTHDIV_PLAN"  # set by the verb `plan`: the engine is replaced by a printer


def expand(loader: Any, config: Any, spec: GridSpec, arguments: list[str]) -> list[Point]:
    """All cells of a sweep, composed before anything runs: a later edit of a YAML file changes none of them."""
    hydra = config.hydra
    return Expander(loader, hydra.job.config_name, list(hydra.overrides.hydra)).points(spec, arguments)


def launch(points: list[Point]) -> int:
    """Run frozen points inline, or print the plan. Returns the exit code."""
    cell = points[0].cell
    names = {point.cell.sweep for point in points}
    if len(names) > 1 or len({repr(point.cell.runtime) for point in points}) > 1:
        raise ConfigError("sweep and runtime belong to a whole launch and cannot be swept; start one launch for each")
    planning = os.environ.get(PLAN) == "1"
    frozen = freeze(points, Resolver(Path(cell.runtime.outputs), online=not planning))
    if planning:
        from synthdiv.sweep.plan import show_plan

        return show_plan(frozen, cell)
    from synthdiv.sweep.inline import Inline

    return Inline(frozen, cell).run()
