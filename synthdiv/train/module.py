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
from synthdiv.types import DataError


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
        model: Any,
        rows: Rows,
        steps: list[list[int]],
        optimizing: Optimizing,
        seed: int,
        micro: int,
        meter: Meter,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a frozen base is not in the checkpoint
        self.model, self.rows, self.steps, self.optimizing = model, rows, steps, optimizing
        self.seed, self.micro, self.meter = seed, micro, meter
        self.curve: list[dict[str, float]] = []
        self.resumed: dict[str, Any] | None = None

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Go on where a checkpoint stood: weights, optimizer and curve; the schedule says the rest."""
        self.load_state_dict(checkpoint["state_dict"], strict=False)
        self.curve, self.resumed = checkpoint["curve"], checkpoint["optimizer_states"][0]

    def configure_optimizers(self) -> Any:
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        decayed = [weight for weight in trained if weight.ndim >= 2]
        plain = [weight for weight in trained if weight.ndim < 2]  # norms and biases are not decayed
        groups = [
            {"params": decayed, "weight_decay": self.optimizing.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.optimizing.lr,
            betas=self.optimizing.betas,
            fused=self.device.type in ("cpu", "cuda"),
        )
        if self.resumed:
            optimizer.load_state_dict(self.resumed)
        return optimizer

    def training_step(self, number: int, _index: int) -> None:
        begun = time.perf_counter()
        torch.manual_seed(self.seed * 1_000_003 + number)  # dropout depends on the step and not on what ran before
        optimizer: Any = self.optimizers()
        share = factor(number, len(self.steps), self.optimizing.schedule, self.optimizing.warmup)
        for group in optimizer.param_groups:
            group["lr"] = self.optimizing.lr * share
        rows = [self.rows.rows[index] for index in self.steps[number]]
        lengths, tokens = [len(row.ids) for row in rows], sum(row.supervised for row in rows)
        sums = self.gradients(self.steps[number], tokens)
        norm = torch.nn.utils.clip_grad_norm_(
            [weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None],
            self.optimizing.clip or math.inf,
        )
        value, length, *by_source = torch.cat([sums[:1], norm.reshape(1).to(sums), sums[1:]]).tolist()  # the one wait
        if not math.isfinite(value) or not math.isfinite(length):
            raise DataError(f"the loss is {value} at step {number + 1} of {len(self.steps)}; lower the learning rate")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
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

    def gradients(self, chosen: list[int], tokens: int) -> Any:
        """Adds the gradient of the mean loss of a step's supervised `tokens`; summed loss, and that of each source."""
        sums = torch.zeros(1 + len(self.rows.sources), device=self.device)
        for part in self.rows.plan(chosen, self.micro, self.device.type):
            batch = self.rows.tensors(part, self.device)
            loss, each = loss_sum(self.model, batch)
            self.manual_backward(loss / tokens)
            sums[0] += loss.detach()
            if len(batch["sources"]):
                sums[1:].index_add_(0, batch["sources"], each)
        return sums

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, weight in self.named_parameters() if weight.requires_grad}
        checkpoint["state_dict"] = {name: w for name, w in checkpoint["state_dict"].items() if name in trained}
        checkpoint["curve"] = self.curve
