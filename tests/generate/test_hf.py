"""Answers do not depend on how the work is cut, on what a checkpoint ships, or on a crash in between."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch
import transformers

from synthdiv.core.types import Artifact
from synthdiv.generate.answer import ROWS
from synthdiv.generate.generate import Generate, Split, read_log, read_samples
from synthdiv.generate.hf import answer_batch, keep_whole_batches, tokenize_requests
from synthdiv.generate.spec import Sampling
from synthdiv.models.chat import Chat
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import OpenModel, peft_warnings_ignored
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.train.pretrain import TEMPLATE
from tests.models.small import build, cpu_run, files, opened, tiny_model

FIELDS_SHOWN = ("generate.sampling.overlong",)

PLAIN, GREEDY = Sampling(1.0, 1.0, 12), Sampling(0.0, 1.0, 12)


@pytest.fixture(scope="module")
def model(root):
    """Long enough in training that some answers end by themselves."""
    return build(root, tiny_model(0, tokens=20000))


@pytest.fixture(scope="module")
def requests(prompts):
    return Generate(source="oak", split=Split.test, samples=2, subset=99).requests(prompts, "model")


def answers(opened_model, requests, size, sampling=PLAIN):
    chat = Chat(opened_model.tokenizer, ends=opened_model.ends)
    actual = {}
    for start in range(0, len(requests), size):
        batch, _ = tokenize_requests(chat, opened_model.context, requests[start : start + size], sampling)
        keys = ((item.id, item.sample) for item, _ in batch)
        actual |= zip(keys, answer_batch(opened_model, chat, batch, sampling), strict=True)
    return actual


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


def test_an_answer_ends_before_a_stop_string(requests, model):
    ready = opened(model)
    whole = answers(ready, requests, 32)
    words = sorted({answer.text.split()[1] for answer in whole.values() if len(answer.text.split()) > 2})
    stops = [words[0], words[-1]]
    cut = answers(ready, requests, 8, Sampling(1.0, 1.0, 12, stop=stops))
    for key, answer in whole.items():
        place = min((answer.text.find(stop) for stop in stops if stop in answer.text), default=None)
        assert cut[key].text == answer.text[:place]
        assert place is None or (cut[key].finish, cut[key].response_tokens <= answer.response_tokens) == ("stop", True)
    assert cut != whole


def test_finish_and_token_counts(requests, model):
    """`stop` where the end came, not counted; `length` where the limit came first, after exactly so many."""
    actual = answers(opened(model), requests, 8).values()
    assert {answer.finish for answer in actual} == {"stop", "length"}
    assert all((answer.response_tokens == 12) == (answer.finish == "length") for answer in actual)
    assert all(answer.response_tokens <= 12 and answer.prompt_tokens > 1 for answer in actual)


class Tight:
    """A run on a device that holds `rows` rows at once, and not one more."""

    def __init__(self, rows, error):
        self.run, self.rows, self.error, self.messages, self.tried = cpu_run(), rows, error, [], []
        self.run.log = self.messages.append
        self.really, self.run.model = self.run.model, self.model

    def model(self, *given):
        opened = self.really(*given)
        if not self.tried:
            opened.model.register_forward_pre_hook(self.forward, with_kwargs=True)
        return opened

    def forward(self, _model, _args, given):
        self.tried.append(len(given["input_ids"]))
        if self.tried[-1] > self.rows:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_batches_that_do_not_fit_are_split(root, prompts, model, tmp_path, error):
    fields = {"shard_rows": 16, "batch_tokens": 1000}
    wanted = files(build(root, stage(**fields), prompts, model))[ROWS]
    tight = Tight(3, error)
    facts = stage(**fields).build({"prompts": prompts, "model": model}, tmp_path, tight.run)
    assert (tmp_path / ROWS).read_bytes() == wanted
    sizes = {line["batch"]: line["batch_rows"] for line in read_log(tmp_path)}
    assert facts["halved_batches"] == sum(size > 3 for size in sizes.values()) > 0
    assert len(tight.messages) == 1
    assert "a batch of" in tight.messages[0]
    assert "batch_tokens" in tight.messages[0]
    assert len([rows for rows in tight.tried if rows > 3]) < 4, "what was learnt holds for the batches that follow"


@pytest.mark.parametrize(("rows", "error"), [(0, torch.OutOfMemoryError("none left")), (3, RuntimeError("a bug"))])
def test_a_single_row_that_does_not_fit_and_other_errors_are_raised(prompts, model, tmp_path, rows, error):
    with pytest.raises(type(error), match=str(error)):
        stage(shard_rows=16, batch_tokens=1000).build(
            {"prompts": prompts, "model": model}, tmp_path, Tight(rows, error).run
        )


def test_the_log_tells_of_batches_and_the_rows_do_not(root, prompts, model):
    begun = time.time()
    built = build(root, stage(split=Split.test, batch_tokens=150), prompts, model)
    log, actual = read_log(built.path), read_samples(built.path)
    assert [(line["id"], line["sample"]) for line in log] == [(row.id, row.sample) for row in actual]
    assert [line["batch"] for line in log] == sorted(line["batch"] for line in log)
    for line in log:
        assert line["batch_rows"] == sum(other["batch"] == line["batch"] for other in log)
        assert begun - 3600 < line["at"] < time.time() + 1
        assert 0 <= line["seconds"] < 600
    assert built.manifest["summary"]["batches"] == log[-1]["batch"] + 1
    assert built.manifest["summary"]["halved_batches"] == built.manifest["summary"]["truncated"] == 0


def test_an_adapter_answers_like_its_merged_model(requests, model):
    import peft

    ready = opened(model)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    with peft_warnings_ignored():
        ready = OpenModel(peft.get_peft_model(ready.model, config).eval(), ready.tokenizer, "cpu")
    actual = answers(ready, requests, 8)
    assert actual != answers(opened(model), requests, 8)
    merged = OpenModel(ready.model.merge_and_unload(), ready.tokenizer, "cpu")
    same = answers(merged, requests, 8)
    assert sum(actual[key] == same[key] for key in actual) >= len(actual) - 1  # the last bits of logits differ


def test_generation_defaults_of_a_checkpoint_are_ignored(requests, model, tmp_path):
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


@pytest.mark.parametrize(
    ("file", "listed"),
    [("generation_config.json", list), ("generation_config.json", lambda ends: ends[0]), ("config.json", list)],
)
def test_every_end_that_a_checkpoint_lists_ends_an_answer(requests, model, tmp_path, file, listed):
    """Qwen ships two, and the tokenizer has one. Some checkpoints have them in config.json alone."""
    folder = shutil.copytree(model.path / "model", tmp_path / "model")
    before = answers(opened(model), requests, 8)
    (first, *_), *_ = opened(model).tokenizer([answer.text for answer in before.values()])["input_ids"]
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / file).read_text()) if file == "config.json" else {}
    (folder / file).write_text(json.dumps(config | {"eos_token_id": listed([first, 1])}))
    ended = answers(opened(Artifact(Checkpoint(), "0", folder)), requests, 8)
    (answer, *_), after = ended.values(), opened(model).tokenizer([answer.text for answer in ended.values()])
    assert (answer.text, answer.finish) == ("", "stop")
    assert not any(first in ids for ids in after["input_ids"])


def test_thinking_is_kept_beside_the_answer(root, prompts, model, tmp_path):
    folder = shutil.copytree(model.path / "model", tmp_path / "model")
    template = TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
    thinking = Artifact(Checkpoint(str(folder), chat_template=template), "0", folder)
    made = build(root, stage(), prompts, thinking)
    assert {row.response for row in read_samples(made.path)} == {""}
    assert all(line["thinking"] for line in read_log(made.path))


def stage(**fields):
    return Generate(**{"source": "oak", "sampling": PLAIN, "rows": 48, "shard_rows": 4, "batch_tokens": 70} | fields)


def rows(artifact):
    return {(row.id, row.sample): row for row in read_samples(artifact.path)}


def test_shards_partition_the_prompts_and_rows_do_not_depend_on_the_shards(root, prompts, model):
    small = [rows(build(root, stage(shard=shard), prompts, model)) for shard in range(12)]
    ids = [key[0] for shard in small for key in shard]
    assert sorted(ids) == sorted(row["id"] for row in read_prompts(prompts, "train"))
    assert len({row.response for shard in small for row in shard.values()}) > 12
    large = rows(build(root, stage(rows=24, batch_tokens=4000), prompts, model))
    assert large.keys() <= small[0].keys()
    assert all(small[0][key] == row for key, row in large.items())


def test_the_first_test_prompts_get_several_samples(root, prompts, model):
    actual = rows(build(root, stage(split=Split.test, samples=3, subset=5), prompts, model))
    order = [row["id"] for row in read_prompts(prompts, "test")]
    assert sorted(actual) == sorted(
        [(key, sample) for key in order[:5] for sample in range(3)] + [(key, 0) for key in order[5:]]
    )
    assert all(row.temperature == 1 and row.model == model.key and row.source == "oak" for row in actual.values())


def test_two_sources_with_one_checkpoint_answer_differently(root, prompts, model):
    one, other = (rows(build(root, stage(source=name), prompts, model)) for name in ("oak", "elm"))
    assert all(one[key].response != other[key].response for key in one)


@pytest.fixture(scope="module")
def finished(root, prompts, model):
    return build(root, stage(split=Split.test), prompts, model)


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.37, 0.5, 0.83, 0.999, 1])
def test_a_build_that_was_cut_anywhere_ends_in_the_same_bytes(finished, prompts, model, tmp_path, share):
    whole = files(finished)[ROWS]
    (tmp_path / ROWS).write_bytes(whole[: int(len(whole) * share)])
    finished.stage.build({"prompts": prompts, "model": model}, tmp_path, cpu_run())
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
