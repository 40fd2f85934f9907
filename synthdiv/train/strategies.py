"""How a training is spread over ranks: each holds the whole model (DDP) or a part of it (FSDP2; ZeRO in `zero.py`).

Lightning runs the loop and knows of one device; what is between ranks is here, so that all ways cut steps, weigh rows
and write checkpoints alike. A checkpoint holds whole tensors by name: any number of ranks goes on from it, in any way.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from synthdiv.core.runtime import Strategy
from synthdiv.core.types import ConfigError, DataError, Run

if TYPE_CHECKING:
    from synthdiv.train.module import Optimizing
    from synthdiv.train.rows import Rows


class Whole(torch.nn.Module):
    """The model, and the one door to it: inside of its forward all weights that `use` may read are there."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, use: Callable[..., Any] | None = None, *given: Any, **named: Any) -> Any:
        return self.model(**named) if use is None else use(self.model, *given)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(self.model, name)


class Alone:
    """One rank, and what all ways have in common."""

    def __init__(self, model: Any, optimizing: Optimizing, run: Run, precision: str):
        self.model, self.whole, self.optimizing, self.precision = model, Whole(model), optimizing, precision
        self.rank, self.size = run.rank, run.world_size
        self.strategy, self.offload = run.runtime.strategy.value, run.runtime.offload
        self.device = torch.device(run.device)
        self.optimizer: Any = None
        self.shapes = {name: tuple(weight.shape) for name, weight in self.trained()}
        if run.runtime.gradient_checkpointing:
            name = "activation_checkpointing_enable"  # until transformers 5.22 it was gradient_checkpointing_enable
            getattr(model, name, model.gradient_checkpointing_enable)({"use_reentrant": False})
        self.place()

    def place(self) -> None:
        self.model.to(self.device)
        self.optimizer = self.adamw()

    @property
    def opened(self) -> Any:
        """The model as others may call it, all ranks together."""
        return self.whole

    def trained(self) -> Iterator[tuple[str, Any]]:
        return ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)

    def adamw(self, fused: bool = True) -> torch.optim.AdamW:
        """Norms and biases are not decayed."""
        decayed = [weight for name, weight in self.trained() if len(self.shapes[name]) >= 2]
        plain = [weight for name, weight in self.trained() if len(self.shapes[name]) < 2]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": self.optimizing.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.optimizing.lr,
            betas=self.optimizing.betas,
            fused=fused and self.device.type in ("cpu", "cuda"),
        )

    def share(self, rows: Rows, chosen: list[int], micro: int) -> list[tuple[list[list[int]], float]]:
        """The batches of a step that this rank takes, as many as any rank does; those of weight 0 only keep in step."""
        if self.size == 1:
            return [(batch, 1.0) for batch in rows.plan(chosen, micro, self.device.type)]
        order = sorted(chosen, key=lambda number: (len(rows.rows[number].ids), number))
        hands = [order[rank :: self.size] for rank in range(self.size)]
        plans = [rows.plan(hand, micro, self.device.type) if hand else [] for hand in hands]
        idle: list[list[int]] = [[order[0]]]
        more = max(map(len, plans)) - len(plans[self.rank])
        return [(batch, 1.0) for batch in plans[self.rank]] + [(idle, 0.0)] * more

    def gathering(self, last: bool) -> Any:
        """Around the passes of one batch: gradients need to meet after the `last` of a step only."""
        return contextlib.nullcontext()

    def call(self, use: Callable[..., Any], *given: Any) -> Any:
        return self.whole(use, *given)

    def backward(self, loss: Any) -> None:
        (loss * self.size if self.size > 1 else loss).backward()  # gradients of ranks are averaged, and ours add up

    def clip(self, lr: float) -> Any:
        """The norm of the gradient of all ranks, cut to the limit."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(
            [weight for weight in weights if weight.grad is not None], self.optimizing.clip or math.inf
        )
        return self.gathered(norm)

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def sum(self, values: Any) -> Any:
        """Over all ranks."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def first(self, value: float) -> float:
        """What rank 0 says."""
        if self.size == 1:
            return value
        said = torch.tensor(float(value), dtype=torch.float64)
        distributed.broadcast(said, 0)
        return float(said)

    def gathered(self, value: Any) -> Any:
        """A tensor that is whole on each rank; all ranks meet here where it is not."""
        return value

    def cut(self, value: Any, weight: Any) -> Any:
        """What this rank holds of a tensor that is shaped as `weight` is."""
        return value.clone()

    def state(self, memory: bool = True) -> dict[str, Any]:
        """Trained weights by name, and with `memory` what the optimizer keeps of each: whole, on rank 0. All call."""
        kept: dict[str, Any] = {"state_dict": {}, "optimizer": {}}
        for name, weight in self.trained():
            found = {"": self.gathered(weight.detach())}
            if memory:
                found |= {key: self.gathered(value) for key, value in self.optimizer.state.get(weight, {}).items()}
            if self.rank == 0:
                self.keep(kept, name, found)
        return kept

    @staticmethod
    def keep(kept: dict[str, Any], name: str, found: dict[str, Any]) -> None:
        found = {key: value.detach().cpu() if torch.is_tensor(value) else value for key, value in found.items()}
        kept["state_dict"][name] = found.pop("")
        kept["optimizer"][name] = found

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Go on from what `state` gave, of whatever ranks."""
        names = {weight: name for name, weight in self.trained()}
        order = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        state = {}
        with torch.no_grad():
            for place, weight in enumerate(order):
                weight.copy_(self.cut(checkpoint["state_dict"][names[weight]], weight))
                found = checkpoint["optimizer"][names[weight]]
                state[place] = {
                    key: self.cut(value, weight) if value.shape == weight.shape else value
                    for key, value in found.items()
                }
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})

    def weights(self) -> dict[str, Any] | None:
        """The trained weights as they are to be saved, on rank 0; None where the model itself has them."""
        return None

    def close(self) -> None:
        """Let go of what the end of this object alone does not free."""


class Ddp(Alone):
    """Each rank has the model, and gradients are added up while the last batch of a step goes backward."""

    def place(self) -> None:
        super().place()
        with warnings.catch_warnings():  # torch 2.13 gives the option two new names
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.ddp = torch.nn.parallel.DistributedDataParallel(self.whole, broadcast_buffers=False)

    def gathering(self, last: bool) -> Any:
        return contextlib.nullcontext() if last else self.ddp.no_sync()

    def call(self, use: Callable[..., Any], *given: Any) -> Any:
        return self.ddp(use, *given)


class Fsdp(Alone):
    """FSDP2: each rank has a part of every weight; a layer is put together while it is used."""

    def place(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

        how: dict[str, Any] = {"mesh": init_device_mesh(self.device.type, (self.size,))}
        if self.precision == "bf16":
            how["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if self.offload:
            how["offload_policy"] = CPUOffloadPolicy(pin_memory=self.device.type == "cuda")
        layers = set(getattr(self.model, "_no_split_modules", None) or ())
        for part in list(self.model.modules()):
            if type(part).__name__ in layers:
                fully_shard(part, **how)
        fully_shard(self.whole, **how)
        self.optimizer = self.adamw(fused=False)

    def trained(self) -> Iterator[tuple[str, Any]]:
        """FSDP2 leaves the outermost weights whole after a pass without gradients, and in the format of the pass; the
        optimizer has the parts."""
        if self.optimizer is not None:
            self.whole.reshard()
        return super().trained()

    def gathered(self, value: Any) -> Any:
        return value.full_tensor() if hasattr(value, "full_tensor") else value

    def cut(self, value: Any, weight: Any) -> Any:
        from torch.distributed.tensor import distribute_tensor

        value = value.to(self.device, weight.dtype)
        part = distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)
        return part.to(weight.device)

    def weights(self) -> dict[str, Any] | None:
        return self.state(memory=False)["state_dict"]


def spread(model: Any, optimizing: Optimizing, run: Run, precision: str) -> Alone:
    """The model on this run's devices, as `runtime.strategy` says. On one rank there is nothing to spread."""
    strategy = run.runtime.strategy
    if run.world_size == 1:
        return Alone(model, optimizing, run, precision)
    if strategy in (Strategy.auto, Strategy.ddp):
        return Ddp(model, optimizing, run, precision)
    if strategy is Strategy.fsdp:
        return Fsdp(model, optimizing, run, precision)
    from synthdiv.train.zero import Zero

    return Zero(model, optimizing, run, precision)


