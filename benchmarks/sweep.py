"""The plan of 1,000 cells against Hydra's own expansion of the same grid; exits 1 where a limit is missed.
Seconds are of processor time, so that other work on the machine does not count; each side is one thread.

    python benchmarks/sweep.py [CELLS]

plan    `synthdiv plan --json -m …` in a process of its own, heavy imports counted: at most 10 s for 1,000 cells
hydra   Hydra's `load_sweep_config` and `to_object` for a sample of the same cells, spread over the grid, in this
        process; the time is scaled to all cells. Hydra's own sweeper composes every cell twice.
ratio   Hydra's time over that of synthdiv's expansion in this process, best of two each: at least 5 x; the cells of the
        sample are equal in every field
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from synthdiv.__main__ import conf_dir
from synthdiv.evaluate.suite import typed_items
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander, Point
from synthdiv.study.grid import GridSpec

SAMPLE, SECONDS, RATIO = 40, 10.0, 5.0
HEAVY = ("torch", "transformers", "lightning", "peft", "datasets", "wandb", "pandas", "matplotlib")
PLAN = f"""
import atexit, runpy, sys
atexit.register(lambda: print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr))
runpy.run_module("synthdiv", run_name="__main__")
"""


def grid(cells: int) -> list[str]:
    """Sources, models, recipe and seeds: 12 choices of groups, and values of one block."""
    axes = ["mix=human,single,multi", "generators=toy_small,toy_large", "student=toy_small,toy_large"]
    return [*axes, "train.lr=1e-3,3e-3", "train.epochs=1,2", f"train.seed=range(0,{-(-cells // 48)})"]


def by_hydra(loader: Any, points: list[Point]) -> tuple[float, list[Any]]:
    """Seconds and cells of Hydra's own composition."""
    master = loader.load_configuration("config", [], RunMode.MULTIRUN)
    begun = time.process_time()
    cells = []
    for point in points:
        config = loader.load_sweep_config(master, list(point.overrides))
        with open_dict(config):
            del config["hydra"]
        typed_items(config)
        cells.append(OmegaConf.to_object(config))
    return time.process_time() - begun, cells


def main() -> int:
    requested = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    failed = []
    words = grid(requested)
    ConfigStore.instance().store(name="cell", node=Cell, provider="synthdiv")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        expansion, hydra = float("inf"), float("inf")
        for _ in range(2):
            begun = time.process_time()
            points = Expander(loader, "config", []).points(GridSpec(cells=2 * requested), words)
            expansion = min(expansion, time.process_time() - begun)
            sample = points[:: max(1, len(points) // SAMPLE)]
            seconds, cells = by_hydra(loader, sample)
            hydra = min(hydra, seconds * len(points) / len(sample))
    unequal = sum(point.cell != cell for point, cell in zip(sample, cells, strict=True))
    count = len(points)
    print(f"hydra    {hydra:8.2f} s    {count} cells, scaled from {len(sample)}: {hydra / count * 1000:.1f} ms a cell")
    print(f"expand   {expansion:8.2f} s    {expansion / count * 1000:.2f} ms a cell")
    print(f"ratio    {hydra / expansion:8.1f} x    (at least {RATIO:g})  {unequal} of {len(sample)} cells differ")
    failed += ["ratio"] if hydra / expansion < RATIO else []
    failed += ["equal cells"] if unequal else []

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PLAN, "plan", "--json", "-m", *words, f"hydra.sweeper.cells={count}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        written = list(Path(folder).iterdir())
    plan, most = json.loads(done.stdout), SECONDS * max(1.0, count / 1000)
    nodes = sum(sum(states.values()) for states in plan["nodes"].values())
    counts = f"{plan['cells']} cells, {plan['unique_cells']} unique, {nodes} nodes"
    print(f"plan     {seconds:8.2f} s    (at most {most:.1f})  {counts}")
    print(f"heavy    {done.stderr.strip() or 'none'}")
    failed += ["plan"] if seconds > most else []
    failed += ["heavy imports"] if done.stderr.strip() else []
    failed += ["the plan wrote something"] if written else []
    if failed:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
