"""Checkpoints of a training: whole tensors by name; the newest two are kept, and the best steps that they record."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

from synthdiv.core.local_run import out_of_memory
from synthdiv.core.types import DataError, Run
from synthdiv.train.early import best_step

CHECKPOINTS = "checkpoints"


def newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ckpt"), reverse=True)  # named by step


def at_step(folder: Path, step: int) -> Path:
    return folder / f"{step:09}.ckpt"


def read(path: Path) -> dict[str, Any]:
    import torch

    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return checkpoint


def whole(path: Path) -> dict[str, Any] | None:
    """The content of a checkpoint; None where it is truncated or corrupt. Errors of disk and memory are raised."""
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as parts:  # torch writes checksums and does not read them
            return None if parts.testzip() else read(path)
    except Exception as error:  # a corrupt file raises almost anything
        if out_of_memory(error) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        return None


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read together with the best step that it records. One that cannot is removed:
    it would count as one of the newest."""
    for path in newest_first(folder):
        checkpoint = whole(path)
        best = best_step(checkpoint["curve"]) if checkpoint else None
        if checkpoint and (best in (None, len(checkpoint["curve"])) or whole(at_step(folder, best or 0))):
            return checkpoint
        path.unlink()
    return None


def same_training(checkpoint: dict[str, Any], of: str, shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    """Raise if a checkpoint is of another student or method. `of` is the student's key: shapes alone may agree."""
    saved = {name: tuple(weight.shape) for name, weight in checkpoint["state_dict"].items()}
    if saved == shapes and checkpoint["of"] == of:
        return
    difference = f"it was trained from {checkpoint['of'][:8]} and the student here is {of[:8]}"
    for name in sorted({*saved, *shapes}, reverse=True):
        if saved.get(name) != shapes.get(name):
            difference = f"{name} has the shape {saved.get(name)} there and {shapes.get(name)} here"
    raise DataError(
        f"{folder}: the checkpoint of step {len(checkpoint['curve'])} is of another student or method ({difference}); "
        "remove this folder to begin anew"
    )


def save(checkpoint: dict[str, Any], folder: Path, run: Run) -> None:
    """Write a checkpoint atomically, by rank 0. A failing disk may still truncate the newest, so the one before is kept
    too, and the best step that each of the two records."""
    import torch

    if run.rank:
        return
    curve = checkpoint["curve"]
    folder.mkdir(exist_ok=True)
    draft = folder / "0.draft"  # of an interrupted write it is overwritten, and counts as no step (`files.reach`)
    with draft.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(at_step(folder, len(curve)))
    spared = {int(kept.stem) for kept in newest_first(folder)[:2]}
    spared |= {best_step(curve[:step]) or step for step in spared}
    for old in newest_first(folder):
        if int(old.stem) not in spared:
            old.unlink()


def remove_diverged(folder: Path, curve: list[dict[str, float]], limit: float) -> None:
    """Remove the newest checkpoints while the loss of the step after them is above `limit`: it is the loss of their
    weights."""
    for path in newest_first(folder):
        step = int(path.stem)
        if step < len(curve) and curve[step]["loss"] <= limit:
            return
        path.unlink()
