"""The lexical scores of an arm: on the budget, with intervals, against vanilla on the same prompts."""

from __future__ import annotations

import math
import random
from itertools import chain

import numpy as np
import pytest

from synthdiv.measures import cut_to_words, lexical_scores, self_bleu
from synthdiv.measures.heaps import heaps
from synthdiv.measures.lexical import distinct_n
from synthdiv.types import DataError

VOCABULARY = [f"w{i}" for i in range(300)]
SET_LEVEL = ["self_bleu_3@words", "distinct_1@words", "distinct_2@words", "distinct_3@words"]
SET_LEVEL += ["heaps_beta@words", "heaps_k@words"]


def answers(seed, prompts=40, samples=2, words=12, vocabulary=300):
    rng = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(vocabulary)]
    lengths = range(words - 3, words + 4)
    return [
        [" ".join(rng.choices(VOCABULARY[:vocabulary], weights, k=rng.choice(lengths))) for _ in range(samples)]
        for _ in range(prompts)
    ]


def by_name(*arguments, **options):
    return {score.name: score for score in lexical_scores(*arguments, **options)}


def test_values_are_those_of_the_plain_functions_on_the_budget():
    student = answers(0)
    scores = by_name(student, None, 500, seed=0)
    assert list(scores) == [*SET_LEVEL, "response_words"]
    texts = [" ".join(words) for words in cut_to_words(list(chain(*student)), 500)]
    law = heaps(texts)
    expected = [self_bleu(texts, 3), *(distinct_n(texts, n) for n in (1, 2, 3)), law.beta, law.k]
    assert [scores[name].value for name in SET_LEVEL] == pytest.approx(expected, rel=1e-9)
    assert {scores[name].n for name in SET_LEVEL} == {math.ceil(len(texts) / 2)}
    assert scores["response_words"].value == pytest.approx(np.mean([len(t.split()) for t in chain(*student)]))
    assert scores["response_words"].n == 40


def test_every_value_has_an_interval_and_a_direction():
    scores = by_name(answers(0), answers(1), 900, seed=0)
    assert list(scores)[7:] == [f"{name}-vanilla" for name in [*SET_LEVEL, "response_words"]]
    for score in scores.values():
        assert score.low < score.value < score.high, score
        assert not score.note
    assert scores["self_bleu_3@words"].higher_is_better is False
    assert scores["distinct_2@words-vanilla"].higher_is_better is True
    assert scores["heaps_k@words"].higher_is_better is None


def test_a_narrower_vocabulary_is_seen_by_every_measure():
    scores = by_name(answers(0, vocabulary=60), answers(1), 900, seed=0)
    for name in SET_LEVEL[:5]:
        gap = scores[f"{name}-vanilla"]
        worse = gap.low > 0 if gap.higher_is_better is False else gap.high < 0
        assert worse, gap
    assert scores["response_words-vanilla"].low < 0 < scores["response_words-vanilla"].high


def test_against_itself_the_difference_and_its_interval_are_zero():
    scores = by_name(answers(0), answers(0), 900, seed=3)
    for name in [*SET_LEVEL, "response_words"]:
        gap = scores[f"{name}-vanilla"]
        assert (gap.value, gap.low, gap.high) == (0, 0, 0)


def test_the_budget_makes_length_irrelevant():
    short, long = answers(0, prompts=60, words=6), answers(1, prompts=60, words=12)
    scores = by_name(short, long, 600, seed=0)
    assert scores["distinct_1@words-vanilla"].low < 0 < scores["distinct_1@words-vanilla"].high
    assert scores["response_words-vanilla"].high < -5


def test_intervals_cover_the_expected_value():
    """Halves of the prompts instead of nine tenths fail this for heaps_k and distinct_3."""
    runs = [by_name(answers(2 * s), answers(2 * s + 1), 850, seed=s) for s in range(60)]
    for name in chain(*((name, f"{name}-vanilla") for name in SET_LEVEL)):
        values = np.array([run[name].value for run in runs])
        covered = np.mean([run[name].low <= values.mean() <= run[name].high for run in runs])
        width = np.mean([run[name].high - run[name].low for run in runs])
        assert covered >= 0.87, (name, covered)
        assert width < 1.8 * 3.92 * values.std(), name  # and not by being wide


def test_a_budget_of_every_word_still_has_intervals():
    """Most subsamples then lack their share of the budget: all of them get what the shortest has."""
    student = answers(0)
    every = sum(len(text.split()) for text in chain(*student))
    for score in lexical_scores(student, None, every, seed=0):
        assert score.low < score.value < score.high


def test_same_seed_same_intervals():
    arms = answers(0), answers(1), 700
    assert lexical_scores(*arms, seed=1) == lexical_scores(*arms, seed=1)
    assert lexical_scores(*arms, seed=1) != lexical_scores(*arms, seed=2)


def test_an_arm_below_the_budget_is_nan_and_leaves_the_other_alone():
    student, vanilla = answers(0), answers(1, words=4)
    scores = by_name(student, vanilla, 900, seed=0)
    alone = by_name(student, None, 900, seed=0)
    words = sum(len(text.split()) for text in chain(*vanilla))
    for name in SET_LEVEL:
        assert scores[name] == alone[name]
        gap = scores[f"{name}-vanilla"]
        assert math.isnan(gap.value)
        assert gap.note == f"vanilla has {words} words, the budget needs 900"
    assert scores["response_words-vanilla"].value > 5
    assert lexical_scores(vanilla, None, 900, seed=0)[0].note == f"{words} words, the budget needs 900"


@pytest.mark.parametrize("student", [[], [[]], [[""]], [[], ["", "!"]]])
def test_no_words_is_nan_with_a_note(student):
    scores = by_name(student, student, 100, seed=0)
    for name in SET_LEVEL:
        assert math.isnan(scores[name].value)
        assert scores[name].note == "0 words, the budget needs 100"


def test_one_text_and_one_prompt_say_what_they_lack():
    scores = by_name([["a b c a"]], None, 4, seed=0)
    assert scores["self_bleu_3@words"].note == "fewer than two texts in the budget"
    assert scores["heaps_k@words"].note == "a budget below 100 words"
    assert scores["distinct_1@words"].value == pytest.approx(0.75)
    assert math.isnan(scores["distinct_1@words"].low)
    assert scores["distinct_1@words"].note.startswith("no interval")
    assert scores["response_words"].value == 4


def test_prompts_without_an_answer_are_said():
    score = by_name([["a b"], [], ["a b c d"]], None, 6, seed=0)["response_words"]
    assert (score.value, score.n) == (3, 2)
    assert score.note == "1 of 3 prompts have no answer"


def test_arms_with_other_prompts_are_refused():
    with pytest.raises(DataError, match="40 prompts and vanilla 39"):
        lexical_scores(answers(0), answers(1)[:39], 500, seed=0)
