"""Lightning's strategies: one device, DDP and FSDP2 (DeepSpeed is in `zero.py`), with state that any of them can load.

The state of a training is whole tensors by name: any number of ranks goes on from it under any strategy. A checkpoint
of Lightning's FSDP2 or DeepSpeed strategy is read by as many ranks under the same strategy only.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy, Strategy
from torch import distributed

from synthdiv.core.types import ConfigError, Run


def layers(model: Any) -> list[Any]:
    """The parts of a model that are alike and follow one another."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [part for part in model.modules() if type(part).__name__ in names]


class NamedState(Strategy):
    """What each strategy adds to Lightning's: accumulation, an update that reports the norm, and state by name."""

    fused = True  # whether AdamW may update all weights in one kernel
    holds_whole = True  # whether the module of each rank has whole weights, as the optimizer has them

    def shard(self, module: Any) -> None:
        """Cut the module into the parts of ranks, before it is moved to the device."""

    def call(self, use: Callable[..., Any], *inputs: Any) -> Any:
        """`use(model, *inputs)`; all ranks call it together, and the model is called in no other way."""
        return self.module(use, *inputs)

    def accumulate(self, last: bool) -> Any:
        """A context for the passes of one batch; only the `last` of a step needs the gradients of other ranks."""
        return contextlib.nullcontext()

    def update(self, lr: float, clip: float) -> float:
        """One optimizer step with gradients clipped to the norm `clip` (0: not clipped); the norm before clipping over
        all ranks. Where it is not finite the weights stay as they are."""
        optimizer: Any = self.module.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = lr
        weights = [weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
        norm = float(self.gather(torch.nn.utils.clip_grad_norm_(weights, clip or math.inf)))
        if math.isfinite(norm):
            optimizer.step()
            optimizer.zero_grad()
        return norm

    def without_gradient(self) -> list[str]:
        """Names of trained weights that the passes of a step have not reached."""
        return [name for name, weight in self.trained() if weight.grad is None]

    @property
    def module(self) -> Any:
        return self.lightning_module

    def trained(self) -> Iterator[tuple[str, Any]]:
        return self.module.trained()

    def gather(self, value: Any) -> Any:
        """A tensor that is whole on each rank; all ranks call it."""
        return value

    def part(self, value: Any, weight: Any) -> Any:
        """The part of a whole tensor that this rank holds, cut as `weight` is."""
        return value.clone()

    def state(self, optimizer: bool = True) -> dict[str, Any]:
        """Trained weights by name, and with `optimizer` its state of each weight: whole, on rank 0. All ranks call."""
        state: dict[str, Any] = {"state_dict": {}, "optimizer": {}}
        for name, weight in self.trained():
            tensors = self.tensors(weight, optimizer)
            if self.is_global_zero:
                tensors = {key: value.cpu() if torch.is_tensor(value) else value for key, value in tensors.items()}
                state["state_dict"][name] = tensors.pop("")
                state["optimizer"][name] = tensors
        return state

    def tensors(self, weight: Any, optimizer: bool) -> dict[str, Any]:
        """The whole weight under the key "", and with `optimizer` what the optimizer keeps of it."""
        memory = self.optimizers[0].state.get(weight, {}) if optimizer else {}
        return {key: self.gather(value) for key, value in {"": weight.detach(), **memory}.items()}

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Take over weights and optimizer from what `state` gave, of any number of ranks."""
        names = {weight: name for name, weight in self.trained()}
        weights = [weight for group in self.optimizers[0].param_groups for weight in group["params"]]
        state = {}
        with torch.no_grad():
            for index, weight in enumerate(weights):
                weight.copy_(self.part(checkpoint["state_dict"][names[weight]], weight))
                state[index] = {
                    key: self.part(value, weight) if value.shape == weight.shape else value
                    for key, value in checkpoint["optimizer"][names[weight]].items()
                }
        self.optimizers[0].load_state_dict(self.optimizers[0].state_dict() | {"state": state})

    def weights(self) -> dict[str, Any] | None:
        """The trained weights to save, on rank 0; None where the model itself holds them whole."""
        return None if self.holds_whole else self.state(optimizer=False)["state_dict"]


class SingleDevice(NamedState, SingleDeviceStrategy):
    """One rank."""


class Ranked(NamedState):
    """One of several ranks, which the worker has started: each has one device and is in the process group already."""

    parallel_devices: Any

    @property
    def root_device(self) -> torch.device:
        return self.parallel_devices[0]

    def _configure_launcher(self) -> None:
        """Nothing is launched: Lightning's launcher would count devices and set the number of threads."""


class Ddp(Ranked, DDPStrategy):
    """Each rank has the model; gradients are averaged during the last backward pass of a step."""

    def accumulate(self, last: bool) -> Any:
        return contextlib.nullcontext() if last else self.block_backward_sync()


class Fsdp2(Ranked, ModelParallelStrategy):
    """Each rank has a part of every weight; a layer is gathered while it is used.

    Gradients are reduced after each batch: kept until the last of a step they would be whole on every rank.
    """

    fused = holds_whole = False

    def __init__(self, ranks: int, device: torch.device, precision: str, offload: bool):
        super().__init__(data_parallel_size=ranks, tensor_parallel_size=1)
        self.parallel_devices, self.bf16, self.offload = [device], precision == "bf16", offload

    def shard(self, module: Any) -> None:
        from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

        options: dict[str, Any] = {"mesh": self.device_mesh["data_parallel"]}
        if self.bf16:
            options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if self.offload:
            options["offload_policy"] = CPUOffloadPolicy(pin_memory=self.root_device.type == "cuda")
        for layer in layers(module.model):
            fully_shard(layer, **options)
        fully_shard(module, **options)

    def model_to_device(self) -> None:
        """`fully_shard` has placed everything; what is offloaded stays in main memory."""

    def trained(self) -> Iterator[tuple[str, Any]]:
        """FSDP2 leaves the outermost weights whole after a pass without gradients, and in the format of the pass; the
        optimizer has the parts."""
        self.module.reshard()
        return super().trained()

    def gather(self, value: Any) -> Any:
        return value.full_tensor() if hasattr(value, "full_tensor") else value

    def part(self, value: Any, weight: Any) -> Any:
        from torch.distributed.tensor import distribute_tensor

        value = value.to(self.root_device, weight.dtype)
        part = distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)
        return part.to(weight.device)


def check_devices(run: Run) -> None:
    """Raise before anything is read if the device is missing, or if ranks do not have one each."""
    device, ranks = run.device, run.world_size
    if ranks > 1 and (device == "mps" or ":" in device):
        raise ConfigError(f"runtime.device={device}: is one device and there are {ranks} ranks; choose cuda or cpu")
    if ranks > 1 and device == "cuda":
        devices = [""] * ranks
        distributed.all_gather_object(devices, str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))
        check_distinct(devices)


def check_distinct(devices: list[str]) -> None:
    """`devices` are the identifiers of all ranks' devices: a machine may show each rank all of them or its own only."""
    if len(set(devices)) < len(devices):
        raise ConfigError(
            f"{len(devices)} ranks have {len(set(devices))} devices and each needs one of its own; lower "
            "hydra.launcher.devices or, in a profile of Slurm, ntasks-per-node to gpus-per-node"
        )
