"""Lightning's strategy and Trainer of a training: what the configuration decides, and what `runtime.trainer` adds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import environments
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import callbacks, loggers, profilers

from synthdiv.core.strategy import components
from synthdiv.core.types import ConfigError, Run
from synthdiv.train.strategies import Ddp, Fsdp2, NamedState, SingleDevice

FOLDER = "lightning"  # of loggers and profilers, beside the model
PLACES = {"callbacks": callbacks, "logger": loggers, "profiler": profilers, "plugins": environments}


def strategy_of(run: Run, precision: str, clip: float) -> NamedState:
    """The strategy that `runtime.strategy` names. One rank has nothing to share and trains without one."""
    strategy, device = run.runtime.strategy, torch.device(run.device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if run.world_size == 1:
        return SingleDevice(device)
    if not strategy.sharded:
        return Ddp(parallel_devices=[device], broadcast_buffers=False)
    if not strategy.zero_stage:
        return Fsdp2(run.world_size, device, precision, strategy.offload)
    from synthdiv.train.zero import zero

    return zero(run.runtime, device, clip)


def make_trainer(run: Run, out: Path, precision: str, strategy: NamedState, keeper: Any) -> lightning.Trainer:
    """The schedule is one epoch of step numbers; the callback ends it. Only rank 0 has loggers and profilers write."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options, device = run.runtime.trainer, strategy.root_device
    named = {name: made(name, options.get(name), out / FOLDER) for name in PLACES}
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1 if device.index is None or device.type != "cuda" else [device.index],
        strategy=strategy,
        plugins=[environment(run, named["plugins"])],
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_epochs=1,
        max_steps=-1,
        callbacks=[*named["callbacks"], keeper],
        logger=named["logger"] or False,
        profiler=named["profiler"][0] if named["profiler"] else None,
        log_every_n_steps=options.get("log_every_n_steps", 1),
        detect_anomaly=options.get("detect_anomaly", False),
        enable_checkpointing=False,
        enable_progress_bar=any(isinstance(each, callbacks.ProgressBar) for each in named["callbacks"]),
        enable_model_summary=any(isinstance(each, callbacks.ModelSummary) for each in named["callbacks"]),
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=out,
    )


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
