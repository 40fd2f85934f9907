"""Operations of a step are those that torch counts; a device that nobody measured has no share of its peak."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from synthdiv.train import loss
from synthdiv.train.adapter import with_adapter
from synthdiv.train.loss import loss_sum
from synthdiv.train.meter import Meter, Work, peak_rate
from synthdiv.train.rows import Row, Rows
from synthdiv.train.stage import Lora
from tests.train.test_loss import made


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
    work = Work(model)
    seen_fully = work.step([len(row.ids)], row.supervised) + work.attention * len(row.ids) ** 2
    # before the first adapter no gradient is needed, which we leave out of account
    assert counter.get_total_flops() == pytest.approx(seen_fully, rel=0.15 if lora else 1e-9)


def test_a_device_that_nobody_measured_has_no_share_of_its_peak():
    assert peak_rate("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert peak_rate("NVIDIA H100 PCIe", "bf16") == 756e12
    assert peak_rate("NVIDIA A100-SXM4-80GB", "fp32") == 19.5e12
    assert math.isnan(peak_rate("", "bf16"))
    meter = Meter(made("llama"), torch.device("cpu"), "fp32")
    assert math.isnan(meter.read([10], 5, 0.1)["mfu"])
    meter.peak = 2 * meter.work.step([10, 20], 5)
    found = meter.read([10, 20], 5, 2.0)
    assert found["mfu"] == pytest.approx(0.25)
    assert found["tokens_per_second"] == 15
