"""Probabilities of options equal a softmax over the whole vocabulary, whatever the tokenizer makes of an option."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel
from synthdiv.models.options import option_ids, option_probabilities
from tests.models.test_score import CONFIGS, VOCABULARY


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()


def prompts(shared: int, count: int = 9) -> list[list[int]]:
    draw = np.random.default_rng(0)
    head = [0, *draw.integers(3, VOCABULARY, shared).tolist()]
    return [head + draw.integers(3, VOCABULARY, 1 + 3 * n % 7).tolist() for n in range(count)]


def plain(model, prompt: list[int], option: list[int]) -> float:
    with torch.no_grad():
        p = model(torch.tensor([prompt + option])).logits[0].float().log_softmax(-1)
    return float(sum(p[len(prompt) + at - 1, token] for at, token in enumerate(option)).exp())


@pytest.mark.parametrize("options", [[[5], [9], [20]], [[5, 6], [5, 7], [9]]], ids=["one token", "several tokens"])
@pytest.mark.parametrize("shared", [0, 20])
@pytest.mark.parametrize("budget", [1, 120, 10_000])
def test_probabilities_are_those_of_a_softmax_over_the_vocabulary(model, options, shared, budget):
    rows = prompts(shared)
    opened = OpenModel(model, None, "cpu")
    actual = dict(pair for batch in option_probabilities(opened, rows, options, budget) for pair in batch)
    assert sorted(actual) == list(range(len(rows)))
    for at, row in enumerate(rows):
        np.testing.assert_allclose(actual[at], [plain(model, row, option) for option in options], rtol=1e-4, atol=1e-7)
        assert actual[at].sum() <= 1 + 1e-6


def test_batches_that_are_kept_are_left_out_and_change_no_bit(model):
    rows, opened = prompts(20), OpenModel(model, None, "cpu")
    whole = list(option_probabilities(opened, rows, [[5], [9]], 60))
    rest = list(option_probabilities(opened, rows, [[5], [9]], 60, first_batch=2))
    assert len(whole) > 3
    for one, other in zip(whole[2:], rest, strict=True):
        assert [at for at, _ in one] == [at for at, _ in other]
        np.testing.assert_array_equal([p for _, p in one], [p for _, p in other])


TRAINERS = {
    "byte level": (tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False), tokenizers.decoders.ByteLevel()),
    "sentencepiece": (tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()),
    "words": (tokenizers.pre_tokenizers.Whitespace(), None),
}
TEXT = ["Reply with A or B, 1 or 2 or 10, Yes or No .", "### Response:", "### Instruction:", "A B 1 2 3 4 5 10 Yes No"]


@pytest.mark.parametrize("kind", TRAINERS)
@pytest.mark.parametrize("options", [["A", "B"], ["1", "2", "3", "4", "5"], ["Yes", "No"], ["1", "10"]])
@pytest.mark.parametrize("size", [80, 300])
def test_options_have_tokens_of_their_own_for_every_tokenizer(kind, options, size):
    before, decoder = TRAINERS[kind]
    if kind == "words":
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="<unk>"))
        trainer = tokenizers.trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"])
    else:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet() if kind == "byte level" else []
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size + len(alphabet), special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet
        )
    tokenizer.pre_tokenizer = before
    if decoder:
        tokenizer.decoder = decoder
    tokenizer.train_from_iterator(TEXT * 20, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    _, rest = option_ids(Chat(fast), "Reply with A or B", options)
    assert all(rest), "no option is empty"
    assert len({tuple(ids) for ids in rest}) == len(options)
    assert not any(one != other and one == other[: len(one)] for one in rest for other in rest), "none begins another"
    assert fast.unk_token_id not in [token for ids in rest for token in ids]
