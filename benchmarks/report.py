"""`synthdiv report` of 100 cells with 1,500 prompts and 20 scores each; exits 1 where a limit is missed.

    python benchmarks/report.py [FOLDER]        FOLDER keeps the study, and the page to look at

report        the command in a process of its own: at most 60 s, 2 GiB
page          at most 10 MB
bootstrap     10,000 resamples of 1,500 paired prompts: at most 0.2 s
interactive   from opening it in Chromium until its answers and scores can be searched: at most 3 s
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from synthdiv.core.stage import Node, Stage  # noqa: E402
from synthdiv.core.store import require_format  # noqa: E402
from synthdiv.core.types import Score  # noqa: E402
from synthdiv.evaluate.suite import Suite, item, write_suite  # noqa: E402
from tests.graphs import Taking, taking  # noqa: E402
from tests.views.report.conftest import RUN, Study, Train  # noqa: E402

PROMPTS, SCORES, SEEDS = 1500, 20, 5
LIMITS = {"seconds": 60.0, "GiB": 2.0, "MB": 10.0, "bootstrap": 0.2, "interactive": 3.0}
WORDS = "the river of a city was named after its bridge and nobody knows when it was built or who paid for it"
ARMS = [("human", "n/a", "n/a"), *(("single", source, "small") for source in ("ada", "bell", "cray"))]
ARMS += [*(("single", source, "large") for source in ("ada", "bell", "cray")), ("multi", "n/a", "small")]
ARMS += [("multi", "n/a", "large"), ("multi_decoding", "n/a", "large")]


class Headlines(Suite):
    headlines = tuple(f"measure_{at}" for at in range(8))


@dataclass
class Asked(Stage):
    name = "prompts"

    def build(self, inputs: Any, out: Path, run: Any) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        rows = [
            {"id": f"p{at}", "category": f"topic {at % 8}", "prompt": text(at, 20), "response": text(-at, 80)}
            | {"split": "test", "position": at}
            for at in range(PROMPTS)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out / "prompts.parquet")
        return {}


@dataclass
class Answers(Taking):
    name = "generate"
    tag: str = ""

    def build(self, inputs: Any, out: Path, run: Any) -> dict[str, Any]:
        with (out / "rows.jsonl").open("w") as handle:
            for at in range(PROMPTS):
                row = {"id": f"p{at}", "response": text(f"{self.tag}{at}", 120), "sample": 0, "finish": "stop"}
                handle.write(json.dumps(row) + "\n")
        return {}


@dataclass
class Scored(Taking):
    name = "collapse"
    tag: str = ""
    level: float = 0.0

    def build(self, inputs: Any, out: Path, run: Any) -> dict[str, Any]:
        draw = random.Random(self.tag)
        scores, items = [], []
        for name in (f"measure_{at}" for at in range(SCORES)):
            values = [self.level + draw.gauss(0, 1) for _ in range(PROMPTS)]
            mean = sum(values) / PROMPTS
            scores.append(Score(name, mean, PROMPTS, mean - 0.05, mean + 0.05, "nats", False))
            items += [item(f"p{at}", name, value) for at, value in enumerate(values)]
        write_suite(out, scores, items, Headlines)
        return {}


class Large(Study):
    def suites(self, tag: str, value: float, undefined: bool) -> tuple[Node | None, dict[str, Node]]:
        train = None if tag == "vanilla" else Node(Train(tag))
        answers = taking(Answers(tag), *(() if train is None else (train,)))
        return train, {"collapse": taking(Scored(tag, value), answers, answers)}


def text(seed: object, count: int) -> str:
    return " ".join(random.Random(str(seed)).choices(WORDS.split(), k=count))


def build(root: Path) -> int:
    require_format(root, create=True)
    study = Large(root)
    prompts_node = Node(Asked())
    study.store.obtain(prompts_node, RUN)
    study.prompts = prompts_node.key
    for student in ("toy_small", "toy_large"):
        for level, (mix, source, size) in enumerate(ARMS):
            for seed in range(SEEDS):
                study.cell(mix, 1 + level / 20 + seed / 50, seed, source=source, generators=size, student=student)
    return len(study.ledger.unique_cells())


def interactive(page: Path) -> float:
    """Seconds from opening the page until its scores are listed and its answers are shown."""
    from playwright.sync_api import sync_playwright

    ready = "document.querySelector('#scores tbody tr') && document.querySelector('#answers article')"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page()
        opened.goto("about:blank")
        begun = time.perf_counter()
        opened.goto(page.as_uri())
        opened.wait_for_function(ready)
        seconds = time.perf_counter() - begun
        browser.close()
    return seconds


def bootstrap() -> float:
    """Seconds of processor time of the interval of one comparison, the best of three."""
    import numpy as np

    from synthdiv.measures.replicates import bootstrap_interval

    values, times = np.random.default_rng(0).normal(size=PROMPTS), []
    for _ in range(3):
        begun = time.process_time()
        bootstrap_interval(values, resamples=10_000)
        times.append(time.process_time() - begun)
    return min(times)


def main() -> int:
    argument = sys.argv[1] if len(sys.argv) > 1 else None
    with nullcontext(argument) if argument else tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cells = SEEDS * 2 * len(ARMS) if (root / "sweeps").exists() else build(root)
        words = [sys.executable, "-m", "synthdiv", "report", "eggs", f"runtime.outputs={root}"]
        begun = time.perf_counter()
        subprocess.run(
            words, check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - begun
        page = root / "reports" / "eggs" / "index.html"
        measured = {"seconds": seconds, "GiB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20}
        measured |= {"MB": page.stat().st_size / 1e6, "bootstrap": bootstrap(), "interactive": interactive(page)}
    print(f"{cells} cells, {PROMPTS} prompts, {SCORES} scores")
    for name, value in measured.items():
        print(f"{name}: {value:.2f} (limit {LIMITS[name]:g})")
    return int(any(value > LIMITS[name] for name, value in measured.items()))


if __name__ == "__main__":
    sys.exit(main())
