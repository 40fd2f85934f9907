"""Prompts that are too long, empty or unusual."""

from __future__ import annotations

import time

import pytest

from synthdiv.core.types import Artifact, DataError
from synthdiv.evaluate.judge_prompts import JudgePrompts
from synthdiv.generate.answer import Request, Shard
from synthdiv.generate.generate import Generate, Split, read_samples
from synthdiv.generate.hf import answer_batch, failed_answers, tokenize_requests, tokenize_shard
from synthdiv.generate.spec import Backend, LongPrompt, Sampling
from synthdiv.models.chat import Chat
from tests.models.small import build, cpu_run, opened, tiny_model

PLAIN = Sampling(1.0, 1.0, 12)


@pytest.fixture(scope="module")
def model(root):
    return build(root, tiny_model(0))


@pytest.fixture(scope="module")
def requests(prompts):
    return Generate(source="oak", split=Split.test, samples=2, subset=99).requests(prompts, "model")


def answers(ready, requests):
    chat = Chat(ready.tokenizer)
    return answer_batch(ready, chat, tokenize_requests(chat, ready.context, requests, PLAIN)[0], PLAIN)


def test_a_prompt_that_leaves_no_room_is_refused(requests, model):
    chat = Chat(opened(model).tokenizer)
    lengths = {request.id: len(chat.prompt(request.prompt)) for request in requests}
    longest = max(lengths.values())
    assert tokenize_requests(chat, longest + 12, requests, PLAIN)[1] == 0
    first = next(name for name, length in lengths.items() if length == longest)
    wanted = rf"prompt {first} of {longest} tokens and 12 new.*context of {longest + 11}.*sampling.overlong=truncate"
    with pytest.raises(DataError, match=wanted):
        tokenize_requests(chat, longest + 11, requests, PLAIN)
    failed = {}
    kept, _ = tokenize_requests(chat, longest + 11, requests, PLAIN, failed)
    assert {*failed} == {request.prompt for request in requests if lengths[request.id] == longest}
    assert [request for request, _ in kept] == [request for request in requests if request.prompt not in failed]
    with pytest.raises(DataError, match=r"nor do \d+ other prompts"):
        tokenize_requests(chat, 13, requests, PLAIN, {})


def test_too_long_a_train_prompt_is_an_outcome_and_the_others_are_answered(root, prompts, model, tmp_path):
    chat, stage = Chat(opened(model).tokenizer), Generate("oak", rows=48, shard_rows=48)
    lengths = {request.id: len(chat.prompt(request.prompt)) for request in stage.requests(prompts, "")}
    longest = max(lengths.values())
    stage.sampling = Sampling(1.0, 1.0, opened(model).context - longest + 1)
    done = build(tmp_path, stage, build(tmp_path, prompts.stage), build(tmp_path, model.stage))
    failed = done.manifest["summary"]["failed"]
    assert {*failed} == {name for name, length in lengths.items() if length == longest}
    assert all(reason.startswith(f"{longest} tokens and ") for reason in failed.values())
    assert {row.id for row in read_samples(done.path, failed=True) if row.finish != "failed"} == {*lengths} - {*failed}


@pytest.mark.parametrize("backend", [Backend.hf, Backend.vllm])
@pytest.mark.parametrize("short", [0, 1, 999])
def test_a_judge_prompt_that_does_not_fit_is_an_outcome_also_where_none_fits(requests, model, tmp_path, backend, short):
    chat, inputs = Chat(opened(model).tokenizer), {"prompts": Artifact(JudgePrompts(), "0", tmp_path)}
    lengths = [len(chat.prompt(request.prompt)) for request in requests]
    stage = Generate("judge", backend, sampling=PLAIN, split=Split.test)
    shard = Shard(stage, requests, inputs, tmp_path, cpu_run(), {})
    room = max(lengths) - short
    tokenized, failed = tokenize_shard(shard, chat, room + PLAIN.max_new_tokens)
    assert {*failed} == {request.prompt for request, tokens in zip(requests, lengths, strict=True) if tokens > room}
    assert len(tokenized) + len(failed_answers(shard, failed)) == len(requests)


CUT = Sampling(1.0, 1.0, 12, LongPrompt.truncate)
WORDS = "the colour of the stone is red and nobody knows why "


@pytest.mark.parametrize("system", [None, "answer in one word"])
@pytest.mark.parametrize("text", [WORDS * 4, "x" * 300, "\U0001f9d1\u200d\U0001f680" * 60, "a\x00\x1b\x85\u2028" * 40])
def test_an_overlong_prompt_loses_its_start_and_nothing_else(model, text, system):
    chat = Chat(opened(model).tokenizer, system)
    empty = chat.prompt("")
    head = next(place for place, (a, b) in enumerate(zip(empty, chat.prompt(text), strict=False)) if a != b)
    requests = [Request("p-0", "", 0, "00"), Request("p-1", text, 0, "01"), Request("p-1", text, 1, "02")]
    for room in (len(empty), len(empty) + 1, len(empty) + 17):
        asked, cut = tokenize_requests(chat, room + 12, requests, CUT)
        assert cut == 2
        assert [request for request, _ in asked] == requests
        assert asked[0][1] == empty
        ids = asked[1][1]
        assert asked[2][1] == ids
        assert text.endswith(chat.tokenizer.decode(ids[head : len(ids) - len(empty) + head]))
        assert ids[:head] + ids[len(ids) - len(empty) + head :] == empty
        assert room - 8 < len(ids) <= room
    with pytest.raises(DataError, match=rf"p-1.*template's {len(empty)} tokens and 12 new ones.*of {len(empty) + 11}"):
        tokenize_requests(chat, len(empty) + 11, requests[-1:], CUT)


def test_a_megabyte_takes_seconds(model):
    chat, begun = Chat(opened(model).tokenizer), time.process_time()
    for text in (WORDS * 20_000, "a" * 1_000_000):
        asked, cut = tokenize_requests(chat, 100, [Request("p", text, 0, "00")], CUT)
        assert (cut, len(asked[0][1])) == (1, 88)
    assert time.process_time() - begun < 30


def test_empty_prompts_and_control_characters_are_answered(model):
    texts = ["", " ", "\x00\x01\x07\x1b[2J", "\u202e\ufeff\u2028", "<|eos|><|user|>", "\U0001f9d1"]
    requests = [Request(f"p-{number}", text, 0, f"{number:032x}") for number, text in enumerate(texts)]
    ready = opened(model)
    actual = answers(ready, requests)
    assert actual == [answer for request in requests for answer in answers(ready, [request])]
    assert all(answer.prompt_tokens > 1 for answer in actual)


def test_a_prompt_without_a_token_is_refused(model):
    tokenizer = opened(model).tokenizer
    tokenizer.chat_template, tokenizer.bos_token = "{{ messages[0]['content'] }}", None
    with pytest.raises(DataError, match="prompt p-7 has no token"):
        tokenize_requests(Chat(tokenizer), 128, [Request("p-7", "", 0, "00")], PLAIN)