def possible(run: Run) -> None:
    """Asked before anything is read: the device is there, ranks can speak from it, and each rank has its own."""
    device, ranks = run.device, run.world_size
    if ranks > 1 and (device == "mps" or ":" in device):
        raise ConfigError(f"runtime.device={device}: is one device and there are {ranks} ranks; choose cuda or cpu")
    if ranks > 1 and device == "cuda":
        every = [""] * ranks
        distributed.all_gather_object(every, str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))
        apart(every)


def apart(devices: list[str]) -> None:
    """Of each rank its device: a machine shows all that it has, or to each rank its own only."""
    if len(set(devices)) < len(devices):
        raise ConfigError(
            f"{len(devices)} ranks have {len(set(devices))} devices and each needs one of its own; lower "
            "hydra.launcher.devices or, in a profile of Slurm, ntasks-per-node to gpus-per-node"
        )


def verify(weights: Iterable[tuple[str, Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """What is to be saved is whole, finite and, of an adapter, not as it began: parts of sharded weights once were."""
    still, found = [], {}
    for name, weight in weights:
        found[name] = tuple(weight.shape)
        if not torch.isfinite(weight).all():
            raise DataError(f"{name}: has values that are no finite numbers after training; lower train.lr")
        if "lora_B" in name and not (weight != 0).any():
            still.append(name)
    if found != shapes:
        wrong = sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
        raise DataError(
            f"{wrong[0]}: has the shape {found.get(wrong[0])} after training and had {shapes.get(wrong[0])} before "
            f"({len(wrong)} such weights)"
        )
    if still:
        raise DataError(
            f"{still[0]}: is zero, as it was before training ({len(still)} such parts of the adapter). Look at "
            "train.lr, train.epochs and train.lora"
        )
