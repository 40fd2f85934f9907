"""`synthdiv publish NAME`: write every cell of a sweep to a tracker. The store is the truth, a tracker a mirror."""

from __future__ import annotations

import contextlib
import csv
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthdiv.core.ledger import CellRecord, Ledger
from synthdiv.core.stage import digest
from synthdiv.core.store import file_digest
from synthdiv.core.terminal import echo
from synthdiv.core.types import ConfigError, DataError
from synthdiv.study.config import Track, TrackerName
from synthdiv.views.layout import finite, plural
from synthdiv.views.report.collect import UNREADABLE, finished, vanilla_cells
from synthdiv.views.status import Observer
from synthdiv.views.track.cell import Publishable, publishable, track_cell, without_folders, written_once
from synthdiv.views.track.trackio import TrackioTracker
from synthdiv.views.track.wandb import WandbTracker, mode

IMAGES = "figures"  # of a report, and the name under which a tracker shows them


def tracker_of(track: Track, root: Path, resume: bool = False) -> WandbTracker:
    kind = TrackioTracker if track.name is TrackerName.trackio else WandbTracker
    return kind(track.project, track.entity, root, resume=resume)


def published_folder(root: Path, tracker: WandbTracker) -> Path:
    """Where the written cells of a project are remembered."""
    return root / "tracked" / str(tracker.project)


class Damages(defaultdict[str, list[str]]):
    """The cells that cannot be shown, because a file of them is damaged, by the reason."""

    def read(self, root: Path, cell: CellRecord, samples: int) -> Publishable | None:
        """What is finished of a cell, None where it is damaged."""
        try:
            return publishable(root, cell, samples)
        except (DataError, *UNREADABLE) as error:
            advice = f"a file cannot be read ({type(error).__name__}); `synthdiv doctor` names damaged artifacts"
            self[str(error) if isinstance(error, DataError) else advice].append(cell.key[:8])
            return None

    def lines(self) -> list[str]:
        return [f"{plural(len(cells), 'cell')} left out ({', '.join(cells)}): {why}" for why, cells in self.items()]


def unshown(root: Path, name: str, track: Track) -> list[str]:
    """A line for each reason why finished cells of a sweep are in no run of its tracker."""
    damages = Damages(list)
    if track.name is not TrackerName.none:
        folder = published_folder(root, tracker_of(track, root))
        for cell in Ledger(root, name).unique_cells():
            if not (folder / cell.key).exists() and all(finished(root, key) for key in cell.suites.values()):
                damages.read(root, cell, track.samples)
    return damages.lines()


def publish(root: Path, name: str, track: Track) -> int:
    """Write finished and failed cells that were not written yet, or of which there is more now; print how many, and
    last what is damaged."""
    status = Observer(root, name).look()
    launched = list(status.records.values())
    tags, counts, damages = sweeps_of(root, name), Counter[str](), Damages(list)
    tracker = tracker_of(track, root, resumes(track))
    folder = published_folder(root, tracker)
    for cell in (*vanilla_cells(launched), *launched):
        failed = status.cell_states.get(cell.key) in ("failed", "blocked")
        if not failed and not all(finished(root, key) for key in cell.suites.values()):
            counts["not finished"] += 1
            continue
        if (results := damages.read(root, cell, track.samples)) is None:
            counts["damaged"] += 1
            continue
        written = track_cell(tracker, tags.get(cell.key, [name]), cell, results, folder, failed)
        counts["published" if written else "unchanged"] += 1
    if (root / "reports" / name).is_dir():
        written = track_report(tracker, name, root / "reports" / name, folder)
        counts["report" if written else "unchanged report"] += 1
    echo(f"{name}: " + (", ".join(f"{count} {state}" for state, count in counts.items()) or "no cells"))
    for line in damages.lines():
        echo(line, error=True)
    return int(bool(damages))


def track_report(tracker: WandbTracker, name: str, folder: Path, published: Path) -> bool:
    """Write the report of a sweep as a run of its own, of job type `sweep`: its tables and figures are of no one cell.
    Each cell has its rows of `cells.csv` itself. Return whether this call wrote it."""
    tables = {file.stem: file for file in sorted(folder.glob("*.csv")) if file.stem != "cells"}
    images = {f"{IMAGES}/{file.stem}": file for file in sorted((folder / IMAGES).glob("*.png"))}
    key = digest(["sweep", name])[:32]
    content = digest([[file.name, file_digest(file)] for file in (*tables.values(), *images.values())])

    def write() -> None:
        for table, file in tables.items():
            with file.open(encoding="utf-8", newline="") as handle:
                if rows := [without_folders(row) for row in csv.DictReader(handle)]:
                    tracker.table(table, with_numbers(rows))
        for image, file in images.items():
            tracker.image(image, file)

    return written_once(tracker, published / key, content, (key, name, "sweep", [name], {}, "sweep"), write)


def with_numbers(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a file, whose values are all text, with numbers where a column has nothing else; undefined is None."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for name, texts in columns.items():
        with contextlib.suppress(ValueError):
            values = [float(text or "nan") for text in texts]
            columns[name] = texts if any(map(math.isinf, values)) else [finite(value) for value in values]
    return [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)]


def resumes(track: Track) -> bool:
    """Whether a run that exists is continued: an offline one cannot be."""
    return track.name is not TrackerName.trackio and mode() == "online"


def sweeps_of(root: Path, name: str) -> dict[str, list[str]]:
    """The sweeps that have each cell of the sweep `name`, which are its tags."""
    sweeps: dict[str, list[str]] = {}
    for folder in sorted((root / "sweeps").iterdir()):
        for cell in Ledger(root, folder.name).unique_cells():
            sweeps.setdefault(cell.key, []).append(folder.name)
    return sweeps


def track_words(words: Sequence[str]) -> Track:
    """The fields `track.*` that the verb was given. Raises ConfigError for a tracker that does not exist."""
    fields = dict(word.removeprefix("track.").split("=", 1) for word in words)
    trackers = [name.value for name in TrackerName if name is not TrackerName.none]
    kind = fields.pop("track", fields.pop("name", "wandb"))
    if kind not in trackers:
        raise ConfigError(f"track={kind}: choose {', '.join(trackers)}")
    track = Track(TrackerName(kind), fields.get("project") or None, fields.get("entity") or None)
    if problems := track.check("track"):
        raise ConfigError("; ".join(problems))
    return track
