"""What a toy world is made of: its pools of prompts and its settings."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from synthdiv.core.fields import problems as problems_of
from synthdiv.core.types import ConfigError
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import World
from tests.prompts.test_toy import LAW, every_prompt


def test_pools_are_disjoint_and_ask_for_the_same_facts():
    study, pretrain = every_prompt(LAW), LAW.prompts(20_000, "pretrain", 0)
    assert not {p.text for p in study} & {p.text for p in pretrain}
    assert len({p.text for p in study}) == len(study) == 30 * 2 * 2 * 2
    facts = {(p.category, p.entity, p.relation) for p in study}
    assert len(facts) == 30 * 2 * 2
    assert {(p.category, p.entity, p.relation) for p in pretrain} == facts
    phrasings = {p.phrasing for p in study}
    assert phrasings == {p.phrasing for p in pretrain} == set(range(4)), "both pools have all phrasings"


@pytest.mark.parametrize("pool", ["study", "pretrain"])
def test_fewer_prompts_are_a_prefix_of_more(pool):
    assert LAW.prompts(17, pool, 0) == LAW.prompts(150, pool, 0)[:17]
    assert LAW.prompts(17, pool, 0) != LAW.prompts(17, pool, 1)
    assert LAW.sample(LAW.prompts(17, pool, 0), LAW.human, 0) == LAW.sample(LAW.prompts(99, pool, 0), LAW.human, 0)[:17]


def test_entities_are_drawn_by_zipfs_law():
    n, weight = 20_000, (1 + np.arange(30.0)) ** -1.1
    seen = np.bincount([p.entity for p in LAW.prompts(n, "pretrain", 4)], minlength=30) / n
    expected = weight / weight.sum()
    assert (np.abs(seen - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / n)).all()
    first = [LAW.prompts(1, "study", seed)[0].entity for seed in range(400)]
    assert abs(first.count(0) / 400 - expected[0]) < 4.5 * math.sqrt(expected[0] * (1 - expected[0]) / 400)


def test_too_many_prompts_are_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"241.*240"):
        LAW.prompts(241, "study", 0)


def test_every_problem_of_a_world_is_reported_at_once():
    wrong = World(-1, 1, 9, 5, 1, 0, 5, 65, math.nan, 1.5)
    problems = problems_of(wrong, "world")
    assert [problem.split("=")[0] for problem in problems] == [f"world.{field.name}" for field in fields(World)[:-1]]
    with pytest.raises(ConfigError) as caught:
        Law(wrong)
    assert caught.value.problems == problems
    assert problems_of(World()) == []
