"""A checkpoint is known by its content: pickles are refused, a pin is held, a hub commit comes from the local cache."""

from __future__ import annotations

import shutil

import pytest

from synthdiv.core.fields import problems
from synthdiv.core.resolver import Resolver, Unresolved
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError
from synthdiv.models.checkpoint import Checkpoint


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"weights")
    return made


def resolved(tmp_path, **fields):
    stage = Checkpoint(**fields)
    stage.resolve(Resolver(tmp_path / "outputs"))
    return stage


def test_the_same_content_elsewhere_is_the_same_checkpoint(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "copy")
    one, other = (resolved(tmp_path, path=str(tmp_path / name)) for name in ("model", "copy"))
    assert Node(one).key == Node(other).key


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_every_file_counts(tmp_path, folder, name):
    before = resolved(tmp_path, path=str(folder)).sha256
    (folder / name).write_bytes(b"other and longer content")
    assert resolved(tmp_path, path=str(folder)).sha256 != before


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_a_pickle_is_refused_by_name(tmp_path, folder, pickle):
    (folder / "model.safetensors").rename(folder / pickle)
    with pytest.raises(ConfigError, match=rf"{pickle}.*safetensors"):
        resolved(tmp_path, path=str(folder))


@pytest.mark.parametrize(
    ("gone", "expected"), [("config.json", "config.json is missing"), ("model.safetensors", "no weights")]
)
def test_missing_files_are_named(tmp_path, folder, gone, expected):
    (folder / gone).unlink()
    with pytest.raises(ConfigError, match=expected):
        resolved(tmp_path, path=str(folder))


def test_a_pinned_hash_is_checked(tmp_path, folder):
    actual = resolved(tmp_path, path=str(folder)).sha256
    assert resolved(tmp_path, path=str(folder), sha256=actual).sha256 == actual
    with pytest.raises(ConfigError, match=r"checkpoint\.sha256"):
        resolved(tmp_path, path=str(folder), sha256="0" * 64)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a b": 1}', '{"messages": []}'])
def test_variables_of_a_template_are_a_json_object_of_new_names(text):
    assert "template_kwargs" in problems(Checkpoint("a", template_kwargs=text), "checkpoint")[0]


def test_the_same_variables_are_the_same_checkpoint(tmp_path, folder):
    texts = '{"b":1,"a":[2]}', '{"a": [2], "b": 1}'
    one, other = (Node(resolved(tmp_path, path=str(folder), template_kwargs=text)).key for text in texts)
    assert one == other != Node(resolved(tmp_path, path=str(folder))).key


def test_path_or_hub_and_not_both():
    assert problems(Checkpoint(), "checkpoint")
    assert problems(Checkpoint(path="a", hub="b/c"), "checkpoint")
    assert not problems(Checkpoint(hub="b/c"), "checkpoint")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub cache that knows two revisions of `someone/model`."""
    repo = tmp_path / "hub" / "models--someone--model"
    for name, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        (repo / "refs").mkdir(parents=True, exist_ok=True)
        (repo / "refs" / name).write_text(commit)
        (repo / "snapshots" / commit).mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return repo


def test_a_hub_commit_comes_from_the_local_cache_and_is_the_identity(tmp_path, cache):
    keys = {
        Node(resolved(tmp_path, hub="someone/model", **fields)).key
        for fields in ({}, {"revision": "main"}, {"revision": "a" * 40}, {"commit": "a" * 40})
    }
    assert len(keys) == 1
    assert resolved(tmp_path, hub="someone/model", revision="v2").commit == "b" * 40


def test_offline_an_unknown_revision_stays_unresolved(tmp_path, cache):
    with pytest.raises(Unresolved, match="someone/model"):
        resolved(tmp_path, hub="someone/model", revision="v3")
