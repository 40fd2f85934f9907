"""A stage leaves the process as it found it, so stages built in any order agree byte for byte."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from synthdiv.core.fields import problems
from synthdiv.core.local_run import LocalRun, isolated
from synthdiv.core.runtime import Runtime
from synthdiv.core.strategy import Strategy
from synthdiv.core.types import Artifact, ConfigError
from synthdiv.generate.generate import Generate, Split
from synthdiv.generate.spec import Sampling
from tests.models.small import build, files, tiny_model, toy_prompts


def state():
    return (
        random.getstate(),
        str(np.random.get_state()),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
    )


def disturb():
    random.random()
    np.random.seed(7)
    torch.manual_seed(7)
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float64)


@pytest.mark.parametrize("fails", [False, True])
def test_random_state_threads_and_dtype_are_put_back(fails):
    np.random.seed(1)  # tests that ran before, with seed 7, may have left what `disturb` makes
    torch.manual_seed(1)
    before = state()
    try:
        with isolated(2):
            assert torch.get_num_threads() == 2
            disturb()
            assert not any(left == right for left, right in zip(before, state(), strict=True))
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert state() == before


@pytest.mark.parametrize(("threads", "weights", "expected"), [(0, 10, 1), (0, 10**7, 3), (2, 10, 3)])
def test_a_small_model_computes_with_one_thread_unless_the_configuration_says_how_many(threads, weights, expected):
    with isolated(3):
        run = LocalRun(Runtime(device="cpu", threads=threads), lambda *_: None)
        run.use_threads(torch.nn.Linear(weights, 1, bias=False, device="meta"))
        assert torch.get_num_threads() == expected


def test_stages_built_in_either_order_agree(tmp_path):
    """The second stage of one order meets whatever the first left behind."""
    stages = [tiny_model(0), tiny_model(1)]
    answer = Generate("oak", split=Split.test, sampling=Sampling(1, 1, 8))
    actual = []
    for name, order in (("forth", stages), ("back", stages[::-1])):
        prompts = build(tmp_path / name, toy_prompts())
        made = {}
        for stage in order:
            model = build(tmp_path / name, stage)
            made[stage.toy.family] = [files(model), files(build(tmp_path / name, answer, prompts, model))]
        actual.append(made)
    assert actual[0] == actual[1]


def test_one_model_is_open_at_a_time(tmp_path):
    opened = []

    def open_model(artifact, precision, device):
        opened.append((artifact.key, precision, device))
        return object()

    run = LocalRun(Runtime(device="cpu"), open_model)
    one, other = (Artifact(None, key, tmp_path) for key in "ab")
    first = run.model(one, "fp32")
    assert run.model(one, "fp32") is first
    assert run.model(one, "bf16") is not first
    run.model(other, "bf16")
    assert run.opened == "b"
    run.model(one, "bf16")
    assert opened == [("a", "fp32", "cpu"), ("a", "bf16", "cpu"), ("b", "bf16", "cpu"), ("a", "bf16", "cpu")]
    run.close()
    assert run.opened is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"micro_batch": -1}, "runtime.micro_batch=-1"), ({"device": "tpu"}, "runtime.device='tpu'"),
        ({"device": "cuda:x"}, "runtime.device='cuda:x': choose auto, cpu, cuda, cuda:N or mps"),
        ({"heartbeat_seconds": 0.0}, "runtime.heartbeat_seconds"), ({"checkpoint_seconds": -1.0}, "checkpoint_seconds"),
        ({"threads": -1}, "runtime.threads=-1"),
        ({"strategy": Strategy.fsdp2, "device": "mps"}, "runtime.strategy=fsdp2: needs runtime.device=cuda or cpu"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(fields, expected):
    assert any(expected in problem for problem in problems(Runtime(**fields), "runtime"))
    assert not problems(Runtime(device="cuda:1"), "runtime")


@pytest.fixture
def accelerators(monkeypatch):
    """So many devices of CUDA, as far as torch says, and none else."""

    def have(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return have


def device(wanted: str) -> str:
    return LocalRun(Runtime(device=wanted), lambda *given: object()).device


@pytest.mark.parametrize(
    ("count", "wanted", "actual"),
    [(0, "auto", "cpu"), (0, "cpu", "cpu"), (2, "auto", "cuda"), (2, "cuda", "cuda"), (2, "cuda:1", "cuda:1")],
)
def test_the_device_is_the_one_that_was_chosen_or_the_fastest(accelerators, count, wanted, actual):
    accelerators(count)
    assert device(wanted) == actual


@pytest.mark.parametrize(
    ("count", "wanted", "present"),
    [(0, "cuda", "cpu"), (0, "cuda:0", "cpu"), (0, "mps", "cpu"), (2, "cuda:2", "cuda:0, cuda:1, cpu"),
     (2, "mps", "cuda:0, cuda:1, cpu")],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused(accelerators, monkeypatch, count, wanted, present):
    accelerators(count)
    says = f"runtime.device={wanted}: torch finds {present} on this machine; choose one of them or auto"
    with pytest.raises(ConfigError) as caught:
        device(wanted)
    assert str(caught.value).startswith(says)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ConfigError, match=r"on this machine \(CUDA_VISIBLE_DEVICES=3\); choose"):
        device(wanted)
