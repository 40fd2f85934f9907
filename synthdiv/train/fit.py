"""A schedule run through Lightning's Trainer, and the summary for the manifest. Also serves pre-training."""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import environments
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import callbacks, loggers, profilers

from synthdiv.core.files import write_rows
from synthdiv.core.strategy import components
from synthdiv.core.types import ConfigError, Run
from synthdiv.train.callback import StageCallback
from synthdiv.train.meter import Meter
from synthdiv.train.module import Tuning
from synthdiv.train.recipe import Training
from synthdiv.train.strategies import Ddp, Fsdp2, NamedState, SingleDevice, layers

FOLDER = "lightning"  # of loggers and profilers, beside the model
PLACES = {"callbacks": callbacks, "logger": loggers, "profiler": profilers, "plugins": environments}


def fit(training: Training) -> dict[str, Any]:
    """Train the model in place, from the newest checkpoint if there is one; write `metrics.parquet`; return what the
    manifest says of it."""
    logging.getLogger("DeepSpeed").addFilter(is_error)  # its level is set anew when transformers imports it to save
    run, model = training.run, training.model
    run.use_threads(model)
    if run.runtime.gradient_checkpointing:
        name = "activation_checkpointing_enable"  # until transformers 5.22 it was gradient_checkpointing_enable
        getattr(model, name, model.gradient_checkpointing_enable)({"use_reentrant": False})
    if run.runtime.compile:
        compile_layers(model)
    strategy = strategy_of(training)
    tuning = Tuning(training, Meter(model, strategy.root_device, training.precision, run.world_size))
    keeper = StageCallback(training, tuning)
    with warnings.catch_warnings():  # hints about loggers, workers and devices, and new names of an option of DDP
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        make_trainer(training, strategy, keeper).fit(tuning)
    if run.rank == 0:
        write_rows(tuning.curve, training.out / "metrics.parquet")
    made_here = sum(int(point["tokens"]) for point in tuning.curve[keeper.resumed :])
    return totals(tuning.curve[: keeper.kept_step], training) | {
        "steps_tried": len(tuning.curve),
        "tokens_per_second": round(made_here / keeper.seconds, 1) if made_here else None,
        "peak_memory_bytes": max(int(point["memory_bytes"]) for point in tuning.curve),
        "seconds": round(keeper.seconds, 3),
        "strategy": "single_device" if isinstance(strategy, SingleDevice) else run.runtime.strategy.value,
        "trainer": run.runtime.trainer,
        "deepspeed": run.runtime.deepspeed,
        **({"validation_before": keeper.before, "validation": keeper.after} if training.validation else {}),
    }


def compile_layers(model: Any) -> None:
    """Layer by layer: they are alike, so they share what is compiled, and rows may be of any number and length."""
    torch.compiler.reset()  # torch compiles a function for eight kinds of calls at most, of all models together
    for layer in layers(model):
        layer.compile(dynamic=True)


def is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def totals(curve: list[dict[str, float]], training: Training) -> dict[str, Any]:
    """What the model that is saved has seen, of each source too, and how often a row was seen on average; losses are
    those of its last ten steps."""

    def total(name: str) -> int:
        return sum(int(point[name]) for point in curve)

    present = [row.source for row in training.rows[: training.present]]
    rows, by_source = total("rows"), {}
    for name in sorted({*present} - {""}):
        last = [(point[f"loss/{name}"], point[f"supervised_tokens/{name}"]) for point in curve[-10:]]
        tokens = sum(count for _, count in last)
        by_source[name] = {
            "rows_seen": total(f"rows/{name}"),
            "share": round(total(f"rows/{name}") / rows, 6),
            "supervised_tokens": total(f"supervised_tokens/{name}"),
            "loss": round(sum(loss * count for loss, count in last if count) / tokens, 4) if tokens else None,
            "repetitions": round(total(f"rows/{name}") / present.count(name), 4),
        }
    return {
        "steps": len(curve),
        "rows_seen": rows,
        "repetitions": round(rows / len(present), 4),
        "supervised_tokens": total("supervised_tokens"),
        "tokens": total("tokens"),
        "loss": round(sum(point["loss"] for point in curve[-10:]) / len(curve[-10:]), 4),
        "by_source": by_source,
    }


