"""What the Hydra plugins hand over to: expand, freeze, and give all to an engine or to the plan's printer."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthdiv.core.resolver import Resolver
from synthdiv.core.store import Store, require_format
from synthdiv.core.types import ConfigError
from synthdiv.engine.engine import Engine
from synthdiv.engine.watcher import Watcher
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander, Point
from synthdiv.study.freeze import Frozen, freeze
from synthdiv.study.grid import GridSpec
from synthdiv.views.bill import Estimate
from synthdiv.views.disk import shortage, unwritable
from synthdiv.views.track.watcher import TrackWatcher

LOGGER = logging.getLogger("synthdiv")
PLAN = "SYNTHDIV_PLAN"  # `text` or `json`, set by the verb `plan`: the engine is replaced by a printer


def expand(loader: Any, config: Any, spec: GridSpec, arguments: list[str]) -> list[Point]:
    """All cells of a sweep, composed before anything runs: a later edit of a YAML file changes none of them."""
    hydra = config.hydra
    arguments = [word.removeprefix("++") if word.startswith("++evaluate.suites.") else word for word in arguments]
    return Expander(loader, hydra.job.config_name, list(hydra.overrides.hydra)).points(spec, arguments)


def launch(points: list[Point], engine: Callable[[Frozen, Cell, Watcher], Engine]) -> int:
    """Freeze the points and run them with an engine, or print the plan. Returns the exit code."""
    cell = points[0].cell
    if len({repr((point.cell.sweep, point.cell.rerun, point.cell.runtime, point.cell.track)) for point in points}) > 1:
        raise ConfigError(
            "sweep, rerun, runtime and track belong to a whole launch and cannot be swept; start one launch for each"
        )
    root, plan = Path(cell.runtime.outputs), os.environ.get(PLAN)
    require_format(root)
    planning = plan in ("text", "json")
    frozen = freeze(points, Resolver(root, online=not planning), () if planning else unwritable(root))
    estimate = Estimate(frozen, cell)
    missing = estimate.missing()
    bill = estimate.bill(missing)
    if planning:
        from synthdiv.views.plan import Plan, print_json, print_plan

        (print_json if plan == "json" else print_plan)(Plan(frozen, cell, set(missing), bill))
        return 0
    problems = shortage(bill.disk_bytes, root)
    if problems:
        raise ConfigError(problems)
    require_format(root, create=True)
    ready = engine(frozen, cell, TrackWatcher(cell.track, root, cell.sweep))
    if cell.rerun:
        rerun(cell.rerun, frozen, Store(root))
    return ready.run()


def rerun(asked: str, frozen: Frozen, store: Store) -> None:
    """Set aside the one node of the sweep that is `asked` for, as KEY or STAGE/KEY, so that it is built anew."""
    stage, _, start = asked.rpartition("/")
    nodes = [node for node in frozen.nodes().values() if not node.stage.located and stage in ("", node.stage.name)]
    found = [node for node in nodes if node.key.startswith(start)]
    if len(found) != 1 or len(start) < 4:
        told = ", ".join(node.label for node in found[:5]) if len(start) > 1 else ""
        raise ConfigError(
            f"rerun={asked}: needs the first four or more digits of the key of one node of this sweep, and "
            f"{len(found)} begin so{f' ({told})' if told else ''}. `synthdiv status` and the logs show keys; where "
            "they could be read as a number, like 12e4, put the stage before them: rerun=train/12e4"
        )
    if store.has(found[0]):
        target = store.set_aside(found[0])
        LOGGER.info("%s is built anew; what was there is in %s, what stands on it is kept", found[0].label, target)
