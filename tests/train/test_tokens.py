"""A mix is tokenised once: every training on it reads the same ids."""

from __future__ import annotations

from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.mix.mix import Mix
from synthdiv.models.chat import Chat
from synthdiv.train.recipe import Lora
from synthdiv.train.tokens import Tokens, read_tokens
from synthdiv.train.train import Train
from tests.models.small import build, files, opened, toy_prompts


def test_tokens_are_those_of_the_texts(root, prompts, student, human):
    tokens = build(root, Tokens(), student, human, prompts)
    chat, rows = Chat(opened(student).tokenizer), read_mix(human)
    for row, (prompt, answer) in zip(rows, read_tokens(tokens), strict=True):
        assert prompt == chat.prompt(row["prompt"])
        assert answer == chat.answers([row["response"]])[0]
    summary = tokens.manifest["summary"]
    assert summary["rows"] == 48
    lengths = [len(prompt_ids) + len(answer_ids) for prompt_ids, answer_ids in read_tokens(tokens)]
    assert (summary["tokens"], summary["longest"]) == (sum(lengths), max(lengths))


def test_tokens_of_a_tuned_student_are_those_of_its_base(root, student):
    prompts = build(root, toy_prompts(system="Be brief."))
    mix = build(root, Mix(48, real_share=1.0, train_rows=48, shard_rows=4), prompts)
    tuned = build(root, Train(epochs=1, batch_rows=48, lr=1e-2, lora=Lora(r=2)), student, mix, prompts)
    one, other = (build(root, Tokens(), model, mix, prompts) for model in (student, tuned))
    assert files(one) == files(other)
    assert one.manifest["summary"]["system_folded"] == 0
