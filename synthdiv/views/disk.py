"""Checks of the folder of outputs before a launch: permission to write, and free space."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from synthdiv.views.layout import bytes_text


def existing(root: Path) -> Path:
    """`root`, or the nearest folder above it that exists."""
    return next((path for path in (root, *root.absolute().parents) if path.exists()), Path("/"))


def unwritable(root: Path) -> list[str]:
    """A message for each folder of the outputs in which no file can be created."""
    problems = []
    for folder in [existing(root), *(path for name in ("artifacts", "sweeps") if (path := root / name).exists())]:
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
    if needed <= (free := free_bytes(root)):
        return []
    return [
        f"runtime.outputs={root}: this sweep needs about {bytes_text(needed)} and {bytes_text(free)} are free there; "
        "free some space, choose a folder on another disk with runtime.outputs=FOLDER, or launch a part of the grid"
    ]
