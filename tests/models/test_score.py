"""Log-likelihoods equal the plain definition: a softmax over the whole vocabulary, row by row, without padding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.models.load import OpenModel
from synthdiv.models.score import answer_log_likelihoods, batches
from synthdiv.types import DataError

VOCABULARY = 50
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.5,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "llama": transformers.LlamaConfig(**SHAPE),
    "gpt2": transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    ),
    "qwen2": transformers.Qwen2Config(**SHAPE),
    "gemma2": transformers.Gemma2Config(
        **SHAPE, head_dim=8, final_logit_softcapping=2.0, attn_logit_softcapping=5.0, sliding_window=8,
        query_pre_attn_scalar=8,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()
    return OpenModel(made, None, "cpu")


def some_pairs(count=12):
    random = np.random.default_rng(1)
    return [
        (random.integers(3, VOCABULARY, random.integers(1, 20)).tolist(),
         random.integers(3, VOCABULARY, random.integers(1, 12)).tolist())
        for _ in range(count)
    ]  # fmt: skip


def plain(model, prompt, answer):
    with torch.no_grad():
        law = model.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return [law[len(prompt) + place - 1, token].item() for place, token in enumerate(answer)]


@pytest.mark.parametrize("budget", [1, 60, 10**6])
def test_equal_to_the_plain_definition_in_any_batches(model, budget):
    pairs = some_pairs()
    found = answer_log_likelihoods(model, pairs, budget)
    for (prompt, answer), values in zip(pairs, found, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, plain(model, prompt, answer), atol=1e-5)


def test_logits_of_prompts_are_not_computed(model):
    """Their share of a long prompt is the largest part of the work."""
    seen = []
    head = model.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[1]))
    answer_log_likelihoods(model, [([3] * 30, [4, 5]), ([3] * 28, [4])], 10**6)
    hook.remove()
    assert seen == [32 - 27]


def test_what_does_not_fit_is_refused(model):
    with pytest.raises(DataError, match=r"65 tokens.*context is 64"):
        answer_log_likelihoods(model, [([3] * 60, [4] * 5)], 100)
    with pytest.raises(DataError, match="no token"):
        answer_log_likelihoods(model, [([], [4])], 100)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_batches_part_the_rows_within_the_budget(lengths, budget):
    found = batches(lengths, budget)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    flat = [lengths[row] for batch in found for row in batch]
    assert flat == sorted(flat)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=60), st.integers(1, 200))
def test_no_two_neighbours_would_fit_one_batch(lengths, budget):
    """Each batch takes its next row as long as it fits."""
    found = batches(lengths, budget)
    for batch, following in itertools.pairwise(found):
        assert (len(batch) + 1) * lengths[following[0]] > budget
