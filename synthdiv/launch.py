"""What the Hydra plugins call: expand the grid, freeze the cells, run them with an engine or print their plan."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from synthdiv.core.ledger import CellRecord
from synthdiv.core.resolver import Resolver
from synthdiv.core.store import Store, require_format
from synthdiv.core.terminal import echo
from synthdiv.core.types import ConfigError
from synthdiv.engine.engine import INTERRUPTED, Engine
from synthdiv.engine.watcher import Watcher
from synthdiv.study.claims import declare
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander, Point
from synthdiv.study.freeze import Frozen, freeze
from synthdiv.views.bill import CostEstimate
from synthdiv.views.disk import shortage, unwritable
from synthdiv.views.live import live_view
from synthdiv.views.report.collect import finished
from synthdiv.views.report.findings import answer, planned, without_cells
from synthdiv.views.track.publish import unshown
from synthdiv.views.track.watcher import TrackWatcher

LOGGER = logging.getLogger("synthdiv")
PLAN = "SYNTHDIV_PLAN"  # `text` or `json`, set by the verb `plan`: the engine is replaced by a printer


def expander(loader: Any, config: Any) -> Expander:
    """Composes the cells of a sweep, all before anything runs: a later edit of a YAML file changes none of them."""
    words: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)  # one may be `…=${hydra.job.num}`
    verbs = {"text": ("plan",), "json": ("plan", "--json")}
    return Expander(loader, config.hydra.job.config_name, words, verbs.get(os.environ.get(PLAN, ""), ()))


def launch(points: list[Point], engine: Callable[[Frozen, Cell, Watcher], Engine], problems: Sequence[str] = ()) -> int:
    """Freeze the points and run them with an engine, or print the plan. Returns the exit code. `problems` of the
    launcher are reported with those of the cells."""
    cell = points[0].cell
    cells = (point.cell for point in points)
    if len({repr((one.sweep, one.rerun, one.runtime, one.track, one.report.claims)) for one in cells}) > 1:
        raise ConfigError(
            "sweep, rerun, runtime, track and report.claims belong to a whole launch and cannot be swept; start one "
            "launch for each"
        )
    root, plan = Path(cell.runtime.outputs), os.environ.get(PLAN)
    require_format(root)
    planning = plan in ("text", "json")
    problems = [*problems, *([] if planning else unwritable(root))]
    frozen = freeze(points, Resolver(root, online=not planning), problems)
    estimate, report = CostEstimate(frozen, cell), cell.report
    stated = report.claims or report.pilot
    records = frozen.records() if stated else []
    for line in without_cells(report.claims, records):
        echo(line, error=True)
    detects = planned(root, report.pilot, report.claims, records) if stated else []
    if planning:
        from synthdiv.views.plan import print_plan

        print_plan(estimate, plan == "json", detects)
        return 0
    if short := shortage(estimate.bill.disk_bytes, root):
        raise ConfigError(short)
    require_format(root, create=True)
    runner = engine(frozen, cell, TrackWatcher(cell.track, root, cell.sweep))
    if cell.rerun:
        rerun(cell.rerun, frozen, Store(root))
    declare(runner.ledger.folder, cell.report.claims, trained(root, [*runner.ledger.cells(), *runner.records]))
    with live_view(root, cell.sweep):
        code = runner.run()
    if code != INTERRUPTED and runner.ledger.cells():
        for line in answer(root, cell.sweep):
            echo(line)
        for line in unshown(root, cell.sweep, cell.track):
            echo(line, error=True)
        echo(f"`synthdiv report {cell.sweep}` writes the page")
    return code


def trained(root: Path, cells: Iterable[CellRecord]) -> int:
    """How many cells, of this launch or an earlier one of the sweep, have a trained model already."""
    models = {cell.key: cell.train for cell in cells if cell.train}
    return sum(finished(root, model) is not None for model in models.values())


def rerun(name: str, frozen: Frozen, store: Store) -> None:
    """Set aside the one node of the sweep that `name` names, as KEY or STAGE/KEY, so that it is built anew."""
    stage, _, start = name.rpartition("/")
    nodes = [node for node in frozen.nodes().values() if not node.stage.located and stage in ("", node.stage.name)]
    matches = [node for node in nodes if node.key.startswith(start)]
    if len(matches) != 1 or len(start) < 4:
        labels = ", ".join(node.label for node in matches[:5]) if len(start) > 1 else ""
        raise ConfigError(
            f"rerun={name}: needs the first four or more digits of the key of one node of this sweep; {len(matches)} "
            f"keys begin with these{f' ({labels})' if labels else ''}. `synthdiv status` and the logs show keys; put "
            "the stage before digits that YAML could read as a number: rerun=train/12e4"
        )
    (node,) = matches
    if store.has(node):
        target = store.set_aside(node)
        LOGGER.info("%s is built anew; the old artifact is in %s, what depends on it is kept", node.label, target)
