"""The backend vllm against a stand-in that speaks its protocol: one server a model, prompts as token ids, adapters."""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from synthdiv.core.local_run import LocalRun
from synthdiv.core.runtime import Runtime
from synthdiv.core.types import ConfigError, DataError
from synthdiv.generate.answer import LOG, lines
from synthdiv.generate.generate import Generate, Split, read_samples
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.generate.vllm import VllmServer, command
from synthdiv.mix.mix import Mix
from synthdiv.models.load import open_model
from synthdiv.train.recipe import Lora, Method
from synthdiv.train.train import Train
from tests.models.small import build, tiny_model

GREEDY = Sampling(0.0, 1.0, 30)
STAND_IN = f"{sys.executable} {Path(__file__).with_name('vllm_stand_in.py')}"


@pytest.fixture(scope="module")
def model(root):
    return build(root, tiny_model(0, hidden=32, tokens=60000))


@pytest.fixture(scope="module")
def run():
    made = LocalRun(Runtime(device="cpu", vllm=STAND_IN), open_model, serve=VllmServer)
    yield made
    made.close()


def asked(backend: Backend, **fields) -> Generate:
    return Generate("oak", backend, sampling=GREEDY, split=Split.test, **fields)


def servers() -> list[psutil.Process]:
    every = psutil.process_iter(["cmdline"])
    return [item for item in every if "vllm_stand_in" in " ".join(item.info["cmdline"] or [])]


def test_greedy_answers_are_those_of_transformers(root, prompts, model, run):
    """Text, tokens and how each ended; in the order of the requests, whatever came first."""
    one = read_samples(build(root, asked(Backend.hf), prompts, model).path)
    made = build(root, asked(Backend.vllm), prompts, model, run=run)
    other = {(row.id, row.sample): row for row in read_samples(made.path)}
    assert len(one) == len(other) == 12
    assert "stop" in {row.finish for row in one}
    for row in one:
        assert dataclasses.replace(other[row.id, row.sample], seed=row.seed) == row
    log = lines(made.path / LOG)
    assert [(line["id"], line["attempts"]) for line in log] == [(row.id, 1) for row in read_samples(made.path)]


def test_one_server_answers_for_all_shards_of_a_model(root, prompts, model, run):
    before = servers()
    for shard in range(2):
        stage = Generate("oak", Backend.vllm, sampling=GREEDY, rows=48, shard_rows=4, shard=shard)
        assert read_samples(build(root, stage, prompts, model, run=run).path)
    assert [item.pid for item in servers()] == [item.pid for item in before]
    assert len(before) == 1


def test_an_adapter_is_served_on_its_base(root, prompts, model, run):
    mix = build(root, Mix(12, real_share=1.0, train_rows=48, shard_rows=4), prompts)
    lora = Lora(r=4, targets=["q_proj", "v_proj"])
    student = build(root, Train(method=Method.lora, lora=lora, lr=1e-2, epochs=2.0, batch_rows=4), model, mix, prompts)
    one = read_samples(build(root, asked(Backend.hf), prompts, student).path)
    other = read_samples(build(root, asked(Backend.vllm), prompts, student, run=run).path)
    plain = read_samples(build(root, asked(Backend.hf), prompts, model).path)
    result = [{row.id: row.response for row in rows} for rows in (one, other, plain)]
    assert result[0] == result[1]
    assert result[0] != result[2], "the adapter makes a difference"
    assert len(servers()) == 1, "the base alone was closed before"


def test_a_server_that_cannot_start_shows_its_log(root, prompts, model, tmp_path):
    ready = build(tmp_path, prompts.stage), build(tmp_path, model.stage)
    for option, says in (
        ("--no-such-flag", r"vLLM did not start: exit code 2: .*no-such-flag"),
        ("--die", r"vLLM died: exit code 3: .*out of memory, it seems"),
    ):
        run = LocalRun(Runtime(device="cpu", vllm=STAND_IN, vllm_options=[option]), open_model, serve=VllmServer)
        with pytest.raises(DataError, match=says):
            build(tmp_path, asked(Backend.vllm), *ready, run=run)
        run.close()


def test_a_server_that_died_is_started_again(root, prompts, model, run, monkeypatch):
    """Between two shards; its port is held meanwhile. A proxy for the world outside is none for this machine."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("TORCHELASTIC_USE_AGENT_STORE", "True")):
        monkeypatch.setenv(name, value)
    stages = [Generate("oak", Backend.vllm, sampling=GREEDY, rows=48, shard_rows=4, shard=shard) for shard in (4, 5)]
    build(root, stages[0], prompts, model, run=run)
    (server,) = servers()
    assert not {"RANK", "WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"} & server.environ().keys()
    words = server.cmdline()
    server.kill()
    server.wait()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", int(words[words.index("--port") + 1])))
    made = build(root, stages[1], prompts, model, run=run)
    assert len(read_samples(made.path)) == len(stages[1].requests(prompts, model.key))
    assert made.manifest["summary"]["vllm"] == {"version": "stand-in", "options": [], "tensor_parallel": 1}


def test_a_server_ends_with_the_process_that_started_it(model):
    script = f"""
import os, sys, signal
from pathlib import Path
from synthdiv.generate.vllm import VllmServer
from synthdiv.core.runtime import Runtime
from synthdiv.train.pretrain import Pretrain
from synthdiv.core.types import Artifact
runtime = Runtime(vllm={STAND_IN!r})
VllmServer(Artifact(Pretrain(), "k", Path({str(model.path)!r})), "fp32", runtime, lambda: None)
print(len([1]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    import subprocess

    before = {item.pid for item in servers()}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.stdout == "1\n", done.stderr
    until = time.monotonic() + 20
    while {item.pid for item in servers()} - before and time.monotonic() < until:
        time.sleep(0.1)
    assert not {item.pid for item in servers()} - before


def test_without_vllm_the_error_names_alternatives(tmp_path):
    with pytest.raises(ConfigError, match=r"runtime.vllm=no-vllm: no such command.*choose backend hf"):
        command(tmp_path, None, "bf16", Runtime(vllm="no-vllm"))


@pytest.mark.parametrize("config", [{"use_dora": True}, {"modules_to_save": ["embed_tokens"]}, {"r": 513}])
def test_an_adapter_that_vllm_does_not_serve_is_refused(tmp_path, config):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8} | config))
    with pytest.raises(ConfigError, match=r"train\.lora\..*vLLM serves.*choose backend hf"):
        command(tmp_path, tmp_path, "bf16", Runtime(vllm=STAND_IN))


def test_more_devices_than_the_worker_sees_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ConfigError, match=r"tensor_parallel=4: this worker may use the devices 3; .*devices=4"):
        command(tmp_path, None, "bf16", Runtime(vllm=STAND_IN, tensor_parallel=4))
