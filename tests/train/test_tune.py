"""Fine-tuning as a stage: what is saved is what was trained, validation is the same in every arm, no row is lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.fields import problems
from synthdiv.core.types import Artifact, DataError
from synthdiv.generate.generate import Generate, read_samples
from synthdiv.generate.spec import Sampling
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.mix.mix import Mix
from synthdiv.models.chat import Chat
from synthdiv.models.score import answer_log_likelihoods
from synthdiv.train.pretrain import Architecture
from synthdiv.train.recipe import Lora, LossOn, Method
from synthdiv.train.rows import Row
from synthdiv.train.schedule import Match
from synthdiv.train.tokens import cut, encode, rendered
from synthdiv.train.train import Train
from synthdiv.train.tune import human_rows, scheduled, sides
from tests.models.small import build, cpu_run, files, opened, tiny_model, toy_prompts


@pytest.fixture(scope="module")
def generated(root, prompts, student):
    """A mix that one source wrote."""
    shards = [
        build(root, Generate("oak", rows=48, shard_rows=4, shard=shard, sampling=Sampling(1, 1, 8)), prompts, student)
        for shard in range(12)
    ]
    return build(root, Mix(48, ["oak"], [1.0], train_rows=48, shard_rows=4), prompts, *shards)


def recipe(**fields):
    return Train(**{"method": Method.full, "epochs": 1, "batch_rows": 16, "lr": 1e-2, "validation": 0.1} | fields)


def first(model, prompts):
    chat = Chat(model.tokenizer)
    pairs = [(chat.prompt("Who is it?"), chat.answers(["Nobody knows."])[0])]
    return answer_log_likelihoods(model, pairs, 1000)[0]


@pytest.mark.parametrize("method", [Method.full, Method.lora])
def test_what_is_saved_is_what_was_validated(root, prompts, student, human, method):
    """The model opened again gives the validation loss that training ended with."""
    tuned = build(root, recipe(method=method), student, human, prompts)
    summary, model = tuned.manifest["summary"], opened(tuned)
    chat, held = Chat(model.tokenizer), sides(read_mix(human), 0.1)[1]
    pairs = [(chat.prompt(row["prompt"]), chat.answers([row["response"]])[0]) for row in held]
    values = answer_log_likelihoods(model, pairs, 16384)
    again = -sum(float(v.sum()) for v in values) / sum(map(len, values))
    assert again == pytest.approx(summary["validation"]["own"], abs=2e-5)
    assert summary["validation"]["own"] < summary["validation_before"]["own"]
    assert summary["rows_seen"] == summary["budget"] == summary["train_rows"] == 48 - summary["validation_rows"]
    names = set(files(tuned))
    folder = "model" if method is Method.full else "adapter"
    assert {name for name in names if "/" in name} == {name for name in names if name.startswith(f"{folder}/")}
    assert "metrics.parquet" in names
    assert not any("checkpoints" in name for name in names)


def test_a_build_again_elsewhere_gives_the_same_bytes(root, tmp_path, prompts, student, human):
    stage = recipe(method=Method.lora)
    tuned = build(root, stage, student, human, prompts)
    stage.build(tuned.inputs, tmp_path, cpu_run())
    assert files(tuned) == files(Artifact(stage, "", tmp_path))


def test_validation_prompts_are_those_of_every_arm(root, prompts, student, human, generated):
    held = [{row["id"] for row in sides(read_mix(mix), 0.1)[1]} for mix in (human, generated)]
    assert held[0] == held[1]
    tuned = build(root, recipe(), student, generated, prompts).manifest["summary"]
    assert tuned["validation"]["own"] != tuned["validation"]["human"]
    untuned = build(root, recipe(), student, human, prompts).manifest["summary"]
    assert untuned["validation_before"]["human"] == tuned["validation_before"]["human"]
    assert tuned["sources"] == {"oak": tuned["train_rows"]}


def mix_rows(count):
    return [{"position": position, "id": str(position)} for position in range(count)]


@given(st.integers(1, 400), st.sampled_from([0.0, 0.05, 0.1, 1 / 3, 0.4, 0.7]))
def test_the_share_is_held_out_and_a_smaller_set_holds_out_the_same(count, share):
    train, held = sides(mix_rows(count), share)
    assert sorted(row["position"] for row in train + held) == list(range(count))
    assert abs(len(held) - share * count) <= 1
    more = {row["id"] for row in sides(mix_rows(count + 30), share)[1]}
    assert {row["id"] for row in held} <= more


@pytest.mark.parametrize("share", [0.05, 0.1, 1 / 12])
def test_no_source_gives_much_more_than_its_part_of_validation(share):
    """Shards are dealt in cycles of 12: at an even distance all held-out rows would be of one source or two."""
    held = sides(mix_rows(1200), share)[1]
    owners = Counter(row["position"] % 4 for row in held)
    assert max(owners.values()) < 0.4 * len(held)


def test_loss_on_the_answer_or_on_all(student, human):
    chat, rows = Chat(opened(student).tokenizer), read_mix(human)[:4]
    answer, everything = (
        encode(recipe(loss_on=loss_on), rows, rendered(chat, rows))[0] for loss_on in (LossOn.answer, LossOn.all)
    )
    for one, other, row in zip(answer, everything, rows, strict=True):
        assert one.ids == other.ids == (*chat.prompt(row["prompt"]), *chat.answers([row["response"]])[0])
        assert one.ids[one.prompt :] == tuple(chat.answers([row["response"]])[0])
        assert other.prompt == 0


def test_a_row_longer_than_the_context_is_refused(root, prompts, human):
    short = build(root, tiny_model(context=40))
    with pytest.raises(DataError, match=r"train\.max_tokens=1024.*context is 40"):
        build(root, recipe(), short, human, prompts)


def test_a_held_out_answer_longer_than_the_context_is_refused(root, prompts, student, generated):
    """Human answers are longer here than the arm's own, which all fit."""
    chat = Chat(opened(student).tokenizer)
    longest = max(len(a) + len(b) for a, b in rendered(chat, read_mix(generated)))
    short = build(root, tiny_model(context=longest, architecture=Architecture.gpt2))
    with pytest.raises(DataError, match=rf"a row has \d+ tokens and the student's context is {longest}"):
        build(root, recipe(validation=0.4), short, generated, prompts)


