"""Checks of the folder of outputs before a launch: permission to write, and free space."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path


def existing(root: Path) -> Path:
    """`root`, or the nearest folder above it that exists."""
    return next((path for path in (root, *root.absolute().parents) if path.exists()), Path("/"))


def unwritable(root: Path) -> list[str]:
    """A message for each folder of the outputs in which no file can be created."""
    folders = [existing(root), *(root / name for name in ("artifacts", "sweeps") if (root / name).exists())]
    problems = []
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            problems.append(
                f"runtime.outputs={root}: nothing can be written in {folder} ({error.strerror or error}); make it "
                "writable, or choose another folder with runtime.outputs=FOLDER"
            )
    return problems


def free_bytes(root: Path) -> int:
    """Free bytes on the file system of the outputs."""
    return shutil.disk_usage(existing(root)).free


def shortage(needed: int, root: Path) -> list[str]:
    """A message if `needed` bytes are more than are free."""
    free = free_bytes(root)
    if needed <= free:
        return []
    return [
        f"runtime.outputs={root}: this sweep needs about {bytes_text(needed)} and {bytes_text(free)} are free there; "
        "free some space, choose a folder on another disk with runtime.outputs=FOLDER, or launch a part of the grid"
    ]


def bytes_text(size: float) -> str:
    """Bytes with three digits and a decimal unit, such as `12.3 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"
