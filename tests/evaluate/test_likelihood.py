"""Likelihoods of given answers: template applied, answer tokens and one end, nothing removed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter

import numpy as np
import pytest
import torch

from synthdiv.core.types import Artifact, DataError, Sample
from synthdiv.evaluate.likelihood import (
    Likelihood,
    Target,
    human_answers,
    human_scores,
    own_answers,
    own_items,
    own_tokens,
    perplexity_1_scores,
    read_likelihood,
    tokens_of,
)
from synthdiv.generate.generate import read_samples
from synthdiv.measures.pairing import shuffled_prompts
from synthdiv.measures.perplexity import own_answer_scores
from synthdiv.measures.tails import own_answer_tail_scores
from synthdiv.measures.temperature import INDEX_OF_ONE, TEMPERATURES, _split_answers, nll_after_fit
from synthdiv.models.chat import Chat
from synthdiv.prompts.prompt_set import read_prompts, toy_prompt
from synthdiv.prompts.toy import Law
from tests.evaluate.conftest import LEAD, student_with_lead
from tests.models.small import WORLD, build, cpu_run, opened


def test_each_answer_is_scored_with_one_end(arms):
    """Against the plain definition on the text that the template writes."""
    model, rows = opened(arms.vanilla.model), read_likelihood(arms.vanilla.human)
    for row, prompt in zip(rows, read_prompts(arms.prompts, "test"), strict=True):
        turns = [{"role": "user", "content": prompt["prompt"]}]
        asked = model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        whole = model.tokenizer.apply_chat_template(
            [*turns, {"role": "assistant", "content": row["response"]}], return_dict=False
        )
        with torch.no_grad():
            law = model.model(torch.tensor([whole])).logits[0].log_softmax(-1)
        wanted = [-law[place - 1, whole[place]].item() for place in range(len(asked), len(whole))]
        assert row["id"] == prompt["id"]
        assert row["response"] == prompt["response"]
        assert whole[-1] == model.tokenizer.eos_token_id
        assert row["tokens"] == len(wanted) == len(row["token_nll"])
        assert row["token_nll"] == pytest.approx(wanted, abs=1e-4)
        assert row["nll"] == pytest.approx(math.fsum(row["token_nll"]), rel=1e-6)
        assert row["bytes"] == len(row["response"].encode())


def test_what_the_template_writes_before_an_answer_is_in_no_likelihood(arms, tmp_path):
    inputs = {"prompts": arms.prompts, "model": student_with_lead(arms)}
    Likelihood(Target.human, limit=4).build(inputs, tmp_path, cpu_run())
    model, rows = opened(arms.vanilla.model), read_likelihood(Artifact(None, "", tmp_path))
    chat, lead = Chat.for_prompts(model.tokenizer, arms.prompts), model.tokenizer(LEAD, add_special_tokens=False)
    for row, prompt in zip(rows, read_prompts(arms.prompts, "test", 4), strict=True):
        (answer,) = chat.answers([prompt["response"]])
        wanted = direct(model, chat.prompt(prompt["prompt"]) + lead["input_ids"], answer)
        assert row["token_nll"] == pytest.approx(wanted, abs=1e-4)
        assert row["bytes"] == len(prompt["response"].encode())


def test_the_support_is_every_answer_of_the_law_in_its_order(arms):
    law, rows = Law(WORLD), read_likelihood(arms.vanilla.support)
    asked = read_prompts(arms.prompts, "test", 3)
    wanted = [(row["id"], place, text) for row in asked for place, text in enumerate(law.support(toy_prompt(row))[0])]
    assert [(row["id"], row["order"], row["response"]) for row in rows] == wanted
    assert min(Counter(row["id"] for row in rows).values()) >= WORLD.phrasings
    tokenizer, facts = opened(arms.vanilla.model).tokenizer, {row["id"]: law.value(toy_prompt(row)) for row in asked}
    for row in rows[:40]:
        places = tokens_of(facts[row["id"]], ids := tokenizer(row["response"])["input_ids"], tokenizer)
        assert tokenizer.decode([ids[place] for place in places]).strip() == facts[row["id"]]
        assert row["value_nll"] == pytest.approx(sum(row["token_nll"][place] for place in places), rel=1e-5)


def test_a_limit_takes_the_first_prompts(arms):
    few = build(arms.root, Likelihood(Target.human, limit=4), arms.prompts, arms.vanilla.model)
    assert [row["id"] for row in read_likelihood(few)] == [row["id"] for row in read_prompts(arms.prompts, "test", 4)]
    assert few.manifest["summary"]["answers"] == 4


def direct(model, prompt, answer, temperature=1.0):
    """NLL of each token of `answer` by the plain definition."""
    with torch.no_grad():
        law = (model.model(torch.tensor([prompt + answer])).logits[0] / temperature).log_softmax(-1)
    return [-law[len(prompt) + place - 1, token].item() for place, token in enumerate(answer)]


def test_human_answers_are_scored_at_every_temperature(arms):
    model, rows = opened(arms.tuned.model), read_likelihood(arms.tuned.human)
    chat = Chat.for_prompts(model.tokenizer, arms.prompts)
    for row, prompt in zip(rows[:4], read_prompts(arms.prompts, "test"), strict=False):
        asked, (answer,) = chat.prompt(prompt["prompt"]), chat.answers([row["response"]])
        wanted = [sum(direct(model, asked, answer, temperature)) for temperature in TEMPERATURES]
        assert row["nll_at"] == pytest.approx(wanted, rel=1e-5)
        assert row["nll_at"][INDEX_OF_ONE] == pytest.approx(row["nll"], rel=1e-12)
    assert "nll_at" not in read_likelihood(arms.tuned.support)[0]


def test_a_fitted_answer_is_what_the_model_gives_it_at_that_temperature(arms):
    """The spline through the grid against a forward pass at the fit."""
    model, rows = opened(arms.tuned.model), read_likelihood(arms.tuned.human)
    curves = human_answers(arms.tuned.human)[2]
    order = shuffled_prompts(curves, 0)
    fits = np.exp(_split_answers(curves, order).fit(np.ones(len(order), dtype=bool)))
    other = dict(zip(order, np.repeat(fits[::-1], 6), strict=True))  # the fit of the half that an answer is not in
    chat, values = Chat.for_prompts(model.tokenizer, arms.prompts), nll_after_fit(curves)
    for row, prompt in zip(rows, read_prompts(arms.prompts, "test"), strict=True):
        asked, (answer,) = chat.prompt(prompt["prompt"]), chat.answers([row["response"]])
        wanted = np.mean(direct(model, asked, answer, other[row["id"]]))
        assert values[row["id"]] == pytest.approx(wanted, abs=1e-4)


def test_human_scores_hold_all_of_perplexity_2_and_its_items(arms):
    scores, items = human_scores(arms.tuned.human, arms.vanilla.human)
    actual = {score.name: score for score in scores}
    assert len(actual) == len(scores)
    assert {"nll_2", "tail_share", "nll_2_tail-vanilla", "nll_2_support-vanilla", "temperature_2"} <= actual.keys()
    assert actual["nll_2_support"].value + actual["nll_2_sharpness"].value == pytest.approx(actual["nll_2"].value)
    for name in ("nll_2", "nll_2_support"):
        values = [row["value"] for row in items if row["measure"] == name]
        assert np.mean(values) == pytest.approx(actual[name].value)
        assert len(values) == actual[name].n
    alone = {score.name for score in human_scores(arms.vanilla.human, None)[0]}
    assert alone == {name for name in actual if not name.endswith("-vanilla")}


@pytest.fixture(scope="module")
def own(arms):
    """Own answers of the tuned and of the vanilla student, both under the vanilla one."""
    stage = Likelihood(Target.own)
    return [
        build(arms.root, stage, arms.prompts, arms.vanilla.model, arm.answers) for arm in (arms.tuned, arms.vanilla)
    ]


def test_own_answers_are_scored_under_the_vanilla_student(arms, own):
    """Every answer, samples of a prompt in order; an end where the student ended."""
    model = opened(arms.vanilla.model)
    chat = Chat.for_prompts(model.tokenizer, arms.prompts)
    place = {row["id"]: row["position"] for row in read_prompts(arms.prompts, "test")}
    samples = sorted(read_samples(arms.tuned.answers.path), key=lambda row: (place[row.id], row.sample))
    rows = read_likelihood(own[0])
    assert len(rows) == len(samples) == 6 * 3 + 6
    assert {row.finish for row in samples} == {"length", "stop"}
    for row, sample in zip(rows, samples, strict=True):
        assert (row["id"], row["sample"], row["order"]) == (sample.id, sample.sample, sample.sample)
        assert (row["response"], row["finish"]) == (sample.response, sample.finish)
        (answer,) = chat.answers([sample.response])
        answer = answer[:-1] if sample.finish == "length" and sample.response else answer
        wanted = direct(model, chat.prompt(sample.prompt), answer)
        assert row["tokens"] == len(wanted)
        assert row["token_nll"] == pytest.approx(wanted, abs=1e-4)
        assert row["nll"] == pytest.approx(sum(wanted), rel=1e-5)
        assert row["bytes"] == len(sample.response.encode())


def test_own_answers_and_items_agree_with_the_scores(own):
    scores = {score.name: score for score in own_answer_scores(*map(own_answers, own))}
    items = list(own_items(own[0]))
    by_prompt: dict[str, list[float]] = {}
    for row in items:
        by_prompt.setdefault(row["prompt"], []).append(row["value"])
    assert np.mean([np.mean(values) for values in by_prompt.values()]) == pytest.approx(scores["nll_1"].value)
    assert len({(row["prompt"], row["sample"]) for row in items}) == len(items) == 24
    assert {row["finish"] for row in items} == {"length", "stop"}
    assert scores["nll_1"].n == 12


def scored(arms, tmp_path, samples, **fields):
    """`own` of these samples."""
    folder = tmp_path / "answers"
    folder.mkdir()
    lines = [json.dumps(dataclasses.asdict(sample)) + "\n" for sample in samples]
    (folder / "rows.jsonl").write_text("".join(lines))
    inputs = {"prompts": arms.prompts, "model": arms.vanilla.model, "answers": Artifact(None, "", folder)}
    summary = Likelihood(Target.own, **fields).build(inputs, tmp_path, cpu_run())
    return summary, read_likelihood(Artifact(None, "", tmp_path))


def test_ends_of_own_answers(arms, tmp_path):
    """An empty answer is its end alone, however it ended; one that was cut has none."""
    row = read_prompts(arms.prompts, "test", 1)[0]
    result = [("", "stop"), ("", "length"), ("a b", "stop"), ("a b", "length"), ("a b", "recorded")]
    samples = [
        Sample(row["id"], row["prompt"], text, "x", sample=place, finish=finish)
        for place, (text, finish) in enumerate(result)
    ]
    _, rows = scored(arms, tmp_path, reversed(samples), limit=1)
    assert [(actual["response"], actual["finish"]) for actual in rows] == result
    empty, again, ended, cut, recorded = (actual["token_nll"] for actual in rows)
    assert len(empty) == 1
    assert again == pytest.approx(empty, abs=1e-5)
    assert ended == pytest.approx(recorded, abs=1e-5)
    assert cut == pytest.approx(ended[:-1], abs=1e-5)


def test_own_answers_of_limited_prompts_and_none_of_others(arms, own):
    few = build(arms.root, Likelihood(Target.own, limit=2), arms.prompts, arms.vanilla.model, arms.tuned.answers)
    assert [row["response"] for row in read_likelihood(few)] == [row["response"] for row in read_likelihood(own[0])[:6]]


def test_own_answers_that_grew_past_the_context_are_cut_and_counted(arms, tmp_path):
    """Text can take more tokens than were drawn: broken bytes are replaced by longer marks."""
    rows = read_prompts(arms.prompts, "test", 2)
    context = opened(arms.vanilla.model).context
    samples = [
        Sample(row["id"], row["prompt"], text, "x") for row, text in zip(rows, ("a", "\ufffd" * context), strict=True)
    ]
    summary, actual = scored(arms, tmp_path, samples, limit=2)
    assert summary["cut"] == 1
    chat = Chat.for_prompts(opened(arms.vanilla.model).tokenizer, arms.prompts)
    assert actual[1]["tokens"] == context - len(chat.prompt(rows[1]["prompt"]))
    assert actual[0]["bytes"] == 1
    # a mark is one character of three bytes, each a token or less: the tokens left out have no bytes
    assert actual[1]["bytes"] <= 3 * actual[1]["tokens"] < 3 * context
    kept = chat.tokenizer.decode(chat.answers([samples[1].response])[0][: actual[1]["tokens"]])
    assert actual[1]["bytes"] == len(kept.encode())


def test_perplexity_1_has_the_tail_and_says_what_was_cut(own, monkeypatch):
    names = [*(score.name for score in own_answer_scores(*map(own_answers, own)))]
    names += [*(score.name for score in own_answer_tail_scores(*map(own_tokens, own)))]
    scores = perplexity_1_scores(*own)
    assert [score.name for score in scores] == names
    assert not any("cut" in score.note for score in scores)
    rows = [len(read_likelihood(artifact)) for artifact in own]
    summaries = [{"cut": 2, "answers": rows[0]}, {"cut": 1, "answers": rows[1]}]
    message = {artifact.path: {"summary": summary} for artifact, summary in zip(own, summaries, strict=True)}
    monkeypatch.setattr(Artifact, "manifest", property(lambda artifact: message[artifact.path]))
    for score in perplexity_1_scores(*own):
        assert "2 of 24 answers were longer than the context and cut" in score.note
        both = "1 of 24 of the vanilla student's answers were longer than the context and cut" in score.note
        assert both == score.name.endswith("-vanilla")
    assert len(perplexity_1_scores(own[0], None)) == 7


def test_prompts_without_an_own_answer_are_refused(arms, tmp_path):
    row = read_prompts(arms.prompts, "test", 1)[0]
    with pytest.raises(DataError, match="11 test prompts have no answer"):
        scored(arms, tmp_path, [Sample(row["id"], row["prompt"], "a", "x")])
