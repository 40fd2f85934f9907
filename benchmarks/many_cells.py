"""`synthdiv report` and the answer of a terminal for 10,000 small cells: 2,000 arms of five replicates, each with its
mix, training, answers and 20 scores of 30 prompts; exits 1 where a limit is missed.

    python benchmarks/many_cells.py [FOLDER]        FOLDER keeps the study, and the page to look at

report        the command in a process of its own: at most 900 s of processor time, 2 GiB
answer        what a launch prints at its end: at most 60 s of processor time
page          the summary: at most 10 MB
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from synthdiv.core.files import write_rows  # noqa: E402
from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord  # noqa: E402
from synthdiv.core.stage import digest  # noqa: E402
from synthdiv.core.store import require_format  # noqa: E402
from synthdiv.core.types import Score  # noqa: E402
from synthdiv.evaluate.suite import Suite, item, write_suite  # noqa: E402

PROMPTS, SCORES, SEEDS, CELLS = 30, 20, 5, 10_000
LIMITS = {"seconds": 900.0, "GiB": 2.0, "answer": 60.0, "MB": 10.0}
FAMILIES = ("ada", "bell", "cray")
MIXES = [("human", "n/a"), *(("single", family) for family in FAMILIES), ("multi", "n/a")]
AXES = {
    "student": ("small", "base", "large", "xl"), "prompts": ("dolly", "alpaca", "oasst", "lima", "toy"),
    "generators": ("small", "large"), "train.lr": (1e-5, 3e-5, 1e-4, 2e-4, 3e-4, 1e-3), "real_share": (0.0, 0.5),
}  # fmt: skip
WORDS = [*"abcdefghijklmnopqrstuvwxyz"]
SESSION = {"commit": "a" * 40, "versions": {"synthdiv": "0.1.0"}, "device": "cpu", "seconds": 1.0}
Axes = dict[str, Any]


class Headlines(Suite):
    headlines = tuple(f"measure_{at}" for at in range(8))


def artifact(root: Path, stage: str, key: str, summary: Any = None) -> Path:
    path = root / "artifacts" / stage / key
    path.mkdir(parents=True)
    record = {"files": {}, "sessions": [SESSION], "summary": summary or {}, "inputs": {}, "confidential": False}
    (path / "manifest.json").write_text(json.dumps(record))
    return path


def answers(draw: random.Random, count: int) -> list[dict[str, Any]]:
    texts = [" ".join(draw.choices(WORDS, k=30)) for _ in range(count)]
    return [
        {"id": f"p{at}", "prompt": "question", "response": text, "sample": 0, "finish": "stop", "source": "ada"}
        | {"response_tokens": 30, "position": at}
        for at, text in enumerate(texts)
    ]


def scored(path: Path, draw: random.Random, level: float) -> None:
    scores, items = [], []
    for name in (f"measure_{at}" for at in range(SCORES)):
        values = [level + draw.gauss(0, 1) for _ in range(PROMPTS)]
        mean = sum(values) / PROMPTS
        scores.append(Score(name, mean, PROMPTS, mean - 0.4, mean + 0.4, "nats", False))
        items += [item(f"p{at}", name, value) for at, value in enumerate(values)]
    write_suite(path, scores, items, Headlines)


def cell(root: Path, axes: Axes, seed: int, prompts: str) -> tuple[CellRecord, list[NodeRecord]]:
    """A finished cell: its record, and those of its nodes."""
    keys = {stage: digest([stage, axes, seed]) for stage in ("mix", "train", "generate", "collapse")}
    draw, vanilla = random.Random(keys["train"]), axes["mix"] == "none"
    sources = ["human"] if axes["mix"] == "human" else [axes["source"]] if axes["mix"] == "single" else [*FAMILIES]
    rows, counts = answers(draw, 40), {source: 40 // len(sources) for source in sources}
    nodes = [NodeRecord(prompts, "prompts", {}, {})]
    inputs = {"mix": {"prompts": prompts}, "train": {"mix": keys["mix"]}, "generate": {"model": keys["train"]},
              "collapse": {"plain/answers": keys["generate"]}}  # fmt: skip
    fields = {"mix": {"sources": sources, "weights": [1.0] * len(sources)}}
    for stage in ("generate", "collapse") if vanilla else inputs:
        path = artifact(root, stage, keys[stage], {"sources": counts} if stage == "mix" else {})
        if stage == "mix":
            write_rows(
                [row | {"source": sources[at % len(sources)]} for at, row in enumerate(rows)], path / "mix.parquet"
            )
        elif stage == "train":
            write_rows([{"step": step, "loss": 2.0 / step} for step in range(1, 50)], path / "metrics.parquet")
        elif stage == "generate":
            (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:PROMPTS]))
        else:
            scored(path, draw, 1 + (axes["mix"] == "single") * 0.2 + random.Random(f"{seed}{axes}").gauss(0, 0.1))
        nodes.append(NodeRecord(keys[stage], stage, {} if vanilla else inputs[stage], fields.get(stage, {})))
    suites, untouched = (
        {"collapse": keys["collapse"]},
        {"collapse": digest(["collapse", VANILLA | {"student": axes["student"]}, 0])},
    )
    seeds = {"train.seed": "n/a" if vanilla else seed, "evaluate.respond.seed": 0}
    words = [f"mix={axes['mix']}", f"train.seed={seed}", *(f"{name}={value}" for name, value in axes.items())]
    record = CellRecord(
        digest([["collapse", keys["collapse"]]]), digest(sorted(map(str, axes.items()))), words, axes, seeds,
        {"plain": keys["generate"]}, suites, suites if vanilla else untouched, [node.key for node in nodes],
        None if vanilla else keys["train"], prompts,
    )  # fmt: skip
    return record, nodes


VANILLA = {"mix": "none", "source": "n/a"} | dict.fromkeys(AXES, "n/a")


def build(root: Path) -> int:
    require_format(root, create=True)
    prompts_key = digest("prompts")
    rows = [row | {"id": f"p{at}", "category": f"topic {at % 8}", "split": "test" if at < PROMPTS else "train"}
            for at, row in enumerate(answers(random.Random(0), PROMPTS + 40))]  # fmt: skip
    write_rows(rows, artifact(root, "prompts", prompts_key) / "prompts.parquet")
    arms: list[Axes] = [VANILLA | {"student": student} for student in AXES["student"]]
    for values in itertools.product(*AXES.values()):
        for mix, source in MIXES:
            axes = {"mix": mix, "source": source} | dict(zip(AXES, values, strict=True))
            axes |= {"generators": "n/a", "real_share": 1.0} if mix == "human" else {}
            if axes not in arms[-2 * len(MIXES) * 20 :]:
                arms.append(axes)
    records, nodes = list[CellRecord](), dict[str, NodeRecord]()
    for axes in arms:
        for seed in range(1 if axes["mix"] == "none" else SEEDS):
            record, cell_nodes = cell(root, axes, seed, prompts_key)
            records.append(record)
            nodes |= {node.key: node for node in cell_nodes}
    Ledger(root, "many", "test").add(records, [*nodes.values()])
    return len(records)


def main() -> int:
    argument = sys.argv[1] if len(sys.argv) > 1 else None
    with nullcontext(argument) if argument else tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if not (root / "sweeps").exists():
            begun = time.perf_counter()
            print(f"{build(root):,} cells, built in {time.perf_counter() - begun:.0f} s", flush=True)
        words = [sys.executable, "-m", "synthdiv", "report", "many", f"runtime.outputs={root}"]
        subprocess.run(words, check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        measured = {"seconds": used.ru_utime + used.ru_stime, "GiB": used.ru_maxrss / 2**20}
        from synthdiv.views.report.findings import answer

        begun = time.process_time()
        answer(root, "many")
        measured |= {"answer": time.process_time() - begun}
        measured |= {"MB": (root / "reports" / "many" / "index.html").stat().st_size / 1e6}
    for name, value in measured.items():
        print(f"{name}: {value:.2f} (limit {LIMITS[name]:g})")
    return int(any(value > LIMITS[name] for name, value in measured.items()))


if __name__ == "__main__":
    sys.exit(main())
