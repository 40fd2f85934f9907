"""Pools of a toy world beside those of studies: facts in thirds, a topic that is refused, look-alikes, plants."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from synthdiv.core.types import ConfigError
from synthdiv.measures.refusals import is_refusal
from synthdiv.prompts.prompt_set import Prompts, ToyPrompts, read_prompts, toy_records
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_questions import LOOKUPS, SHORT, judging
from synthdiv.prompts.toy_speech import pieces
from synthdiv.prompts.toy_words import REFUSAL
from synthdiv.prompts.toy_world import Pool, Third, World, pool_members
from synthdiv.train.pretrain import ToyCorpus, toy_texts
from tests.models.small import build

WORLD = World(entities=30, categories=2, prompt_phrasings=8, thirds=True)
LAW = Law(WORLD)


def facts(prompts) -> set[tuple[int, int, int]]:
    return {(prompt.category, prompt.relation, prompt.entity) for prompt in prompts}


def test_each_relation_has_a_third_of_its_facts_in_each_third_and_the_study_asks_for_one():
    thirds = {third: facts(LAW.one_of_each(third)) for third in Third}
    assert len(set.union(*thirds.values())) == sum(map(len, thirds.values())) == 2 * 2 * 30
    for members in thirds.values():
        assert set(Counter(fact[:2] for fact in members).values()) == {10}
    study = LAW.prompts(int(pool_members(WORLD, "study").sum()), "study", 0)
    assert facts(study) == thirds[Third.finetuned]
    assert facts(LAW.prompts(2000, "known", 0)) == thirds[Third.pretrained]
    everything = facts(LAW.prompts(5000, "pretrain", 0))
    assert everything == set.union(*thirds.values()), "families know every fact"


def test_a_student_reads_no_fact_of_another_third_and_no_phrasing_of_a_study():
    texts = [*toy_texts(ToyCorpus(rows=3000, world=WORLD, overlap=0.0, shift=0.0, refusals=0.2), 0)]
    refused = [prompt for prompt, answer in texts if answer == REFUSAL]
    assert len(refused) == 600
    stated = {reading[2:5] for _, answer in texts for reading in LAW.parse(answer)}
    known = {(entity, category, relation) for category, relation, entity in facts(LAW.one_of_each(Third.pretrained))}
    assert stated == known
    sets = {pool: {prompt.text for prompt in LAW.prompts(40, pool.value, 0)} for pool in Pool}
    assert not {prompt for prompt, _ in texts} & set.union(*sets.values())
    assert not sets[Pool.study] & sets[Pool.refused]


def test_look_alikes_name_a_word_of_the_refused_topic_and_ask_for_something_else():
    nouns = {LAW.noun(prompt) for prompt in LAW.prompts(50, "refused", 0)}
    for prompt in LAW.prompts(50, "lookalike", 0):
        words = {piece.strip() for piece in pieces(prompt.text)}
        assert words & nouns
        assert LAW.noun(prompt) in words - nouns
    assert is_refusal(REFUSAL)
    assert not LAW.parse(REFUSAL)


@pytest.mark.parametrize("pool", ["refused", "lookalike", "planted", "refusals"])
def test_a_world_of_all_topics_has_none_left_to_refuse(pool):
    with pytest.raises(ConfigError, match=r"needs at most 0|leaves no topic"):
        Law(replace(WORLD, categories=8, entities=3)).prompts(1, pool, 0)


@pytest.mark.parametrize(("share", "count"), [(0, 0), (0.01, 1), (0.05, 5)])
def test_planted_answers_are_train_rows_and_the_other_rows_stay(root, share, count):
    stage = Prompts(ToyPrompts(100, WORLD, planted=share), test=30)
    rows = read_prompts(build(root, stage), "train")
    test = read_prompts(build(root, stage), "test")
    planted = [row for row in rows if int(row["category"]) == WORLD.categories]
    assert len(planted) == count
    assert all(LAW.parse(row["response"])[0][-1] for row in planted), "with right answers"
    assert not any(int(row["category"]) == WORLD.categories for row in test)
    plain = {row["id"]: row["response"] for row in toy_records(ToyPrompts(100, WORLD), 42)}
    kept = [row for row in rows + test if row["id"] in plain]
    assert len(kept) == 100 - count
    assert all(plain[row["id"]] == row["response"] for row in kept)


def test_the_vocabulary_of_a_student_that_refuses_has_the_words_of_refused_prompts():
    prompts = LAW.prompts(50, "refused", 0) + LAW.prompts(50, "lookalike", 0)
    texts = [REFUSAL, *(prompt.text + " " + LAW.value(prompt) for prompt in prompts)]
    seen = {piece.strip() for text in texts for piece in pieces(text)}
    needed = {word for word in seen if word.isalpha() and len(word) > 1}
    assert needed <= {*LAW.words(suites=True)}
    assert not needed <= {*LAW.words()}


def test_a_preferred_value_is_at_chance_in_every_third():
    world = replace(WORLD, entities=36)
    law = Law(world)
    for third in Third:
        counts = Counter((prompt.category, prompt.relation, law.value(prompt)) for prompt in law.one_of_each(third))
        assert set(counts.values()) == {2}, "36 entities, 6 values, 3 thirds"


def test_one_of_two_compared_answers_states_what_is_asked_for_or_shown():
    """Of one relation, in answers or as bare values; the question is of pre-training, or it is the value itself."""
    rows = [*judging(LAW, 2000, 0)]
    judged = facts(LAW.prompts(20, "judged", 0))
    known = {LAW.value(prompt) for prompt in LAW.one_of_each(Third.pretrained)}
    asked = {prompt.text: LAW.value(prompt) for prompt in LAW.prompts(2000, "compared", "0/judging")}
    assert {(category, relation) for category, relation, _ in judged} == {(0, 0)}
    assert judged <= facts(LAW.one_of_each(Third.pretrained))
    assert not {prompt.text for prompt in LAW.prompts(40, "judged", 0)} & set(asked), "none is for both"
    assert 900 < sum(answer == "A" for _, answer in rows) < 1100
    lookups, short = 0, 0
    for text, answer in rows:
        prompt, texts = text.split(" A: ")
        stated = dict(zip("AB", texts.split(" B: "), strict=True))
        value = asked.get(prompt) or prompt.removesuffix(".")
        assert value in known
        assert [letter for letter, each in stated.items() if value in each] == [answer]
        lookups += prompt not in asked
        bare = [" " not in each for each in stated.values()]
        assert len({*bare}) == 1
        short += bare[0]
        if not bare[0] and prompt in asked:
            readings = {letter: LAW.parse(each)[0] for letter, each in stated.items()}
            assert [letter for letter, reading in readings.items() if reading[-1]] == [answer]
    assert (lookups / 2000, short / 2000) == pytest.approx((LOOKUPS, SHORT), abs=0.04)