def strategy_of(training: Training) -> NamedState:
    """The strategy that `runtime.strategy` names. One rank has nothing to share and trains without one, unless
    something of it is to lie in main memory."""
    run = training.run
    strategy, device = run.runtime.strategy, torch.device(run.device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if training.one_device or (run.world_size == 1 and not strategy.offload):
        return SingleDevice(device)
    if not torch.distributed.is_initialized():
        group_of_one(device)
    if not strategy.sharded:
        return Ddp(parallel_devices=[device], broadcast_buffers=False)
    if not strategy.zero_stage:
        return Fsdp2(run.world_size, device, training.precision, strategy.offload)
    from synthdiv.train.zero import zero

    return zero(run.runtime, device, training.optimizing.clip)


def group_of_one(device: torch.device) -> None:
    """A process group for a strategy that cuts weights, until this process ends: DeepSpeed takes no second one, and
    reads torchrun's variable."""
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))
    store: Any = torch.distributed.HashStore()  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    atexit.register(torch.distributed.destroy_process_group)


def make_trainer(training: Training, strategy: NamedState, keeper: StageCallback) -> lightning.Trainer:
    """The schedule is one epoch of step numbers; the callback ends it. Only rank 0 has loggers and profilers write."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options, device = training.run.runtime.trainer, strategy.root_device
    named = {name: made(name, options.get(name), training.out / FOLDER) for name in PLACES}
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1 if device.index is None or device.type != "cuda" else [device.index],
        precision="bf16-mixed" if training.precision == "bf16" else "32-true",
        strategy=strategy, plugins=[environment(training.run, named["plugins"])],
        callbacks=[*named["callbacks"], keeper], logger=named["logger"] or False,
        profiler=named["profiler"][0] if named["profiler"] else None,
        log_every_n_steps=options.get("log_every_n_steps", 1), detect_anomaly=options.get("detect_anomaly", False),
        enable_progress_bar=any(isinstance(each, callbacks.ProgressBar) for each in named["callbacks"]),
        enable_model_summary=any(isinstance(each, callbacks.ModelSummary) for each in named["callbacks"]),
        max_epochs=1, max_steps=-1, enable_checkpointing=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        default_root_dir=training.out,
    )  # fmt: skip


def environment(run: Run, named: list[Any]) -> Any:
    """The cluster as Lightning sees it. The worker has set torchrun's variables for several ranks; one process would
    else read those of Slurm and queue the job again."""
    if not named:
        return TorchElasticEnvironment() if run.world_size > 1 else LightningEnvironment()
    cluster = named[0]
    rank, ranks = cluster.global_rank(), cluster.world_size()
    if (rank, ranks) != (run.rank, run.world_size):
        raise ConfigError(
            f"runtime.trainer.plugins: {type(cluster).__name__} sees rank {rank} of {ranks}, and this is rank "
            f"{run.rank} of {run.world_size}; remove it"
        )
    return cluster


def made(option: str, value: Any, folder: Path) -> list[Any]:
    """The objects of Lightning's classes that an option names. What writes does so below `folder`."""
    defaults: dict[str, dict[str, Any]] = {
        "logger": {"save_dir": str(folder)},
        "profiler": {"dirpath": str(folder), "filename": "profile"},
    }
    objects = []
    for name, arguments in components(value).items():
        fixed = {"auto_requeue": False} if name == "SLURMEnvironment" else {}
        try:
            objects.append(getattr(PLACES[option], name)(**defaults.get(option, {}) | arguments | fixed))
        except (ImportError, TypeError, ValueError) as error:
            raise ConfigError(f"runtime.trainer.{option}.{name}: Lightning refuses it: {error}") from error
    return objects
