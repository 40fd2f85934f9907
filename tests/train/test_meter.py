"""Operations of a step are those that torch counts; a device that nobody measured has no share of its peak."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from synthdiv.train import loss
from synthdiv.train.adapter import with_adapter
from synthdiv.train.loss import loss_sum
from synthdiv.train.meter import Meter, StepWork, peak_rate
from synthdiv.train.recipe import Lora
from synthdiv.train.rows import Row, Rows
from tests.train.test_loss import IDS, LLAMA, made


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("lora", [False, True])
def test_operations_are_those_that_torch_counts(monkeypatch, name, lora):
    model = made(name)
    model.set_attn_implementation("eager")  # torch counts no other kernel, nor a product in place
    monkeypatch.setattr(loss, "parted", lambda _: None)
    if lora:
        targets = ["c_attn", "c_fc"] if name == "gpt2" else ["q_proj", "up_proj"]
        model = with_adapter(model, Lora(r=2, dropout=0.0, targets=targets), 0)
    row = Row(tuple(range(3, 43)), 25)
    batch = Rows([row], 2).tensors([[0]], "cpu")
    loss_sum(model, batch)[0].backward()
    with FlopCounterMode(display=False) as counter:
        loss_sum(model, batch)[0].backward()
    work = StepWork(model)
    seen_fully = work.step([len(row.ids)], row.supervised) + work.attention * len(row.ids) ** 2
    # before the first adapter no gradient is needed, which we leave out of account
    assert counter.get_total_flops() == pytest.approx(seen_fully, rel=0.15 if lora else 1e-9)


def test_a_device_without_a_known_peak_rate_has_no_share_of_it(monkeypatch):
    """Peak rates are those of Lightning's table."""
    rates = {"NVIDIA H100 80GB HBM3": (989.4e12, 66.9e12), "NVIDIA A100-SXM4-80GB": (312e12, 19.5e12)}
    rates["NVIDIA H200"] = rates["NVIDIA H100 80GB HBM3"]
    for name, (bf16, fp32) in rates.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        monkeypatch.setattr("lightning.fabric.accelerators.cuda._is_ampere_or_later", lambda: True)
        assert (peak_rate(torch.device("cuda"), "bf16"), peak_rate(torch.device("cuda"), "fp32")) == (bf16, fp32)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA B200")
    assert math.isnan(peak_rate(torch.device("cuda"), "bf16"))
    assert math.isnan(peak_rate(torch.device("cpu"), "bf16"))
    meter = Meter(made("llama"), torch.device("cpu"), "fp32")
    assert math.isnan(meter.read([10], 5, 0.1)["mfu"])
    meter.peak = 2 * meter.work.step([10, 20], 5)
    actual = meter.read([10, 20], 5, 2.0)
    assert actual["mfu"] == pytest.approx(0.25)
    assert actual["tokens_per_second"] == 15


def test_operations_of_fused_experts_are_not_known():
    """A token sees a few of them, and no part of the model says which weights."""
    torch.manual_seed(0)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**LLAMA, **IDS, **experts))
    assert math.isnan(StepWork(model).step([10], 5))
    meter = Meter(model, torch.device("cpu"), "fp32")
    meter.peak = 1e12
    assert math.isnan(meter.read([10], 5, 0.1)["mfu"])


def test_memory_is_that_of_this_training_and_not_of_what_ran_before(monkeypatch):
    peak = {"bytes": 10**9}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.update(bytes=7))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak["bytes"])
    assert Meter(made("llama"), torch.device("cuda"), "bf16").memory() == 7
