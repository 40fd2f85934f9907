"""A plan knows from the files of a checkpoint, local or in the hub's cache, whether the recipe fits it."""

from __future__ import annotations

import json

import numpy
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from tests.conftest import FILES, write_files

LAYER, COMMIT = "language_model.model.layers.0", "0123456789" * 4
NAMES = [f"{LAYER}.self_attn.q_proj", f"{LAYER}.mlp.up_proj", "language_model.lm_head", "vision_tower.layers.0.fc1"]
NO = "the student has no c_attn; its linear layers are q_proj, up_proj; all-linear takes them all"
LONG = "train.max_tokens=65: the context of {} is 64 tokens; lower train.max_tokens to that"


@pytest.fixture
def plan(typed, tmp_path, monkeypatch):
    """Plans a training of a multimodal checkpoint in `local` and in the cache of the hub."""
    write_files(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--some--model"
    for folder in (tmp_path / "local", cached / "snapshots" / COMMIT):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"text_config": {"max_position_embeddings": 64}}))
        save_file({f"{name}.weight": numpy.zeros((2, 2)) for name in NAMES}, folder / "model.safetensors")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    words = ["plan", *FILES[:3], "mix=human", "student=checkpoint", "evaluate=short", "train.max_tokens=64"]
    return lambda *more: typed(*words, *more)


@pytest.mark.parametrize("place", ["path=local", "hub=some/model"])
def test_a_recipe_that_does_not_fit_a_checkpoint_at_hand_is_refused(place, plan):
    words = [f"student.checkpoint.{place}", "train=lora", "train.max_tokens=65", "train.lora.targets=[q_proj,c_attn]"]
    lines = plan(*words).err.splitlines()
    assert LONG.format(place.partition("=")[2]) in lines[0]
    assert NO in lines[1]
    assert "targets" not in plan(*words, "train=full").err, "no adapter then"


@pytest.mark.parametrize("targets", ["all-linear", "q_proj", f"model.{LAYER}.mlp.up_proj"])
def test_targets_may_be_names_or_paths_below_another_prefix(targets, plan):
    done = plan("student.checkpoint.path=local", f"train.lora.targets=[{targets}]")
    assert (done.code, done.err) == (0, "")


def test_a_checkpoint_that_is_not_at_hand_or_says_nothing_is_not_checked(plan, tmp_path):
    assert plan("student.checkpoint.hub=other/model", "train.lora.targets=[c_attn]").code == 0
    (tmp_path / "local" / "model.safetensors").write_bytes(b"no header")
    (tmp_path / "local" / "config.json").write_text("{}")
    words = ["student.checkpoint.path=local", "train.max_tokens=9999", "train.lora.targets=[c_attn]"]
    assert plan(*words).code == 0, "the build says what is wrong with the files"
