"""G-Vendi of a mix: exact without a projection, within a small error with one, and not dearer than two epochs."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
import torch

from synthdiv.core.stage import Node
from synthdiv.evaluate.gradient_diversity import GradientDiversity, GradientDiversitySuite
from synthdiv.evaluate.suite import Evaluate, EvaluatedStudent, read_scores
from synthdiv.measures.spectrum import vendi
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.mix.mix import Mix
from synthdiv.models import score
from synthdiv.models.chat import Chat
from synthdiv.prompts.prompt_set import Prompts, ToyPrompts
from synthdiv.prompts.split import rank
from synthdiv.prompts.toy_world import World
from synthdiv.train.recipe import Method
from synthdiv.train.train import Train
from tests.graphs import Taking
from tests.models.small import build, node_of, opened, tiny_model, toy_prompts


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("gradients")
    prompts = build(root, toy_prompts())
    return (
        root,
        prompts,
        build(root, Mix(48, real_share=1.0, train_rows=48, shard_rows=4), prompts),
        build(root, tiny_model()),
    )


def drawn(mix, count):
    return sorted(read_mix(mix), key=lambda row: rank(0, "gradients", row["id"]))[:count]


def g_vendi(small, *fields):
    root, prompts, mix, model = small
    (score,) = read_scores(build(root, GradientDiversity(*fields), prompts, mix, model).path)
    return score


def test_it_is_the_vendi_score_of_whole_gradients(small):
    _, prompts, mix, model = small
    made, rows = opened(model), drawn(mix, 20)
    chat = Chat.for_prompts(made.tokenizer, prompts)
    gradients = []
    for prompt, answer in chat.scored_pairs([row["prompt"] for row in rows], [row["response"] for row in rows]):
        logits = made.model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        made.model.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in made.model.parameters()]).numpy())
    score = g_vendi(small, 20, 0)
    assert score.name == "g_vendi"
    assert score.value == pytest.approx(vendi(np.stack(gradients)).value, rel=1e-4)
    assert score.low < score.value < score.high
    assert score.n == 20


def test_a_cut_has_rows_of_every_author_and_not_the_first_ones(small):
    """Sources, people and rounds stand one after the other in a mix."""
    root, prompts, mix, model = small
    made = build(root, GradientDiversity(24, 16), prompts, mix, model)
    asked = set(pyarrow.parquet.read_table(made.path / "items.parquet")["prompt"].to_pylist())
    halves = [sum(row["id"] in asked for row in part) for part in (read_mix(mix)[:24], read_mix(mix)[24:])]
    assert sum(halves) == 24
    assert min(halves) > 6


def test_a_projection_changes_little(small):
    whole = g_vendi(small, 48, 0).value
    assert g_vendi(small, 48, 4096).value == pytest.approx(whole, rel=0.03)
    assert 1 <= whole <= 48
    assert g_vendi(small, 1000, 0).n == 48, "fewer rows than asked for: all"


@pytest.mark.parametrize("dimensions", [0, 64])
def test_rows_one_at_a_time_have_the_gradients_of_rows_together(small, monkeypatch, dimensions):
    """Of a large model only one fits into memory."""
    _, prompts, mix, model = small
    made, calls = opened(model), []
    chat, rows = Chat.for_prompts(made.tokenizer, prompts), read_mix(mix)[:6]
    pairs = chat.scored_pairs([row["prompt"] for row in rows], [row["response"] for row in rows])
    together = score.answer_gradients(made, pairs, dimensions, 0)
    monkeypatch.setattr(score, "AT_ONCE", 1)
    monkeypatch.setattr("torch.func.vmap", lambda *_, **__: pytest.fail("one row is no batch"))
    alone = score.answer_gradients(made, pairs, dimensions, 0, lambda done, *_: calls.append(done))
    np.testing.assert_allclose(alone, together, rtol=1e-3, atol=1e-5)
    assert calls == [1, 2, 3, 4, 5, 6]
    assert all(weight.grad is None for weight in made.model.parameters())


def test_only_a_mix_has_it(small):
    """The vanilla student has none; the gradients of a tuned student's mix are the vanilla student's."""
    prompts, mix, model = map(node_of, small[1:])
    arm = EvaluatedStudent(prompts, Node(Taking()), model, {}, Evaluate(), mix=mix)
    assert GradientDiversitySuite().node(arm, arm).inputs == {"prompts": prompts, "mix": mix, "model": model}
    assert GradientDiversitySuite().node(replace(arm, mix=None), None) is None


@pytest.mark.slow
def test_it_costs_less_than_two_epochs(tmp_path):
    world = World(categories=2)
    prompts = build(tmp_path, Prompts(toy=ToyPrompts(700, world), test=60))
    mix = build(tmp_path, Mix(600, real_share=1.0, train_rows=640, shard_rows=64), prompts)
    model = build(tmp_path, tiny_model(hidden=96, layers=2))
    spent = []
    for seed in range(3):
        epoch = Train(method=Method.full, epochs=1, batch_rows=16, lr=1e-3, seed=seed)
        gradients = GradientDiversity(600, seed=seed)
        for stage, inputs in ((epoch, (model, mix, prompts)), (gradients, (prompts, mix, model))):
            start = time.process_time()
            build(tmp_path, stage, *inputs)
            spent.append(time.process_time() - start)
    assert min(spent[3::2]) < 2 * min(spent[2::2]), "the first run of either imports libraries"
