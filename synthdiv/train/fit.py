"""Run a schedule through Lightning; the summary for the manifest. Also serves pre-training."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from synthdiv.train.recipe import Training


def fit(training: Training) -> dict[str, Any]:
    """Train the model in place, from the newest checkpoint if there is one; write `metrics.parquet`; return what the
    manifest says of it."""
    import pyarrow
    import pyarrow.parquet

    from synthdiv.train.callback import StageCallback
    from synthdiv.train.meter import Meter
    from synthdiv.train.module import Tuning
    from synthdiv.train.rows import Rows
    from synthdiv.train.trainer import make_trainer, strategy_of

    logging.getLogger("DeepSpeed").addFilter(serious)  # its level is set anew when transformers imports it to save
    run, model = training.run, training.model
    if run.runtime.gradient_checkpointing:
        name = "activation_checkpointing_enable"  # until transformers 5.22 it was gradient_checkpointing_enable
        getattr(model, name, model.gradient_checkpointing_enable)({"use_reentrant": False})
    strategy = strategy_of(run, training.precision, training.optimizing.clip)
    meter = Meter(model, strategy.root_device, training.precision, run.world_size)
    rows = Rows(training.rows, training.pad, training.packed)
    tuning = Tuning(model, rows, training.steps, training.optimizing, training.seed, run.micro_batch, meter)
    keeper = StageCallback(training, tuning)
    with warnings.catch_warnings():  # hints about loggers, workers and devices, and new names of an option of DDP
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        make_trainer(run, training.out, training.precision, strategy, keeper).fit(tuning)
    if run.rank == 0:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(tuning.curve), training.out / "metrics.parquet")
    seen = totals(tuning.curve[: keeper.kept_step], rows.sources)
    made_here = sum(int(point["tokens"]) for point in tuning.curve[keeper.resumed :])
    return seen | {
        "steps_tried": len(tuning.curve),
        "repetitions": round(seen["rows_seen"] / len(training.rows), 4),
        "tokens_per_second": round(made_here / keeper.seconds, 1) if made_here else None,
        "peak_memory_bytes": max(int(point["memory_bytes"]) for point in tuning.curve),
        "seconds": round(keeper.seconds, 3),
        "strategy": run.runtime.strategy.value if run.world_size > 1 else "single_device",
        "trainer": run.runtime.trainer,
        "deepspeed": run.runtime.deepspeed,
        **({"validation_before": keeper.before, "validation": keeper.after} if training.validation else {}),
    }


def serious(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


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
