"""Lightning's loggers, profilers and callbacks watch a training and change no bit; DeepSpeed takes its options."""

from __future__ import annotations

import csv
import os
import signal

import pytest
import torch

from synthdiv.core.runtime import Runtime
from synthdiv.core.strategy import Strategy
from synthdiv.core.types import ConfigError
from synthdiv.train.fit import FOLDER
from synthdiv.train.module import Tuning
from synthdiv.train.zero import configuration
from tests.models.small import cpu_run
from tests.train.test_module import Stopped, curve, stopping, trained, weights

WATCHED = {
    "callbacks": {"LearningRateMonitor": {}, "DeviceStatsMonitor": {"cpu_stats": False}},
    "logger": "CSVLogger",
    "profiler": "simple",
    "log_every_n_steps": 2,
}


def logged(folder):
    """Step numbers and losses that Lightning's logger wrote, version after version."""
    files = sorted((folder / FOLDER).rglob("metrics.csv"))
    rows = [row for file in files for row in csv.DictReader(file.read_text().splitlines()) if row["loss"]]
    return [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows]


def test_what_watches_a_training_changes_no_bit_of_it(tmp_path):
    model, _ = trained(tmp_path / "plain")
    watched, summary = trained(tmp_path / "watched", run=cpu_run(trainer=WATCHED))
    assert all(torch.equal(value, weights(model)[name]) for name, value in weights(watched).items())
    assert curve(tmp_path / "plain").equals(curve(tmp_path / "watched"))
    steps, losses = logged(tmp_path / "watched")
    assert steps == [2, 4, 6, 8]
    assert losses == pytest.approx(curve(tmp_path / "plain")["loss"].to_pylist()[1::2], rel=1e-6)
    (profile,) = (tmp_path / "watched" / FOLDER).glob("*profile*")
    assert "training_step" in profile.read_text()
    assert summary["trainer"] == WATCHED
    assert not (tmp_path / "plain" / FOLDER).exists()


def test_a_logger_goes_on_at_the_step_of_the_checkpoint(tmp_path):
    run = stopping(3)
    run.runtime.trainer = WATCHED
    with pytest.raises(Stopped):
        trained(tmp_path / "cut", run=run)
    trained(tmp_path / "cut", run=cpu_run(trainer=WATCHED))
    assert logged(tmp_path / "cut")[0] == [2, 4, 6, 8]


def test_arguments_that_lightning_does_not_take_are_an_error(tmp_path):
    run = cpu_run(trainer={"callbacks": {"LearningRateMonitor": {"depth": 3}}})
    with pytest.raises(
        ConfigError, match=r"runtime\.trainer\.callbacks\.LearningRateMonitor: Lightning refuses it: .*depth"
    ):
        trained(tmp_path, run=run)


def test_a_cluster_that_counts_other_ranks_is_refused(tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    run = cpu_run(trainer={"plugins": "TorchElasticEnvironment"})
    with pytest.raises(
        ConfigError, match=r"TorchElasticEnvironment sees rank 1 of 4, and this is rank 0 of 1; remove it"
    ):
        trained(tmp_path, run=run)


def test_the_signal_handler_from_before_is_in_place_during_every_step(tmp_path, monkeypatch):
    """And after the training, whatever ended it."""
    seen, before = [], signal.getsignal(signal.SIGTERM)
    run = cpu_run()
    run.stop.listen()
    handler, progress = signal.getsignal(signal.SIGTERM), run.progress

    def watched(done, *others):
        seen.append(signal.getsignal(signal.SIGTERM))
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            assert run.stop.reason == "terminated"
            run.stop.reason = ""
        progress(done, *others)

    monkeypatch.setattr(run, "progress", watched)
    try:
        trained(tmp_path, run=run)
        assert signal.getsignal(signal.SIGTERM) == handler
    finally:
        run.stop.leave()
    assert seen == [handler] * 9
    assert signal.getsignal(signal.SIGTERM) == before


def test_deepspeed_options_are_merged_below_the_settings_of_a_training():
    options = {"zero_optimization": {"reduce_bucket_size": 1000, "offload_optimizer": {"device": "nvme"}}}
    runtime = Runtime(strategy=Strategy.deepspeed_stage_3_offload, deepspeed=options | {"wall_clock_breakdown": True})
    config = configuration(runtime, cuda=False)
    assert config["wall_clock_breakdown"]
    zero = config["zero_optimization"]
    assert (zero["stage"], zero["reduce_bucket_size"]) == (3, 1000)
    assert zero["offload_optimizer"] == {"device": "nvme"}
    assert zero["offload_param"]["device"] == "cpu"
    assert options["zero_optimization"].keys() == {"reduce_bucket_size", "offload_optimizer"}, "they stay as they were"
    runtime = Runtime(strategy=Strategy.deepspeed_stage_2, deepspeed={"zero_optimization": None})
    assert configuration(runtime, cuda=False)["zero_optimization"]["stage"] == 2


def test_a_resumed_training_repeats_no_step_that_was_kept(tmp_path, monkeypatch):
    numbers, step = [], Tuning.training_step

    def seen(self, number, index):
        numbers.append(number)
        step(self, number, index)

    monkeypatch.setattr(Tuning, "training_step", seen)
    with pytest.raises(Stopped):
        trained(tmp_path, run=stopping(3))
    trained(tmp_path)
    assert numbers == [*range(4), *range(3, 8)], "the fourth was made and not kept"
