"""What a sweep has: its unique cells from the ledger with their scores from the store, and the vanilla students."""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from synthdiv.core.ledger import NOT_APPLICABLE, CellRecord
from synthdiv.core.stage import digest
from synthdiv.core.store import MANIFEST, Store
from synthdiv.core.types import DataError, Score
from synthdiv.evaluate.suite import declared, read_scores
from synthdiv.study import claims
from synthdiv.views.status import Observer, Status, cell_state

T = TypeVar("T")
LOGGER = logging.getLogger("synthdiv")
# What a changed byte can raise.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
VANILLA = "none"  # the mix of the vanilla students
MEANINGLESS = ("generators", "train", "mix", "source", "rows", "real_share", "rounds")  # axes that say nothing of it
DAMAGED, LEFT_OUT = "damaged", "left out: %s"
LARGE = 500  # cells; above, a report is a summary with a page for each slice


@dataclass(frozen=True)
class CellRow:
    """A unique cell. Scores of finished suites count in every state."""

    key: str
    arm: str
    axes: dict[str, Any]
    seeds: dict[str, Any]
    model: str
    """The same for cells that evaluate one trained model: the unit of replication."""
    state: str
    """As in `synthdiv status`, but `done` where all suites are finished, and `damaged` where one cannot be read."""
    reason: str = ""
    """Why it is failed or damaged."""
    scores: dict[str, Score] = field(default_factory=dict)
    unmatched: str = ""
    """How much it trains, where it was launched with `report.unmatched` or stops early."""
    suites: dict[str, str] = field(default_factory=dict)
    """The module of its suite, by score."""
    launch: str = ""
    origin: dict[str, str] = field(default_factory=dict)
    """The key of its suite, by score."""
    likelihood: str = ""
    """The key of the likelihood of human answers."""
    sources: tuple[str, ...] = ()
    """Those of the mix."""


def collect(root: Path, name: str, measures: Sequence[str] = ()) -> list[CellRow]:
    """Every unique cell of the sweep `name` once, finished or not, and the vanilla students beside them. Of more than
    `LARGE` cells only headlines, caveats, what is claimed and the scores of `measures`."""
    status = Observer(root, name).look()
    launched, vanilla = list(status.records.values()), vanilla_cells(list(status.records.values()))
    rows = [row_of(root, name, cell, status) for cell in (*vanilla, *launched)]
    if len(rows) > LARGE:
        names = {*measures, *(claim.measure for claim, _ in claims.declared(root / "sweeps" / name))}
        for scores in (row.scores for row in rows):
            for score in [*scores.values()]:
                if not score.role and score.name not in names and "/passed_over" not in score.name:
                    del scores[score.name]
    return rows


def of_role(rows: Sequence[CellRow], role: str) -> list[str]:
    """The names of the scores that their suites call a headline or a caveat."""
    return list(dict.fromkeys(name for row in rows for name, score in row.scores.items() if score.role == role))


def row_of(root: Path, sweep: str, cell: CellRecord, status: Status) -> CellRow:
    scores, damaged, suites, origin = dict[str, Score](), list[str](), dict[str, str](), dict[str, str]()
    for suite, key in cell.suites.items():
        try:
            scores |= {score.name: score for score in suite_scores(root, key)}
            suites |= {name: suites.get(name, suite) for name in scores}
            origin |= {name: origin.get(name, key) for name in scores}
        except DataError as error:
            damaged.append(str(error))
    nodes = {*cell.nodes} or {*cell.suites.values()}
    state, reason = cell_state(nodes, status.node_states), ""
    if damaged:
        state, reason = DAMAGED, "; ".join(damaged)
    elif all(finished(root, key) for key in cell.suites.values()):
        state = "done"
    elif failed := next((row for row in status.failed if row["node"] in nodes), None):
        reason = f"{failed['stage']} {failed['node'][:8]}: {failed['reason'] or f'see `synthdiv status {sweep}`'}"
    elif state == "done":  # and removed since
        state = "queued"
    inputs = {suite: status.graph[key].inputs for suite, key in cell.suites.items() if key in status.graph}
    names = ((suite, name) for suite in inputs for name in declared([suite], "human_likelihood"))
    likelihood = next((inputs[suite][name] for suite, name in names if name in inputs[suite]), "")
    fields = (model(cell), state, reason, scores, cell.unmatched, suites, cell.launch, origin, likelihood)
    return CellRow(cell.key, cell.arm, cell.axes, cell.seeds, *fields, sources(cell, status))


