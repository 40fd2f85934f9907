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

from synthdiv.core.types import ConfigError
from synthdiv.prompts import toy_words as words
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_speech import Speech, pieces
from synthdiv.prompts.toy_world import World, pool_members

SMALL = World(entities=30, categories=2, prompt_phrasings=4)
LAW = Law(SMALL)
worlds = st.builds(
    World,
    seed=st.integers(0, 2**63 - 1),
    entities=st.integers(2, 20),
    categories=st.integers(1, 8),
    relations=st.integers(1, 4),
    values=st.integers(2, 30),
    dialects=st.integers(1, 8),
    phrasings=st.integers(6, words.MOST_PHRASINGS),
    prompt_phrasings=st.integers(2, 64),
    zipf=st.floats(0, 5),
    tail=st.floats(0.1, 1),
)
some_worlds = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def every_prompt(law: Law) -> list:
    return law.prompts(int(pool_members(law.world, "study").sum()), "study", 0)


def probability(law: Law, prompt, text: str) -> float:
    return dict(zip(*law.support(prompt), strict=True)).get(text, 0.0)


@some_worlds
@given(worlds)
def test_any_world_has_a_law_that_sums_to_one_and_readable_answers(world):
    law = Law(world)
    for prompt in law.prompts(2, "study", 1):
        texts, p = law.support(prompt)
        assert len(texts) == len(set(texts)) >= world.phrasings
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert (p > 0).all()
        readings = [law.parse(text) for text in texts]
        facts = (prompt.entity, prompt.category, prompt.relation, True)
        assert {reading[2:] for each in readings for reading in each} == {facts}
        assert all("".join(pieces(text)) == text for text in texts)
        nll = law.value_nll(prompt.category)
        assert nll.min() >= -1e-12
        assert p @ nll <= -(p @ np.log(p)) + 1e-12, "a part of the entropy"


def test_a_plain_answer_is_summed_over_the_dialects_that_give_it():
    prompt = LAW.prompt(1, 3, 0, 0)
    plain = words.PLAIN[0]
    speakers = [d for d in range(SMALL.dialects) if plain in LAW.templates[d]]
    assert len(speakers) > 1
    text = plain.format(e=LAW.entities[3], r="export", v=LAW.value(prompt))
    expected = sum(LAW.human(1)[d] * LAW.phrasing_weights[LAW.templates[d].index(plain)] for d in speakers)
    assert probability(LAW, prompt, text) == pytest.approx(expected)


def test_samples_follow_the_law():
    prompt, n = LAW.prompt(0, 0, 1, 2), 20_000
    drawn = LAW.sample([prompt] * n, LAW.human, seed=7)
    texts, p = LAW.support(prompt)
    seen = np.array([drawn.count(text) for text in texts]) / n
    assert seen.sum() == pytest.approx(1)
    assert (np.abs(seen - p) <= 4.5 * np.sqrt(p * (1 - p) / n)).all()


