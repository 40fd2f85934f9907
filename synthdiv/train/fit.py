"""Run a schedule through Lightning: checkpoints by time, resume at the exact step. Also serves pre-training."""

from __future__ import annotations

import logging
import math
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.train.checkpoints import CHECKPOINTS, newest_checkpoint, newest_first, read, same_model, save
from synthdiv.train.early import HELD_OUT, Curve, Early, best_step
from synthdiv.types import DataError, Run

if TYPE_CHECKING:
    from synthdiv.train.module import Optimizing
    from synthdiv.train.rows import Row
    from synthdiv.train.strategies import Alone
    from synthdiv.train.unusable import Unusable


def look(early: Early, curve: Curve, steps: int) -> bool:
    """Note the held-out loss where it is due."""
    curve[-1][HELD_OUT] = math.nan
    if not early.due(len(curve), steps):
        return False
    loss = early.loss()
    curve[-1][HELD_OUT] = loss if math.isfinite(loss) else math.inf
    return True


def last_good(error: Unusable, way: Alone, curve: Curve, folder: Path, run: Run) -> DataError:
    """What to tell, after the last state that is of use was kept."""
    if error.good and curve:
        kept = way.state()
        if way.first(run.rank != 0 or all(bool(value.isfinite().all()) for value in kept["state_dict"].values())):
            save(kept | {"curve": curve}, folder, run)
    newest = next((path.stem.lstrip("0") for path in newest_first(folder)), None)
    told = f"the last good checkpoint is that of step {newest} in {folder}" if newest else "no checkpoint was kept yet"
    return DataError(f"{error}; {told}. Lower train.lr, or look at these rows")


def serious(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


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
    early: Early | None = None,
) -> dict[str, Any]:
    """Train `model` in place over `steps`, on rows of their own or (`packed`) several in a sequence of so many tokens;
    write `metrics.parquet`; return what the manifest should say. `over` is the model spread over ranks (None: here).
    With `early` it ends with the weights of its best step."""
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
    from synthdiv.train.unusable import Unusable, limit

    way = over or spread(model, optimizing, run, precision)

    class Keeper(Callback):
        """Lightning's ModelCheckpoint saves nothing by time under manual optimization (2.6)."""

        saved = time.monotonic()

        def keep(self, curve: Curve) -> None:
            save(way.state() | {"curve": curve}, out / CHECKPOINTS, run)
            self.saved = time.monotonic()

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            curve = module.curve
            best = early is not None and look(early, curve, len(steps)) and best_step(curve) == len(curve)
            run.show(curve[-1])
            told = f"steps, loss {curve[-1]['loss']:.3f}"
            run.progress(len(curve), len(steps), told, lambda: self.keep(curve))
            due = way.first(time.monotonic() - self.saved >= run.checkpoint_seconds)
            if best or (due and curve[-1]["loss"] <= limit(curve)):
                self.keep(curve)
            trainer.should_stop = early is not None and early.over(curve)

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("DeepSpeed").addFilter(serious)  # transformers imports it to save any model, if it is there
    flat = isolating(way.opened, rows, pad) if packed else False
    meter = Meter(model, way.device, precision, run.world_size)
    tuning = Tuning(way, Rows(rows, pad, packed, flat), steps, optimizing, seed, run.micro_batch, meter)
    found = newest_checkpoint(out / CHECKPOINTS)
    if found:
        same_model(found, way.shapes, out / CHECKPOINTS)
        tuning.resume(found)
        run.log(f"continuing at step {len(tuning.curve) + 1} of {len(steps)}")
    done_before = len(tuning.curve)
    device = run.device
    index = torch.device(device).index
    if device == "cuda":
        index = torch.cuda.current_device()  # of several ranks each has its own
    keeper = Keeper()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # hints about loggers, workers and devices not chosen
        trainer = lightning.Trainer(
            accelerator="gpu" if device.startswith("cuda") else device,
            devices=[index] if index is not None else 1,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=1,
            max_steps=-1,
            logger=False,
            callbacks=[keeper],
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
        if done_before < len(steps) and not (early and early.over(tuning.curve)):
            try:
                trainer.fit(tuning, range(done_before, len(steps)))  # the module looks its rows up by step number
            except Unusable as error:
                raise last_good(error, way, tuning.curve, out / CHECKPOINTS, run) from error
    seconds = time.monotonic() - begun
    model.eval()
    if run.rank == 0:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(tuning.curve), out / "metrics.parquet")
    chosen = (early and best_step(tuning.curve)) or len(tuning.curve)
    if chosen < len(tuning.curve):
        way.load(read(out / CHECKPOINTS / f"{chosen:09}.ckpt"))
    here = sum(int(point["tokens"]) for point in tuning.curve[done_before:])
    seen = totals(tuning.curve, tuning.rows.sources)
    return seen | {
        "saved_step": chosen,
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
