"""Collapses of the human law: exact divergences that grow with the strength, and controls that are no collapse."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_collapse import COLLAPSES, CONTROLS, divergence, text_law
from synthdiv.prompts.toy_world import World

LAWS = [Law(World(seed=seed, categories=3, entities=12, values=4)) for seed in range(3)]
STRENGTHS = (0.1, 0.3, 0.6, 0.8)


def shares(law):
    """The probability of each topic and wording."""
    pairs = zip(law.topics, law.wordings, strict=True)
    return Counter({(n, text): q * p for n, (q, each) in enumerate(pairs) for text, p in zip(*each, strict=True)})


def entropy(law):
    return -sum(p * math.log(p) for p in shares(law).values() if p)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("change", COLLAPSES)
def test_a_collapse_grows_with_its_strength_and_loses_entropy(law, change):
    human = text_law(law)
    assert divergence(human, text_law(law, change, 0.0)) == pytest.approx((0, 0), abs=1e-12)
    changed = [text_law(law, change, strength) for strength in STRENGTHS]
    kl, lost = zip(*(divergence(human, each) for each in changed), strict=True)
    if change == "tail":  # what is cut is never given
        assert all(math.isinf(each) for each in kl)
        assert list(lost) == sorted(lost)
        assert lost == pytest.approx(STRENGTHS, abs=0.16), "wordings are not divided"
        assert all(loss <= strength for loss, strength in zip(lost, STRENGTHS, strict=True))
    else:
        assert 0 < kl[0] < kl[1] < kl[2] < kl[3] < math.inf
        assert set(lost) == {0}
    assert sum(shares(changed[-1]).values()) == pytest.approx(1)
    assert entropy(changed[-1]) < entropy(human)


@pytest.mark.parametrize("change", ["dialect", "topics", "modes", "temperature"])
def test_a_whole_collapse_loses_support(change):
    kl, lost = divergence(text_law(LAWS[0]), text_law(LAWS[0], change, 1.0))
    assert math.isinf(kl)
    assert 0 < lost < 1


def test_divergence_is_its_definition():
    p, q = (shares(text_law(LAWS[0], *change)) for change in ((), ("paraphrase", 0.5)))
    kl = sum(each * math.log(each / q[key]) for key, each in p.items())
    assert divergence(text_law(LAWS[0]), text_law(LAWS[0], "paraphrase", 0.5))[0] == pytest.approx(kl)


@pytest.mark.parametrize(("change", "strength"), [("", 0.0), ("tail", 0.4), ("paraphrase", 0.4), ("topics", 0.7)])
def test_texts_follow_the_law(change, strength):
    """Wordings of drawn texts, by their reading, against the exact shares: within four standard errors."""
    law, count = LAWS[1], 6000
    changed = text_law(law, change, strength)
    wordings = {}
    for topic, speech in enumerate(changed.wordings):
        for template in speech.templates:
            for reading in law.parse(law.fill(law.prompt(topic, 0, 0, 0), template)):
                wordings[topic, reading[:2]] = (topic, template)
    texts = [text for (text,) in changed.draw(count, 1, "test")]
    seen = Counter(wordings[reading[3], reading[:2]] for text in texts for reading in law.parse(text)[:1])
    assert sum(seen.values()) == count
    for key, share in shares(changed).items():
        assert seen[key] / count == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / count) + 1e-9)


def test_length_puts_two_answers_into_one_text_and_quality_changes_values_only():
    law = LAWS[0]
    plain, doubled, wrong = (text_law(law, *change).draw(400, 2, "x") for change in ((), ("length", 1), ("quality", 1)))
    assert all(len(each) == 2 for each in plain)
    assert all(
        two.startswith(f"{one} ") for a, b in zip(plain, doubled, strict=True) for one, two in zip(a, b, strict=True)
    )
    flat = [text for texts in wrong for text in texts]
    assert not any(right for text in flat for *_, right in law.parse(text)), "every value is that of another entity"
    assert len({*flat}) == len({text for texts in plain for text in texts}), "as many different texts"
    half = [text for texts in text_law(law, "quality", 0.5).draw(400, 1, "x") for text in texts]
    of_entity = {}
    for text in half:
        *_, entity, _, _, right = law.parse(text)[0]
        of_entity.setdefault(entity, set()).add(right)
    assert all(len(each) == 1 for each in of_entity.values()), "always the same entities"


def test_draws_are_independent_by_name_and_the_same_by_name():
    law = text_law(LAWS[0])
    assert law.draw(50, 1, "a") == law.draw(50, 1, "a") != law.draw(50, 1, "b")
    assert set(CONTROLS) == {"length", "quality"}
    assert np.isclose(text_law(LAWS[0], "topics", 0.5).topics[-1], 0.5 / 2.5)
