"""The word lists of the toy world have the properties on which its law and its parser rely."""

from __future__ import annotations

from synthdiv.prompts import toy_words as words
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import World


def test_fewer_numbers_and_names_are_a_prefix_of_more():
    assert words.uniforms(5, 1, "a").tolist() == words.uniforms(9, 1, "a")[:5].tolist()
    assert words.uniforms(5, 1, "a").tolist() != words.uniforms(5, 1, "b").tolist()
    assert words.names("entity", 5, 0) == words.names("entity", 9, 0)[:5]


def test_the_largest_world_has_enough_words():
    world = World(entities=10_000, categories=8, relations=4, values=900, dialects=64, phrasings=words.MOST_PHRASINGS)
    law = Law(world)
    values = {value for facts in law._facts.values() for value in facts}
    assert len(values) == 8 * 4 * 900
    assert len(set(law.entities) | values) == 10_000 + len(values)
    assert {len(set(answers)) for answers in law.templates} == {words.MOST_PHRASINGS}


def test_no_template_contains_a_word_that_the_parser_looks_for():
    law = Law(World(entities=10_000, categories=8, relations=4, values=900))
    fixed = " ".join([*words.QUESTIONS, *sum(words.OPENERS.values(), ()), *words.FRAMES, *words.CLOSERS, *words.PLAIN])
    assert not set(fixed.replace(",", " ").replace(".", " ").split()) & set(law._slots)
    openers = sum(words.OPENERS.values(), ())
    assert len(set(openers)) == len(openers)
