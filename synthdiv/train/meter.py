"""What a training step costs: operations, memory, and the share of the device's peak rate (MFU)."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch

H200 = {"bf16": 989.4e12, "fp32": 66.9e12}  # as Lightning has it for H100 SXM, the same chip; it has none for H200
VARYING = ("tokens_per_second", "mfu", "memory_bytes")  # columns of metrics.parquet that differ between two runs


def peak_rate(device: Any, precision: str) -> float:
    """Operations a second of a device in dense matrix products, from Lightning's table and ours; NaN without."""
    from lightning.fabric.utilities.throughput import get_available_flops

    if device.type != "cuda":
        return math.nan
    if torch.cuda.get_device_name(device) == "NVIDIA H200":
        return H200[precision]
    with warnings.catch_warnings(action="ignore"):
        return get_available_flops(device, torch.bfloat16 if precision == "bf16" else torch.float32) or math.nan


class StepWork:
    """Operations of a step, from the shapes of the model: 2 for each weight and token forwards, 2 for the gradient of
    what it reads, 2 more where the weight is trained; attention over the half that a causal model sees. NaN for a model
    with weights of three dimensions, which are experts of which a token sees a few, or convolutions."""

    def __init__(self, model: Any):
        head = model.get_output_embeddings()
        config = model.config.get_text_config()
        self.each = self.head = 0.0
        for part in model.modules():
            if isinstance(part, torch.nn.Linear):
                size = part.in_features * part.out_features
            elif type(part).__name__ == "Conv1D":
                size = part.nx * part.nf
            else:
                if any(weight.dim() > 2 for weight in part.parameters(recurse=False)):
                    self.each = math.nan
                continue
            work = size * (6.0 if part.weight.requires_grad else 4.0)
            if part is head:
                self.head = work
            else:
                self.each += work
        heads = getattr(config, "num_attention_heads", 0)
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1))
        self.attention = 3.0 * 4 * config.num_hidden_layers * width / 2

    def step(self, lengths: list[int], supervised: int) -> float:
        squares = sum(length * length for length in lengths)
        return self.each * sum(lengths) + self.head * supervised + self.attention * squares


class Meter:
    """Rate, use and memory of one step after another."""

    def __init__(self, model: Any, device: Any, precision: str, devices: int = 1):
        self.cuda, self.device = device.type == "cuda", device
        if self.cuda:  # or the peak would be that of whatever ran before in this process
            torch.cuda.reset_peak_memory_stats(device)
        self.peak, self.work = peak_rate(device, precision) * devices, StepWork(model)

    def read(self, lengths: list[int], supervised: int, seconds: float) -> dict[str, float]:
        return {
            "tokens_per_second": sum(lengths) / seconds,
            "mfu": self.work.step(lengths, supervised) / seconds / self.peak,
            "memory_bytes": self.memory(),
        }

    def memory(self) -> int:
        """Most bytes held on an accelerator since it began; on a processor those that the process has in memory now."""
        if self.cuda:
            return int(torch.cuda.max_memory_allocated(self.device))
        import psutil

        return int(psutil.Process().memory_info().rss)
