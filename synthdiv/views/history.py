"""What earlier manifests of these outputs measured: seconds, bytes and tokens, by kind of stage, size and hardware."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.files import regular
from synthdiv.core.store import MANIFEST

NEWEST = 100  # manifests of a stage that are read: enough for a rate, and soon read


def manifests(root: Path, stage: str = "*", newest: int = 0) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders and manifests of artifacts, of the `newest` of each stage or of all. What cannot be read is left to
    `doctor`."""
    for folder in sorted((root / "artifacts").glob(stage)):
        paths = sorted(path for path in folder.glob(f"[!.]*/{MANIFEST}") if regular(path))
        if newest:
            paths = sorted(paths, key=lambda path: path.parent.stat().st_mtime)[-newest:]
        for path in paths:
            try:
                manifest = json.loads(path.read_text(encoding="utf-8"))
                if manifest["key"] and manifest["sessions"][-1] and manifest.keys() >= {"inputs", "fields", "files"}:
                    yield path.parent, manifest
            except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue


@dataclass(frozen=True)
class Finished:
    """One artifact: how many `units` of its stage it holds, and the key of the `model` that ran or was trained."""

    device: str
    accelerator: str
    seconds: float
    units: float
    bytes: int
    model: str
    summary: dict[str, Any]
    finished: str

    @classmethod
    def read(cls, manifest: dict[str, Any]) -> Finished:
        sessions = manifest["sessions"]
        device, accelerator, finished = (
            sessions[-1].get(name) or "" for name in ("device", "accelerator", "finished")
        )  # fmt: skip
        seconds = sum(session.get("seconds") or 0.0 for session in sessions)
        size = sum(file["bytes"] for file in manifest["files"].values())
        rest = (manifest["units"], size, manifest["model"], manifest["summary"], finished)
        return cls(device.split(":")[0], accelerator, seconds, *rest)


class History:
    """Averages over finished artifacts below `root`. `sizes` are parameter counts by model key; trained models that the
    manifests name are added. `accelerators` is the newest hardware by kind of device: the next launch runs there."""

    def __init__(self, root: Path, sizes: dict[str, float]):
        self.sizes = dict(sizes)
        self.kinds: dict[str, list[Finished]] = defaultdict(list)
        students: dict[str, str] = {}
        for _, manifest in manifests(root, newest=NEWEST):
            item = Finished.read(manifest)
            self.kinds[manifest["kind"]].append(item)
            if "parameters" in item.summary:
                self.sizes.setdefault(manifest["key"], item.summary["parameters"])
            students[manifest["key"]] = item.model
        self.sizes |= {key: self.sizes[model] for key, model in students.items() if model in self.sizes}
        items = sorted((item for kind in self.kinds.values() for item in kind), key=lambda item: item.finished)
        self.device = items[-1].device if items else None  # of the newest artifact
        self.accelerators = {item.device: item.accelerator for item in items if item.accelerator}

    def similar(self, kind: str, size: float | None) -> list[Finished]:
        """Artifacts of one kind; where a model makes them, of models at most twice as large or half as small."""
        pairs = [(item, self.sizes.get(item.model)) for item in self.kinds.get(kind, [])]
        return [item for item, other in pairs if not item.model or (other and size and 0.5 <= other / size <= 2)]

    def seconds(self, kind: str, size: float | None, device: str) -> float | None:
        """Seconds for one unit on a device, on its newest accelerator, else on one that the manifests do not name; None
        where nothing similar was measured."""
        similar = [item for item in self.similar(kind, size) if item.device == device]
        named = [item for item in similar if item.accelerator == self.accelerators.get(device)]
        items = named or [item for item in similar if not item.accelerator]
        units = sum(item.units for item in items)
        return sum(item.seconds for item in items) / units if units else None

    def bytes(self, kind: str, size: float | None, whole: bool) -> float | None:
        """Mean bytes of an artifact (`whole`), or of one of its units."""
        items = self.similar(kind, size)
        units = len(items) if whole else sum(item.units for item in items)
        return sum(item.bytes for item in items) / units if units else None

    def ratio(self, kind: str, numerator: str, denominator: str, model: str = "") -> float | None:
        """`synthdiv.core.stage.Measured.ratio`."""
        items = self.kinds.get(kind, [])
        items = [item for item in items if item.model == model] or items
        total = sum(item.summary.get(denominator, 0) for item in items)
        return sum(item.summary.get(numerator, 0) for item in items) / total if total else None
