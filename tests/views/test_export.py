"""A model that leaves the study opens with the libraries of others, and its card says what it was trained on."""

from __future__ import annotations

import dataclasses
import shutil

import peft
import pytest
import torch
import transformers

from synthdiv.core.ledger import CellRecord, Ledger
from synthdiv.core.types import Artifact, ConfigError
from synthdiv.mix.mix import Mix
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import load_tokenizer, peft_warnings_ignored
from synthdiv.study.records import node_record
from synthdiv.train.recipe import Lora, Method
from synthdiv.train.train import Train
from synthdiv.views.export import export
from tests.models.small import build, node_of, opened, tiny_model, toy_prompts


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A ledger with an adapter and a whole model, both trained from a checkpoint in bf16, and an adapter on the first;
    their artifacts by method."""
    root = tmp_path_factory.mktemp("outputs")
    base = shutil.copytree(build(root, tiny_model()).path / "model", root / "base")
    transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    student = Artifact(Checkpoint(str(base), sha256="abc"), "", base)
    prompts = build(root, toy_prompts())
    mix = build(root, Mix(48, real_share=1.0, train_rows=48, shard_rows=4), prompts)
    stages = {
        method.value: Train(method=method, epochs=1, batch_rows=16, lr=1e-2, lora=Lora(r=2))
        for method in (Method.lora, Method.full)
    }
    tuned = {name: build(root, stage, student, mix, prompts) for name, stage in stages.items()}
    tuned["again"] = build(root, dataclasses.replace(stages["lora"], seed=1), tuned["lora"], mix, prompts)
    nodes = {key: node for artifact in tuned.values() for key, node in node_of(artifact).ancestry().items()}
    cell = CellRecord(
        "c", "arm", ["mix=human"], {}, {}, {}, {}, {}, [*nodes], None, prompts.key,
        licences={"student": "llama3.2", "oak": ""},
    )  # fmt: skip
    Ledger(root, "s").add([cell], [node_record(node) for node in nodes.values()])
    return root, tuned


def logits(model):
    with torch.inference_mode():
        return model.float()(torch.tensor([[5, 6, 7, 8]])).logits


@pytest.mark.parametrize(("method", "merge"), [("lora", True), ("lora", False), ("full", True), ("again", True)])
def test_an_exported_model_opens_with_libraries_of_others(study, tmp_path, method, merge, capsys):
    root, tuned = study
    folder = tmp_path / "new" / "folder"
    assert export(root, [f"train/{tuned[method].key[:8]}", str(folder)], merge) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    with peft_warnings_ignored():
        kind = transformers.AutoModelForCausalLM if merge else peft.AutoPeftModelForCausalLM
        model = kind.from_pretrained(folder, dtype="auto")
    assert next(model.parameters()).dtype == torch.bfloat16  # as the checkpoint
    torch.testing.assert_close(logits(model), logits(opened(tuned[method]).model), rtol=0.02, atol=0.02)
    assert (logits(model) != logits(opened(tuned[method].inputs["student"]).model)).any()
    assert load_tokenizer(folder).chat_template == load_tokenizer(root / "base").chat_template
    text = (folder / "README.md").read_text()
    assert text.startswith('---\nlibrary_name: "')
    for part in (
        'license: "llama3.2"',
        "trained on: 48 answers by human",
        "licence of oak: unknown",
        "weights: bfloat16",
    ):
        assert part in text
    assert "synthdiv mix=human sweep=s" in text


@pytest.mark.parametrize(
    ("name", "expected"), [("train/zz", "names no model"), ("train/", "names 3 models"), (None, "takes a node and")]
)
def test_a_node_that_is_not_one_model_is_refused(study, tmp_path, name, expected):
    with pytest.raises(ConfigError, match=expected):
        export(study[0], [name, str(tmp_path / "new")] if name else [], merge=True)


def test_an_adapter_on_an_adapter_leaves_only_merged(study, tmp_path):
    with pytest.raises(ConfigError, match=r"its student is an adapter too.*export it without --adapter"):
        export(study[0], [f"train/{study[1]['again'].key[:8]}", str(tmp_path / "new")], merge=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_not_written_to(study, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        export(study[0], [f"train/{study[1]['full'].key}", str(tmp_path)], merge=True)


def test_an_interrupted_export_leaves_no_folder(study, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("synthdiv.views.export.card", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(study[0], [f"train/{study[1]['full'].key[:8]}", str(tmp_path / "model")], merge=True)
    assert list(tmp_path.iterdir()) == []
