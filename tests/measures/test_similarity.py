"""Between-source similarity against its plain definition, and what is true of it and of the number of voices."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from synthdiv.measures.similarity import ngram_vectors, source_similarity
from synthdiv.measures.spectrum import effective_number
from tests.measures.material import cloud


def made(k=3, prompts=25, d=8, common=1.0, seed=0):
    """Sources whose answers are a common vector for each prompt and noise of their own."""
    topic = cloud(seed, prompts, d)
    return {f"s{i}": common * topic + cloud(seed + 100 + i, prompts, d) for i in range(k)}


def values(vectors, seed=0):
    return {score.name: score.value for score in source_similarity(vectors, seed)}


def plain(vectors):
    """By pairs of rows: the excess cosine of each pair of sources, and the same as a correlation."""
    units = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in vectors.items()}
    usable = {name: [p for p in range(len(rows)) if np.isfinite(rows[p]).all()] for name, rows in units.items()}

    def excess(a, b):
        same = [units[a][p] @ units[b][p] for p in usable[a] if p in usable[b]]
        other = [units[a][p] @ units[b][q] for p in usable[a] for q in usable[b] if p != q]
        return np.mean(same) - np.mean(other)

    pairs = {(a, b): excess(a, b) for a in vectors for b in vectors}
    return pairs, {(a, b): x / math.sqrt(pairs[a, a] * pairs[b, b]) for (a, b), x in pairs.items()}


@pytest.mark.parametrize("missing", [False, True])
def test_equals_the_plain_definition(missing):
    vectors = made()
    if missing:
        vectors["s0"][3], vectors["s1"][:2] = math.nan, math.nan
    excess, alike = plain(vectors)
    actual = values(vectors)
    for a, b in combinations(vectors, 2):
        assert actual[f"similarity/{a}+{b}"] == pytest.approx(excess[a, b])
        assert actual[f"alike/{a}+{b}"] == pytest.approx(alike[a, b])
    matrix = np.array([[alike[a, b] for a in vectors] for b in vectors])
    assert actual["voices"] == pytest.approx(9 / matrix.sum())
    assert actual["voices_vendi"] == pytest.approx(effective_number(matrix / 3, 1))
    assert actual["alike"] == pytest.approx((matrix.sum() - 3) / 6)


def test_sparse_and_dense_rows_are_the_same():
    vectors = made()
    assert values({name: csr_array(rows) for name, rows in vectors.items()}) == pytest.approx(values(vectors))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.floats(0, 5), st.integers(0, 99), st.permutations(range(5)))
def test_bounds_and_permutations(k, common, seed, order):
    vectors = made(k, common=common, seed=seed)
    actual = values(vectors)
    assert all(-1 <= value <= 1 for name, value in actual.items() if name.startswith("alike/"))
    assert 1 <= actual["voices"] <= k
    assert 1 - 1e-9 <= actual["voices_vendi"] <= k + 1e-9
    mixed = values({name: vectors[name] for name in [f"s{i}" for i in order if i < k]})
    for name in ("voices", "voices_vendi", "alike"):
        assert mixed[name] == pytest.approx(actual[name])


def test_one_voice_and_as_many_as_sources():
    """Copies are one voice; sources that have nothing in common on a prompt are as many as they are."""
    one = cloud(0, 40, 30, shift=0)
    copies = values(dict.fromkeys("abcd", one))
    assert (copies["voices"], copies["voices_vendi"], copies["alike"]) == pytest.approx((1, 1, 1))
    different = values({name: cloud(seed, 400, 200, shift=0) for seed, name in enumerate("abcd")})
    assert different["voices"] == pytest.approx(4, abs=0.05)
    two = values({"a": one, "b": one, "c": cloud(1, 40, 30, shift=0), "d": cloud(1, 40, 30, shift=0)})
    assert two["voices"] == pytest.approx(2, abs=0.1)


def test_what_all_answers_share_is_no_similarity():
    """An offset of all vectors raises cosines of the same and of different prompts alike."""
    vectors = {f"s{i}": cloud(i, 300, 50, shift=2) for i in range(2)}
    assert abs(values(vectors)["alike/s0+s1"]) < 0.1


def test_a_pair_depends_on_no_other_source():
    vectors = made(4)
    two = values({name: vectors[name] for name in ("s0", "s1")})
    assert values(vectors)["alike/s0+s1"] == pytest.approx(two["alike/s0+s1"], rel=1e-12)


def test_intervals_hold_the_value_and_narrow_with_prompts():
    width = {}
    for prompts in (40, 640):
        score = next(each for each in source_similarity(made(prompts=prompts)) if each.name == "voices")
        assert score.low < score.value < score.high
        width[prompts] = score.high - score.low
    assert width[640] < width[40] / 2


def test_undefined_has_a_reason():
    """One prompt; no prompt in common; a source that gives one vector to all prompts; a set of one source."""
    parrot = made(2)
    parrot["s1"][:] = parrot["s1"][0]
    apart = made(2)
    apart["s0"][::2], apart["s1"][1::2] = math.nan, 0.0
    for vectors in (made(2, prompts=1), parrot, apart):
        scores = {score.name: score for score in source_similarity(vectors)}
        for name in ("alike/s0+s1", "voices", "voices_vendi"):
            assert math.isnan(scores[name].value)
            assert "fewer than two prompts" in scores[name].note


def test_every_score_says_on_how_many_prompts_it_is():
    """A pair on those that both answer, a set as its pair that has the fewest."""
    vectors = made(3)
    vectors["s0"][3], vectors["s1"][3:5] = math.nan, 0.0
    scores = {score.name: score for score in source_similarity(vectors)}
    for pair, n in (("s0+s1", 23), ("s0+s2", 24), ("s1+s2", 23)):
        for name in ("similarity", "alike"):
            score = scores[f"{name}/{pair}"]
            assert (score.n, score.note) == (n, f"{25 - n} of 25 prompts lack the vector of a source")
    assert [scores[name].n for name in ("alike", "voices", "voices_vendi")] == [23, 23, 23]
    assert scores["voices"].note == "2 of 25 prompts lack the vector of a source"
    assert {(score.n, score.note) for score in source_similarity(made(3))} == {(25, "")}


@pytest.mark.parametrize("vectors", [made(1), {"a": np.eye(3), "b": np.eye(4)[:, :3]}])
def test_wrong_arguments_are_refused(vectors):
    with pytest.raises(ValueError, match="needs two or more"):
        source_similarity(vectors)


def test_ngrams_of_texts():
    """The cosine is n-grams in both / the geometric mean of their numbers; repeats count once."""
    vectors = ngram_vectors({"a": ["the old king is dead", "short"], "b": ["The old king, the old king lives.", "x y"]})
    cosine = (vectors["a"] @ vectors["b"].T).toarray()[0, 0] / math.sqrt(4 * 4)
    assert (vectors["a"].sum(), vectors["b"].sum()) == (4, 5)
    assert cosine == 2 / 4
