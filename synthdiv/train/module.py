"""The Lightning module: next-token loss over supervised tokens, one optimizer step per scheduled step."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import lightning
import torch

from synthdiv.train.loss import loss_sum
from synthdiv.train.meter import Meter
from synthdiv.train.rows import Rows
from synthdiv.train.strategies import Alone
from synthdiv.train.unusable import Unusable, Watch, row_losses, unusable


@dataclass(frozen=True)
class Optimizing:
    """AdamW with warm-up and decay. `warmup` is the share of steps; `clip` bounds the gradient norm."""

    lr: float
    schedule: str
    warmup: float
    weight_decay: float
    clip: float
    betas: tuple[float, float] = (0.9, 0.999)


def factor(step: int, steps: int, shape: str, warmup: float) -> float:
    """The learning rate of 0-based `step` as a share of the peak: linear warm-up, then cosine to 0 or constant."""
    rising = max(1, math.ceil(warmup * steps)) if warmup > 0 else 0
    if step < rising:
        return (step + 1) / (rising + 1)
    if shape == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class Tuning(lightning.LightningModule):
    """Manual optimization: a step's rows are cut into micro-batches and weighted by supervised tokens, so that the
    gradient is that of the whole batch whatever the micro-batch."""

    def __init__(
        self,
        spread: Alone,
        rows: Rows,
        steps: list[list[int]],
        optimizing: Optimizing,
        seed: int,
        micro: int,
        meter: Meter,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.spread, self.rows, self.steps, self.optimizing = spread, rows, steps, optimizing
        self.seed, self.micro, self.meter = seed, micro, meter
        self.curve: list[dict[str, float]] = []
        self.watch = Watch(self.curve)

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Go on where a checkpoint stood: weights, optimizer and curve; the schedule says the rest."""
        self.spread.load(checkpoint)
        self.curve = checkpoint["curve"]
        self.watch = Watch(self.curve)

    def configure_optimizers(self) -> None:
        """The optimizer belongs to the weights, and so to `spread`."""

    def training_step(self, number: int, _index: int) -> None:
        begun = time.perf_counter()
        # dropout depends on the step and not on what ran before; each rank has its own (a processor reads 32 bits)
        torch.manual_seed(self.seed * 1_000_003 + number + self.spread.rank * 2_654_435_761)
        share = factor(number, len(self.steps), self.optimizing.schedule, self.optimizing.warmup)
        rows = [self.rows.rows[index] for index in self.steps[number]]
        lengths, tokens = [len(row.ids) for row in rows], sum(row.supervised for row in rows)
        value, *by_source = self.gradients(self.steps[number], tokens).tolist()
        if not math.isfinite(value):  # before anything is changed by it
            raise self.unusable(number, f"the loss is {value}")
        length = float(self.spread.clip(self.optimizing.lr * share))
        if not math.isfinite(length):
            raise self.unusable(number, f"the gradient's norm is {length}")
        self.spread.step()
        point: dict[str, float] = {
            "step": number + 1,
            "loss": value / tokens,
            "lr": self.optimizing.lr * share,
            "gradient_norm": length,
            "rows": len(rows),
            "supervised_tokens": tokens,
            "tokens": sum(lengths),
        }
        for name, total in zip(self.rows.sources, by_source, strict=True):
            own = [row.supervised for row in rows if row.source == name]
            point |= {f"rows/{name}": len(own), f"supervised_tokens/{name}": sum(own)}
            point[f"loss/{name}"] = total / sum(own) if own else math.nan
        self.curve.append(point | self.meter.read(lengths, tokens, time.perf_counter() - begun))
        self.watch.add(self.curve[-1])
        if self.watch.diverges(number + 1 == len(self.steps)):
            raise self.unusable(number, f"the loss has grown to {self.watch.mean:.3g} on average", before=False)

    def unusable(self, number: int, told: str, before: bool = True) -> Unusable:
        losses = row_losses(self.spread, self.rows, self.steps[number])
        return unusable(told, number + 1, self.watch.limit, losses, self.rows, before)

    def gradients(self, chosen: list[int], tokens: int) -> Any:
        """Adds the gradient of the mean loss of a step's supervised `tokens`; summed loss, and that of each source."""
        sums = torch.zeros(1 + len(self.rows.sources), device=self.device)
        mine = self.spread.share(self.rows, chosen, self.micro)
        for place, (part, weight) in enumerate(mine, 1):
            batch = self.rows.tensors(part, self.device)
            with self.spread.gathering(place == len(mine)):
                loss, each = self.spread.call(loss_sum, batch)
                self.spread.backward(loss * weight / tokens)
            sums[0] += loss.detach() * weight
            if len(batch["sources"]):
                sums[1:].index_add_(0, batch["sources"], each * weight)
        return self.spread.sum(sums)
