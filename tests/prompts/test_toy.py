"""The law of the toy world is exact, the same on every machine, and gives the dialect of an answer."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthdiv.core.fields import problems as problems_of
from synthdiv.core.types import ConfigError
from synthdiv.prompts import toy_words as words
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import World, study_pool

SMALL = World(entities=30, categories=2, dialects=4)
LAW = Law(SMALL)

worlds = st.builds(
    World,
    seed=st.integers(0, 2**63 - 1),
    entities=st.integers(2, 20),
    categories=st.integers(1, 8),
    relations=st.integers(1, 4),
    values=st.integers(2, 30),
    dialects=st.integers(1, 9),
    phrasings=st.integers(40, words.MOST_PHRASINGS),
    prompt_phrasings=st.integers(2, 8),
    zipf=st.floats(0, 5),
    tail=st.floats(0.1, 1),
)
some_worlds = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def every_prompt(law: Law) -> list:
    return law.prompts(int(study_pool(law.world).sum()), "study", 0)


@some_worlds
@given(worlds)
def test_any_world_has_a_law_that_sums_to_one_and_readable_answers(world):
    law = Law(world)
    for prompt in law.prompts(2, "study", 1):
        texts, p = law.support(prompt)
        assert len(texts) == len(set(texts)) >= world.phrasings
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert (p > 0).all()
        assert law.entropy(prompt) == pytest.approx(-(p * np.log(p)).sum())
        assert [law.log_probability(prompt, text) for text in texts] == pytest.approx(np.log(p).tolist())


def test_a_plain_answer_is_summed_over_the_dialects_that_give_it():
    prompt = LAW.prompt(1, 3, 0, 0)
    plain = words.PLAIN[0]
    speakers = [d for d in range(SMALL.dialects) if plain in LAW.templates[d]]
    assert len(speakers) > 1
    text = plain.format(e=LAW.entities[3], r="export", v=LAW.value(prompt))
    expected = sum(LAW.human(1)[d] * LAW.phrasing_weights[LAW.templates[d].index(plain)] for d in speakers)
    assert LAW.log_probability(prompt, text) == pytest.approx(math.log(expected))


def test_entropy_and_dialects_agree_with_samples():
    prompt, n = LAW.prompt(0, 0, 1, 2), 20_000
    texts = LAW.sample([prompt] * n, LAW.human, seed=7)
    logs = np.array([LAW.log_probability(prompt, text) for text in texts])
    assert np.isfinite(logs).all()
    assert abs(-logs.mean() - LAW.entropy(prompt)) < 4 * logs.std() / math.sqrt(n)
    dialect, phrasing = LAW.draw([prompt] * n, LAW.human, seed=7)
    for drawn, law in ((dialect, LAW.human(0)), (phrasing, LAW.phrasing_weights)):
        seen = np.bincount(drawn, minlength=len(law)) / n
        assert (np.abs(seen - law) <= 4.5 * np.sqrt(law * (1 - law) / n)).all()


def test_wrong_answers_are_off_the_support():
    prompt = LAW.prompt(0, 4, 0, 0)
    right = LAW.support(prompt)[0][0]
    wrong_value = next(LAW.value(p) for p in every_prompt(LAW) if LAW.value(p) != LAW.value(prompt))
    others = [
        "",
        right[:-1],
        right + " ",
        right + " " + right,
        right.replace(LAW.value(prompt), wrong_value),
        right.replace(LAW.entities[4], LAW.entities[5]),
        right.replace("capital", "river"),
        right.replace(LAW.entities[4], "{e}"),
        *LAW.support(prompt, LAW.student(0))[0],
        *LAW.support(prompt, LAW.family(1, 2, 0.0, 1.0, 0))[0],
    ]
    assert math.isfinite(LAW.log_probability(prompt, right))
    assert [text for text in others if LAW.log_probability(prompt, text) != -math.inf] == []


def test_a_parse_returns_the_dialect_and_the_facts():
    prompts = LAW.prompts(800, "pretrain", 3)

    def uniform(category):
        return np.full(len(LAW.dialects), 1 / len(LAW.dialects))

    dialects, phrasings = LAW.draw(prompts, uniform, 5)
    assert set(dialects.tolist()) == set(range(len(LAW.dialects)))
    for prompt, text, d, k in zip(prompts, LAW.sample(prompts, uniform, 5), dialects, phrasings, strict=True):
        readings = LAW.parse(text)
        assert (d, k, prompt.entity, prompt.category, prompt.relation, True) in readings
        assert len(readings) == len(set(readings))
        assert all(LAW.templates[r.dialect][r.phrasing] == LAW.templates[d][k] for r in readings)
        assert LAW.posterior(prompt, text)[d] > 0


def test_a_parse_distinguishes_wrong_facts_and_nonsense():
    prompt = LAW.prompt(0, 4, 0, 0)
    right = LAW.support(prompt)[0][0]
    wrong = next(v for v in LAW._facts[0, 0] if v != LAW.value(prompt))
    assert {reading.right for reading in LAW.parse(right)} == {True}
    assert {reading.right for reading in LAW.parse(right.replace(LAW.value(prompt), wrong))} == {False}
    for text in ("", "{e} {v} {r}", "The capital of {e} is {v}.", right.replace(LAW.value(prompt), "Nobody")):
        assert LAW.parse(text) == []
        assert LAW.posterior(prompt, text).sum() == 0


def test_the_expected_posterior_of_human_answers_is_pi():
    prompt = LAW.prompt(1, 0, 0, 0)
    texts, p = LAW.support(prompt)
    rows = np.array([LAW.posterior(prompt, text) for text in texts])
    assert rows.sum(axis=1) == pytest.approx(1)
    assert p @ rows == pytest.approx(LAW.human(1))


@pytest.mark.parametrize("families", [1, 2, 3, 4])
@pytest.mark.parametrize("category", [0, 1])
def test_families_partition_the_human_law(families, category):
    pi = LAW.human(category)
    parts = [LAW.family(f, families, 0.0, 0.0, category) for f in range(families)]
    assert pi[: SMALL.dialects].min() > 0
    assert pi[SMALL.dialects :].max() == 0
    assert (np.sum([law > 0 for law in parts], axis=0) == (pi > 0)).all(), "each human dialect belongs to one family"
    assert sum(pi[law > 0].sum() * law for law in parts) == pytest.approx(pi)
    for f, law in enumerate(parts):
        assert law.sum() == pytest.approx(1)
        assert (LAW.family(f, families, 1.0, 0.0, category) == pi).all(), "the null is exact"
        assert LAW.family(f, families, 0.5, 0.0, category) == pytest.approx((law + pi) / 2)
        for shift in (0.0, 0.4, 1.0):
            foreign = shift * f / (families - 1) if f else 0.0
            shifted = LAW.family(f, families, 0.0, shift, category)
            assert shifted[pi == 0].sum() == pytest.approx(foreign)
            assert shifted[pi > 0] == pytest.approx((1 - foreign) * law[pi > 0])


def test_with_a_shift_more_sources_are_further_from_the_human_law():
    pi = LAW.human(0)
    gaps = []
    for sources in (1, 2, 3, 4):
        mean = np.mean([LAW.family(f, 4, 1.0, 0.5, 0) for f in range(sources)], axis=0)
        gaps.append(float((pi[pi > 0] * np.log(pi[pi > 0] / mean[pi > 0])).sum()))
    assert gaps[0] == pytest.approx(0, abs=1e-12)
    assert all(later > earlier + 0.01 for earlier, later in itertools.pairwise(gaps))


def test_student_and_foreign_dialects_belong_to_no_other_speaker():
    student = LAW.student(0)
    foreign = np.array([LAW.family(f, 4, 0.0, 1.0, 0) * (LAW.human(0) == 0) > 0 for f in range(4)])
    assert (foreign.sum(axis=1) == [0, 1, 1, 1]).all(), "the first family has no foreign dialect"
    assert (np.sum([*foreign, LAW.human(0) > 0, student > 0], axis=0) <= 1).all()
    assert student.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"families": 5}, "families=5"),
        ({"index": 2}, "index=2"),
        ({"overlap": -0.1}, "overlap"),
        ({"shift": 2}, "shift"),
    ],
)
def test_an_impossible_family_is_refused(changed, named):
    family = {"index": 1, "families": 2, "overlap": 0.0, "shift": 0.0, "category": 0} | changed
    with pytest.raises(ConfigError) as caught:
        LAW.family(**family)
    assert [problem.startswith(f"family.{named}") for problem in caught.value.problems] == [True]


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
    with pytest.raises(ConfigError, match="needs study or pretrain"):
        LAW.prompts(1, "test", 0)


def test_every_problem_of_a_world_is_reported_at_once():
    wrong = World(-1, 1, 9, 5, 1, 0, 39, 9, math.nan, 1.5)
    problems = problems_of(wrong, "world")
    assert [problem.split("=")[0] for problem in problems] == [f"world.{field.name}" for field in fields(World)]
    with pytest.raises(ConfigError) as caught:
        Law(wrong)
    assert caught.value.problems == problems
    assert problems_of(World()) == []


def test_texts_are_short_english():
    prompts = LAW.prompts(200, "study", 0)
    answers = LAW.sample(prompts, LAW.human, 0)
    assert 6 <= np.mean([len(prompt.text.split()) for prompt in prompts]) <= 9
    assert 8 <= np.mean([len(answer.split()) for answer in answers]) <= 12
    assert all(answer[0].isupper() and answer.endswith(".") and "{" not in answer for answer in answers)


def digest(world: World) -> str:
    law = Law(world)
    prompts = law.prompts(50, "study", 0) + law.prompts(50, "pretrain", 0)
    rows = [prompt.text + answer for prompt, answer in zip(prompts, law.sample(prompts, law.human, 0), strict=True)]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def test_a_seed_names_the_same_world_in_every_version():
    assert digest(SMALL) == digest(replace(SMALL)) == "e9da49bf97a9b5ba"
    assert digest(replace(SMALL, seed=1)) != digest(SMALL)


@pytest.mark.parametrize("field", [field.name for field in fields(World)])
def test_every_field_changes_the_world(field):
    value = getattr(SMALL, field)
    changed = value * 1.01 if isinstance(value, float) else value + 1
    assert digest(replace(SMALL, **{field: changed})) != digest(SMALL)


def test_a_dialect_does_not_depend_on_the_number_of_dialects(monkeypatch):
    more = Law(replace(SMALL, dialects=6))
    for name, answers in zip(LAW.dialects, LAW.templates, strict=True):
        assert more.templates[more.dialects.index(name)] == answers
    ratio = more.human(0)[:4] / LAW.human(0)[:4]
    assert ratio == pytest.approx(np.full(4, ratio[0]))
    monkeypatch.setattr("synthdiv.prompts.toy.STUDENT_DIALECTS", 5)
    students = Law(SMALL)
    prompt = students.prompt(0, 1, 1, 1)
    assert students.support(prompt)[0] == LAW.support(prompt)[0]
    assert (students.support(prompt)[1] == LAW.support(prompt)[1]).all()
    assert len(students.dialects) == len(LAW.dialects) + 3


def test_sampling_is_fast():
    law = Law(World())
    prompts = law.prompts(12_000, "pretrain", 0)
    started = time.process_time()
    assert len(law.sample(prompts, law.human, 0)) == 12_000
    assert time.process_time() - started < 0.5