def test_a_budget_of_tokens_is_met_to_the_token_in_every_arm(root, prompts, student, human, generated):
    stage = recipe(match=Match.supervised_tokens, budget=700, epochs=3.0)
    for mix in (human, generated):
        summary = build(root, stage, student, mix, prompts).manifest["summary"]
        assert summary["supervised_tokens"] == 700
        assert summary["repetitions"] == pytest.approx(summary["rows_seen"] / summary["train_rows"], abs=1e-4)
        (own,) = summary["by_source"].values()
        assert own["repetitions"] == summary["repetitions"]
        assert summary["unmatched"] == ""


def test_a_system_role_is_the_same_in_training_and_answering(root, student):
    """Prompt tokens of an answer are as many as training saw."""
    prompts = build(root, toy_prompts(system="Be brief."))
    answers = build(root, Generate("oak", rows=48, shard_rows=4, sampling=Sampling(1, 1, 4)), prompts, student)
    chat = Chat(opened(student).tokenizer, "Be brief.", prompts.stage.date)
    rows = read_samples(answers.path)
    asked = [{"id": row.id, "prompt": row.prompt, "response": "x"} for row in rows]
    trained, _ = encode(recipe(), asked, rendered(chat, asked))
    assert [row.prompt_tokens for row in rows] == [row.prompt for row in trained]
    assert "Be brief." in chat.tokenizer.decode(trained[0].ids)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"lr": 0.0}, "train.lr"), ({"lr": -1e-3}, "train.lr"), ({"budget": 5}, "train.budget=5"),
        ({"seed": -1}, "train.seed"), ({"validation": 1.0}, "train.validation"),
        ({"lora": Lora(r=0)}, "train.lora"), ({"clip": -1.0}, "train.clip"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(fields, expected):
    assert any(expected in problem for problem in problems(recipe(**fields), "train"))
    assert not problems(recipe(), "train")


def test_a_budget_of_less_than_a_row_is_one_row():
    _, steps, budget = scheduled(recipe(epochs=0.01), [Row((1, 2), 1)] * 9)
    assert sum(map(len, steps)) == budget == 1


def test_validation_of_everything_is_refused(root, prompts, student):
    one = build(root, Mix(1, real_share=1.0, train_rows=48, shard_rows=4), prompts)
    with pytest.raises(DataError, match=r"train\.validation=0\.9"):
        build(root, recipe(validation=0.9), student, one, prompts)


def test_prompts_without_human_answers_have_no_human_validation(student):
    chat = Chat(opened(student).tokenizer)
    rows = [{"id": "p", "prompt": "ask", "response": "an answer of the mix"}]
    assert human_rows(chat, rows, {"p": None}, 64) == []
    assert human_rows(chat, rows, {"p": "tell"}, 64) == cut(chat.pairs(["ask"], ["tell"]), 64)


def test_a_held_out_row_is_cut_and_never_left_out():
    """Whichever part is too long, one token of the answer is there: every arm is validated on the same prompts."""
    pairs = [([1, 2, 3], [4, 5, 6, 7]), (list(range(9)), [1, 2]), ([1], [2])]
    assert [row.ids for row in cut(pairs, 5)] == [(1, 2, 3, 4, 5), (0, 1, 2, 3, 1), (1, 2)]
    assert [row.supervised for row in cut(pairs, 5)] == [2, 1, 1]
    assert [row.supervised for row in cut(pairs, 5, everything=True)] == [4, 4, 1]
