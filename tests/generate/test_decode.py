"""The loop gives the tokens of transformers' own, while rows leave the batch as they finish."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
import transformers

from synthdiv.generate.decode import CHECK_INTERVAL, decode, row_cache
from synthdiv.generate.hf import generate
from synthdiv.generate.spec import Sampling
from synthdiv.generate.stream import RowSampler

END, LIMIT, ROWS, VOCABULARY = 1, 70, 24, 40
COMMON = {
    "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": END, "pad_token_id": 2, "initializer_range": 0.3
}  # fmt: skip
SHAPE = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**COMMON, **SHAPE, num_key_value_heads=4),
    "qwen2": lambda: transformers.Qwen2Config(**COMMON, **SHAPE, num_key_value_heads=2),
    "gpt2": lambda: transformers.GPT2Config(**COMMON, n_embd=16, n_layer=2, n_head=2, n_positions=256),
    "mistral": lambda: transformers.MistralConfig(**COMMON, **SHAPE, num_key_value_heads=2, sliding_window=8),
    "mamba": lambda: transformers.MambaConfig(**COMMON, hidden_size=16, num_hidden_layers=1, state_size=4),
}
KEPT_WHOLE = ("llama", "qwen2", "gpt2")


def model_of(name):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


@pytest.fixture
def prompts():
    """Of 1 to 90 tokens, in no order."""
    chance = random.Random(5)
    lengths = [1, 90, 2, 60] + [chance.randrange(1, 40) for _ in range(ROWS - 4)]
    return [[chance.randrange(3, VOCABULARY) for _ in range(length)] for length in lengths]


def draws(rows, temperature=1.0, top_p=1.0):
    return RowSampler([f"{row:032x}" for row in rows], LIMIT, "cpu", Sampling(temperature, top_p))


def ended(rows_of_ids):
    return [row[: row.index(END) + 1] if END in row else row for row in rows_of_ids]


def decoded(model, prompts, rows, **law):
    with torch.inference_mode():
        result = decode(
            model, row_cache(model), [prompts[row] for row in rows], [END], LIMIT, draws(rows, **law), "cpu"
        )
    return ended(result)


def library(model, prompts, rows, **law):
    opened = SimpleNamespace(model=model, device="cpu")
    with torch.inference_mode():
        return ended(generate(opened, [prompts[row] for row in rows], [END], LIMIT, draws(rows, **law)))


@pytest.mark.parametrize("law", [{}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.0}])
@pytest.mark.parametrize("name", KEPT_WHOLE)
def test_tokens_are_those_of_the_library_in_any_batch(name, law, prompts):
    model = model_of(name)
    whole = decoded(model, prompts, range(ROWS), **law)
    assert library(model, prompts, range(ROWS), **law) == whole
    lengths = {len(row) for row in whole}
    assert law.get("temperature") == 0 or (min(lengths) < 8 and max(lengths) > 40)
    assert [decoded(model, prompts, [row], **law)[0] for row in range(ROWS)] == whole
    assert decoded(model, prompts, range(ROWS - 1, -1, -1), **law) == whole[::-1]


def test_rows_and_padding_leave(prompts):
    """Forward passes see fewer rows as answers end, and no more columns than the longest that is left has."""
    model, seen, caches = model_of("llama"), [], []
    model.register_forward_pre_hook(
        lambda _model, _args, given: caches.append(given["past_key_values"]), with_kwargs=True
    )
    model.register_forward_hook(
        lambda *_: seen.append((len(caches[-1].layers[0].wide[0]), caches[-1].get_seq_length()))
    )
    lengths = [len(row) for row in decoded(model, prompts, range(ROWS))]
    assert len(seen) == max(lengths)
    assert len({rows for rows, _ in seen}) > 4
    for step, (rows, columns) in enumerate(seen):
        left = [row for row in range(ROWS) if lengths[row] > step]
        assert len(left) <= rows < max(len(left) / 0.875, 1.5)
        if rows == len(left):
            assert columns == max(len(prompts[row]) for row in left) + step
    assert seen[-1][1] < 90 + len(seen) - 1, "the columns of the longest prompt went with it"


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - set(KEPT_WHOLE)))
def test_other_caches_take_the_library_s_loop(name, prompts):
    model = model_of(name)
    assert row_cache(model) is None
    prompts = [prompt[:12] for prompt in prompts]
    whole = library(model, prompts, range(8))
    if name != "mamba":  # its states see what stands at the left of a shorter prompt in transformers' own loop
        assert [library(model, prompts, [row])[0] for row in range(8)] == whole


@pytest.mark.parametrize(("share", "look"), [(0.0, 1), (0.9, 1), (0.25, 16), (0.25, 1000)])
def test_when_rows_leave_changes_no_answer(monkeypatch, prompts, share, look):
    """On an accelerator the host looks seldom; what rows say behind their end means nothing."""
    model = model_of("llama")
    wanted = decoded(model, prompts, range(ROWS))
    monkeypatch.setattr("synthdiv.generate.decode.MIN_FINISHED_SHARE", share)
    monkeypatch.setitem(CHECK_INTERVAL, "cpu", look)
    assert decoded(model, prompts, range(ROWS)) == wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's own compiler
def test_a_compiled_model_gives_the_same_tokens(prompts):
    model = model_of("llama")
    wanted = decoded(model, prompts, range(ROWS))
    model.compile(dynamic=True)
    actual = decoded(model, prompts, range(ROWS))
    assert sum(one == other for one, other in zip(actual, wanted, strict=True)) >= ROWS - 1  # last bits may differ
