"""The verb `doctor`: verify every artifact against its manifest and list unfinished builds. It removes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from synthdiv.core.store import Store


def examine(root: Path) -> int:
    """Check all artifacts below `root`; the exit code is 1 if one is damaged."""
    store = Store(root)
    damaged = 0
    finished = store.finished()
    for path in finished:
        problems = list(store.damage(path, hashes=True))
        if problems:
            damaged += 1
            print(
                f"damaged: {path}: {'; '.join(problems)}\n  remove it and run the sweep again: rm -r {path}",
                file=sys.stderr,
            )
    for path in store.partials():
        print(f"unfinished: {path} (running the sweep again continues it; otherwise remove it)")
    print(f"{len(finished)} artifacts, {damaged} damaged, {len(store.partials())} unfinished")
    return 1 if damaged else 0
