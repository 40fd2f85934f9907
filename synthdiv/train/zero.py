"""DeepSpeed ZeRO 1, 2 and 3: optimizer, gradients and weights shared out over ranks.

DeepSpeed is called directly: Lightning's strategy for it refuses processors, fixes how many batches make a step, and
writes checkpoints that only as many ranks can read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from synthdiv.core.types import ConfigError
from synthdiv.train.fit import serious
from synthdiv.train.strategies import Alone

MEMORY = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of each weight, besides the number of steps


class Zero(Alone):
    """The stage is the last letter of `runtime.strategy`."""

    def place(self) -> None:
        if self.device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        try:
            import deepspeed
        except ImportError as error:
            raise ConfigError(
                f"runtime.strategy={self.strategy}: needs DeepSpeed; pip install 'synthdiv[deepspeed]'"
            ) from error

        deepspeed.utils.logger.addFilter(serious)
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # on a processor: compiled on the spot, a minute
        self.stage = int(self.strategy[-1])
        self.engine = deepspeed.initialize(
            model=self.whole, optimizer=self.adamw(fused=False), config=self.settings(), dist_init_required=False
        )[0]
        self.optimizer = self.engine.optimizer.optimizer  # AdamW, over flat parts of the weights
        for flat in self.flat():  # AdamW would make its memory at its first step, and DeepSpeed find that of one group
            self.optimizer.state[flat] = {"step": torch.zeros(())} | {key: torch.zeros_like(flat) for key in MEMORY}
        if self.stage < 3:
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def settings(self) -> dict[str, Any]:
        zero: dict[str, Any] = {"stage": self.stage, "overlap_comm": False}
        if self.offload:
            there = {"device": "cpu", "pin_memory": self.device.type == "cuda"}
            zero |= {"offload_optimizer": there} | ({"offload_param": there} if self.stage == 3 else {})
        return {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only counts with it
            "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False,  # a step ends where we say
            "gradient_clipping": self.optimizing.clip,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,  # which is compiled on the spot
            "bf16": {"enabled": self.precision == "bf16"},
        }

    def call(self, use: Callable[..., Any], *given: Any) -> Any:
        return self.engine(use, *given)

    def backward(self, loss: Any) -> None:
        self.engine.backward(loss * self.size)

    def clip(self, lr: float) -> Any:
        """DeepSpeed clips as it steps, and skips a step whose gradient is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()
        return torch.as_tensor(self.engine.get_global_grad_norm())

    def step(self) -> None:
        pass

    def state(self, memory: bool = True) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        kept: dict[str, Any] = {"state_dict": {}, "optimizer": {}}
        steps = next(iter(self.optimizer.state.values()))["step"]
        for name, weight in self.trained():
            found = {"": safe_get_full_fp32_param(weight)}
            if memory:
                found |= {"step": steps.clone()} | {key: safe_get_full_optimizer_state(weight, key) for key in MEMORY}
            if self.rank == 0:
                self.keep(kept, name, found)
        return kept

    def load(self, checkpoint: dict[str, Any]) -> None:
        from deepspeed import utils

        memory = checkpoint["optimizer"]
        for state in self.optimizer.state.values():
            state["step"].copy_(next(iter(memory.values()))["step"])
        for name, weight in self.trained():
            value = checkpoint["state_dict"][name].to(self.device)
            self.fill(weight, value)
            if self.stage < 3:
                utils.safe_set_full_fp32_param(weight, value)
                for key in MEMORY:
                    utils.safe_set_full_optimizer_state(weight, memory[name][key].to(self.device), key)
            else:
                utils.safe_set_local_fp32_param(weight, self.own(value, weight))
                for key in MEMORY:
                    part = self.own(memory[name][key].to(self.device), weight)
                    utils.safe_set_local_optimizer_state(weight, part, key)

    def flat(self) -> Iterator[Any]:
        """This rank's parts of all weights, as the optimizer has them."""
        optimizer = self.engine.optimizer
        yield from (
            optimizer.fp32_partitioned_groups_flat if self.stage == 3 else optimizer.single_partition_of_fp32_groups
        )

    def fill(self, weight: Any, value: Any) -> None:
        """The weight that the model computes with, beside that of the optimizer."""
        if self.stage < 3:
            with torch.no_grad():
                weight.copy_(value)
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters([weight], modifier_rank=0), torch.no_grad():
            if self.rank == 0:
                weight.copy_(value)

    def own(self, value: Any, weight: Any) -> Any:
        """This rank's part of a tensor; the last is filled up with zeros."""
        size = weight.ds_tensor.numel()
        padded = torch.nn.functional.pad(value.flatten(), (0, size * self.size - value.numel()))
        return padded[self.rank * size : (self.rank + 1) * size]

    def weights(self) -> dict[str, Any] | None:
        return self.state(memory=False)["state_dict"]

    def close(self) -> None:
        self.engine.destroy()  # its hooks and the model hold each other
