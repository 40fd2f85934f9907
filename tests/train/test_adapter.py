"""Adapters fit every architecture, below the language model only; what has no gradient is named at the first step."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import peft
import pytest
import torch
import transformers

from synthdiv.core.fields import problems
from synthdiv.core.runtime import Runtime
from synthdiv.core.strategy import Strategy
from synthdiv.core.types import Artifact, ConfigError, DataError
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import load_tokenizer, load_whole, peft_warnings_ignored
from synthdiv.models.weights import linear_paths
from synthdiv.train.adapter import freeze_other_towers, linear_layers, with_adapter
from synthdiv.train.recipe import Lora, Method
from synthdiv.train.train import Train
from synthdiv.train.tune import save_trained
from synthdiv.train.tune import untrained as untrained_weights
from tests.models.small import build, opened, tiny_model
from tests.train.test_module import blank, trained

SHAPE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 16, "vocab_size": 400, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip


def untrained(kind, **fields):
    torch.manual_seed(0)
    if kind == "gemma3":  # with a tower for pictures, whose layers have the same names
        config = transformers.Gemma3Config(text_config=SHAPE, vision_config=VISION, mm_tokens_per_image=4)
    else:
        config = transformers.AutoConfig.for_model(kind, **SHAPE | fields)
    return transformers.AutoModelForCausalLM.from_config(config)


ATTENTION, MLP = ["k_proj", "o_proj", "q_proj", "v_proj"], ["down_proj", "gate_proj", "up_proj"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("llama", {*ATTENTION, *MLP}), ("gemma3", {*ATTENTION, *MLP}), ("mixtral", {*ATTENTION}),
        ("phi3", {"down_proj", "gate_up_proj", "o_proj", "qkv_proj"}), ("gpt2", {"c_attn", "c_fc", "c_proj"}),
    ],
)  # fmt: skip
def test_all_linear_layers_of_the_language_model_get_an_adapter(kind, names, tmp_path):
    model = untrained(kind)
    model.save_pretrained(tmp_path)
    paths = linear_paths(tmp_path)
    assert {path.rpartition(".")[2] for path in paths} >= names, "a plan knows them from the headers of the weights"
    assert not any("vision" in path or "embed" in path for path in paths)
    model = with_adapter(model, Lora(), 0)
    adapted = [name.partition(".lora_B")[0] for name, _ in model.named_modules() if name.endswith("lora_B")]
    assert {name.rpartition(".")[2] for name in adapted} == names
    assert len(adapted) == 2 * len(names) + 2 * (kind == "gpt2")  # of both layers; GPT-2 has two c_proj in each
    assert not any("vision" in name for name in adapted)


@pytest.mark.parametrize("target", ["q_proj", "self_attn.q_proj", "model.language_model.layers.1.self_attn.q_proj"])
def test_a_target_is_a_name_or_a_path(target):
    model = with_adapter(untrained("gemma3"), Lora(targets=[target]), 0)
    adapted = [name for name, _ in model.named_modules() if name.endswith("q_proj.lora_B")]
    assert len(adapted) == (1 if "layers.1" in target else 2)
    assert not any("vision" in name for name in adapted)


@pytest.mark.parametrize(
    ("kind", "targets", "expected"),
    [
        ("llama", ["q_proj", "query"], r"no query;.*down_proj.*v_proj"), ("llama", [], "no adapter then"),
        ("gpt2", ["q_proj"], r"no q_proj;.*c_attn, c_fc, c_proj"), ("gemma3", ["fc1"], r"no fc1;"),
    ],
)  # fmt: skip
def test_a_wrong_target_lists_the_right_ones(kind, targets, expected):
    """Even beside right ones: PEFT passes over a name it does not find, as long as it finds another."""
    with pytest.raises(DataError, match=expected):
        with_adapter(untrained(kind), Lora(targets=targets), 0)


def test_a_multimodal_student_is_trained_whole_below_its_language_model(tmp_path):
    model = untrained("gemma3")
    freeze_other_towers(model)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trained(tmp_path, model=model)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if "language_model" in name or "lm_head" in name}


def test_a_multimodal_student_is_saved_whole_by_ranks_that_share_its_weights(tmp_path):
    model = untrained("gemma3")
    freeze_other_towers(model)
    frozen = untrained_weights(model)
    parts = {name: weight.detach() + 1 for name, weight in model.named_parameters() if weight.requires_grad}
    for weight in model.parameters():
        weight.data.zero_()  # what is left of them on a rank is no weight
    strategy = SimpleNamespace(weights=lambda: parts, is_global_zero=True)
    shapes = {name: tuple(weight.shape) for name, weight in parts.items()}
    tuning = SimpleNamespace(model=model, strategy=strategy, shapes=shapes)
    save_trained(tuning, Train(method=Method.full), SimpleNamespace(save_pretrained=str), tmp_path, frozen, None)
    actual = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    assert any("vision" in name for name in frozen)
    for name, weight in (frozen | parts).items():
        torch.testing.assert_close(actual[name], weight, rtol=0, atol=0)


def test_weights_without_a_gradient_are_named_at_the_first_step(tmp_path):
    model = blank()
    model.unused = torch.nn.Linear(2, 2)
    with pytest.raises(DataError, match=r"2 trained weights have no gradient.*first unused\.weight"):
        trained(tmp_path, model=model)
    assert not (tmp_path / "metrics.parquet").exists()


def recipe(**fields):
    return Train(**{"method": Method.lora, "epochs": 1, "batch_rows": 16, "lr": 1e-2} | fields)


def logits(model):
    with torch.inference_mode():
        return model(torch.tensor([[5, 6, 7, 8]])).logits


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("llama", {}), ("llama", {"rslora": True}), ("llama", {"dora": True}),
        ("llama", {"modules_to_save": ["embed_tokens"]}), ("tied", {"modules_to_save": ["embed_tokens"]}),
        ("gpt2", {}), ("phi3", {}), ("gemma3", {}), ("mixtral", {}),
    ],
)  # fmt: skip
def test_an_adapter_artifact_opens_by_itself(root, prompts, human, tmp_path, kind, fields):
    """With its own tokenizer and template, and the logits that are evaluated; router logits of experts are ignored."""
    folder = tmp_path / "base"
    more = {"output_router_logits": True, "num_local_experts": 4} if kind == "mixtral" else {}
    untrained(kind.replace("tied", "llama"), tie_word_embeddings=kind == "tied", **more).save_pretrained(folder)
    load_tokenizer(build(root, tiny_model()).path / "model").save_pretrained(folder)
    student = Artifact(Checkpoint(str(folder), sha256=kind, template_kwargs='{"a": 1}'), "0", folder)
    tuned = build(root, recipe(lora=Lora(r=2, **fields)), student, human, prompts)
    config = json.loads((tuned.path / "adapter" / "adapter_config.json").read_text())
    assert config["use_rslora"] == fields.get("rslora", False)
    assert config["use_dora"] == fields.get("dora", False)
    with peft_warnings_ignored():
        base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        alone = peft.PeftModel.from_pretrained(base, tuned.path / "adapter")
    torch.testing.assert_close(logits(alone.eval()), logits(opened(tuned).model))
    assert (logits(alone) != logits(opened(student).model)).any()
    tokenizer = load_tokenizer(tuned.path / "adapter")
    assert tokenizer.chat_template == "{% set a = 1 %}" + load_tokenizer(folder).chat_template


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("llama", {}), ("llama", {"rslora": True, "dora": True}), ("tied", {"modules_to_save": ["embed_tokens"]}),
     ("gpt2", {}), ("mixtral", {})],
)  # fmt: skip
@pytest.mark.parametrize("method", [Method.lora, Method.full])
def test_a_student_that_is_an_adapter_is_trained_as_it_answers(root, prompts, human, tmp_path, kind, fields, method):
    """Its adapter is merged into its base by hand here, by PEFT: the second training begins there, and its adapter is
    applied to that, in fp32 and in bf16."""
    folder, whole = tmp_path / "base", tmp_path / "whole"
    more = {"num_local_experts": 4} if kind == "mixtral" else {}
    untrained(kind.replace("tied", "llama"), tie_word_embeddings=kind == "tied", **more).save_pretrained(folder)
    tokenizer = load_tokenizer(build(root, tiny_model()).path / "model")
    tokenizer.save_pretrained(folder)
    student = Artifact(Checkpoint(str(folder), sha256=kind), "0", folder)
    first = build(root, recipe(lora=Lora(r=2, **fields)), student, human, prompts)
    with peft_warnings_ignored():
        base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        by_hand = peft.PeftModel.from_pretrained(base, first.path / "adapter").merge_and_unload(safe_merge=True)
    by_hand.save_pretrained(whole)
    tokenizer.save_pretrained(whole)
    merged = Artifact(Checkpoint(str(whole), sha256=f"{kind} {fields} whole"), "1", whole)
    torch.testing.assert_close(logits(opened(merged).model), logits(opened(first).model))

    again = recipe(method=method, lora=Lora(r=2), seed=1)
    second, expected = (build(root, again, each, human, prompts) for each in (first, merged))
    for precision in ("fp32", "bf16"):
        assert torch.equal(logits(opened(second, precision).model), logits(opened(expected, precision).model))
    assert (logits(opened(second).model) != logits(opened(first).model)).any()
    assert second.manifest["summary"]["loss"] == expected.manifest["summary"]["loss"]


def test_an_adapter_is_not_merged_into_weights_of_four_bits(root, prompts, student, human):
    first = build(root, recipe(lora=Lora(r=2)), student, human, prompts)
    with pytest.raises(ConfigError, match="is an adapter, which cannot be merged into 4-bit weights"):
        load_whole(first, "bf16", packed=True)


def test_an_adapter_that_reads_whole_weights_is_refused_where_they_are_cut():
    stage = recipe(lora=Lora(dora=True))
    assert not stage.problems_on(Runtime(strategy=Strategy.ddp))
    for strategy in (Strategy.fsdp2, Strategy.deepspeed_stage_3_offload):
        assert "train.lora.dora" in stage.problems_on(Runtime(strategy=strategy))[0]
    assert not replace(stage, method=Method.full).problems_on(Runtime(strategy=Strategy.fsdp2))
    assert not problems(stage, "train")


def test_linear_layers_leave_out_the_output_layer():
    assert not any("lm_head" in path for path in linear_layers(untrained("llama", tie_word_embeddings=False)))


def test_layers_of_a_subclass_are_linear_layers():
    """As Falcon has them."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
    model = transformers.FalconForCausalLM(transformers.FalconConfig(**shape))
    names = {path.rpartition(".")[2] for path in linear_layers(model)}
    assert names == {"dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"}
