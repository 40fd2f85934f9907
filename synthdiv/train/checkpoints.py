"""States of a training on disk: whole tensors by name, at most the newest two and the best steps they know."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

from synthdiv.core.runtime import out_of_memory
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
    """What is in this file; None where it is torn or rotten. A disk or a memory that fails is another matter."""
    if not path.is_file() or not path.stat().st_size:
        return None
    try:
        with zipfile.ZipFile(path) as parts:  # torch writes checksums and reads past them
            return None if parts.testzip() else read(path)
    except Exception as error:  # whatever a spoilt file raises
        if out_of_memory(error) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        return None


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest that can be read, and with it the best step it knows. One that is torn falls back to the one before,
    and is removed: it would count as one of the newest."""
    for path in newest_first(folder):
        found = whole(path)
        best = best_step(found["curve"]) if found else None
        if found and (best in (None, len(found["curve"])) or whole(at_step(folder, best or 0))):
            return found
        path.unlink()
    return None


def same_training(checkpoint: dict[str, Any], of: str, shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    """A checkpoint of another student would be copied weight by weight, as far as names go. `of` is the student's key:
    two of one shape differ in nothing else."""
    found = {name: tuple(weight.shape) for name, weight in checkpoint["state_dict"].items()}
    if found == shapes and checkpoint["of"] == of:
        return
    told = f"it was trained from {checkpoint['of'][:8]} and the student here is {of[:8]}"
    if found != shapes:
        name = min(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
        told = f"{name} has the shape {found.get(name)} there and {shapes.get(name)} here"
    raise DataError(
        f"{folder}: the checkpoint of step {len(checkpoint['curve'])} is of another student or method ({told}); remove "
        "this folder to begin anew"
    )


def save(checkpoint: dict[str, Any], folder: Path, run: Run) -> None:
    """Whole or not at all, by rank 0. The newest may still be torn by what happens below us: the one before stays, and
    the best step that each of the two knows."""
    import torch

    if run.rank:
        return
    curve = checkpoint["curve"]
    folder.mkdir(exist_ok=True)
    path = at_step(folder, len(curve))
    with path.with_suffix(".draft").open("wb") as draft:
        torch.save(checkpoint, draft)
        draft.flush()
        os.fsync(draft.fileno())
    path.with_suffix(".draft").replace(path)
    spared = {int(kept.stem) for kept in newest_first(folder)[:2]}
    spared |= {best_step(curve[:step]) or step for step in spared}
    for old in newest_first(folder):
        if int(old.stem) not in spared:
            old.unlink()


def forget(folder: Path, curve: list[dict[str, float]], limit: float) -> None:
    """Remove the newest states as long as the step after them found them to be no good: a step's loss is that of the
    weights before it."""
    for path in newest_first(folder):
        step = int(path.stem)
        if step < len(curve) and curve[step]["loss"] <= limit:
            return
        path.unlink()
