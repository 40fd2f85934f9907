"""Run a schedule through Lightning: checkpoints by time, resume at the exact step. Also serves pre-training."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.types import Run

if TYPE_CHECKING:
    from synthdiv.train.module import Optimizing
    from synthdiv.train.rows import Row
    from synthdiv.train.strategies import Alone

CHECKPOINTS = "checkpoints"


def newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.ckpt"), reverse=True)  # named by step


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; a torn one falls back to the one before."""
    import torch

    for path in newest_first(folder):
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return checkpoint
        except Exception:  # whatever a torn file raises, an older one may be whole
            continue
    return None


def serious(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def save(checkpoint: dict[str, Any], folder: Path, step: int, run: Run) -> None:
    """Whole or not at all, by rank 0. The newest may still be torn by what happens below us: the one before stays."""
    import torch

    if run.rank:
        return
    folder.mkdir(exist_ok=True)
    path = folder / f"{step:09}.ckpt"
    torch.save(checkpoint, path.with_suffix(".draft"))
    path.with_suffix(".draft").replace(path)
    for old in newest_first(folder)[2:]:
        old.unlink()


def fit(
    model: Any,
    rows: list[Row],
    steps: list[list[int]],
    optimizing: Optimizing,
    seed: int,
    pad: int,
    out: Path,
    run: Run,
    precision: str,
    packed: int = 0,
    over: Alone | None = None,
) -> dict[str, Any]:
    """Train `model` in place over `steps`, on rows of their own or (`packed`) several in a sequence of so many tokens;
    write `metrics.parquet`; return what the manifest should say. `over` is the model spread over ranks (None: here)."""
    import lightning
    import pyarrow
    import pyarrow.parquet
    import torch
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.pytorch.callbacks import Callback

    from synthdiv.train.meter import Meter
    from synthdiv.train.module import Tuning
    from synthdiv.train.packing import isolating
    from synthdiv.train.rows import Rows
    from synthdiv.train.strategies import spread

    way = over or spread(model, optimizing, run, precision)

    class Keeper(Callback):
        """Lightning's ModelCheckpoint saves nothing by time under manual optimization (2.6)."""

        saved = time.monotonic()

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            def keep() -> None:
                save(way.state() | {"curve": module.curve}, out / CHECKPOINTS, len(module.curve), run)
                self.saved = time.monotonic()

            run.progress(len(module.curve), len(steps), f"steps, loss {module.curve[-1]['loss']:.3f}", keep)
            if way.first(time.monotonic() - self.saved >= run.checkpoint_seconds):
                keep()

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("DeepSpeed").addFilter(serious)  # transformers imports it to save any model, if it is there
    flat = isolating(way.opened, rows, pad) if packed else False
    meter = Meter(model, way.device, precision, run.world_size)
    tuning = Tuning(way, Rows(rows, pad, packed, flat), steps, optimizing, seed, run.micro_batch, meter)
    found = newest_checkpoint(out / CHECKPOINTS)
    if found:
        tuning.resume(found)
        run.log(f"continuing at step {len(tuning.curve) + 1} of {len(steps)}")
    done_before = len(tuning.curve)
    device = run.device
    index = torch.device(device).index
    if device == "cuda":
        index = torch.cuda.current_device()  # of several ranks each has its own
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # hints about loggers, workers and devices not chosen
        trainer = lightning.Trainer(
            accelerator="gpu" if device.startswith("cuda") else device,
            devices=[index] if index is not None else 1,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=1,
            max_steps=-1,
            logger=False,
            callbacks=[Keeper()],
            plugins=[LightningEnvironment()],  # or it would read Slurm's variables, and queue the job again by itself
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            default_root_dir=out,
        )
        begun = time.monotonic()
        model.train()
        if done_before < len(steps):
            trainer.fit(tuning, range(done_before, len(steps)))  # the module looks its rows up by step number
    seconds = time.monotonic() - begun
    model.eval()
    if run.rank == 0:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(tuning.curve), out / "metrics.parquet")
    here = sum(int(point["tokens"]) for point in tuning.curve[done_before:])
    seen = totals(tuning.curve, tuning.rows.sources)
    return seen | {
        "repetitions": round(seen["rows_seen"] / len(rows), 4),
        "tokens_per_second": round(here / seconds, 1) if here else None,
        "peak_memory_bytes": max(int(point["memory_bytes"]) for point in tuning.curve),
        "seconds": round(seconds, 3),
    }


def totals(curve: list[dict[str, float]], sources: list[str]) -> dict[str, Any]:
    """What was seen in all steps, and of each source; losses are those of the last ten steps."""

    def total(name: str) -> int:
        return sum(int(point[name]) for point in curve)

    rows = total("rows")
    by_source = {}
    for name in sources:
        last = [(point[f"loss/{name}"], point[f"supervised_tokens/{name}"]) for point in curve[-10:]]
        tokens = sum(count for _, count in last)
        by_source[name] = {
            "rows_seen": total(f"rows/{name}"),
            "share": round(total(f"rows/{name}") / rows, 6),
            "supervised_tokens": total(f"supervised_tokens/{name}"),
            "loss": round(sum(loss * count for loss, count in last if count) / tokens, 4) if tokens else None,
        }
    return {
        "steps": len(curve),
        "rows_seen": rows,
        "supervised_tokens": total("supervised_tokens"),
        "tokens": total("tokens"),
        "loss": round(sum(point["loss"] for point in curve[-10:]) / len(curve[-10:]), 4),
        "by_source": by_source,
    }
