"""Run a schedule through Lightning: checkpoints by time, resume at the exact step. Also serves pre-training."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import DataError, Run
from synthdiv.train.checkpoints import (
    CHECKPOINTS,
    at_step,
    forget,
    newest_checkpoint,
    newest_first,
    read,
    same_training,
    save,
    whole,
)
from synthdiv.train.early import HELD_OUT, Early, best_step

if TYPE_CHECKING:
    from synthdiv.train.module import Optimizing, Tuning
    from synthdiv.train.rows import Row
    from synthdiv.train.strategies import Alone
    from synthdiv.train.unusable import Unusable


def last_good(error: Unusable, keeper: Keeper) -> DataError:
    """What to tell, after the last state that is of use was kept, and those that were not are gone."""
    way, curve = keeper.way, keeper.curve
    if way.first(error.good and len(curve) > 0):
        kept = keeper.state()
        if way.rank == 0 and all(bool(value.isfinite().all()) for value in kept["state_dict"].values()):
            save(kept, keeper.folder, keeper.run)
    elif way.rank == 0:
        forget(keeper.folder, curve, keeper.tuning.watch.limit)
    way.first(True)  # all tell of the same
    told = "no checkpoint was kept yet"
    for path in newest_first(keeper.folder)[:1]:
        told = f"the last good checkpoint is that of step {int(path.stem)} in {keeper.folder}"
    return DataError(f"{error}; {told}. Lower train.lr, or look at these rows")


def serious(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


class Keeper:
    """What is done after each step: look at held-out rows, show it, keep it, and say whether it was the last one.

    Lightning's ModelCheckpoint saves nothing by time under manual optimization (2.6).
    """

    def __init__(self, tuning: Tuning, early: Early | None, folder: Path, run: Run, of: str):
        self.tuning, self.early, self.folder, self.run, self.of = tuning, early, folder, run, of
        self.way, self.curve, self.steps = tuning.spread, tuning.curve, len(tuning.steps)
        self.saved = time.monotonic()

    def state(self) -> dict[str, Any]:
        return self.way.state() | {"curve": self.curve, "of": self.of}

    def keep(self) -> None:
        save(self.state(), self.folder, self.run)
        self.saved = time.monotonic()

    def after(self) -> bool:
        step, point = len(self.curve), self.curve[-1]
        if self.early:
            point[HELD_OUT] = self.early.look(step, self.steps)
        good = point["loss"] <= self.tuning.watch.limit
        self.run.show(point)
        told = f"steps, loss {point['loss']:.3f}"
        self.run.progress(step, self.steps, told, self.keep if good else None)
        due = self.way.first(time.monotonic() - self.saved >= self.run.checkpoint_seconds)
        if (due and good) or (self.early and best_step(self.curve) == step):
            self.keep()
        if self.over():
            self.run.progress(self.steps, self.steps, told)
        return self.over()

    def over(self) -> bool:
        return len(self.curve) == self.steps or (self.early is not None and self.early.over(self.curve))


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
    of: str = "",
) -> dict[str, Any]:
    """Train `model` in place over `steps`, on rows of their own or (`packed`) several in a sequence of so many tokens;
    write `metrics.parquet`; return what the manifest should say. `over` is the model spread over ranks (None: here).
    With `early` it ends with the weights of its best step. `of` says what is trained: it goes on from nothing else."""
    import pyarrow
    import pyarrow.parquet

    from synthdiv.train.loop import loop
    from synthdiv.train.meter import Meter
    from synthdiv.train.module import Tuning
    from synthdiv.train.packing import isolating
    from synthdiv.train.rows import Rows
    from synthdiv.train.strategies import spread
    from synthdiv.train.unusable import Unusable

    logging.getLogger("DeepSpeed").addFilter(serious)  # transformers imports it to save any model, if it is there
    way, folder = over or spread(model, optimizing, run, precision), out / CHECKPOINTS
    if packed:
        isolating(way.opened, rows, pad, precision)
    meter = Meter(model, way.device, precision, run.world_size)
    tuning = Tuning(way, Rows(rows, pad, packed), steps, optimizing, seed, run.micro_batch, meter)
    resume(tuning, folder, of, run)
    done_before = len(tuning.curve)
    keeper = Keeper(tuning, early, folder, run, of)
    begun = time.monotonic()
    model.train()
    if not keeper.over():
        try:
            loop(tuning, range(done_before, len(steps)), keeper.after, run.device, precision, out)
        except Unusable as error:
            raise last_good(error, keeper) from error
    seconds = time.monotonic() - begun
    model.eval()
    if run.rank == 0:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(tuning.curve), out / "metrics.parquet")
    chosen = (early and best_step(tuning.curve)) or len(tuning.curve)
    if chosen < len(tuning.curve):
        way.load(best_of(folder, chosen))
    here = sum(int(point["tokens"]) for point in tuning.curve[done_before:])
    seen = totals(tuning.curve[:chosen], tuning.rows.sources)
    return seen | {
        "steps_tried": len(tuning.curve),
        "repetitions": round(seen["rows_seen"] / len(rows), 4),
        "tokens_per_second": round(here / seconds, 1) if here else None,
        "peak_memory_bytes": max(int(point["memory_bytes"]) for point in tuning.curve),
        "seconds": round(seconds, 3),
    }


def resume(tuning: Tuning, folder: Path, of: str, run: Run) -> None:
    """Go on from the newest checkpoint, if there is one. Rank 0 chooses, and every rank reads the same."""
    found = newest_checkpoint(folder) if run.rank == 0 else None
    step = int(tuning.spread.first(len(found["curve"]) if found else 0))
    if not step:
        return
    checkpoint = read(at_step(folder, step))
    same_training(checkpoint, of, tuning.spread.shapes, folder)
    tuning.resume(checkpoint)
    run.log(f"continuing at step {step + 1} of {len(tuning.steps)}")


def best_of(folder: Path, step: int) -> dict[str, Any]:
    found = whole(at_step(folder, step))
    if found is None:
        raise DataError(
            f"{at_step(folder, step)}: the checkpoint of the best step cannot be read; the same command goes on from "
            "before it"
        )
    return found


def totals(curve: list[dict[str, float]], sources: list[str]) -> dict[str, Any]:
    """What the model that is saved has seen, of each source too; losses are those of its last ten steps."""

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
