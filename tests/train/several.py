"""A program for several ranks: trains a tiny model, job after job, each way that they can."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import queue
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from synthdiv.core.local_run import LocalRun, Stop
from synthdiv.core.ranks import Ranks
from synthdiv.core.runtime import Runtime
from synthdiv.core.strategy import Strategy
from synthdiv.core.types import DataError, Stopped
from synthdiv.engine.job import Job
from synthdiv.engine.job_worker import JobWorker
from synthdiv.engine.watcher import Watcher
from synthdiv.models.load import open_model
from synthdiv.train.adapter import with_adapter
from synthdiv.train.early import Early
from synthdiv.train.fit import fit
from synthdiv.train.loss import parted
from synthdiv.train.recipe import Lora, Optimizing, Training
from synthdiv.train.rows import Row
from synthdiv.train.schedule import Match, schedule
from tests.models.small import some_rows

OPTIMIZING = Optimizing(1e-2, "cosine", 0.1, 0.01, 1.0)
STEPS = 6


def blank(lora: bool, precision: str = "fp32") -> Any:
    """Sizes that no number of ranks divides, and so are cut unevenly."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=41, hidden_size=18, intermediate_size=33, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(config)
    if lora and precision == "bf16":  # as a frozen base is opened
        model = model.to(torch.bfloat16)
    return with_adapter(model, Lora(r=3, dropout=0.0), 0) if lora else model


def spoilt(rows: list[Row], number: int) -> list[Row]:
    """The token 40 in one row and in no other."""
    rows = [dataclasses.replace(row, ids=tuple(min(token, 39) for token in row.ids)) for row in rows]
    rows[number] = dataclasses.replace(rows[number], ids=(*rows[number].ids[:-2], 40, rows[number].ids[-1]))
    return rows


def planned(held: list[Row]) -> Early:
    """Looks at held-out rows for real, and sees what is planned: the second step is the best, the fourth the last."""
    at = {}

    class Planned(Early):
        def due(self, step: int, steps: int) -> bool:
            at["step"] = step
            return super().due(step, steps)

    return Planned(1, 2, lambda tuning: 0 * tuning.mean_loss(held) + (5.0, 3.0, 4.0, 3.5)[at["step"] - 1])


def train(job: dict[str, Any], ranks: Ranks) -> None:
    """As the stage does it: a look at held-out rows, training, another look. `stop`: after so many steps, each of which
    is kept. What is trained ends in `weights.pt`, what is to be told of an error in `error`."""
    out, lora, precision = Path(job["out"]), job.get("lora", False), job.get("precision", "fp32")
    strategy = Strategy(job.get("strategy", "auto"))
    runtime = Runtime(
        device=job.get("device", "cpu"), strategy=strategy, micro_batch=job.get("micro", 0),
        trainer=job.get("trainer", {}), deepspeed=job.get("deepspeed", {}),
        checkpoint_seconds=1e-6 if job.get("stop") else 300.0, gradient_checkpointing=job.get("recompute", False),
        compile=job.get("compile", False),
    )  # fmt: skip
    run = LocalRun(runtime, open_model, ranks=ranks)
    run.begin(out)
    boundary = run.progress

    def progress(done: int, *given: Any) -> None:
        if done == job.get("stop") and ranks.rank == ranks.size - 1:  # one is asked, and all stop
            run.stop.reason = "asked"
        boundary(done, *given)

    run.progress = progress  # type: ignore[method-assign]
    rows, model = some_rows(tokens=41, sources="ab"), blank(lora, precision)
    held = rows[:7]
    # 5 rows a step and 3 in the last: ranks get different numbers of rows, and one of four gets none
    steps = schedule([row.supervised for row in rows], 5, Match.rows, 5 * (STEPS - 1) + 3, 0)
    if job.get("spoilt"):
        rows, held = spoilt(rows, steps[3][0]), spoilt(held, 0)[1:]
        with torch.no_grad():
            model.get_input_embeddings().weight[40] = math.inf

    def save(tuning: Any) -> None:
        assert parted(model) is not None, f"{strategy}: logits of the prompt would be computed"
        state, weights = tuning.strategy.state(), tuning.strategy.weights() or {}
        if ranks.rank == 0:
            torch.save(state | {"saved": dict(weights)}, out / "weights.pt")

    training = Training(
        model, rows, steps, OPTIMIZING, 0, 1, out, run, precision, job.get("packed", 0), "student",
        planned(held) if job.get("early") else None, {"held": held}, save,
    )  # fmt: skip
    try:
        summary = fit(training)
    except Stopped:
        return
    except DataError as error:
        (out / f"error{ranks.rank}").write_text(str(error))
        return
    if ranks.rank == 0:
        looks = [summary[name]["held"] for name in ("validation_before", "validation")]
        torch.save(torch.load(out / "weights.pt") | {"looks": looks}, out / "weights.pt")


def work(path: str, ranks: Ranks) -> None:
    """As one of the ranks of a job that builds stages."""
    assert JobWorker(Job.read(Path(path)), 1, Stop(), ranks, Watcher(), queue.Queue()).work() == 0


def main() -> None:
    """Works through the lists of jobs in a folder as they come, until one is empty."""
    ranks, lists = Ranks.of_environment(), Path(sys.argv[1])
    torch.set_num_threads(1)
    for number in itertools.count():
        while not (path := lists / f"{number}.json").exists():
            time.sleep(0.02)
        if not (jobs := json.loads(path.read_text())):
            break
        for job in jobs:
            if ranks.rank == 0:
                Path(job["out"]).mkdir(exist_ok=True)
            ranks.agree("")
            if "job" in job:
                work(job["job"], ranks)
            else:
                train(job, ranks)
        ranks.agree("")
        path.with_suffix(f".{ranks.rank}").touch()
    ranks.leave()
    os._exit(0)
