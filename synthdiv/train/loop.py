"""Lightning runs the steps of a training; what it would decide by itself is decided by us."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback

from synthdiv.train.module import Tuning


class After(Callback):
    """Asks after each step whether it was the last one."""

    def __init__(self, over: Callable[[], bool]):
        self.over = over

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = self.over()


def loop(tuning: Tuning, steps: range, over: Callable[[], bool], device: str, precision: str, out: Path) -> None:
    """Train over `steps`, which are numbers, until `over()` after one of them."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
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
            callbacks=[After(over)],
            plugins=[LightningEnvironment()],  # or it would read Slurm's variables, and queue the job again by itself
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            default_root_dir=out,
        )
        # it would end the one rank that hears SIGTERM, wherever it is; ours sets a flag, and ranks agree on it
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        trainer.fit(tuning, steps)  # the module looks its rows up by step number
