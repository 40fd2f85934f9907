"""QLoRA: refused where it cannot be, and the real 4-bit weights of bitsandbytes, which a processor can hold too."""

from __future__ import annotations

import pytest
import torch

from synthdiv.core.fields import problems
from synthdiv.core.runtime import Runtime
from synthdiv.core.strategy import Strategy
from synthdiv.core.types import ConfigError
from synthdiv.models import load
from synthdiv.study.config import Cell, Kind
from synthdiv.train.recipe import Method
from synthdiv.train.train import Train
from tests.models.small import build, opened, tiny_model


@pytest.mark.parametrize("strategy", [item for item in Strategy if item.sharded])
def test_weights_in_four_bits_are_not_cut(strategy):
    cell = Cell(train=Train(method=Method.qlora), runtime=Runtime(strategy=strategy))
    (problem,) = [problem for problem in problems(cell) if "qlora" in problem]
    assert problem.startswith(f"runtime.strategy={strategy.value}, train.method=qlora")
    cell.mix.kind = Kind.none
    assert not [problem for problem in problems(cell) if "qlora" in problem], "nothing is trained"


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_device_that_cannot_is_refused_before_anything_runs(device):
    cell = Cell(train=Train(method=Method.qlora), runtime=Runtime(device=device))
    assert [problem for problem in problems(cell) if problem.startswith(f"runtime.device={device}, train.method=qlora")]


def test_without_an_accelerator_or_the_library_it_says_what_to_do(monkeypatch):
    with pytest.raises(ConfigError, match=r"need an NVIDIA GPU, and runtime\.device is cpu; choose train\.method=lora"):
        load.require_4bit_support("cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'synthdiv\[qlora\]'"):
        load.require_4bit_support("cuda")


def test_an_adapter_is_trained_on_weights_in_four_bits(root, prompts, human, monkeypatch):
    """On a processor, where only the refusal is lifted: what is packed, trained, saved and opened again is real."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr("synthdiv.train.tune.require_4bit_support", lambda device: None)
    # a processor with these instructions packs the weights once more when they are first read, and then trains no more
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    student = build(root, tiny_model(hidden=192))
    model, _ = load.load_base(student, "fp32", packed=True)
    held = {type(part).__name__ for name, part in model.named_modules() if name.endswith("_proj")}
    assert held == {"Linear4bit"}
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    recipe = Train(method=Method.qlora, epochs=4, batch_rows=16, lr=1e-2, validation=0.1)
    tuned = build(root, recipe, student, human, prompts)
    summary = tuned.manifest["summary"]
    assert summary["validation"]["own"] < summary["validation_before"]["own"]
    assert summary["trained_parameters"] == 16 * (4 * (192 + 192) + 3 * (192 + 512))
    assert (tuned.path / "adapter" / "adapter_model.safetensors").is_file()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert not torch.equal(opened(tuned).model(ids).logits, opened(student).model(ids).logits)
