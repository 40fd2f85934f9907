"""Whether the folder of outputs can take what a launch will write there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path


def standing(root: Path) -> Path:
    """`root`, or the nearest folder above it that exists."""
    return next((path for path in (root, *root.absolute().parents) if path.exists()), Path("/"))


def unwritable(root: Path) -> list[str]:
    """A problem for each folder of the outputs in which no file can be made."""
    folders = [standing(root), *(root / name for name in ("artifacts", "sweeps") if (root / name).exists())]
    found = []
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            found.append(
                f"runtime.outputs={root}: nothing can be written in {folder} ({error.strerror or error}); make it "
                "writable, or choose another folder with runtime.outputs=FOLDER"
            )
    return found


def free_bytes(root: Path) -> int:
    """Free space of the file system of the outputs."""
    return shutil.disk_usage(standing(root)).free


def shortage(needed: int, root: Path) -> list[str]:
    """A problem where the estimate does not fit."""
    free = free_bytes(root)
    if needed <= free:
        return []
    return [
        f"runtime.outputs={root}: this sweep needs about {told(needed)} and {told(free)} are free there; free some "
        "space, choose a folder on another disk with runtime.outputs=FOLDER, or launch a part of the grid"
    ]


def told(size: float) -> str:
    """Bytes for people: three digits and a decimal unit."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"
