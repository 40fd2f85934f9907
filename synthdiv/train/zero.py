"""Lightning's DeepSpeed strategy: ZeRO 1, 2 and 3, which share optimizer, gradients and weights among ranks."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

from synthdiv.core.runtime import Runtime
from synthdiv.core.types import ConfigError
from synthdiv.train.strategies import NamedState, Ranked

MEMORY = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of each weight, besides the number of steps


def zero(runtime: Runtime, device: torch.device, clip: float) -> NamedState:
    """The strategy; ConfigError where DeepSpeed is not installed."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        device = torch.device("cpu", 0)  # DeepSpeed asks for a number
    try:
        import deepspeed
    except ImportError as error:
        raise ConfigError(
            f"runtime.strategy={runtime.strategy.value}: needs DeepSpeed; pip install 'synthdiv[deepspeed]'"
        ) from error

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # on a processor: compiled on the spot, a minute
    config = configuration(runtime, device.type == "cuda") | {"gradient_clipping": clip}
    return Zero(config=config, parallel_devices=[device], logging_level=logging.ERROR)


def configuration(runtime: Runtime, cuda: bool) -> dict[str, Any]:
    """DeepSpeed's configuration: ours, and what `runtime.deepspeed` adds. Lightning adds precision and accumulation."""
    options = copy.deepcopy(runtime.deepspeed)
    zero: dict[str, Any] = {"stage": runtime.strategy.zero_stage, "overlap_comm": False}
    if runtime.strategy.offload:
        memory = {"device": "cpu", "pin_memory": cuda}
        zero |= {"offload_optimizer": memory} | ({"offload_param": memory} if zero["stage"] == 3 else {})
    return options | {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only counts with it
        "zero_optimization": zero | (options.get("zero_optimization") or {}),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # which is compiled on the spot
    }


class Zero(Ranked, DeepSpeedStrategy):
    """Lightning's strategy refuses processors; here it takes them, and joins the process group of the worker."""

    fused = holds_whole = False

    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        self.set_world_ranks()

    def setup(self, trainer: Any) -> None:
        super().setup(trainer)
        # AdamW would make its state at its first step, and DeepSpeed look for that of one group only
        for flat in self.flat():
            self.adamw.state[flat] = {"step": torch.zeros(())} | {key: torch.zeros_like(flat) for key in MEMORY}
        if not self.zero_stage_3:
            self.deepspeed_engine.optimizer._lazy_init_hp_params_optimizer_state()

    def call(self, use: Callable[..., Any], *inputs: Any) -> Any:
        """Through DeepSpeed's engine: ZeRO 3 counts its forward passes to tell a step's later batches from its first,
        and Lightning calls it once a step."""
        return self.model(use, *inputs)  # type: ignore[misc]

    def accumulate(self, last: bool) -> Any:
        self.deepspeed_engine.set_gradient_accumulation_boundary(last)
        return super().accumulate(last)

    def update(self, lr: float, clip: float) -> float:
        """DeepSpeed clips as it steps, to the norm of its configuration, and skips a gradient that is not finite."""
        optimizer = self.module.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        return float(self.deepspeed_engine.get_global_grad_norm())

    def without_gradient(self) -> list[str]:
        return []  # the engine takes the gradients out of the weights

    @property
    def adamw(self) -> Any:
        """The optimizer over this rank's parts of all weights."""
        return self.deepspeed_engine.optimizer.optimizer

    def flat(self) -> Any:
        """This rank's parts of all weights, as the optimizer has them."""
        name = "fp32_partitioned_groups_flat" if self.zero_stage_3 else "single_partition_of_fp32_groups"
        return getattr(self.deepspeed_engine.optimizer, name)

    def tensors(self, weight: Any, optimizer: bool) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        tensors = {"": safe_get_full_fp32_param(weight)}
        if optimizer:
            tensors |= {key: safe_get_full_optimizer_state(weight, key) for key in MEMORY}
            tensors["step"] = next(iter(self.adamw.state.values()))["step"].clone()
        return tensors

    def load(self, checkpoint: dict[str, Any]) -> None:
        import deepspeed

        memory = checkpoint["optimizer"]
        for state in self.adamw.state.values():
            state["step"].copy_(next(iter(memory.values()))["step"])
        which = "local" if self.zero_stage_3 else "full"
        set_weight = getattr(deepspeed.utils, f"safe_set_{which}_fp32_param")
        set_memory = getattr(deepspeed.utils, f"safe_set_{which}_optimizer_state")
        for name, weight in self.trained():
            value = checkpoint["state_dict"][name].to(self.root_device)
            with deepspeed.zero.GatheredParameters([weight], modifier_rank=0), torch.no_grad():
                weight.copy_(value)  # the model computes with this one, and the optimizer has another
            set_weight(weight, self.part(value, weight))
            for key in MEMORY:
                set_memory(weight, self.part(memory[name][key].to(self.root_device), weight), key)

    def part(self, value: Any, weight: Any) -> Any:
        """ZeRO 3 cuts the flattened weight; the last part is filled up with zeros. The other stages cut no weight."""
        if not self.zero_stage_3:
            return value
        size = weight.ds_tensor.numel()
        padded = torch.nn.functional.pad(value.flatten(), (0, size * self.world_size - value.numel()))
        return padded[self.global_rank * size : (self.global_rank + 1) * size]

    def teardown(self) -> None:
        if self.model is not self.lightning_module:
            self.deepspeed_engine.destroy()  # its hooks and the model hold each other
            self.model, self.optimizers = self.lightning_module, []
        super().teardown()
