"""Log-likelihoods equal the plain definition: a softmax over the whole vocabulary, row by row, without padding."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.types import DataError
from synthdiv.measures.temperature import INDEX_OF_ONE, PER_OCTAVE, TEMPERATURES
from synthdiv.models import score
from synthdiv.models.load import OpenModel
from synthdiv.models.score import (
    answer_curves,
    answer_gradients,
    answer_log_likelihoods,
    batches,
    log_probability_curves,
)

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


def plain(model, prompt, answer, temperature=1.0):
    with torch.no_grad():
        law = (model.model(torch.tensor([prompt + answer])).logits[0] / temperature).log_softmax(-1)
    return [law[len(prompt) + place - 1, token].item() for place, token in enumerate(answer)]


@pytest.mark.parametrize("budget", [1, 60, 10**6])
def test_equal_to_the_plain_definition_in_any_batches(model, budget):
    pairs = some_pairs()
    actual = answer_log_likelihoods(model, pairs, budget)
    for (prompt, answer), values in zip(pairs, actual, strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, plain(model, prompt, answer), atol=1e-5)


@pytest.mark.parametrize("budget", [60, 10**6])
def test_curves_are_the_plain_definition_at_every_temperature(model, budget):
    pairs = some_pairs()
    actual = answer_curves(model, pairs, budget)
    for (prompt, answer), values in zip(pairs, actual, strict=True):
        assert values.dtype == np.float32
        wanted = np.transpose([plain(model, prompt, answer, temperature) for temperature in TEMPERATURES])
        np.testing.assert_allclose(values, wanted, rtol=2e-6, atol=2e-5)
    for values, one in zip(actual, answer_log_likelihoods(model, pairs, budget), strict=True):
        assert (values[:, INDEX_OF_ONE] == one).all()


def doubled(_module, _inputs, output):
    output.logits = 2 * output.logits
    return output


def test_doubled_logits_shift_the_curve_by_an_octave(model):
    """What a temperature repairs: its curve is the old one, shifted along the grid."""
    pairs = some_pairs()
    before = answer_curves(model, pairs, 60)
    hook = model.model.register_forward_hook(doubled)
    after = answer_curves(model, pairs, 60)
    hook.remove()
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new[:, PER_OCTAVE:], old[:, :-PER_OCTAVE], rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0, 300.0])
def test_no_logit_is_too_large_or_too_small(spread):
    """Squares of small weights vanish and none overflows, against float64."""
    torch.manual_seed(0)
    logits, targets = spread * torch.randn(40, 500), torch.randint(0, 500, (40,))
    wanted = [
        (logits.double() / temperature).log_softmax(1).gather(1, targets[:, None]) for temperature in TEMPERATURES
    ]
    actual = log_probability_curves(logits, targets)
    np.testing.assert_allclose(actual, torch.cat(wanted, 1), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_only_a_few_tokens_are_measured_at_once(model, step, monkeypatch):
    """A block of (temperatures, tokens, vocabulary) would not fit anywhere."""
    pairs, seen = some_pairs(), []
    wanted = answer_curves(model, pairs, 60)
    monkeypatch.setattr(score, "_tokens_per_step", lambda _logits: step)
    monkeypatch.setattr(
        score, "log_probability_curves", lambda *given: seen.append(len(given[0])) or log_probability_curves(*given)
    )
    actual = score.answer_curves(model, pairs, 60)
    assert max(seen) <= step
    assert sum(seen) == sum(len(answer) for _, answer in pairs)
    for a, b in zip(wanted, actual, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_logits_of_prompts_are_not_computed(model):
    """Their share of a long prompt is the largest part of the work."""
    seen = []
    head = model.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[1]))
    answer_log_likelihoods(model, [([3] * 30, [4, 5]), ([3] * 28, [4])], 10**6)
    hook.remove()
    assert seen == [32 - 27]


def test_pairs_that_do_not_fit_are_rejected(model):
    with pytest.raises(DataError, match=r"65 tokens.*context is 64"):
        answer_log_likelihoods(model, [([3] * 60, [4] * 5)], 100)
    with pytest.raises(DataError, match="no token"):
        answer_log_likelihoods(model, [([], [4])], 100)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_batches_split_the_rows_within_the_budget(lengths, budget):
    actual = batches(lengths, budget)
    assert sorted(row for batch in actual for row in batch) == list(range(len(lengths)))
    for batch in actual:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    flat = [lengths[row] for batch in actual for row in batch]
    assert flat == sorted(flat)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=60), st.integers(1, 200))
def test_batches_are_filled_up_to_the_budget(lengths, budget):
    """Each batch takes its next row as long as it fits."""
    actual = batches(lengths, budget)
    for batch, following in itertools.pairwise(actual):
        assert (len(batch) + 1) * lengths[following[0]] > budget


def plain_gradient(model, prompt, answer):
    """Of the mean NLL of the answer, by all weights, alone and without a mask."""
    made = model.model
    logits = made(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(made.parameters()))])


def test_gradients_are_those_of_each_row_alone(model):
    pairs, pad = some_pairs(), model.model.config.pad_token_id
    gradients = answer_gradients(model, pairs, 0, 0)
    for (prompt, answer), gradient in zip(pairs, gradients, strict=True):
        wanted = plain_gradient(model, prompt, answer)
        assert torch.allclose(torch.from_numpy(gradient), wanted, atol=2e-4 * float(wanted.abs().max()))
    assert model.model.config.pad_token_id == pad
    assert all(weight.grad is None for weight in model.model.parameters())


def test_projected_gradients_keep_products(model):
    """Cosines of whole gradients within the error of a sketch, 1 / sqrt(dimensions), and another with another seed."""
    whole, one, other = (answer_gradients(model, some_pairs(), *how) for how in ((0, 0), (2048, 0), (2048, 1)))

    def cosines(rows):
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return units @ units.T

    assert one.shape == (12, 2048)
    assert np.abs(cosines(one) - cosines(whole)).max() < 5 / math.sqrt(2048)
    assert not np.allclose(one, other)
    assert np.array_equal(one, answer_gradients(model, some_pairs(), 2048, 0))


def test_gradients_of_a_row_beyond_the_context_are_refused(model):
    with pytest.raises(DataError, match="context is 64"):
        answer_gradients(model, [([5] * 60, [6] * 5)], 8, 0)
