"""What a sweep has: its unique cells from the ledger with their scores from the store, and the vanilla students."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthdiv.core.events import Event
from synthdiv.core.ledger import NOT_APPLICABLE, CellRecord, Ledger, NodeRecord
from synthdiv.core.store import MANIFEST, Store
from synthdiv.core.types import DataError, Score
from synthdiv.evaluate.suite import read_scores
from synthdiv.views.report.common_texts import common_texts

VANILLA = "none"  # the mix of the vanilla students
MEANINGLESS = ("generators", "train", "mix", "source", "rows", "real_share")  # axes that say nothing of it


@dataclass(frozen=True)
class CellRow:
    """A unique cell. `model` is the same for cells that evaluate one trained model: the unit of replication.

    `state` is that of `synthdiv status`; `reason` says why it is failed. Scores of suites that are finished count
    whatever the state. `unmatched` is how much it trains, where it was launched with `report.unmatched` or stops early.
    """

    key: str
    arm: str
    axes: dict[str, Any]
    seeds: dict[str, Any]
    model: str
    state: str
    reason: str = ""
    scores: dict[str, Score] = field(default_factory=dict)
    unmatched: str = ""


def collect(root: Path, name: str) -> list[CellRow]:
    """Every unique cell of the sweep `name` once, finished or not, and the vanilla students beside them."""
    ledger = Ledger(root, name)
    ledger.require()
    cells = with_vanilla(ledger.unique_cells())
    nodes, events = {node.key: node for node in ledger.nodes()}, ledger.states()
    rows, texts = [], texts_of(root, cells)
    for cell in cells:
        scores = {score.name: score for key in cell.suites.values() for score in suite_scores(root, key)}
        for key in cell.suites.values():
            for name, score in texts.get(key, {}).items():
                scores[name] = replace(score, role=scores[name].role if name in scores else "")
        state, reason = cell_state(root, cell, nodes, events)
        facts = (state, reason, scores, cell.unmatched)
        rows.append(CellRow(cell.key, cell.arm, cell.axes, cell.seeds, model(cell), *facts))
    return rows


def texts_of(root: Path, cells: list[CellRecord]) -> dict[str, dict[str, Score]]:
    """By the key of a suite with cut texts, its scores on the prompts that are long enough in all of these cells."""
    keys = {key for cell in cells for key in (*cell.suites.values(), *cell.vanilla.values())}
    paths = {key: path for key in sorted(keys) if (path := finished(root, key))}
    vanilla = {key: cell.vanilla[name] for cell in cells for name, key in cell.suites.items() if name in cell.vanilla}
    return common_texts(paths, vanilla)


def model(cell: CellRecord) -> str:
    """The trained model; of a vanilla student, what its seeds say but for those of evaluation."""
    kept = {name: seed for name, seed in cell.seeds.items() if not name.startswith("evaluate.")}
    return cell.train or json.dumps(kept, sort_keys=True)


def with_vanilla(cells: list[CellRecord]) -> list[CellRecord]:
    """The vanilla students of each cell as a cell of its own, first, unless it was launched as one."""
    launched = {json.dumps(cell.suites, sort_keys=True) for cell in cells}
    arms = {json.dumps(cell.axes, sort_keys=True): cell.arm for cell in cells if cell.axes.get("mix") == VANILLA}
    added: dict[str, CellRecord] = {}
    for cell in cells:
        suites = json.dumps(cell.vanilla, sort_keys=True)
        if cell.vanilla and suites not in launched and suites not in added:
            axes = {axis: vanilla_value(axis, value) for axis, value in cell.axes.items()} | {"mix": VANILLA}
            seeds = {seed: vanilla_value(seed, value) for seed, value in cell.seeds.items()}
            label = json.dumps(axes, sort_keys=True)
            arm = arms.get(label) or "vanilla-" + hashlib.sha256(label.encode()).hexdigest()[:12]
            added[suites] = CellRecord(
                vanilla_key(cell.vanilla), arm, [], axes, seeds, {}, cell.vanilla, cell.vanilla, [], None, cell.prompts
            )
    return [*added.values(), *cells]


def vanilla_value(name: str, value: Any) -> Any:
    return NOT_APPLICABLE if name.split(".")[0] in MEANINGLESS else value


def vanilla_key(suites: dict[str, str]) -> str:
    """The key that this cell has when it is launched as `mix=none`: that of its suites."""
    return hashlib.sha256(json.dumps(sorted(map(list, suites.items())), separators=(",", ":")).encode()).hexdigest()


def finished(root: Path, key: str) -> Path | None:
    """The folder of a finished artifact, whatever its stage."""
    manifest = next((root / "artifacts").glob(f"*/{key}/{MANIFEST}"), None)
    return manifest.parent if manifest else None


def suite_scores(root: Path, key: str) -> list[Score]:
    path = finished(root, key)
    if path is None:
        return []
    problems = list(Store(root).damage(path, hashes=False))
    if problems:
        raise DataError(f"{path} is damaged: {'; '.join(problems)}. Remove it and run the same command again")
    return read_scores(path)


def cell_state(root: Path, cell: CellRecord, nodes: dict[str, NodeRecord], events: dict[str, Event]) -> tuple[str, str]:
    """The state of a cell and, where it failed, of what. A finished artifact counts more than an event."""
    if all(finished(root, key) for key in cell.suites.values()):
        return "done", ""
    states = {key: events[key] for key in ancestry(cell.suites.values(), nodes) if key in events}
    failed = [event for event in states.values() if event.state == "failed" and not finished(root, event.node)]
    if failed:
        stage = nodes[failed[0].node].stage if failed[0].node in nodes else "node"
        return "failed", f"{stage} {failed[0].node[:8]}: {failed[0].note or 'see `synthdiv status`'}"
    have = {event.state for event in states.values()}
    return next((state for state in ("blocked", "running", "stopped") if state in have), "queued"), ""


def ancestry(keys: Iterable[str], nodes: dict[str, NodeRecord]) -> list[str]:
    """`keys` and the nodes that they depend on."""
    seen: dict[str, None] = {}
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key not in seen:
            seen[key] = None
            waiting += nodes[key].inputs.values() if key in nodes else []
    return list(seen)


@dataclass(frozen=True)
class Publishable:
    """What a tracker is given of a finished cell, beside its record."""

    curve: list[dict[str, Any]]
    scores: list[Score]
    samples: list[dict[str, Any]]
    training: dict[str, float]


def publishable(root: Path, record: CellRecord, samples: int = 50) -> Publishable:
    """Curve and totals of the training, scores, and the student's answers to the first `samples` prompts by id, the
    same in every cell (decoding `published`, else the first one). What is not finished is empty."""
    scores = [score for key in record.suites.values() for score in suite_scores(root, key)]
    return Publishable(curve(root, record), scores, answers(root, record, samples), totals(root, record))


def totals(root: Path, record: CellRecord) -> dict[str, float]:
    """Every number that the manifest of the training says, those of its sources and of validation too."""
    path = finished(root, record.train) if record.train else None
    if path is None:
        return {}
    summary = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["summary"]
    return dict(numbers(summary, "training"))


def numbers(value: Any, name: str) -> Iterable[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{name}/{key}")
    elif isinstance(value, (int, float)):
        yield name, float(value)


def curve(root: Path, record: CellRecord) -> list[dict[str, Any]]:
    path = finished(root, record.train) if record.train else None
    if path is None:
        return []
    import pyarrow.parquet

    return list(pyarrow.parquet.read_table(path / "metrics.parquet").to_pylist())


def answers(root: Path, record: CellRecord, limit: int) -> list[dict[str, Any]]:
    """The student's answers to the first prompts by id, in decoding `published` if there is one, else in the first."""
    decoding = "published" if "published" in record.responses else next(iter(record.responses), "")
    path = finished(root, record.responses[decoding]) if decoding else None
    if path is None:
        return []
    with (path / "rows.jsonl").open(encoding="utf-8") as handle:
        rows = sorted(map(json.loads, handle), key=lambda row: (row["sample"], row["id"]))[:limit]
    kept = ("id", "prompt", "response", "sample", "temperature", "top_p", "finish", "response_tokens")
    return [{name: row[name] for name in kept if name in row} for row in rows]
