"""Ledger and status of a simulated sweep of 100,000 nodes; exits 1 above a limit.

    python benchmarks/ledger.py [NODES]

write    graph, cells and two events a node, appended as launch and workers do: 200 jobs
status   one `synthdiv status NAME --json` in a process of its own: seconds and its peak memory
refresh  a look of `status --watch` after 1,000 new events, and after none; ratio to the first look
store    milliseconds of processor time to build a node that does nothing, in an empty store and beside 50,000 artifacts
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.core.local_run import LocalRun
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Node, Stage
from synthdiv.core.store import Store
from synthdiv.core.types import Artifact, Run
from synthdiv.views.layout import show as show_tables
from synthdiv.views.show import overview
from synthdiv.views.status import Observer

STAGES = ("prompts", *("generate",) * 8, "mix", "train", *("generate",) * 4, "collapse", "likelihood", "truth")
FIELDS = {"sampling": {"temperature": 0.7, "top_p": 0.95}, "path": "/data/models/eight-billion", "seeds": [0] * 40}
SECONDS, REFRESH, GIB = 60.0, 5.0, 2.0
TIMES = 2.0
ASK = """
import sys
from pathlib import Path
sys.path[:0] = ["benchmarks"]
from alone import peak
from synthdiv.views.show import show_status
show_status(Path(sys.argv[1]), "big", as_json=True)
print(peak())
"""


def key(number: int) -> str:
    return f"{number:016x}" * 4


def records(count: int) -> tuple[list[CellRecord], list[NodeRecord]]:
    """Cells of 18 nodes; the first nine of every ten cells in a row are the same nodes: shared answers."""
    cells: list[CellRecord] = []
    nodes: dict[str, NodeRecord] = {}
    while len(nodes) < count:
        index, keys = len(cells), list[str]()
        for place, stage in enumerate(STAGES):
            name = key((index // 10 if place < 9 else index) * 100 + place)
            inputs = [keys[0]] if 0 < place < 9 else keys[1:9] if place == 9 else keys[-1:]
            nodes.setdefault(name, NodeRecord(name, stage, {each: each for each in inputs}, FIELDS))
            keys.append(name)
        axes = {"mix": f"m{index // 50}", "generators": "large", "rows": index % 5}
        words = [f"mix=m{index // 50}", f"mix.rows={index % 5}", f"train.seed={index}"]
        cells.append(CellRecord(key(index), f"arm{index // 50}", words, axes, {}, {}, {}, {}, keys, keys[10], keys[0]))
    return cells, list(nodes.values())


def simulate(root: Path, count: int) -> tuple[int, list[Ledger], list[str]]:
    """Write the sweep `big`: three quarters of its nodes done, one in a thousand failed, the last not begun."""
    cells, nodes = records(count)
    launch = Ledger(root, "big", job="launch")
    launch.add(cells, nodes)
    jobs = [Ledger(root, "big", job=f"job-{number}", attempts={}) for number in range(200)]
    begun = len(nodes) * 3 // 4
    for index, node in enumerate(nodes[:begun]):
        job = jobs[index * len(jobs) // len(nodes)]
        job.event(node.key, "running")
        job.event(node.key, "failed" if index % 1000 == 999 else "built", 12.5, "loss is NaN", "a bad value")
    return len(nodes), jobs, [node.key for node in nodes[begun:]]


@dataclass
class Nothing(Stage):
    """A node that does nothing."""

    name = "nothing"
    number: int = 0

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        return {}


def milliseconds(root: Path, first: int) -> float:
    """Of processor time for each of 200 nodes, built by a store that looks again at each."""
    run, store = LocalRun(Runtime(device="cpu"), lambda *_: None), Store(root)
    nodes = [Node(Nothing(first + number)) for number in range(200)]
    begun = time.process_time()
    for node in nodes:
        store.obtain(node, run)
        store.obtain(node, run)
    return (time.process_time() - begun) / len(nodes) * 1000


def main() -> int:
    count, short = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, []

    def show(name: str, value: float, most: float, unit: str, remark: str) -> None:
        print(f"{name:8s} {value:8.2f} {unit:4s} (at most {most:g})  {remark}", flush=True)
        if value > most:
            short.append(name)

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        begun = time.perf_counter()
        nodes, jobs, waiting = simulate(root, count)
        wrote = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in root.rglob("*.jsonl")) / 2**20
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", ASK, root], capture_output=True, text=True, check=True)
        status_seconds = time.perf_counter() - begun
        facts, peak = done.stdout.splitlines()
        counted = sum(sum(states.values()) for states in json.loads(facts)["nodes"].values())
        show("write", wrote, SECONDS, "s", f"{nodes:,} nodes, {nodes * 3 // 2:,} events, {size:.0f} MiB in all")
        show(
            "status",
            status_seconds,
            SECONDS,
            "s",
            f"{counted:,} nodes counted; {status_seconds / nodes * 1e5:.1f} s per 100,000",
        )
        show("both", wrote + status_seconds, SECONDS, "s", "ledger and status")
        show("memory", int(peak) / 2**30, GIB, "GiB", "peak resident size of status")
        observer = Observer(root, "big")
        begun = time.perf_counter()
        observer.look()
        first = time.perf_counter() - begun
        for name, news in (("news", 1000), ("none", 0)):
            for index, node in enumerate(waiting[:news]):
                jobs[index % len(jobs)].event(node, "built", 3.0)
            begun = time.perf_counter()
            status = observer.look()
            with contextlib.redirect_stdout(io.StringIO()):
                show_tables(*overview(status))
            show(name, time.perf_counter() - begun, REFRESH, "s", f"a look after {news:,} events; first {first:.2f} s")
        milliseconds(root, -200)  # loads what the first build loads
        empty = milliseconds(root, 0)
        artifacts = nodes // 2
        for number in range(artifacts):
            (root / "artifacts" / "nothing" / key(number)).mkdir()
        full = milliseconds(root, 200)
        remark = f"{full:.2f} ms a node beside {artifacts:,} artifacts; {empty:.2f} ms in an empty store"
        show("store", full / empty, TIMES, "x", remark)
        if counted != nodes:
            short.append(f"status counted {counted} of {nodes} nodes")
    if short:
        print("falls short: " + ", ".join(short), file=sys.stderr)
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
