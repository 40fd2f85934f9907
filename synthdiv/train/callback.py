"""The callback that runs a training as a stage: resume, checkpoints by time, early stopping, progress, what is saved.

Lightning's ModelCheckpoint saves nothing by time under manual optimization (2.6).
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from synthdiv.core.types import DataError
from synthdiv.train import checkpoints
from synthdiv.train.checkpoints import at_step
from synthdiv.train.divergence import Diverged
from synthdiv.train.early import HELD_OUT, best_step
from synthdiv.train.module import Tuning
from synthdiv.train.packing import isolating
from synthdiv.train.recipe import Training

Losses = dict[str, float | None]


class StageCallback(Callback):
    """Every rank has one, and all call each method together. `before` and `after` are validation losses; `seconds` is
    the wall time of the steps since `resumed`."""

    def __init__(self, training: Training, tuning: Tuning):
        self.training, self.tuning, self.run = training, tuning, training.run
        self.folder: Path = training.out / checkpoints.CHECKPOINTS
        self.seconds, self.resumed = 0.0, 0
        self.before: Losses = {}
        self.after: Losses = {}
        self.handler: Any = None

    @property
    def curve(self) -> list[dict[str, float]]:
        return self.tuning.curve

    def on_fit_start(self, *_: Any) -> None:
        """The model is on its device; Lightning has not set its signal handlers yet."""
        self.handler = signal.getsignal(signal.SIGTERM)
        self.before = self.validate()
        if (training := self.training).packed:
            isolating(training.model, training.rows, training.pad, training.precision, self.tuning)
        self.resume()
        self.tuning.train()
        if self.finished():
            self.tuning.ended = True
            self.finish()

    def on_train_start(self, *_: Any) -> None:
        """Restore the handler of SIGTERM, which sets a flag that ranks compare after each step. Lightning's handler
        waits for the other ranks, and they may be anywhere."""
        if self.handler is not None and signal.getsignal(signal.SIGTERM) is not self.handler:
            signal.signal(signal.SIGTERM, self.handler)
        self.saved = self.begun = time.monotonic()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        early, steps = self.training.early, len(self.training.steps)
        step, point = len(self.curve), self.curve[-1]
        if early:
            point[HELD_OUT] = early.evaluate(step, steps, self.tuning)
        good = point["loss"] <= self.tuning.watch.limit
        self.run.show(point)
        message = f"steps, loss {point['loss']:.3f}"
        self.run.progress(step, steps, message, self.keep if good else None)
        due = time.monotonic() - self.saved >= self.run.runtime.checkpoint_seconds
        due = self.tuning.strategy.reduce_boolean_decision(due, all=False)
        if (due and good) or (early and best_step(self.curve) == step):
            self.keep()
        trainer.should_stop = self.finished()
        if trainer.should_stop:
            self.run.progress(steps, steps, message)

    def on_train_end(self, *_: Any) -> None:
        self.seconds = time.monotonic() - self.begun
        self.finish()

    def on_exception(self, _trainer: Any, _module: Any, error: BaseException) -> None:
        """Keep the last good state, remove those that are not, and name it in the error."""
        if not isinstance(error, Diverged):
            return
        if self.tuning.strategy.broadcast(error.good and len(self.curve) > 0):
            state = self.state()
            if all(value.isfinite().all() for value in state["state_dict"].values()):
                checkpoints.save(state, self.folder, self.run)
        elif self.run.rank == 0:
            checkpoints.remove_diverged(self.folder, self.curve, self.tuning.watch.limit)
        self.tuning.strategy.barrier()  # all ranks name the same
        last = "no checkpoint was kept yet"
        if kept := checkpoints.newest_first(self.folder):
            last = f"the last good checkpoint is that of step {int(kept[0].stem)} in {self.folder}"
        error.args = (f"{error}; {last}. Lower train.lr, or look at these rows",)

    def state(self) -> dict[str, Any]:
        return self.tuning.strategy.state() | {"curve": self.curve, "of": self.training.student}

    def keep(self) -> None:
        checkpoints.save(self.state(), self.folder, self.run)
        self.saved = time.monotonic()

    def finished(self) -> bool:
        early = self.training.early
        return len(self.curve) == len(self.training.steps) or (early is not None and early.exhausted(self.curve))

    def validate(self) -> Losses:
        """Mean loss (nats per supervised token) on each set of held-out rows; None where a set has none."""
        sets = self.training.validation.items()
        return {name: round(self.tuning.mean_loss(rows), 5) if rows else None for name, rows in sets}

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one. Rank 0 chooses, and every rank reads the same."""
        newest = checkpoints.newest_checkpoint(self.folder) if self.run.rank == 0 else None
        step = self.resumed = self.tuning.strategy.broadcast(len(newest["curve"]) if newest else 0)
        if not step:
            return
        checkpoint = checkpoints.read(at_step(self.folder, step))
        checkpoints.same_training(checkpoint, self.training.student, self.tuning.shapes, self.folder)
        self.tuning.resume(checkpoint)
        self.run.log(f"continuing at step {step + 1} of {len(self.training.steps)}")

    @property
    def kept_step(self) -> int:
        """The step whose weights are the result: the last, or the best under early stopping."""
        return (self.training.early and best_step(self.curve)) or len(self.curve)

    def finish(self) -> None:
        """Return to the best step, validate, and hand the model over to be saved."""
        self.tuning.eval()
        if self.kept_step < len(self.curve):
            path = at_step(self.folder, self.kept_step)
            checkpoint = checkpoints.whole(path)
            if checkpoint is None:
                raise DataError(
                    f"{path}: the checkpoint of the best step cannot be read; the same command goes on from before it"
                )
            self.tuning.strategy.load(checkpoint)
            self.tuning.strategy.barrier()  # rank 0 removes the file once it is done
        self.after = self.validate()
        self.training.save(self.tuning)
