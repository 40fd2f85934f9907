"""The verb `doctor`: verify every artifact against its manifest and list unfinished builds. It removes nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

from synthdiv.core.store import Store
from synthdiv.core.terminal import echo
from synthdiv.core.types import ConfigError


def examine(root: Path) -> int:
    """Check all artifacts below `root`; the exit code is 1 if one is damaged."""
    store = Store(root)
    if not (root / "artifacts").is_dir():
        raise ConfigError(f"runtime.outputs={root}: has no folder `artifacts`, so there is nothing to check")
    damaged, finished, partials = 0, store.finished(), store.partials()
    for path in finished:
        problems = list(store.damage(path, hashes=True))
        if problems:
            damaged += 1
            advice = f"remove it and run the sweep again: rm -r {shlex.quote(str(path))}"
            echo(f"damaged: {path}: {'; '.join(problems)}\n  {advice}", error=True)
    for path, claim in partials.items():
        if claim:
            echo(f"in work: {path} (by process {claim.pid} on {claim.host}; do not remove it while that lives)")
        else:
            echo(f"unfinished: {path} (running the sweep again continues it; otherwise remove it)")
    echo(f"{len(finished)} artifacts, {damaged} damaged, {len(partials)} unfinished")
    return 1 if damaged else 0
