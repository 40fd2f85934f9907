"""The loss of supervised tokens alone, a part of the logits at a time, is that of all logits at once."""

from __future__ import annotations

import gc

import pytest
import torch
import transformers

from synthdiv.models.load import peft_warnings_ignored
from synthdiv.train import loss as module
from synthdiv.train.adapter import with_adapter
from synthdiv.train.loss import loss_sum, parted
from synthdiv.train.recipe import Lora
from synthdiv.train.rows import Row, Rows
from tests.models import small

SHAPE = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = SHAPE | {"intermediate_size": 32, "num_key_value_heads": 2, "max_position_embeddings": 64}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "resid_pdrop": 0.0}
KINDS = {
    "llama": (transformers.LlamaConfig, LLAMA),
    "tied": (transformers.LlamaConfig, LLAMA | {"tie_word_embeddings": True}),
    "qwen2": (transformers.Qwen2Config, LLAMA),
    "qwen3": (transformers.Qwen3Config, LLAMA | {"head_dim": 8}),
    "gpt2": (transformers.GPT2Config, GPT2 | {"embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "phi": (transformers.PhiConfig, LLAMA),  # its output layer has a bias
}
PLAIN = {
    "gemma2": (transformers.Gemma2Config, LLAMA | {"head_dim": 8, "final_logit_softcapping": 3.0}),
    "cohere": (transformers.CohereConfig, LLAMA | {"logit_scale": 0.25}),
    "granite": (transformers.GraniteConfig, LLAMA | {"logits_scaling": 2.0}),
}
DEVICE = "cpu"


def made(name, seed=0):
    kind, shape = (KINDS | PLAIN)[name]
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(kind(**shape, **IDS))
    for weight in model.parameters():  # some start as zeros or ones, which would show nothing
        torch.nn.init.normal_(weight, std=0.2)
    return model


def some_rows(count=7):
    return small.some_rows(count, 50, "ab", least=0)


def by_hand(model, rows):
    """The sum of each row's supervised tokens by the model's own logits, one row at a time."""
    total = 0.0
    for row in rows:
        law = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        total = total - sum(law[place - 1, row.ids[place]] for place in range(row.first, len(row.ids)))
    return total


def gradients(model, total):
    model.zero_grad()
    (total / 10).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def batch_of(rows, **more):
    return Rows(rows, 2, **more).tensors([[number] for number in range(len(rows))], DEVICE)


def same(model, rows, batch):
    wanted, actual = by_hand(model, rows), loss_sum(model, batch)
    assert actual[0].item() == pytest.approx(wanted.item(), rel=1e-5)
    assert actual[1].sum().item() == pytest.approx(wanted.item(), rel=1e-5)
    assert not actual[1].requires_grad
    one, other = gradients(model, wanted), gradients(model, actual[0])
    assert set(one) == set(other)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, at=name: f"{at}: {text}")


@pytest.mark.parametrize("held", [1, 50 * 5, 10**6], ids=["each", "five", "all"])
@pytest.mark.parametrize("name", KINDS)
def test_loss_and_gradients_are_those_of_all_logits(monkeypatch, name, held):
    monkeypatch.setitem(module.LOGITS, DEVICE, held)
    model = made(name)
    assert parted(model) is not None
    rows = some_rows()
    same(model, rows, batch_of(rows))


@pytest.mark.parametrize("name", PLAIN)
def test_logits_that_are_scaled_or_capped_are_the_model_s_own(name):
    model, rows = made(name), some_rows()
    assert parted(model) is None
    same(model, rows, batch_of(rows))


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["q_proj", "lm_head"]])
def test_an_adapter_is_in_both(targets):
    """One on the output layer is computed by that layer."""
    model = made("llama")
    if "lm_head" in targets:
        import peft

        with peft_warnings_ignored():
            model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets))
    else:
        model = with_adapter(model, Lora(r=4, dropout=0.0, targets=targets), 0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    assert (parted(model) is None) == ("lm_head" in targets)
    rows = some_rows()
    same(model, rows, batch_of(rows))
    frozen = [name for name, weight in model.named_parameters() if weight.grad is not None and "lora_" not in name]
    assert not frozen


def test_a_watched_output_layer_is_computed_by_its_model():
    model = made("llama")
    model.lm_head.register_forward_pre_hook(lambda *_: None)
    assert parted(model) is None


def watch(monkeypatch):
    """How many tokens each call of the output layer has logits of."""
    linear, seen = torch.nn.functional.linear, []

    def watched(value, weight, bias=None):
        if len(weight) == 50:
            seen.append(value[..., 0].numel())
        return linear(value, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    return seen


def test_logits_of_the_prompt_are_never_computed(monkeypatch):
    """Nor are all others there at once."""
    monkeypatch.setitem(module.LOGITS, DEVICE, 4 * 50)
    model = made("llama")
    batch = batch_of([Row(tuple(range(3, 33)), 20)])
    parted(model)
    seen = watch(monkeypatch)
    loss_sum(model, batch)[0].backward()
    assert seen == [4, 4, 2]


@pytest.mark.parametrize("name", PLAIN)
def test_nor_are_those_that_are_scaled_or_capped(monkeypatch, name):
    """Of several rows: no column where none of them is supervised, between packed rows either."""
    model = made(name)
    rows = [Row(tuple(range(3, 33)), 20), Row(tuple(range(10, 32)), 15), Row(tuple(range(5, 15)), 5)]
    apart, packed = batch_of(rows[:2]), Rows(rows, 2, 60).tensors([[0, 1]], DEVICE)
    parted(model)
    seen = watch(monkeypatch)
    loss_sum(model, apart)
    loss_sum(model, packed)
    assert seen == [2 * 15, 10 + 7]


def test_a_model_that_gives_all_logits_whatever_is_asked_has_the_same_loss(monkeypatch):
    model, rows = made("gemma2"), some_rows()
    batch, forward = batch_of(rows), model.forward
    wanted = loss_sum(model, batch)[1]
    monkeypatch.setattr(model, "forward", lambda logits_to_keep, **given: forward(**given))
    torch.testing.assert_close(loss_sum(model, batch)[1], wanted)


def test_a_probe_leaves_the_model_as_it_was_and_holds_none():
    model = made("gpt2").train()
    parted(model)
    assert model.training
    gc.collect()  # models of other tests
    known = len(module.SPLITS)
    del model
    gc.collect()
    assert len(module.SPLITS) == known - 1


def test_mixed_precision_gives_the_loss_of_plain_autocast():
    model, rows = made("llama"), some_rows()
    with torch.autocast("cpu", torch.bfloat16):
        wanted, actual = by_hand(model, rows), loss_sum(model, batch_of(rows))[0]
    assert actual.item() == pytest.approx(wanted.item(), rel=1e-2)
    one, other = gradients(model, wanted), gradients(model, actual)
    for name, value in one.items():
        assert (other[name] - value).norm() < 0.05 * value.norm(), name
