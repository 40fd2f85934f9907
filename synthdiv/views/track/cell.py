"""Writes a cell to a tracker: a run with the key of the cell, grouped by arm and tagged with its sweeps."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.files import read_rows
from synthdiv.core.ledger import NOT_APPLICABLE, CellRecord
from synthdiv.core.stage import digest
from synthdiv.core.types import Score
from synthdiv.study.grid import is_path
from synthdiv.views.layout import finite
from synthdiv.views.report.collect import finished, manifest, read_whole, suite_scores
from synthdiv.views.report.shared_replicates import items
from synthdiv.views.track.wandb import WandbTracker

TAG = 64  # characters; W&B refuses a longer tag
COLUMNS = ("id", "prompt", "response", "sample", "temperature", "top_p", "finish", "response_tokens")
CURVE = "metrics.parquet"
MODEL_FOLDERS = ("adapter",)  # of a train artifact; models that are trained whole are too large for a tracker


@dataclass(frozen=True)
class TrackedFiles:
    """Files of one artifact by name; `metadata` has its stage and key, and those of what it was made from."""

    name: str
    kind: str
    files: dict[str, Path]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Publishable:
    """What a tracker is given of a cell, beside its record. What is not finished is empty."""

    curve: list[dict[str, Any]] = field(default_factory=list)
    """The steps of the training."""
    scores: list[Score] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """`samples`: the student's first answers; `prompts`: the mean of each measure over the answers to each prompt."""
    training: dict[str, float] = field(default_factory=dict)
    """Every number of the summary of the training, those of its sources and of validation too."""
    made_by: dict[str, str] = field(default_factory=dict)
    """The commit and the versions that the last of its artifacts was made with."""
    artifacts: list[TrackedFiles] = field(default_factory=list)
    """The mix, the adapter, and the files with the scores."""


def publishable(root: Path, record: CellRecord, samples: int = 50) -> Publishable:
    """What is finished of a cell. The prompts are the first `samples` by id, the same in every cell, and the answers
    those in decoding `published` if there is one, else in the first."""
    suites = [path for key in record.suites.values() if (path := finished(root, key))]
    scores = [score for key in record.suites.values() for score in suite_scores(root, key)]
    decoding = "published" if "published" in record.responses else next(iter(record.responses), "")
    responses = finished(root, record.responses[decoding]) if decoding else None
    train = finished(root, record.train) if record.train else None
    tables = {"samples": answers(responses, samples), "prompts": prompt_table(suites, samples)}
    curve, training = list[dict[str, Any]](), dict[str, float]()
    artifacts = [files_of(path, "report", ("scores.json", "items.parquet")) for path in suites]
    if train is not None:
        curve = read_whole(train, lambda path: read_rows(path / CURVE), CURVE)
        training = dict(numbers(manifest(train)["summary"], "training"))
        mixes = [finished(root, item["key"]) for name, item in manifest(train)["inputs"].items() if name == "mix"]
        artifacts += [files_of(mix, "mix", ("mix.parquet",)) for mix in mixes if mix]
        artifacts.append(files_of(train, "model", MODEL_FOLDERS))
        suites.append(train)
    return Publishable(curve, scores, tables, training, made_by(suites), artifacts)


def files_of(path: Path, kind: str, names: Sequence[str]) -> TrackedFiles:
    """These files of an artifact, or those in folders of these names; of a confidential one none."""
    record = read_whole(path, manifest)
    file_names = [] if record.get("confidential") else [name for name in record["files"] if name.split("/")[0] in names]
    inputs = {name: f"{item['stage']}-{item['key']}" for name, item in record["inputs"].items()}
    metadata = {"stage": record["stage"], "key": record["key"], "inputs": inputs}
    name = f"{record['stage']}-{record['key'][:16]}"
    return TrackedFiles(name, kind, {name: path / name for name in file_names}, metadata)


def made_by(artifacts: Sequence[Path]) -> dict[str, str]:
    """The commit and versions of the session that finished last; no host and no path."""
    sessions = [manifest(path)["sessions"][-1] for path in artifacts if manifest(path)["sessions"]]
    if not sessions:
        return {}
    last = max(sessions, key=lambda session: str(session["finished"]))
    commit = {"commit": last["commit"] + "-dirty" * bool(last.get("dirty"))} if last.get("commit") else {}
    return commit | {f"version.{name}": str(value) for name, value in last["versions"].items()}


def numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{name}/{key}")
    elif isinstance(value, (int, float)):
        yield name, float(value)


def answers(folder: Path | None, limit: int) -> list[dict[str, Any]]:
    if folder is None:
        return []
    with (folder / "rows.jsonl").open(encoding="utf-8") as handle:
        rows = sorted(map(json.loads, handle), key=lambda row: (row["sample"], row["id"]))[:limit]
    return [{name: row[name] for name in COLUMNS if name in row} for row in rows]


