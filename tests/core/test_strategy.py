"""What may be passed on to Lightning and DeepSpeed: nothing that changes results under one key."""

from __future__ import annotations

import pytest

from synthdiv.core.runtime import Runtime
from synthdiv.core.strategy import Strategy, components

ZERO = Strategy.deepspeed_stage_2


@pytest.mark.parametrize(
    ("value", "classes"),
    [
        (None, {}),
        ("simple", {"SimpleProfiler": {}}),
        (["LearningRateMonitor", "ModelSummary"], {"LearningRateMonitor": {}, "ModelSummary": {}}),
        ({"DeviceStatsMonitor": {"cpu_stats": True}, "ModelSummary": None},
         {"DeviceStatsMonitor": {"cpu_stats": True}, "ModelSummary": {}}),
    ],
)  # fmt: skip
def test_a_component_is_named_alone_or_in_a_list_or_with_arguments(value, classes):
    assert components(value) == classes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_clip_val": 1.0}, "runtime.trainer.gradient_clip_val: is set by train.clip"),
        ({"precision": "16-mixed"}, "runtime.trainer.precision: is set by train.precision"),
        ({"accumulate_grad_batches": 2}, "runtime.trainer.accumulate_grad_batches: is set by runtime.micro_batch"),
        ({"max_steps": 2}, "runtime.trainer.max_steps: is set by train.match=steps and train.budget"),
        ({"deterministic": True}, "runtime.trainer.deterministic: may change results and is not passed on; choose"),
        ({"callbacks": ["EarlyStopping"]}, "runtime.trainer.callbacks: EarlyStopping is not among DeviceStats"),
        ({"callbacks": ["os.system"]}, "runtime.trainer.callbacks: os.system is not among DeviceStats"),
        ({"callbacks": [{"a": 1}]}, "runtime.trainer.callbacks: {'a': 1} is not among DeviceStats"),
        ({"profiler": 3}, "runtime.trainer.profiler=3: needs a name, a list of names, or a mapping"),
        ({"profiler": {"simple": 3}}, "runtime.trainer.profiler.SimpleProfiler=3: needs a mapping of arguments"),
        ({"profiler": {"simple": 0}}, "runtime.trainer.profiler.SimpleProfiler=0: needs a mapping of arguments"),
        ({"profiler": ["simple", "pytorch"]}, "runtime.trainer.profiler: takes one, and 2 are named"),
        ({"log_every_n_steps": "x"}, "runtime.trainer.log_every_n_steps='x': needs a whole number, 0 or more"),
        ({"log_every_n_steps": True}, "runtime.trainer.log_every_n_steps=True: needs a whole number, 0 or more"),
        ({"detect_anomaly": "x"}, "runtime.trainer.detect_anomaly='x': needs true or false"),
    ],
)
def test_what_changes_results_or_is_unknown_to_lightning_is_refused_by_name(options, message):
    (problem,) = Runtime(trainer=options).check("runtime")
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": {"type": "Adam"}}, "runtime.deepspeed.optimizer: is set by train.lr and train.weight_decay"),
        ({"gradient_clipping": 1.0}, "runtime.deepspeed.gradient_clipping: is set by train.clip"),
        ({"train_batch_size": 8}, "runtime.deepspeed.train_batch_size: is set by train.batch_rows"),
        ({"zero_optimization": {"stage": 3}}, "runtime.deepspeed.zero_optimization.stage: is set by runtime.strategy"),
        ({"zero_optimization": 3}, "runtime.deepspeed.zero_optimization=3: needs a mapping"),
        ({"communication_data_type": "fp16"}, "runtime.deepspeed.communication_data_type: may change results"),
        ({"zero_optimization": {"zero_quantized_weights": True}},
         "runtime.deepspeed.zero_optimization.zero_quantized_weights: may change results"),
    ],
)  # fmt: skip
def test_what_changes_results_under_deepspeed_is_refused_by_name(options, message):
    (problem,) = Runtime(strategy=ZERO, deepspeed=options).check("runtime")
    assert problem.startswith(message)


def test_what_watches_or_places_is_passed_on():
    trainer = {"callbacks": "LearningRateMonitor", "logger": {"CSVLogger": {"name": "x"}}, "log_every_n_steps": 5}
    deepspeed = {"zero_optimization": {"reduce_bucket_size": 10**6}, "wall_clock_breakdown": True}
    assert not Runtime(strategy=ZERO, trainer=trainer, deepspeed=deepspeed).check("runtime")
    (problem,) = Runtime(deepspeed=deepspeed).check("runtime")
    assert problem == "runtime.deepspeed: needs runtime.strategy=deepspeed_stage_…, and it is auto"


def test_the_parts_of_a_name():
    stages = {strategy.zero_stage for strategy in Strategy}
    assert stages == {0, 1, 2, 3}
    assert {item.value for item in Strategy if not item.sharded} == {"auto", "ddp"}
    assert {item.value.removesuffix("_offload") for item in Strategy if item.offload} == {
        item.value for item in Strategy if item.sharded and not item.offload
    }
