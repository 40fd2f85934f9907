"""Subsets of vectors: more diverse at each level, nearly as much as the quadratic traversal, one of each group."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.measures.spectrum import vendi
from synthdiv.mix.subset import choose, farthest_first
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import World

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


def clusters(rows: int, kinds: int, spread: float = 0.6, d: int = 32) -> np.ndarray:
    random = np.random.default_rng([rows, kinds])
    made = random.normal(size=(kinds, d))[random.integers(0, kinds, rows)] + spread * random.normal(size=(rows, d))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def apart(vectors: np.ndarray) -> float:
    """Mean cosine distance from the nearest other vector."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return float((1 - cosines.max(axis=1)).mean())


def test_farthest_first_is_the_quadratic_traversal_written_out():
    vectors, order = clusters(60, 5), [int((clusters(60, 5) @ clusters(60, 5).mean(axis=0)).argmax())]
    for _ in range(19):
        order.append(
            max(range(60), key=lambda i: min(1 - vectors[i] @ vectors[j] for j in order) if i not in order else -9)
        )
    assert farthest_first(vectors, 20, np.arange(60))[0].tolist() == order


@pytest.mark.parametrize(("kinds", "spread"), [(50, 0.6), (300, 0.3), (1, 9.0)])
def test_parts_give_nearly_what_the_quadratic_traversal_of_all_gives(kinds, spread):
    vectors, each = clusters(2000, kinds, spread), np.arange(2000)
    best = apart(vectors[farthest_first(vectors, 300, each)[0]])
    assert apart(vectors[choose(vectors, 300, 1.0, each)]) >= 0.95 * best
    assert apart(vectors[choose(vectors, 300, None, each)]) < 0.97 * best


def test_each_level_is_more_diverse_than_the_one_below():
    vectors, each = clusters(1200, 40), np.arange(1200)
    values = [vendi(vectors[choose(vectors, 150, level, each)]).value for level in LEVELS]
    assert all(low < high for low, high in itertools.pairwise(values))
    assert values[0] < vendi(vectors[choose(vectors, 150, None, each)]).value < values[-1]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 40), st.sampled_from([None, *LEVELS]), st.booleans())
def test_a_subset_has_so_many_rows_of_different_groups_or_one_of_every_group(rows, groups, count, level, copies):
    vectors = np.ones((rows, 4)) / 2 if copies else clusters(rows, 3, d=4)
    group = np.arange(rows) % groups
    chosen = choose(vectors, count, level, group)
    assert len({*group[chosen].tolist()}) == len(chosen) == min(count, rows, groups)
    assert (np.diff(chosen) > 0).all()
    assert (chosen == choose(vectors, count, level, group)).all()


def test_the_likelihood_of_an_answer_is_the_one_that_enumeration_gives():
    law = Law(World(entities=6, prompt_phrasings=4))
    prompt, other = law.prompts(2, "study", 0)
    texts, p = law.support(prompt)
    assert np.allclose([law.likelihood(prompt, text) for text in texts], p)
    wrong = law.fill(prompt, law.templates[0][0], law.values(prompt)[1])
    foreign = law.fill(prompt, law.templates[law.world.dialects][0])
    assert [law.likelihood(prompt, text) for text in (wrong, foreign, "", law.support(other)[0][0])] == [0.0] * 4