def prompt_table(suites: Iterable[Path], limit: int) -> list[dict[str, Any]]:
    """A row a prompt, a column a measure: the mean over its answers, None where there is none or it is not finite."""
    values = {name: series for path in suites for name, series in items(path).items()}
    prompts = sorted({str(prompt) for series in values.values() for prompt in series.index})[:limit]
    return [{"id": prompt} | {name: finite(values[name].get(prompt, math.nan)) for name in sorted(values)}
            for prompt in prompts]  # fmt: skip


def track_cell(
    tracker: WandbTracker, sweeps: list[str], cell: CellRecord, results: Publishable, folder: Path, failed: bool = False
) -> bool:
    """Write a cell, unless what would be written was written before; return whether this call wrote it. `folder` has a
    file for each cell, which says what was written and where. A cell of which there is more now replaces its offline
    run. A failed attempt leaves no file and is repeated. A failed cell is a run that failed."""
    artifacts = [files.metadata["key"] for files in results.artifacts]
    content = digest([sorted(sweeps), failed, artifacts, list(map(repr, results.scores))])
    tags = [*(sweep[:TAG] for sweep in sweeps), *["unmatched"] * bool(cell.unmatched)]
    config = {**without_folders(cell.axes), **cell.seeds, **results.made_by}

    def write() -> None:
        if results.curve:
            tracker.curve(results.curve)
        tracker.summary({**results.training, **flat([score for score in results.scores if score.role])})
        for name, rows in (results.tables | {"scores": [table_row(score) for score in results.scores]}).items():
            if rows:
                tracker.table(name, rows)
        for files in results.artifacts:
            if files.files:
                tracker.artifact(files.name, files.kind, files.files, files.metadata)

    run = (cell.key, title(cell), group(cell), tags, config, "cell")
    return written_once(tracker, folder / cell.key, content, run, write, int(failed))


def written_once(
    tracker: WandbTracker, state: Path, content: str, run: tuple[Any, ...], write: Callable[[], None], result: int = 0
) -> bool:
    """Open `run`, `write` and close it, unless the file `state` says that this content was written; whether it was."""
    state.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    if before.get("content") == content:
        return False
    state.unlink(missing_ok=True)
    code = 1
    try:
        if before:
            tracker.remove(before["place"])
        tracker.begin(*run)
        place = tracker.place.name
        write()
        code = result
        state.write_text(json.dumps({"content": content, "place": place}), encoding="utf-8")
    finally:
        tracker.finish(code)
    return True


def without_folders(axes: Mapping[str, Any]) -> dict[str, Any]:
    """Axes, with the last part of paths alone: folders of a machine are not shown."""
    named = {name: Path(str(value).strip("'\"")).name for name, value in axes.items() if is_path(name)}
    return {**axes, **{name: value for name, value in named.items() if value}}


def title(cell: CellRecord) -> str:
    """The name of the run, for a person: `multi · small → llama_8b · seed 0`."""
    seed = cell.seeds.get("train.seed")
    return arm_title(cell) + (f" · seed {seed}" if seed not in (None, NOT_APPLICABLE) else "")


def arm_title(cell: CellRecord) -> str:
    """The mix, its source or sources, and the student."""
    mix = "vanilla" if cell.axes.get("mix") == "none" else str(cell.axes.get("mix", ""))
    named = (cell.axes.get(name) for name in ("source", "generators"))
    sources = next((str(value) for value in named if value not in (None, "", NOT_APPLICABLE)), "")
    student = f" → {cell.axes['student']}" if cell.axes.get("student") else ""
    return " · ".join(filter(None, [mix, sources])) + student


def group(cell: CellRecord) -> str:
    """The arm, for a person, with the start of its key: arms that differ in other axes have other groups."""
    return f"{arm_title(cell)[:100]} · {cell.arm.removeprefix('vanilla-')[:8]}"


def table_row(score: Score) -> dict[str, Any]:
    """A score as a row of a table; what is undefined is empty and has its note."""
    numbers = {name: finite(getattr(score, name)) for name in ("value", "low", "high")}
    return {"name": score.name, **numbers, "n": score.n, "unit": score.unit, "role": score.role, "note": score.note}


def flat(scores: Sequence[Score]) -> dict[str, float]:
    """Each defined score by its name, with the ends of its interval and its n; undefined scores are omitted."""
    values: dict[str, float] = {}
    for score in scores:
        if not math.isnan(score.value):
            values[score.name] = score.value
            ends = {"low": score.low, "high": score.high, "n": float(score.n)}
            values |= {f"{score.name}/{end}": value for end, value in ends.items() if not math.isnan(value)}
    return values
