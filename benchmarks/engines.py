"""A grid of 24 toy cells: what sharing saves, what an engine costs; exits 1 where a limit is missed.

    python benchmarks/engines.py

floor   the sum of the build seconds of the unique nodes
inline  the whole command, with imports and planning: at most 1.1 x the floor
alone   without sharing: the sum over cells of the build seconds of their nodes; only printed
local   `hydra/launcher=local hydra.launcher.jobs=2` on two cores, one thread a node: at least 1.5 x faster than inline
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from synthdiv.core.ledger import Ledger

GRID = [
    "-m", "sweep=grid", "mix=human,single,multi", "generators=toy_small,toy_large", "student=toy_small,toy_large",
    "train.seed=0,1", "runtime.threads=1",
]  # fmt: skip
OVERHEAD, FASTER = 1.1, 1.5


def run(root: Path, *engine: str) -> float:
    begun = time.perf_counter()
    command = [sys.executable, "-m", "synthdiv", *GRID, f"runtime.outputs={root}", *engine]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        inline = run(Path(folder) / "inline")
        ledger = Ledger(Path(folder) / "inline", "grid")
        seconds = {event.node: event.seconds for event in ledger.events() if event.state == "built"}
        cells = ledger.cells()
        local = run(Path(folder) / "local", "hydra/launcher=local", "hydra.launcher.jobs=2")
    floor = sum(seconds.values())
    alone = sum(seconds.get(key, 0.0) for cell in cells for key in cell.nodes)
    unique = len({cell.key for cell in cells})
    print(f"floor    {floor:8.1f} s    {len(cells)} cells, {unique} unique, {len(seconds)} nodes")
    print(f"inline   {inline:8.1f} s    {inline / floor:.2f} x the floor (at most {OVERHEAD:g})")
    print(f"alone    {alone:8.1f} s    {alone / inline:.2f} x inline: what sharing saves")
    print(f"local    {local:8.1f} s    {inline / local:.2f} x faster than inline (at least {FASTER:g})")
    failed = [
        name for name, fails in (("inline", inline > OVERHEAD * floor), ("local", inline < FASTER * local)) if fails
    ]
    if failed:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
