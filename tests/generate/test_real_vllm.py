"""The backend vllm with vLLM itself, on a processor: `tests/vllm.sh` sets it up. Its stand-in is tested every day."""

from __future__ import annotations

import collections
import dataclasses
import os
import shutil

import pytest
from scipy import stats

from synthdiv.core.local_run import LocalRun
from synthdiv.core.runtime import Runtime
from synthdiv.core.types import Artifact
from synthdiv.generate.answer import LOG, lines
from synthdiv.generate.generate import Generate, Split, read_samples
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.generate.vllm import VllmServer
from synthdiv.mix.mix import Mix
from synthdiv.models.chat import Chat
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import open_model
from synthdiv.models.score import answer_log_likelihoods
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.train.recipe import Lora, Method
from synthdiv.train.train import Train
from synthdiv.views.export import export_model
from tests.models.small import build, opened, tiny_model

VLLM = os.environ.get("SYNTHDIV_VLLM") or shutil.which("vllm")
GREEDY, DRAWN = Sampling(0.0, 1.0, 30), Sampling(0.7, 0.9, 12, min_p=0.01, top_k=50)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not VLLM, reason="there is no vLLM: run tests/vllm.sh FOLDER, set SYNTHDIV_VLLM=FOLDER/bin/vllm"
    ),
]


@pytest.fixture(scope="module")
def model(root):
    """Heads of 32 units are the smallest that vLLM serves on a processor."""
    return build(root, tiny_model(0, hidden=64, heads=2, tokens=60000))


@pytest.fixture(scope="module")
def run():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        runtime = Runtime(device="cpu", vllm=str(VLLM), vllm_options=["--enforce-eager"])
        made = LocalRun(runtime, open_model, serve=VllmServer)
        yield made
        made.close()


def asked(backend: Backend, sampling: Sampling = GREEDY, **fields) -> Generate:
    return Generate("oak", backend, sampling=sampling, split=Split.test, **fields)


def test_greedy_answers_are_those_of_transformers(root, prompts, model, run):
    """Text, tokens and how each ended."""
    one = read_samples(build(root, asked(Backend.hf), prompts, model).path)
    made = build(root, asked(Backend.vllm), prompts, model, run=run)
    other = {(row.id, row.sample): row for row in read_samples(made.path)}
    assert {row.finish for row in one} >= {"stop"}
    assert [dataclasses.replace(other[row.id, row.sample], seed=row.seed) for row in one] == one
    assert made.manifest["summary"]["vllm"]["version"]


def test_drawn_answers_have_the_law_of_transformers(root, prompts, model, run):
    """First words of 40 answers to each of 12 prompts, and lengths; the two backends share no random number."""
    rows = [
        read_samples(build(root, asked(backend, DRAWN, samples=40, subset=99), prompts, model, run=how).path)
        for backend, how in ((Backend.hf, None), (Backend.vllm, run))
    ]
    assert [len(each) for each in rows] == [480, 480]
    assert stats.ks_2samp(*([row.response_tokens for row in each] for each in rows)).pvalue > 0.001
    firsts = [collections.Counter(" ".join(row.response.split()[:1]) for row in each) for each in rows]
    often = [word for word, count in (firsts[0] + firsts[1]).items() if count >= 20]
    table = [[*(each[word] for word in often), 481 - sum(each[word] for word in often)] for each in firsts]
    assert len(often) > 1
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_log_probabilities_are_those_of_transformers(root, prompts, model, run):
    """vLLM gives tokens as texts: rows whose texts are tokenised to as many are compared."""
    made, here = build(root, asked(Backend.vllm, top_logprobs=3), prompts, model, run=run), opened(model)
    chat = Chat.for_prompts(here.tokenizer, prompts, here.ends)
    texts = {row["id"]: row["prompt"] for row in read_prompts(prompts, "test")}
    compared = 0
    for line, row in zip(lines(made.path / LOG), read_samples(made.path), strict=True):
        assert line["id"] == row.id
        logprobs = line["logprobs"]
        ids = [*here.tokenizer(row.response, add_special_tokens=False)["input_ids"], chat.end]
        assert all(len(each) >= 3 for each in logprobs["top_logprobs"])
        if len(ids) == len(logprobs["token_logprobs"]):
            (values,) = answer_log_likelihoods(here, [(chat.prompt(texts[row.id]), ids)], 4096)
            assert logprobs["token_logprobs"] == pytest.approx(values.tolist(), abs=1e-3)
            compared += 1
    assert compared > 6


def test_an_adapter_is_served_on_its_base_and_so_is_its_merged_export(root, prompts, model, run, tmp_path):
    mix = build(root, Mix(12, real_share=1.0, train_rows=48, shard_rows=4), prompts)
    lora = Lora(r=4, targets=["q_proj", "v_proj"])
    recipe = Train(method=Method.lora, lora=lora, lr=1e-2, epochs=2.0, batch_rows=4)
    student = build(root, recipe, model, mix, prompts)
    one, other, base = (
        [row.response for row in read_samples(build(root, asked(backend), prompts, each, run=how).path)]
        for backend, each, how in ((Backend.hf, student, None), (Backend.vllm, student, run), (Backend.hf, model, None))
    )
    assert sorted(one) == sorted(other)
    assert one != base, "the adapter makes a difference"
    export_model(student, tmp_path / "whole", True)
    whole = Artifact(Checkpoint(str(tmp_path / "whole"), sha256="whole"), "", tmp_path / "whole")
    served = build(root, asked(Backend.vllm), prompts, whole, run=run)
    assert sorted(row.response for row in read_samples(served.path)) == sorted(one)