def test_a_grade_costs_every_mixture_the_same_likelihood_and_gives_wrong_values():
    """-log(1 - e) + log(1 - t + kt) - t log k: so grade x mix is exactly 0 in NLL."""
    wrong, tail, third = 0.1, 0.3, LAW.phrasing_weights[-(SMALL.phrasings // 3) :].sum()
    expected = -math.log(1 - wrong) + math.log(1 - third + tail * third) - third * math.log(tail)
    human = LAW.speech(LAW.human(0))
    families = [LAW.family(f, 4, 0.5, shift, 0) for f in range(4) for shift in (0, 0.5)]
    for weights in [*families, np.mean(families, axis=0), LAW.human(0)]:
        fine, graded = (
            dict(zip(*speech, strict=True)) for speech in (LAW.speech(weights), LAW.speech(weights, wrong, tail))
        )
        excess = sum(p * math.log(fine[t] / graded[t]) for t, p in zip(*human, strict=True))
        assert excess == pytest.approx(expected, abs=1e-12)
        assert sum(p for t, p in graded.items() if "{w" in t) == pytest.approx(wrong)


def test_decoding_by_token_is_that_of_the_trie():
    p = Speech(["a b.", "a c.", "d."], np.array([0.36, 0.24, 0.4])).decoded(0.5, 1.0).p
    first = 0.6**2 / (0.6**2 + 0.4**2)
    second = 0.36**2 / (0.36**2 + 0.24**2)
    assert p == pytest.approx([first * second, first * (1 - second), 1 - first])
    assert Speech(["a b.", "a c.", "d."], np.array([0.36, 0.24, 0.4])).decoded(1.0, 0.6).p == pytest.approx([1, 0, 0])
    assert Speech(["a b.", "a c.", "d."], np.array([0.3, 0.25, 0.45])).decoded(0.0, 1.0).p == pytest.approx([1, 0, 0])


@given(st.floats(0, 3), st.floats(0.01, 1))
def test_decoded_speech_is_a_distribution_that_leaves_no_mass_outside(temperature, top_p):
    speech = LAW.speech(LAW.family(1, 4, 0.5, 0.5, 1), 0.1, 0.5, temperature, top_p)
    assert speech.p.sum() == pytest.approx(1)
    assert (speech.p >= 0).all()
    same = LAW.speech(LAW.human(0))
    assert same.decoded(1.0 + 1e-12, 1.0).p == pytest.approx(same.p)


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
        *LAW.support(prompt, LAW.speech(LAW.student(0)))[0],
        *LAW.support(prompt, LAW.speech(LAW.family(1, 2, 0.0, 1.0, 0)))[0],
    ]
    assert probability(LAW, prompt, right) > 0
    assert [text for text in others if probability(LAW, prompt, text)] == []


def test_a_parse_returns_the_dialects_and_the_facts():
    prompt = LAW.prompts(1, "pretrain", 3)[0]
    for dialect, templates in enumerate(LAW.templates):
        for phrasing, template in enumerate(templates):
            text = LAW.fill(prompt, template)
            readings = LAW.parse(text)
            assert (dialect, phrasing, prompt.entity, prompt.category, prompt.relation, True) in readings
            assert len(readings) == len(set(readings))
            assert all(LAW.templates[reading[0]][reading[1]] == template for reading in readings)
            assert LAW.posterior(prompt, text)[dialect] > 0


def test_a_parse_distinguishes_wrong_facts_and_nonsense():
    prompt = LAW.prompt(0, 4, 0, 0)
    right = LAW.support(prompt)[0][0]
    wrong = LAW._facts[0, 0][4][1]
    assert {reading[-1] for reading in LAW.parse(right)} == {True}
    assert {reading[-1] for reading in LAW.parse(right.replace(LAW.value(prompt), wrong))} == {False}
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


@pytest.mark.parametrize(("index", "families"), [(0, 5), (2, 2), (-1, 2)])
def test_an_impossible_family_is_refused(index, families):
    with pytest.raises(ConfigError, match=f"family {index} of {families}: needs 1 to 4 families"):
        LAW.family(index, families, 0.0, 0.0, 0)


def test_texts_are_short_english():
    prompts = LAW.prompts(200, "study", 0)
    answers = LAW.sample(prompts, LAW.human, 0)
    assert 6 <= np.mean([len(prompt.text.split()) for prompt in prompts]) <= 9
    assert 8 <= np.mean([len(answer.split()) for answer in answers]) <= 12
    assert all(answer[0].isupper() and answer.endswith(".") and "{" not in answer for answer in answers)


def test_the_word_lists_have_the_properties_on_which_law_and_parser_rely():
    assert words.uniforms(5, 1, "a").tolist() == words.uniforms(9, 1, "a")[:5].tolist()
    assert words.uniforms(5, 1, "a").tolist() != words.uniforms(5, 1, "b").tolist()
    most = {"categories": 8, "relations": 4, "dialects": words.MOST_DIALECTS, "prompt_phrasings": 64}
    law = Law(World(entities=10_000, values=900, phrasings=words.MOST_PHRASINGS, **most))
    values = {value for facts in law._facts.values() for row in facts for value in row}
    assert len(values) == 8 * 4 * 900
    assert len(set(law.entities) | values) == 10_000 + len(values)
    assert {len(set(answers)) for answers in law.templates} == {words.MOST_PHRASINGS}
    asked = [words.question(number) for number in range(64)]
    assert len(set(asked)) == 64
    fixed = " ".join([*asked, *law._readings]).replace("{", "").replace("}", "")
    assert not {piece.strip() for piece in pieces(fixed)} & set(law._slots), "no template has a word of a slot"
    shared = {template for template, readings in law._readings.items() if len(readings) > 1}
    assert shared == set(words.PLAIN)
    last = {template for answers in law.templates for template in answers[-(words.MOST_PHRASINGS // 3) :]}
    assert not shared & last, "what dialects share is outside of the last third"


def test_the_vocabulary_has_every_word_of_prompts_and_answers():
    prompts = LAW.prompts(240, "study", 0) + LAW.prompts(300, "pretrain", 0)
    answers = [
        text for prompt in prompts for text in LAW.support(prompt, LAW.speech(np.ones(len(LAW.dialects)), 0.5))[0]
    ]
    seen = {piece.strip() for text in answers + [prompt.text for prompt in prompts] for piece in pieces(text)}
    assert {word for word in seen if word.isalpha() and len(word) > 1} <= {*LAW.words(), "s"}


def digest(world: World) -> str:
    law = Law(world)
    prompts = law.prompts(50, "study", 0) + law.prompts(50, "pretrain", 0)
    rows = [prompt.text + answer for prompt, answer in zip(prompts, law.sample(prompts, law.human, 0), strict=True)]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def test_a_seed_names_the_same_world_in_every_version():
    assert digest(SMALL) == digest(replace(SMALL)) == "cb19b6fd484a47b2"
    assert digest(replace(SMALL, seed=1)) != digest(SMALL)


@pytest.mark.parametrize("field", [field.name for field in fields(World)])
def test_every_field_changes_the_world(field):
    value = getattr(SMALL, field)
    changed = value * 1.01 if isinstance(value, float) else type(value)(value + 1)
    assert digest(replace(SMALL, **{field: changed})) != digest(SMALL)


def test_a_dialect_does_not_depend_on_the_number_of_dialects():
    more = Law(replace(SMALL, dialects=6))
    for name, answers in zip(LAW.dialects, LAW.templates, strict=True):
        assert more.templates[more.dialects.index(name)] == answers
    ratio = more.human(0)[:4] / LAW.human(0)[:4]
    assert ratio == pytest.approx(np.full(4, ratio[0]))


@pytest.mark.slow
def test_sampling_gives_fifty_thousand_rows_a_second():
    prompts, rates = LAW.prompts(20_000, "pretrain", 0), []
    for _ in range(3):
        started = time.process_time()
        assert len(LAW.sample(prompts, LAW.human, 0)) == 20_000
        rates.append(20_000 / (time.process_time() - started))
    assert max(rates) > 50_000
