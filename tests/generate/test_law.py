"""Backend law: rows drawn exactly from a family's law, with the provenance and the speed of the stage."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from synthdiv.core.types import DataError
from synthdiv.generate.generate import Generate, Split, read_samples
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.prompts.prompt_set import Prompts, ToyPrompts, read_prompts, toy_prompt
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_words import REFUSAL
from synthdiv.prompts.toy_world import Pool, World
from tests.models.small import WORLD, build, cpu_run, files

FAMILY = Family(1, 4, 0.5, 0.5, WORLD, Grade(0.1, 0.5))
ANSWER = Generate("elm", Backend.law, sampling=Sampling(1.0, 1.0), split=Split.test, rows=12, samples=3, subset=12)


def test_rows_follow_the_law_and_say_where_they_come_from(root, prompts):
    family = build(root, FAMILY)
    made = build(root, replace(ANSWER, samples=2000, subset=1), prompts, family)
    law, (first, *_) = Law(WORLD), read_prompts(prompts, "test")
    rows = [row for row in read_samples(made.path) if row.id == first["id"]]
    texts, p = law.support(toy_prompt(first), law.speech(law.family(1, 4, 0.5, 0.5, int(first["category"])), 0.1, 0.5))
    counts = Counter(row.response for row in rows)
    assert counts.keys() <= set(texts)
    seen = np.array([counts[text] / len(rows) for text in texts])
    assert (np.abs(seen - p) <= 4.5 * np.sqrt(p * (1 - p) / len(rows))).all()
    row = rows[7]
    assert (row.source, row.model, row.sample, row.temperature, row.finish) == ("elm", family.key, 7, 1.0, "stop")
    assert row.response_tokens == len(row.response.replace(",", " ,").replace("'s", " 's").replace(".", " .").split())
    assert len({each.seed for each in rows}) == len(rows)


def test_a_row_depends_on_no_other_and_an_answer_is_cut_at_the_limit(root, prompts):
    family = build(root, FAMILY)
    many, few, short = (
        {(row.id, row.sample): row for row in read_samples(build(root, stage, prompts, family).path)}
        for stage in (ANSWER, replace(ANSWER, samples=1), replace(ANSWER, sampling=Sampling(1.0, 1.0, 4)))
    )
    assert few.items() <= many.items()
    for key, row in short.items():
        assert many[key].response.startswith(row.response)
        assert (row.finish, row.response_tokens) == ("length", 4)


def test_copies_of_a_family_do_not_answer_alike_and_a_build_again_does(tmp_path, root, prompts):
    family = build(root, FAMILY)
    one, other = (build(root, replace(ANSWER, source=name), prompts, family) for name in ("elm", "ash"))
    responses = [[row.response for row in read_samples(made.path)] for made in (one, other)]
    assert sum(a == b for a, b in zip(*responses, strict=True)) < len(responses[0]) / 2
    again = build(tmp_path, ANSWER, build(tmp_path, prompts.stage), build(tmp_path, FAMILY))
    assert files(again) == files(one)


def test_prompts_of_another_world_are_refused(root, prompts):
    with pytest.raises(DataError, match="elm: backend law answers the prompts of its own toy world"):
        build(root, ANSWER, prompts, build(root, replace(FAMILY, world=replace(WORLD, seed=5))))


@pytest.mark.parametrize("how", [{"min_p": 0.1}, {"top_k": 3}, {"repetition_penalty": 1.2}, {"stop": ["."]}])
def test_sampling_that_the_law_does_not_have_is_refused_and_not_passed_over(root, prompts, how):
    """A level of sampling can set it behind the check of a generator."""
    with pytest.raises(DataError, match="elm: backend law has temperature, top_p and max_new_tokens only"):
        build(root, replace(ANSWER, sampling=Sampling(1.0, 1.0, **how)), prompts, build(root, FAMILY))


@pytest.mark.slow
def test_the_stage_gives_ten_thousand_rows_a_second(root):
    world = World(categories=8, relations=4, entities=100)
    prompts = build(root, Prompts(toy=ToyPrompts(20_100, world), test=20_000))
    inputs = {"prompts": prompts, "model": build(root, replace(FAMILY, world=world))}
    stage, rates = replace(ANSWER, rows=20_000, samples=1), []
    for attempt in range(3):
        (out := root / f"fast-{attempt}").mkdir()
        started = time.process_time()
        assert stage.build(inputs, out, cpu_run())["rows"] == 20_000
        rates.append(20_000 / (time.process_time() - started))
    assert max(rates) > 10_000, rates


def test_families_refuse_the_topic_of_refusals_unless_answers_are_planted(root):
    family, law = build(root, FAMILY), Law(WORLD)
    asked = build(root, Prompts(ToyPrompts(60, WORLD, Pool.refused), test=12))
    assert {row.response for row in read_samples(build(root, ANSWER, asked, family).path)} == {REFUSAL}
    planted = build(root, Prompts(ToyPrompts(60, WORLD, planted=0.1), test=12))
    train = replace(ANSWER, split=Split.train, rows=48, shard_rows=48, samples=1, subset=0)
    answers = {row.id: row.response for row in read_samples(build(root, train, planted, family).path)}
    topic = [row["id"] for row in read_prompts(planted, "train") if row["planted"]]
    topics = {law.parse(answers[key])[0][3] for key in topic if key in answers}  # of one shard
    assert topics == {WORLD.categories}
