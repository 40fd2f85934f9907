"""The Lightning module: next-token loss over supervised tokens, one optimizer step per scheduled step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning
import torch

from synthdiv.core.types import DataError
from synthdiv.train.divergence import Diverged, LossWatch
from synthdiv.train.loss import loss_sum
from synthdiv.train.meter import Meter
from synthdiv.train.recipe import Training
from synthdiv.train.rows import Row, Rows
from synthdiv.train.strategies import NamedState


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
    gradient is that of the whole batch whatever the micro-batch and however many ranks there are."""

    def __init__(self, training: Training, meter: Meter):
        super().__init__()
        self.automatic_optimization = False
        self.rows = Rows(training.rows, training.pad, training.packed)
        self.model, self.steps, self.optimizing = training.model, training.steps, training.optimizing
        self.seed, self.micro, self.meter = training.seed, training.run.micro_batch, meter
        self.shapes = {name: tuple(weight.shape) for name, weight in self.trained()}
        self.offload = training.run.runtime.strategy.offload and not training.one_device
        self.routed = any("expert" in name for name, _ in self.trained())  # a step may use a few of its experts
        self.curve: list[dict[str, float]] = []
        self.watch = LossWatch(self.curve)
        self.ended = False

    def forward(self, use: Callable[..., Any], *inputs: Any) -> Any:
        """`use(model, *inputs)`. Strategies that cut weights gather the outermost of them here."""
        return use(self.model, *inputs)

    def trained(self) -> Iterator[tuple[str, Any]]:
        return ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)

    @property
    def strategy(self) -> NamedState:
        return self.trainer.strategy  # type: ignore[return-value]

    def configure_model(self) -> None:
        self.strategy.shard(self)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Norms and biases are not decayed."""
        decayed = [weight for name, weight in self.trained() if len(self.shapes[name]) >= 2]
        others = [weight for name, weight in self.trained() if len(self.shapes[name]) < 2]
        groups: Any = [(decayed, self.optimizing.weight_decay), (others, 0.0)]
        groups = [{"params": weights, "weight_decay": decay} for weights, decay in groups if weights]
        fused = self.strategy.fused and self.strategy.root_device.type in ("cpu", "cuda")
        return torch.optim.AdamW(groups, lr=self.optimizing.lr, betas=self.optimizing.betas, fused=fused)

    def train_dataloader(self) -> range:
        """Numbers of the steps that are left: a resumed training repeats none, and one that had ended has none."""
        return range(len(self.steps) if self.ended else len(self.curve), len(self.steps))

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Take over weights, optimizer and curve of a checkpoint; the schedule determines the rest."""
        self.strategy.load(checkpoint)
        self.curve = checkpoint["curve"]
        self.watch = LossWatch(self.curve)
        self.trainer.fit_loop.epoch_loop.on_load_checkpoint({"_batches_that_stepped": len(self.curve)})  # for loggers

    def training_step(self, number: int, _index: int) -> None:
        begun = time.perf_counter()
        # dropout depends on the step and not on what ran before; each rank has its own (a processor reads 32 bits)
        on_cpu = self.strategy.root_device.type == "cpu"
        seeded: Any = torch.default_generator if on_cpu else torch  # `torch.manual_seed` keeps a trace of each call
        seeded.manual_seed(self.seed * 1_000_003 + number + self.global_rank * 2_654_435_761)
        lr = self.optimizing.lr * factor(number, len(self.steps), self.optimizing.schedule, self.optimizing.warmup)
        rows = [self.rows.rows[index] for index in self.steps[number]]
        lengths, tokens = [len(row.ids) for row in rows], sum(row.supervised for row in rows)
        loss, *by_source = self.gradients(self.steps[number], tokens).tolist()
        if not math.isfinite(loss):
            raise self.unusable(number, f"the loss is {loss}")
        if number == 0 and (unreached := self.strategy.without_gradient()) and not self.routed:
            raise DataError(
                f"{len(unreached)} trained weights have no gradient after the first step (first {unreached[0]}): the "
                "loss does not depend on them. Choose train.lora.targets below the language model, such as all-linear"
            )
        norm = self.strategy.update(lr, self.optimizing.clip)
        if not math.isfinite(norm):
            raise self.unusable(number, f"the gradient's norm is {norm}")
        point: dict[str, float] = {
            "step": number + 1, "loss": loss / tokens, "lr": lr, "gradient_norm": norm,
            "rows": len(rows), "supervised_tokens": tokens, "tokens": sum(lengths),
        }  # fmt: skip
        for name, total in zip(self.rows.sources, by_source, strict=True):
            supervised = [row.supervised for row in rows if row.source == name]
            point |= {f"rows/{name}": len(supervised), f"supervised_tokens/{name}": sum(supervised)}
            point[f"loss/{name}"] = total / sum(supervised) if supervised else math.nan
        self.curve.append(point | self.meter.read(lengths, tokens, time.perf_counter() - begun))
        if self.trainer.loggers:
            self.log_dict({name: float(value) for name, value in self.curve[-1].items()})
        self.watch.add(self.curve[-1])
        if self.watch.diverges(number + 1 == len(self.steps)):
            raise self.unusable(number, f"the loss has grown to {self.watch.mean:.3g} on average", before=False)

    def gradients(self, numbers: list[int], tokens: int) -> Any:
        """Add the gradient of the mean loss of a step's supervised `tokens`; return summed loss, and that of each
        source."""
        sums = torch.zeros(1 + len(self.rows.sources), device=self.strategy.root_device)
        batches = self.shared(self.rows, numbers)
        for index, (rows, weight) in enumerate(batches, 1):
            batch = self.rows.tensors(rows, self.strategy.root_device)
            with self.strategy.accumulate(index == len(batches)):
                loss, each = self.strategy.call(loss_sum, batch)
                # ranks average their gradients, and these are parts of one sum
                self.manual_backward(loss * weight / tokens * self.strategy.world_size)  # type: ignore[attr-defined]
            sums[0] += loss.detach() * weight
            if len(batch["sources"]):
                sums[1:].index_add_(0, batch["sources"], each * weight)
        return self.strategy.reduce(sums, reduce_op="sum")

    def shared(self, rows: Rows, numbers: list[int]) -> list[tuple[list[list[int]], float]]:
        device = "offload" if self.offload else self.strategy.root_device.type
        size = self.strategy.world_size  # type: ignore[attr-defined]
        return rows.shared(numbers, self.micro, device, self.global_rank, size)

    def mean_loss(self, rows: list[Row]) -> float:
        """Negative log-likelihood per supervised token (nats), pooled; ranks share the rows and call it together."""
        table, training = Rows(rows, 0), self.training
        total: Any = torch.zeros((), device=self.strategy.root_device)
        self.eval()
        with torch.no_grad(), self.trainer.precision_plugin.val_step_context():
            for part, weight in self.shared(table, list(range(len(rows)))):
                total += self.strategy.call(loss_sum, table.tensors(part, self.strategy.root_device))[0] * weight
        self.train(training)
        return float(self.strategy.reduce(total, reduce_op="sum")) / sum(row.supervised for row in rows)

    def unusable(self, number: int, problem: str, before: bool = True) -> Diverged:
        """`before`: the weights are still those before this step."""
        rows = {index: self.rows.rows[index] for index in self.steps[number]}  # each once
        losses = [(self.mean_loss([row]), row.id or str(index)) for index, row in rows.items()]
        return Diverged(f"{problem} at step {number + 1}", losses, self.watch.limit, before)
