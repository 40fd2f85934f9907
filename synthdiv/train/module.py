"""The Lightning module: next-token loss over supervised tokens, one optimizer step per scheduled step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import lightning
import torch

from synthdiv.types import DataError

IGNORED = -100  # the label that cross entropy skips


@dataclass(frozen=True)
class Row:
    """Token ids of a whole text and how many of the leading ones are not supervised."""

    ids: tuple[int, ...]
    prompt: int

    @property
    def supervised(self) -> int:
        return len(self.ids) - max(self.prompt, 1)  # nothing predicts the first token


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


def tensors(rows: list[Row], pad: int, device: Any) -> dict[str, torch.Tensor]:
    """Right-padded ids, mask and labels, each rows × longest."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row.ids)] = torch.tensor(row.ids)
        labels[line, row.prompt : len(row.ids)] = ids[line, row.prompt : len(row.ids)]
        mask[line, : len(row.ids)] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}


def loss_sum(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed natural negative log-likelihood of the supervised tokens."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    kept = batch["labels"][:, 1:] != IGNORED
    return torch.nn.functional.cross_entropy(
        logits[:, :-1][kept].float(), batch["labels"][:, 1:][kept], reduction="sum"
    )


class Tuning(lightning.LightningModule):
    """Manual optimization: a step's rows are cut into micro-batches and weighted by supervised tokens, so that the
    gradient is that of the whole batch whatever the micro-batch."""

    def __init__(
        self,
        model: Any,
        rows: list[Row],
        steps: list[list[int]],
        optimizing: Optimizing,
        seed: int,
        micro: int,
        pad: int,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a frozen base is not in the checkpoint
        self.model, self.rows, self.steps, self.optimizing = model, rows, steps, optimizing
        self.seed, self.micro, self.pad = seed, micro, pad
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
            [group for group in groups if group["params"]], lr=self.optimizing.lr, betas=self.optimizing.betas
        )
        if self.resumed:
            optimizer.load_state_dict(self.resumed)
        return optimizer

    def training_step(self, number: int, _index: int) -> None:
        torch.manual_seed(self.seed * 1_000_003 + number)  # dropout depends on the step and not on what ran before
        optimizer: Any = self.optimizers()
        share = factor(number, len(self.steps), self.optimizing.schedule, self.optimizing.warmup)
        for group in optimizer.param_groups:
            group["lr"] = self.optimizing.lr * share
        rows = sorted((self.rows[index] for index in self.steps[number]), key=lambda row: len(row.ids))
        tokens = sum(row.supervised for row in rows)
        size = self.micro or len(rows)
        total = torch.zeros((), device=self.device)
        for start in range(0, len(rows), size):
            loss = loss_sum(self.model, tensors(rows[start : start + size], self.pad, self.device)) / tokens
            self.manual_backward(loss)
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(
            [weight for weight in self.model.parameters() if weight.grad is not None], self.optimizing.clip or math.inf
        )
        value = total.item()
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            raise DataError(f"the loss is {value} at step {number + 1} of {len(self.steps)}; lower the learning rate")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.curve.append(
            {
                "step": number + 1,
                "loss": value,
                "lr": self.optimizing.lr * share,
                "gradient_norm": float(norm),
                "rows": len(rows),
                "supervised_tokens": tokens,
                "tokens": sum(len(row.ids) for row in rows),
            }
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, weight in self.named_parameters() if weight.requires_grad}
        checkpoint["state_dict"] = {name: w for name, w in checkpoint["state_dict"].items() if name in trained}
        checkpoint["curve"] = self.curve