def sources(cell: CellRecord, status: Status) -> tuple[str, ...]:
    """The sources that write answers of the mix of a cell."""
    train = status.graph.get(cell.train or "")
    mix = status.graph.get(train.inputs.get("mix", "")) if train else None
    fields = mix.fields if mix else {}
    pairs = zip(fields.get("sources", ()), fields.get("weights", ()), strict=False)
    return tuple(source for source, weight in pairs if weight > 0)


def model(cell: CellRecord) -> str:
    """The trained model; of a vanilla student, what its seeds say but for those of evaluation."""
    seeds = {name: seed for name, seed in cell.seeds.items() if not name.startswith("evaluate.")}
    return cell.train or json.dumps(seeds, sort_keys=True)


def vanilla_cells(cells: list[CellRecord]) -> list[CellRecord]:
    """The vanilla students of these cells as cells of their own, but for those that were launched as such."""
    launched = {json.dumps(cell.suites, sort_keys=True) for cell in cells}
    arms = {json.dumps(cell.axes, sort_keys=True): cell.arm for cell in cells if cell.axes.get("mix") == VANILLA}
    added: dict[str, CellRecord] = {}
    for cell in cells:
        suites = json.dumps(cell.vanilla, sort_keys=True)
        if cell.vanilla and suites not in launched and suites not in added:
            axes = {axis: vanilla_value(axis, value) for axis, value in cell.axes.items()} | {"mix": VANILLA}
            seeds = {seed: vanilla_value(seed, value) for seed, value in cell.seeds.items()}
            label = json.dumps(axes, sort_keys=True)
            arm = arms.get(label) or "vanilla-" + digest(axes)[:12]
            added[suites] = CellRecord(
                vanilla_key(cell.vanilla), arm, [], axes, seeds, {}, cell.vanilla, cell.vanilla, [], None, cell.prompts
            )
    return list(added.values())


def vanilla_value(name: str, value: Any) -> Any:
    return NOT_APPLICABLE if name.split(".")[0] in MEANINGLESS and name != "rounds.member" else value


def vanilla_key(suites: dict[str, str]) -> str:
    """The key that this cell has when it is launched as `mix=none`: that of its suites."""
    return digest(sorted(map(list, suites.items())))


def finished(root: Path, key: str) -> Path | None:
    """The folder of a finished artifact, whatever its stage."""
    return next((file.parent for file in (root / "artifacts").glob(f"*/{key}/{MANIFEST}")), None)


def manifest(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    return record


def damage(path: Path) -> list[str]:
    try:
        return list(Store(path.parents[2]).damage(path, hashes=False))
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        return [f"{MANIFEST} cannot be read ({type(error).__name__})"]


def read_whole(path: Path, read: Callable[[Path], T], file: str = "a file of it") -> T:
    """What `read` gives of the `file` of a finished artifact. DataError, with what to do, if it is damaged."""
    if not (problems := damage(path)):
        try:
            return read(path)
        except UNREADABLE as error:
            problems = [f"{file} cannot be read ({type(error).__name__})"]
    remove = shlex.join(["rm", "-r", str(path)])
    label = f"{path.parent.name} {path.name[:8]}"
    raise DataError(f"{label}: {'; '.join(problems)}; `{remove}`, and run the same command again")


def read_or(missing: T, path: Path | None, read: Callable[[Path], T], file: str = "a file of it") -> T:
    """What `read` gives of an artifact; `missing` where it is absent or, with a line in the log, damaged: one damaged
    file costs what it holds, and nothing else."""
    try:
        return missing if path is None else read_whole(path, read, file)
    except DataError as error:
        LOGGER.warning(LEFT_OUT, error)
        return missing


@contextlib.contextmanager
def noted() -> Iterator[dict[str, None]]:
    """What `read_or` leaves out while the block runs, each reason once."""
    reasons = dict[str, None]()

    def note(record: logging.LogRecord) -> bool:
        if record.msg == LEFT_OUT:
            reasons[record.getMessage()] = None
        return True

    LOGGER.addFilter(note)
    try:
        yield reasons
    finally:
        LOGGER.removeFilter(note)


def suite_scores(root: Path, key: str) -> list[Score]:
    """The scores of a suite, none if it is not finished. DataError, with what to do, if it is damaged."""
    path = finished(root, key)
    return [] if path is None else read_whole(path, read_scores, "scores.json")
