"""How several ranks train one model, and what a user may pass on to Lightning's Trainer and to DeepSpeed.

Nothing here is identity, so nothing may pass that changes results: only what watches a training or places its tensors.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class Strategy(Enum):
    """Names as Lightning has them; `auto` is DDP; `fsdp2` is PyTorch's second FSDP (Lightning's `fsdp` is the first).
    `_offload` keeps in main memory what the strategy shards."""

    auto = "auto"
    ddp = "ddp"
    fsdp2 = "fsdp2"
    fsdp2_offload = "fsdp2_offload"
    deepspeed_stage_1 = "deepspeed_stage_1"
    deepspeed_stage_1_offload = "deepspeed_stage_1_offload"
    deepspeed_stage_2 = "deepspeed_stage_2"
    deepspeed_stage_2_offload = "deepspeed_stage_2_offload"
    deepspeed_stage_3 = "deepspeed_stage_3"
    deepspeed_stage_3_offload = "deepspeed_stage_3_offload"

    @property
    def sharded(self) -> bool:
        return self not in (Strategy.auto, Strategy.ddp)

    @property
    def offload(self) -> bool:
        return self.value.endswith("_offload")

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's ZeRO stage; 0 for the others."""
        return int(self.value.split("_")[2]) if self.value.startswith("deepspeed") else 0


# Options of Lightning's Trainer that name classes of Lightning. A job file thereby names no code to import.
COMPONENTS = {
    "callbacks": "DeviceStatsMonitor LearningRateMonitor ModelSummary RichModelSummary RichProgressBar TQDMProgressBar",
    "logger": "CSVLogger MLFlowLogger TensorBoardLogger",
    "profiler": "AdvancedProfiler PyTorchProfiler SimpleProfiler",
    "plugins": "LSFEnvironment MPIEnvironment SLURMEnvironment TorchElasticEnvironment",
}
SHORT = {"advanced": "AdvancedProfiler", "pytorch": "PyTorchProfiler", "simple": "SimpleProfiler"}
SETTINGS: dict[str, tuple[Any, str]] = {
    "detect_anomaly": (bool, "true or false"),
    "log_every_n_steps": (int, "a whole number, 0 or more"),
}
DEEPSPEED = (
    "aio comms_logger csv_monitor flops_profiler memory_breakdown steps_per_print tensorboard wall_clock_breakdown "
    "zero_optimization"
)
ZERO = (
    "allgather_bucket_size allgather_partitions contiguous_gradients offload_optimizer offload_param overlap_comm "
    "reduce_bucket_size reduce_scatter stage3_max_live_parameters stage3_max_reuse_distance "
    "stage3_param_persistence_threshold stage3_prefetch_bucket_size sub_group_size"
)
ELSEWHERE = {  # option: what decides it here
    "accelerator": "runtime.device",
    "accumulate_grad_batches": "runtime.micro_batch",
    "amp": "train.precision",
    "bf16": "train.precision",
    "devices": "hydra.launcher.devices",
    "enable_checkpointing": "runtime.checkpoint_seconds",
    "fp16": "train.precision",
    "gradient_accumulation_steps": "runtime.micro_batch",
    "gradient_clip_val": "train.clip",
    "gradient_clipping": "train.clip",
    "max_epochs": "train.epochs",
    "max_steps": "train.match=steps and train.budget",
    "num_nodes": "the profile of Slurm",
    "optimizer": "train.lr and train.weight_decay",
    "precision": "train.precision",
    "scheduler": "train.schedule and train.warmup",
    "stage": "runtime.strategy",
    "strategy": "runtime.strategy",
    "train_batch_size": "train.batch_rows",
    "train_micro_batch_size_per_gpu": "runtime.micro_batch",
}


def components(value: Any) -> dict[str, dict[str, Any]]:
    """Class names and their arguments, from one name, a list of names, or a mapping of names to arguments."""
    names = [value] if isinstance(value, str) else value
    items = names.items() if isinstance(names, dict) else [(name, None) for name in names or []]
    return {SHORT.get(str(name), str(name)): {} if arguments is None else arguments for name, arguments in items}


def trainer_problems(options: dict[str, Any]) -> list[str]:
    """What `runtime.trainer` may not pass to Lightning's Trainer."""
    problems = []
    for name, value in options.items():
        key = f"runtime.trainer.{name}"
        if name in COMPONENTS and not isinstance(value, str | list | dict):
            problems.append(f"{key}={value!r}: needs a name, a list of names, or a mapping of names to arguments")
        elif name in COMPONENTS:
            choices, named = COMPONENTS[name].split(), components(value)
            for item, arguments in named.items():
                if item not in choices:
                    problems.append(f"{key}: {item} is not among {', '.join(choices)}")
                if not isinstance(arguments, dict):
                    problems.append(f"{key}.{item}={arguments!r}: needs a mapping of arguments")
            if name in ("profiler", "plugins") and len(named) > 1:
                problems.append(f"{key}: takes one, and {len(named)} are named")
        elif name in SETTINGS:
            kind, needed = SETTINGS[name]
            if type(value) is not kind or value < 0:
                problems.append(f"{key}={value!r}: needs {needed}")
        else:
            problems.append(refused(key, [*COMPONENTS, *SETTINGS]))
    return problems


def deepspeed_problems(options: dict[str, Any], strategy: Strategy) -> list[str]:
    """What `runtime.deepspeed` may not merge into DeepSpeed's configuration."""
    if options and not strategy.zero_stage:
        return [f"runtime.deepspeed: needs runtime.strategy=deepspeed_stage_…, and it is {strategy.value}"]
    place, zero = "runtime.deepspeed.zero_optimization", options.get("zero_optimization") or {}
    known, known_inside = DEEPSPEED.split(), ZERO.split()
    if not isinstance(zero, dict):
        return [f"{place}={zero!r}: needs a mapping; choose from {', '.join(known_inside)}"]
    wrong = [refused(f"runtime.deepspeed.{name}", known) for name in options if name not in known]
    return wrong + [refused(f"{place}.{name}", known_inside) for name in zero if name not in known_inside]


def refused(key: str, choices: list[str]) -> str:
    name = key.rpartition(".")[2]
    if name in ELSEWHERE:
        return f"{key}: is set by {ELSEWHERE[name]}"
    return f"{key}: may change results and is not passed on; choose from {', '.join(choices)}"
