"""Likelihoods of given answers: template applied, answer tokens and one end, nothing removed."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from synthdiv.evaluate.likelihood import Likelihood, Target, read_likelihood, toy_prompt
from synthdiv.prompts.stage import read_prompts
from synthdiv.prompts.toy import Law
from tests.models.small import WORLD, build, opened


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


def test_the_support_is_every_answer_of_the_law_in_its_order(arms):
    law, rows = Law(WORLD), read_likelihood(arms.vanilla.support)
    asked = read_prompts(arms.prompts, "test", 3)
    wanted = [(row["id"], place, text) for row in asked for place, text in enumerate(law.support(toy_prompt(row))[0])]
    assert [(row["id"], row["order"], row["response"]) for row in rows] == wanted
    assert min(Counter(row["id"] for row in rows).values()) > 100


def test_a_limit_takes_the_first_prompts(arms):
    few = build(arms.root, Likelihood(Target.human, limit=4), arms.prompts, arms.vanilla.model)
    assert [row["id"] for row in read_likelihood(few)] == [row["id"] for row in read_prompts(arms.prompts, "test", 4)]
    assert few.manifest["summary"]["answers"] == 4
