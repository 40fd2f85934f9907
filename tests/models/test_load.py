"""What is opened is what was saved: adapters on their base, no code of others, no weights out of thin air."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import transformers

from synthdiv.core.resolver import Resolver
from synthdiv.core.types import Artifact, ConfigError, DataError
from synthdiv.mix.mix import Mix
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import end_ids, placed, tokenizer_of
from synthdiv.train.pretrain import TEMPLATE
from synthdiv.train.recipe import Method
from synthdiv.train.train import Train
from tests.models.small import build, opened, tiny_model, toy_prompts

FIELDS_SHOWN = ("checkpoint.chat_template", "checkpoint.template_kwargs")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return build(tmp_path_factory.mktemp("store"), tiny_model())


@pytest.fixture
def copy(student, tmp_path):
    """A copy of the student as a folder of its own, to be spoilt."""
    return Artifact(Checkpoint(), "0", shutil.copytree(student.path / "model", tmp_path / "model"))


def logits(model, ids=(5, 6, 7, 8)):
    with torch.inference_mode():
        return model.model(torch.tensor([ids])).logits


def test_a_checkpoint_opens_as_the_model_it_was_copied_from(student, copy):
    torch.testing.assert_close(logits(opened(copy)), logits(opened(student)), rtol=0, atol=0)
    assert opened(student).context == 256
    assert opened(student, "bf16").model.dtype == torch.bfloat16


@pytest.fixture(scope="module")
def adapted(student):
    root = student.path.parents[2]
    prompts = build(root, toy_prompts())
    mix = build(root, Mix(48, real_share=1.0, train_rows=48, shard_rows=4), prompts)
    return build(root, Train(method=Method.lora, epochs=1, batch_rows=16, lr=1e-2), student, mix, prompts)


def test_an_adapter_opens_on_the_base_it_was_trained_on(student, adapted):
    base, tuned = opened(student), opened(adapted)
    assert not torch.equal(logits(base), logits(tuned))
    with tuned.model.disable_adapter():
        torch.testing.assert_close(logits(tuned), logits(base), rtol=0, atol=0)


@pytest.mark.parametrize("change", ["names of another model", "untrained"])
def test_an_adapter_that_changes_no_logit_is_refused(adapted, tmp_path, change):
    """PEFT skips weights whose names it does not know, with a warning, and the base alone would answer."""
    folder = shutil.copytree(adapted.path, tmp_path / "train") / "adapter"
    file = folder / "adapter_model.safetensors"
    weights = safetensors.torch.load_file(file)
    if change == "untrained":
        weights = {name: weight * (0 if "lora_B" in name else 1) for name, weight in weights.items()}
    else:
        weights = {name.replace("layers", "blocks"): weight for name, weight in weights.items()}
    safetensors.torch.save_file(weights, file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(DataError, match="changes no logit"):
            opened(Artifact(adapted.stage, adapted.key, folder.parent, adapted.inputs))


def test_an_adapter_has_no_local_path_and_no_base_weight(student, adapted):
    from safetensors import safe_open

    assert not any(str(student.path.parents[2]).encode() in file.read_bytes() for file in adapted.path.rglob("*.*"))
    config = json.loads((adapted.path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    with safe_open(adapted.path / "adapter" / "adapter_model.safetensors", "pt") as weights:
        assert all("lora_" in name for name in weights.keys())  # noqa: SIM118  # not a mapping


def test_a_tokenizer_larger_than_its_model_is_refused(copy):
    tokenizer = transformers.AutoTokenizer.from_pretrained(copy.path)
    tokenizer.add_tokens([f"new{i}" for i in range(10)])
    tokenizer.save_pretrained(copy.path)
    with pytest.raises(DataError, match="410 tokens and the model 400"):
        opened(copy)


def test_code_of_a_checkpoint_never_runs(copy, tmp_path):
    """Neither beside a known model type nor for an unknown one."""
    ran = tmp_path / "ran"
    (copy.path / "evil.py").write_text(
        f"open({str(ran)!r}, 'w')\nfrom transformers import LlamaConfig as C, LlamaForCausalLM as M\n"
    )
    file = copy.path / "config.json"
    config = json.loads(file.read_text()) | {"auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    file.write_text(json.dumps(config))
    opened(copy)
    file.write_text(json.dumps(config | {"model_type": "evil"}))
    with pytest.raises(DataError, match="causal language model"):
        opened(copy)
    assert not ran.exists()


def test_a_chat_template_and_its_variables_come_with_the_checkpoint(copy):
    template = "{{ messages[0]['content'] }}{% if loud %}!{% endif %}{{ marks[0] if marks else '' }}"
    stage = Checkpoint(chat_template=template, template_kwargs='{"loud": true, "marks": ["?%}\\"{{"]}')
    (tokenizer, plain) = (tokenizer_of(Artifact(each, "0", copy.path)) for each in (stage, Checkpoint()))
    assert tokenizer.apply_chat_template([{"content": "ask"}], tokenize=False) == 'ask!?%}"{{'
    assert plain.chat_template == TEMPLATE
    tokenizer.save_pretrained(copy.path)  # as a student that was tuned saves it
    assert tokenizer_of(copy).chat_template == tokenizer.chat_template


@pytest.mark.parametrize("spoil", ["not JSON", "[]", '{"model_type": "llama", "hidden_size": "x"}', "{}", "[" * 9999])
def test_an_odd_config_is_named(copy, spoil):
    (copy.path / "config.json").write_text(spoil)
    with pytest.raises(DataError, match=f"{copy.path}.*causal language model"):
        opened(copy)


@pytest.mark.parametrize("file", ["generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "spoil", [b"not JSON", b"[]", b"[" * 9999, b"\xff", b'{"eos_token_id": "a", "tokenizer_class": 3}']
)
def test_an_odd_file_beside_the_weights_is_named(copy, file, spoil):
    """Whoever reads it: the tokens of a mix are counted before the weights are opened."""
    (copy.path / file).write_bytes(spoil)
    with pytest.raises(DataError, match=f"{copy.path}.*transformers cannot open this as"):
        _ = tokenizer_of(copy), end_ids(copy.path)


def test_damaged_weights_are_named(copy):
    file = copy.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{file}: is truncated or corrupt"):
        opened(copy)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named(copy, value):
    weights = safetensors.torch.load_file(copy.path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name][0, 0] = value
    safetensors.torch.save_file(weights, copy.path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=f"{name} has values that are not finite; the checkpoint"):
        opened(copy)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("adapter_config.json", "{}", "adapter_config.json lies beside full weights"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../b.safetensors"}}', "names ../b.safetensors"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "/b.safetensors"}}', "names /b.safetensors"),
        ("model.safetensors.index.json", '{"weight_map": {"a": ".b/c.safetensors"}}', "names .b/c.safetensors"),
        ("model.safetensors.index.json", '{"weight_map": []}', "is no index of weights"),
        ("model.safetensors.index.json", "[" * 9999, "is no index of weights"),
    ],
)
def test_nothing_outside_the_fingerprint_is_loaded(copy, tmp_path, file, content, expected):
    (copy.path / file).write_text(content)
    with pytest.raises(DataError, match=expected):
        opened(copy)
    with pytest.raises(ConfigError, match=expected):
        Checkpoint(str(copy.path)).resolve(Resolver(tmp_path))


def test_pickled_weights_are_not_opened(copy):
    (copy.path / "model.safetensors").unlink()
    torch.save({}, copy.path / "pytorch_model.bin")
    with pytest.raises(DataError, match="causal language model"):
        opened(copy)


def test_a_model_without_its_output_layer_is_refused(copy):
    """transformers would make one up."""
    file = copy.path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": False}))
    with pytest.raises(DataError, match=r"lacks 1 weights.*lm_head"):
        opened(copy)


@pytest.mark.parametrize(("memory", "devices", "spread"), [(10**4, 2, True), (10**9, 2, False), (10**4, 1, False)])
def test_a_model_that_does_not_fit_on_one_of_several_accelerators_is_laid_on_all(
    adapted, monkeypatch, memory, devices, spread
):
    """The devices are pretended; the decision, the layers that stay whole, and the adapter are real."""
    import accelerate

    model = opened(adapted).model
    expected, asked = logits(model), []

    def map_of(model, no_split_module_classes):
        asked.append(no_split_module_classes)
        return {"": "cpu"}

    monkeypatch.setattr(accelerate, "infer_auto_device_map", map_of)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))
    monkeypatch.setattr(type(model), "to", lambda self, device: self)
    laid = placed(model, "cuda")
    assert asked == ([["LlamaDecoderLayer"]] if spread else [])
    torch.testing.assert_close(logits(laid), expected, rtol=0, atol=0)
