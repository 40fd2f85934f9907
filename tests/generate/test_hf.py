"""Answers do not depend on how the work is cut, on what a checkpoint ships, or on a crash in between."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers

from synthdiv.generate.answer import ROWS
from synthdiv.generate.hf import answer_batch, keep_whole_batches, plan
from synthdiv.generate.spec import Sampling
from synthdiv.generate.stage import Generate, Side, read_samples
from synthdiv.models.chat import Chat
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import OpenModel
from synthdiv.prompts.stage import read_prompts
from synthdiv.types import Artifact, DataError
from tests.models.small import build, cpu_run, files, opened, tiny_model

PLAIN, GREEDY = Sampling(1.0, 1.0, 12), Sampling(0.0, 1.0, 12)


@pytest.fixture(scope="module")
def model(root):
    """Long enough in training that some answers end by themselves."""
    return build(root, tiny_model(0, tokens=20000))


@pytest.fixture(scope="module")
def requests(prompts):
    return Generate(source="oak", side=Side.test, samples=2, subset=99).requests(prompts, "model")


def answers(opened_model, requests, size, sampling=PLAIN):
    chat = Chat(opened_model.tokenizer)
    found = {}
    for start in range(0, len(requests), size):
        batch = requests[start : start + size]
        found |= zip(
            ((item.id, item.sample) for item in batch), answer_batch(opened_model, chat, batch, sampling), strict=True
        )
    return found


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("sampling", [PLAIN, Sampling(0.7, 0.9, 12), GREEDY])
def test_rows_are_equal_in_any_batch_and_order(requests, model, architecture, sampling):
    """In fp32 on a CPU; batches of mixed length are padded on the left."""
    ready = opened(model)
    if architecture == "gpt2":
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=len(ready.tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3,
            bos_token_id=0, eos_token_id=1, pad_token_id=2,
        )  # fmt: skip
        ready = OpenModel(transformers.GPT2LMHeadModel(config).eval(), ready.tokenizer, "cpu")
    whole = answers(ready, requests, 32, sampling)
    assert answers(ready, requests, 8, sampling) == whole
    assert answers(ready, requests[::-1], 1, sampling) == whole
    assert len({answer.text for answer in whole.values()}) > 3


def test_greedy_is_that_of_transformers(requests, model):
    ready = opened(model)
    chat = Chat(ready.tokenizer)
    ours = answers(ready, requests[::4], 8, GREEDY)
    for request in requests[::4]:
        ids = torch.tensor([chat.prompt(request.prompt)])
        out = ready.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, eos_token_id=1, pad_token_id=2
        )
        text = ready.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert ours[request.id, 0].text == text


def test_finish_and_token_counts(requests, model):
    """`stop` where the end came, not counted; `length` where the limit came first, after exactly so many."""
    found = answers(opened(model), requests, 8).values()
    assert {answer.finish for answer in found} == {"stop", "length"}
    assert all((answer.response_tokens == 12) == (answer.finish == "length") for answer in found)
    assert all(answer.response_tokens <= 12 and answer.prompt_tokens > 1 for answer in found)


def test_a_prompt_that_leaves_no_room_is_refused(requests, model):
    ready = opened(model)
    chat = Chat(ready.tokenizer)
    longest = max(len(chat.prompt(request.prompt)) for request in requests)
    plan(chat, longest + 12, requests, PLAIN, 100)
    with pytest.raises(DataError, match=rf"{longest} tokens and 12 new.*context of {longest + 11}"):
        plan(chat, longest + 11, requests, PLAIN, 100)


def test_what_a_checkpoint_ships_does_not_leak_into_sampling(requests, model, tmp_path):
    """transformers fills what a passed GenerationConfig leaves open from the model's own."""
    folder = shutil.copytree(model.path / "model", tmp_path / "model")
    shipped = {
        "do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.1, "repetition_penalty": 9.0,
        "min_new_tokens": 12, "no_repeat_ngram_size": 1, "suppress_tokens": [5, 6, 7], "max_time": 0.0001,
    }  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(shipped))
    spoilt = opened(Artifact(Checkpoint(), "0", folder))
    for sampling in (PLAIN, GREEDY):
        assert answers(spoilt, requests, 8, sampling) == answers(opened(model), requests, 8, sampling)


def stage(**fields):
    return Generate(**{"source": "oak", "sampling": PLAIN, "rows": 48, "shard_rows": 4, "batch_tokens": 70} | fields)


def rows(artifact):
    return {(row.id, row.sample): row for row in read_samples(artifact.path)}


def test_shards_part_the_prompts_and_their_rows_are_those_of_any_other_cut(root, prompts, model):
    small = [rows(build(root, stage(shard=shard), prompts, model)) for shard in range(12)]
    ids = [key[0] for shard in small for key in shard]
    assert sorted(ids) == sorted(row["id"] for row in read_prompts(prompts, "train"))
    assert len({row.response for shard in small for row in shard.values()}) > 12
    large = rows(build(root, stage(rows=24, batch_tokens=4000), prompts, model))
    assert large.keys() <= small[0].keys()
    assert all(small[0][key] == row for key, row in large.items())


def test_the_first_test_prompts_get_several_samples(root, prompts, model):
    found = rows(build(root, stage(side=Side.test, samples=3, subset=5), prompts, model))
    order = [row["id"] for row in read_prompts(prompts, "test")]
    assert sorted(found) == sorted(
        [(key, sample) for key in order[:5] for sample in range(3)] + [(key, 0) for key in order[5:]]
    )
    assert all(row.temperature == 1 and row.model == model.key and row.source == "oak" for row in found.values())


def test_two_sources_with_one_checkpoint_do_not_speak_in_unison(root, prompts, model):
    one, other = (rows(build(root, stage(source=name), prompts, model)) for name in ("oak", "elm"))
    assert all(one[key].response != other[key].response for key in one)


@pytest.fixture(scope="module")
def finished(root, prompts, model):
    return build(root, stage(side=Side.test), prompts, model)


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.37, 0.5, 0.83, 0.999, 1])
def test_a_build_that_was_cut_anywhere_ends_in_the_same_bytes(finished, prompts, model, tmp_path, share):
    whole = files(finished)[ROWS]
    (tmp_path / ROWS).write_bytes(whole[: int(len(whole) * share)])
    finished.stage.build((prompts, model), tmp_path, cpu_run())
    assert (tmp_path / ROWS).read_bytes() == whole
    assert finished.manifest["summary"]["batches"] > 3


def test_a_partial_keeps_whole_batches_only(tmp_path):
    lines = [f'{{"row": {number}, "text": "a\u2028b"}}\n'.encode() for number in range(6)]
    file = tmp_path / ROWS
    assert keep_whole_batches(file, [2, 3, 1]) == 0
    for count, batches, kept in ((0, 0, 0), (1, 0, 0), (2, 1, 2), (4, 1, 2), (5, 2, 5), (6, 3, 6)):
        file.write_bytes(b"".join(lines[:count]) + b'{"row": 9')
        assert keep_whole_batches(file, [2, 3, 1]) == batches
        assert file.read_bytes() == b"".join(lines[:kept])
