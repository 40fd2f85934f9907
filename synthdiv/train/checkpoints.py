"""States of a training on disk: whole tensors by name, at most the newest two and the best steps they know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthdiv.train.early import best_step
from synthdiv.types import DataError, Run

CHECKPOINTS = "checkpoints"


def newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ckpt"), reverse=True)  # named by step


def read(path: Path) -> dict[str, Any]:
    import torch

    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; a torn one falls back to the one before."""
    for path in newest_first(folder):
        try:
            return read(path)
        except Exception:  # whatever a torn file raises, an older one may be whole
            continue
    return None


def same_model(checkpoint: dict[str, Any], shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    """A checkpoint of another student would be copied weight by weight, as far as names go."""
    found = {name: tuple(weight.shape) for name, weight in checkpoint["state_dict"].items()}
    if found == shapes:
        return
    name = min(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
    raise DataError(
        f"{folder}: the checkpoint of step {len(checkpoint['curve'])} is of another student or another method ({name} "
        f"has the shape {found.get(name)} there and {shapes.get(name)} here); remove this folder to begin anew"
    )


def save(checkpoint: dict[str, Any], folder: Path, run: Run) -> None:
    """Whole or not at all, by rank 0. The newest may still be torn by what happens below us: the one before stays, and
    the best step that each of the two knows."""
    import torch

    if run.rank:
        return
    curve = checkpoint["curve"]
    folder.mkdir(exist_ok=True)
    path = folder / f"{len(curve):09}.ckpt"
    torch.save(checkpoint, path.with_suffix(".draft"))
    path.with_suffix(".draft").replace(path)
    spared = {int(kept.stem) for kept in newest_first(folder)[:2]}
    spared |= {best_step(curve[:step]) or step for step in spared}
    for old in newest_first(folder):
        if int(old.stem) not in spared:
            old.unlink()
