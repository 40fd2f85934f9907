"""`doctor`: verify every artifact against the hashes in its manifest, list what is unfinished, remove nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from synthdiv.core.store import Store


def examine(root: Path) -> int:
    """Print what was found; 1 where an artifact is damaged."""
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
        print(f"unfinished: {path} (the same command continues it; remove it if you will never run it again)")
    print(f"{len(finished)} artifacts, {damaged} damaged, {len(store.partials())} unfinished")
    return 1 if damaged else 0
