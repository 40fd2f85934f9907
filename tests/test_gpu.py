"""On an accelerator everything gives what a processor gives, and what only an accelerator has is real."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
from torch.testing import assert_close

from synthdiv.core.local_run import LocalRun, out_of_memory
from synthdiv.core.ranks import Ranks
from synthdiv.core.runtime import Runtime
from synthdiv.generate.generate import Generate, Split
from synthdiv.generate.hf import BatchSplitter, tokenize_requests
from synthdiv.generate.spec import Sampling
from synthdiv.mix.mix import Mix
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel, load_base, open_model
from synthdiv.models.score import answer_curves, answer_gradients, answer_log_likelihoods
from synthdiv.train.adapter import with_adapter
from synthdiv.train.recipe import Lora, Method
from synthdiv.train.train import Train
from synthdiv.views.report.findings import NOT_COMPARED
from tests.conftest import TINY, synthdiv
from tests.generate.test_hf import answers
from tests.models.small import build, tiny_model
from tests.train.several import train
from tests.train.test_module import Stopped, blank, curve, stopping, trained, weights
from tests.train.test_several import launch, same

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no accelerator"),
]


def gpu_run(**runtime) -> LocalRun:
    return LocalRun(Runtime(device="cuda", **runtime), open_model)


@pytest.fixture(scope="module")
def model(root):
    return build(root, tiny_model(0, tokens=20000))


@pytest.fixture(scope="module")
def both(model):
    return [open_model(model, "fp32", device) for device in ("cpu", "cuda")]


@pytest.fixture(scope="module")
def requests(prompts):
    return Generate(source="oak", split=Split.test, samples=2, subset=99).requests(prompts, "model")


@pytest.fixture(scope="module")
def pairs(model, prompts, requests):
    chat = Chat(open_model(model, "fp32", "cpu").tokenizer)
    ids = [chat.prompt(request.prompt) for request in requests]
    return [(one, [*other[:7], 1]) for one, other in zip(ids, ids[::-1], strict=True)]


@pytest.mark.parametrize("packed", [0, 64])
def test_a_training_in_fp32_is_that_of_a_processor(tmp_path, packed):
    one, _ = trained(tmp_path / "cpu", packed=packed)
    other, summary = trained(tmp_path / "cuda", run=gpu_run(), packed=packed)
    for name, value in weights(other).items():
        assert_close(value.cpu(), weights(one)[name], rtol=0, atol=1e-4)
    losses = [curve(tmp_path / device)["loss"].to_pylist() for device in ("cpu", "cuda")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert 0 < summary["peak_memory_bytes"] < 2**30


def test_a_training_goes_on_where_it_stopped(tmp_path):
    whole, _ = trained(tmp_path / "whole", run=gpu_run())
    run = stopping(3)
    run.runtime = Runtime(device="cuda")
    with pytest.raises(Stopped):
        trained(tmp_path / "cut", run=run)
    model, _ = trained(tmp_path / "cut", run=gpu_run())
    for name, value in weights(model).items():
        assert_close(value, weights(whole)[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("packed", [0, 64])
def test_bf16_trains_as_fp32_does(tmp_path, lora, packed):
    losses = []
    for precision in ("fp32", "bf16"):
        model = blank(hidden_size=64, intermediate_size=128)
        if lora:
            model = with_adapter(
                model.to(torch.bfloat16 if precision == "bf16" else torch.float32), Lora(dropout=0.0), 0
            )
        _, summary = trained(tmp_path / precision, model, steps=24, run=gpu_run(), packed=packed, precision=precision)
        losses.append(summary["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    table = pyarrow.parquet.read_table(tmp_path / "bf16" / "metrics.parquet")
    assert all(0 < value < 1 for value in table["mfu"].to_pylist())


@pytest.mark.parametrize("strategy", ["fsdp2", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3"])
def test_one_device_offloads_and_trains_the_same(tmp_path, strategy):
    jobs = [
        {"strategy": f"{strategy}_offload", "lora": lora, "out": f"{lora}", "stop": stop, "device": "cuda"}
        for lora in (False, True)
        for stop in (2, None)
    ]
    launch(tmp_path, 1, jobs, "cuda")
    for lora in (False, True):
        (tmp_path / f"cpu-{lora}").mkdir()
        train({"out": str(tmp_path / f"cpu-{lora}"), "lora": lora}, Ranks())
        same(tmp_path / f"{lora}", tmp_path / f"cpu-{lora}", 1e-4)


def test_an_adapter_is_trained_on_weights_in_four_bits_and_answers(root, prompts):
    pytest.importorskip("bitsandbytes")
    student = build(root, tiny_model(hidden=192))
    human = build(root, Mix(48, real_share=1.0, train_rows=48, shard_rows=4), prompts)
    packed, _ = load_base(student, "bf16", packed=True)
    assert packed.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    recipe = Train(method=Method.qlora, epochs=4, batch_rows=16, lr=1e-2, validation=0.1)
    tuned = build(root, recipe, student, human, prompts, run=gpu_run())
    summary = tuned.manifest["summary"]
    assert summary["validation"]["own"] < summary["validation_before"]["own"]
    stage = Generate(source="tuned", sampling=Sampling(1.0, 1.0, 12), split=Split.test)
    shown = build(root, stage, prompts, tuned, run=gpu_run())
    assert shown.manifest["summary"]["rows"] == 12


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0, 12), Sampling(0.7, 0.9, 12), Sampling(0.0, 1.0, 12)])
def test_answers_are_those_of_a_processor_in_any_batch(both, requests, sampling):
    """But where a draw falls between two roundings of one probability."""
    cpu, gpu = both
    wanted = answers(cpu, requests, 32, sampling)
    for size in (32, 8, 1):
        actual = answers(gpu, requests, size, sampling)
        assert np.mean([actual[key] == wanted[key] for key in wanted]) > 0.95
    assert len({answer.text for answer in wanted.values()}) > 3


def test_likelihoods_and_gradients_are_those_of_a_processor(both, pairs):
    cpu, gpu = both
    for measure in (answer_log_likelihoods, answer_curves):
        for one, other in zip(measure(cpu, pairs, 300), measure(gpu, pairs, 300), strict=True):
            assert one == pytest.approx(other, abs=1e-4)
    one, other = (answer_gradients(opened, pairs[:9], 256, 0) for opened in both)
    assert one == pytest.approx(other, abs=1e-4 * float(np.abs(one).max()))


def test_batches_that_do_not_fit_are_split_for_real(both, requests):
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    opened = OpenModel(transformers.LlamaForCausalLM(config).eval().to("cuda"), both[0].tokenizer, "cuda")
    sampling = Sampling(1.0, 0.9, 4)
    chat = Chat(opened.tokenizer)
    batch, _ = tokenize_requests(chat, 512, [*requests] * 40, sampling)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 150 * 2**20) / total)
    try:
        splitter = BatchSplitter(opened, chat, sampling)
        assert len(splitter.answers(batch, 0)) == len(batch)
        assert splitter.split_batches == {0}
        with pytest.raises(torch.OutOfMemoryError) as caught:
            torch.empty(2**40, device="cuda")
        assert out_of_memory(caught.value)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_study_runs_from_launch_to_page(tmp_path):
    words = [
        "mix=human,single",
        "sweep=here",
        "runtime.device=cuda",
        "train.method=lora",
        "train.precision=bf16",
        *TINY,
    ]
    synthdiv("-m", *words, cwd=tmp_path)
    done = synthdiv("report", "here", cwd=tmp_path)
    answer, page = done.stdout.splitlines()
    assert answer.startswith(f"no primary comparison: {NOT_COMPARED}")
    assert page == "outputs/reports/here/index.html"
    manifests = [
        json.loads(path.read_text()) for path in (tmp_path / "outputs/artifacts/train").glob("*/manifest.json")
    ]
    assert len(manifests) == 2
    for manifest in manifests:
        assert manifest["sessions"][0]["device"].startswith("cuda")
        assert "NVIDIA" in manifest["sessions"][0]["accelerator"]
