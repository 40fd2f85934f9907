"""What earlier manifests of this folder of outputs measured: seconds, bytes and tokens, by stage, size and hardware."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEWEST = 100  # manifests of a stage that are read: enough for a rate, and soon read
UNITS = {"generate": "rows", "likelihood": "answers", "train": "tokens", "pretrain": "tokens", "vectors": "rows"}
MODEL = {"generate": 1, "likelihood": 1, "train": 0}  # which input is the model, whose size decides the rate


@dataclass(frozen=True)
class Finished:
    """One artifact. `units` are those of its stage, or 1; `model` is the key of the model that ran or was trained.
    `accelerator` is empty in manifests of earlier versions."""

    stage: str
    device: str
    accelerator: str
    seconds: float
    units: float
    bytes: int
    model: str
    summary: dict[str, Any]
    finished: str


class History:
    """Averages over finished artifacts below `root`. `sizes` are parameter counts by model key, added to those that
    the manifests tell; `accelerators` the newest hardware by kind of device: what is launched next runs there."""

    def __init__(self, root: Path, sizes: dict[str, float]):
        self.sizes = dict(sizes)
        self.stages: dict[str, list[Finished]] = defaultdict(list)
        students: dict[str, str] = {}
        for stage, key, manifest in manifests(root / "artifacts"):
            item = finished(stage, key, manifest)
            self.stages[item.stage].append(item)
            if stage == "pretrain":
                self.sizes.setdefault(key, item.summary["parameters"])
            if stage == "train":
                students[key] = item.model
        self.sizes |= {key: self.sizes[model] for key, model in students.items() if model in self.sizes}
        every = sorted((item for items in self.stages.values() for item in items), key=lambda item: item.finished)
        self.device = every[-1].device if every else None  # of the newest artifact
        self.accelerators = {item.device: item.accelerator for item in every if item.accelerator}

    def alike(self, stage: str, size: float | None) -> list[Finished]:
        """Artifacts of a stage; where a model makes it, of a model at most twice as large or half as small."""
        items = self.stages.get(stage, [])
        if stage not in (*MODEL, "vllm", "pretrain"):
            return items
        sized = [(item, self.sizes.get(item.model)) for item in items]
        return [item for item, own in sized if own and size and 0.5 <= own / size <= 2]

    def seconds(self, stage: str, size: float | None, device: str) -> float | None:
        """Seconds for a unit on a device, or None where nothing alike was measured: on its newest accelerator, else
        on one that the manifest does not name."""
        there = [item for item in self.alike(stage, size) if item.device == device]
        named = [item for item in there if item.accelerator == self.accelerators.get(device)]
        items = named or [item for item in there if not item.accelerator]
        units = sum(item.units for item in items)
        return sum(item.seconds for item in items) / units if units else None

    def bytes(self, stage: str, size: float | None) -> float | None:
        """Bytes of an artifact where its model decides them, else of a unit."""
        items = self.alike(stage, size)
        units = len(items) if stage in ("train", "pretrain") else sum(item.units for item in items)
        return sum(item.bytes for item in items) / units if units else None

    def ratio(self, stage: str, over: str, under: str, model: str = "") -> float | None:
        """Sum of one number of the summaries over the sum of another; of this model alone if it has any."""
        items = self.stages.get(stage, [])
        items = [item for item in items if item.model == model] or items
        total = sum(item.summary.get(under, 0) for item in items)
        return sum(item.summary.get(over, 0) for item in items) / total if total else None


def manifests(root: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(stage, key, manifest) of the newest artifacts of each stage; what cannot be read is for `doctor`."""
    for stage in sorted(root.glob("*")):
        folders = [path for path in stage.glob("[!.]*") if path.is_dir()]
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime)[-NEWEST:]:
            try:
                yield stage.name, folder.name, json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue


def finished(stage: str, key: str, manifest: dict[str, Any]) -> Finished:
    """What planning takes of a manifest. Each backend has rates of its own: it is a stage here."""
    inputs = [item["key"] for item in manifest["inputs"]]
    place = MODEL.get(stage, -1)
    backend = manifest["fields"].get("backend", "hf") if stage == "generate" else "hf"
    sessions = manifest["sessions"]
    return Finished(
        stage if backend == "hf" else backend,
        (sessions[-1].get("device") or "").split(":")[0],
        sessions[-1].get("accelerator") or "",
        sum(session.get("seconds") or 0.0 for session in sessions),
        manifest["summary"].get(UNITS.get(stage, ""), 1),
        sum(file["bytes"] for file in manifest["files"].values()),
        key if stage == "pretrain" else inputs[place] if 0 <= place < len(inputs) else "",
        manifest["summary"],
        sessions[-1].get("finished") or "",
    )
