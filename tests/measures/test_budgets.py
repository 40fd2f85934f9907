"""The lexical scores of an arm: on both budgets, with intervals, against vanilla on the same prompts."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest

from synthdiv.core.types import DataError
from synthdiv.measures import (
    distinct_n,
    heaps,
    heaps_in_order,
    lexical_arm_scores,
    lexical_scores,
    ngram_entropy,
    repetition_rate,
    response_length,
    self_bleu,
    self_bleu_aggregated,
    self_bleu_individual,
    sentence_count,
)
from synthdiv.measures.arm import POOLED, WordArm, words_values
from synthdiv.measures.budgets import words_scores
from synthdiv.measures.intervals import jackknife_interval
from synthdiv.measures.lexical import COUNT_MEASURES
from synthdiv.measures.texts import BETWEEN, texts_values
from tests.measures.material import count_measures, made_answers

ON_WORDS = [f"{measure.name}@words" for measure in COUNT_MEASURES]
ON_TEXTS = [f"{measure.name}@texts" for measure in COUNT_MEASURES]
PARTS = [f"{name}_{part}@texts" for name in ("self_bleu_3", "distinct_2") for part in ("within", "between")]
ANSWER_BY_ANSWER = ["response_words", "sentences", "repetition_4"]
DEFINED = [*ON_WORDS, *ON_TEXTS, *PARTS, *ANSWER_BY_ANSWER]  # on forty prompts with two answers of a dozen words
FLAT = ("sentences", "repetition_4")  # the same for each of these answers: no full stop, hardly a repeated sequence
OF_READING = ("mtld", "compression")  # have tests of their own


def by_name(*arguments, **options):
    actual = lexical_scores(*arguments, **options)
    assert len({score.name for score in actual}) == len(actual)
    return {score.name: score for score in actual}


def test_values_are_those_of_the_plain_functions_on_the_budget():
    student = made_answers(0)
    scores = by_name(student, None, 500, 9)
    assert set(DEFINED) < set(scores)
    texts, left = [], 500
    for text in chain(*student.values()):
        texts += [" ".join(text.split()[:left])] * (left > 0)
        left -= len(text.split())
    assert [scores[name].value for name in ON_WORDS] == pytest.approx(count_measures(texts), rel=1e-9)
    assert {scores[name].n for name in ON_WORDS} == {math.ceil(len(texts) / 2)}
    cut = [" ".join(text.split()[:9]) for text in chain(*student.values())]
    assert [scores[name].value for name in ON_TEXTS] == pytest.approx(count_measures(cut), rel=1e-9)
    within = [distinct_n(cut[i : i + 2], 2).value for i in range(0, 80, 2)]
    assert scores["distinct_2_within@texts"].value == pytest.approx(np.mean(within))
    assert scores["self_bleu_3_between@texts"].value == pytest.approx(self_bleu(cut[::2], 3).value)
    assert {scores[name].n for name in (*ON_TEXTS, *PARTS, *ANSWER_BY_ANSWER)} == {40}


def test_single_answers_and_published_variants_are_the_plain_functions():
    """Answers of two sentences or one, some that repeat themselves; one full pool and 3000 words in the first."""
    made = made_answers(0, prompts=190, samples=3).values()
    student = {
        p: [". ".join(texts[: 2 - p % 5 // 4]), " ".join(texts[2:] * (1 + p % 2))] for p, texts in enumerate(made)
    }
    scores = by_name(student, None, 500, 9)
    texts, prompts = list(chain(*student.values())), [prompt for prompt in student for _ in range(2)]
    expected = [
        response_length(texts, prompts),
        sentence_count(texts, prompts),
        repetition_rate(texts, prompts),
        self_bleu_individual(texts, 3, prompts),
        self_bleu_aggregated(texts[::2], 3),  # of the first answer to each prompt
        *heaps_in_order(texts[::2], 1000),
    ]
    for score in expected:
        actual = scores[score.name]
        assert (actual.value, actual.low, actual.high) == pytest.approx((score.value, score.low, score.high), rel=1e-9)
        assert (actual.n, actual.unit, actual.higher_is_better) == (score.n, score.unit, score.higher_is_better)
        assert actual.low < actual.value < actual.high


def test_every_value_has_an_interval_and_a_direction():
    scores = by_name(made_answers(0), made_answers(1, topics=0), 900, 9)
    alone = [name for name in scores if not name.endswith("-vanilla")]
    assert list(scores) == [*alone, *(f"{name}-vanilla" for name in alone)]
    for name in chain(*((name, f"{name}-vanilla") for name in DEFINED)):
        low, value, high = scores[name].low, scores[name].value, scores[name].high
        assert low < value < high or (name.startswith(FLAT) and low == value == high), scores[name]
        assert not scores[name].note
    assert scores["self_bleu_3@words"].higher_is_better is False
    assert scores["distinct_2@words-vanilla"].higher_is_better is True
    assert scores["heaps_k@words"].higher_is_better is None


def test_a_difference_is_the_difference_of_the_values():
    student, vanilla = made_answers(0), made_answers(1, topics=0)
    scores, other = by_name(student, vanilla, 900, 9), by_name(vanilla, None, 900, 9)
    for name in DEFINED:
        gap = scores[f"{name}-vanilla"]
        assert gap.value == pytest.approx(scores[name].value - other[name].value, rel=1e-9, abs=1e-12)


def test_a_narrower_vocabulary_is_seen_by_every_measure():
    scores = by_name(made_answers(0, prompts=80, vocabulary=60), made_answers(1, prompts=80), 1700, 9)
    for name in (*ON_WORDS, *ON_TEXTS):
        gap = scores[f"{name}-vanilla"]
        if gap.higher_is_better is not None:
            assert gap.low > 0 if gap.higher_is_better is False else gap.high < 0, gap
    assert scores["response_words-vanilla"].low < 0 < scores["response_words-vanilla"].high


def test_equal_answers_to_a_prompt_are_seen_within_and_not_between():
    student = {prompt: [texts[0]] * 2 for prompt, texts in made_answers(0).items()}
    scores = by_name(student, made_answers(0), 700, 9)
    assert scores["self_bleu_3_within@texts"].value == pytest.approx(100)
    assert scores["self_bleu_3_within@texts-vanilla"].low > 50
    between = scores["self_bleu_3_between@texts-vanilla"]
    assert (between.value, between.low, between.high) == (0, 0, 0)


def test_against_itself_the_difference_and_its_interval_are_zero():
    scores = by_name(made_answers(0), made_answers(0), 900, 9, seed=3)
    for name in DEFINED:
        gap = scores[f"{name}-vanilla"]
        assert (gap.value, gap.low, gap.high) == (0, 0, 0)


def test_the_budgets_make_length_irrelevant():
    """Twice as long answers of the same law; a topic in each would be another law."""
    short, long = made_answers(0, prompts=100, words=9), made_answers(1, prompts=100, words=18)
    plainly = [distinct_n(list(chain(*arm.values())), 1).value for arm in (short, long)]
    assert plainly[0] > 1.2 * plainly[1]
    scores = by_name(short, long, 1500, 6)
    for name in ("distinct_1@words", "entropy_1@words", "distinct_1@texts", "entropy_1@texts"):
        gap = scores[f"{name}-vanilla"]
        assert gap.low < 0 < gap.high, gap
    assert scores["response_words-vanilla"].high < -8


def test_a_budget_of_every_word_still_has_intervals():
    """Replicates then lack their share of the budget: all of them get what the shortest has."""
    student = made_answers(0)
    every = sum(len(text.split()) for text in chain(*student.values()))
    scores = by_name(student, None, every, 9)
    for name in ON_WORDS:
        assert scores[name].low < scores[name].value < scores[name].high


def test_same_seed_same_scores_and_the_seed_moves_only_intervals():
    arms = made_answers(0), made_answers(1), 700, 9
    one, same, two = (
        [score for score in lexical_scores(*arms, seed=seed) if not score.name.startswith(OF_READING)]
        for seed in (1, 1, 2)
    )
    assert repr(one) == repr(same)  # repr: NaN is not equal to itself
    assert repr([score.value for score in one]) == repr([score.value for score in two])
    assert sum(a.low != b.low for a, b in zip(one, two, strict=True) if not math.isnan(a.low)) > 30


def test_an_arm_below_the_budget_is_nan_and_leaves_the_other_alone():
    student, vanilla = made_answers(0), made_answers(1, words=4)
    scores, alone = by_name(student, vanilla, 900, 2), by_name(student, None, 900, 2)
    words = sum(len(text.split()) for text in chain(*vanilla.values()))
    for name in ON_WORDS:
        assert scores[name] == alone[name]
        gap = scores[f"{name}-vanilla"]
        assert np.isnan([gap.value, gap.low, gap.high]).all()
        assert f"{words} words, the budget needs 900" in gap.note
    assert scores["response_words-vanilla"].value > 5
    other_way = by_name(vanilla, student, 900, 2)
    assert math.isnan(other_way["distinct_1@words-vanilla"].value)
    for score in words_scores(vanilla, None, 900):
        assert score.note == f"{words} words, the budget needs 900"


def test_words_scores_are_the_words_part_of_all():
    arms = made_answers(0), made_answers(1)
    everything = {name: score for name, score in by_name(*arms, 900, 9).items() if "@words" in name}
    assert repr(words_scores(*arms, 900)) == repr(list(everything.values()))
    assert repr(words_scores(arms[0], None, 900)) == repr(
        list(by_name(arms[0], None, 900, 9).values())[: len(everything) // 2]
    )


def test_arms_in_groups_share_the_prompts_of_the_texts_budget():
    one, two = made_answers(0), made_answers(1, words=9)
    two.pop("p3")
    actual = {
        name: {s.name: s for s in scores} for name, scores in lexical_arm_scores({"a": one, "b": two}, 600, 9).items()
    }
    assert actual["a"]["distinct_2@texts"].n == actual["b"]["distinct_2@texts"].n < 30
    assert actual["a"]["distinct_2@texts"].note == "26 of 40 prompts left out: 26 for other arms"
    assert "of 39 prompts" in actual["b"]["distinct_2@texts"].note
    assert not any(name.endswith("-vanilla") for name in actual["a"])


def test_arms_with_other_prompts_are_refused():
    other = made_answers(1, prompts=39)
    with pytest.raises(DataError, match="40 prompts, vanilla 39"):
        lexical_scores(made_answers(0), other, 500, 9)
    with pytest.raises(DataError, match="the same prompts in one order"):
        lexical_scores(other, dict(reversed(other.items())), 500, 9)


BIG = "The quick brown fox, again. " * 40_000  # over a million characters
BAD = {
    "no arms' prompts": {},
    "no answers": {"p": [], "q": []},
    "empty answers": {"p": [""], "q": ["", "!"]},
    "some answers": {"p": [], "q": ["a b c d. e f g h."], "r": ["", "..."]},
    "one text": {"p": ["a b c a"]},
    "one word": {"p": ["word"], "q": []},
    "all equal": {number: ["all of these are equal"] * 2 for number in range(120)},
    "one word over and over": {number: ["word " * 40] for number in range(120)},
    "a large text": {"p": [BIG], "q": [BIG[:99]], "r": []},
    "no spaces": {"p": ["x" * 1_000_000], "q": ["字" * 1000], "r": ["\ud800\x00\u0301 \ufeff"]},
}


@pytest.mark.parametrize("student", BAD.values(), ids=BAD)
@pytest.mark.parametrize("other", [True, False])
def test_bad_input_is_a_number_or_nan_with_a_note(student, other):
    arm = WordArm.from_texts(list(student.values()))
    scores = lexical_scores(student, student if other else None, 90, 3)
    grouped = lexical_arm_scores({"a": student, "b": made_answers(0)}, 90, 3, paired=other)
    assert len(grouped["b"]) == len(grouped["a"])
    for score in chain(scores, grouped["a"]):
        assert math.isnan(score.low) == math.isnan(score.high)
        assert score.note or not math.isnan(score.low), score
        assert score.n or math.isnan(score.value), score
        counts = ("response_words", "sentences", "empty")
        if not arm.tokens or (not arm.lengths.any() and not score.name.startswith(counts)):
            assert math.isnan(score.value), score


def test_measures_of_no_text_of_one_and_of_equal_ones():
    """A zero is a finding: only where something was counted."""
    measures = (distinct_n, ngram_entropy, self_bleu, self_bleu_individual, self_bleu_aggregated)
    for texts in ([], [""], ["", "\u00a0"], [" \n"]):
        for score in (*(measure(texts, 2) for measure in measures), *heaps(texts), *heaps_in_order(texts)):
            assert np.isnan([score.value, score.low, score.high]).all(), score
            assert score.note
    for texts in ([BIG], [BIG, BIG]):
        scores = [measure(texts, 2) for measure in measures[:2]] + heaps(texts)[:2] + heaps_in_order(texts)[:2]
        assert all(math.isfinite(score.value) for score in scores)
        assert self_bleu_individual(texts).value == pytest.approx(100, abs=0.01)
        assert math.isnan(self_bleu(texts).value) == (len(texts) == 1)
    assert self_bleu([BIG, BIG]).value == pytest.approx(100)


@pytest.mark.parametrize("difference", [False, True])
def test_intervals_cover_the_expected_value(difference):
    """Of every measure of a set, on both budgets. Fresh prompts in each run, two arms that answer the same ones.

    Intervals may be wider than they need be, twice for what hardly varies (distinct-1, compression), but not more.
    MTLD has none on so few words.
    """
    runs: dict[str, list[list[np.ndarray]]] = {}
    for seed in range(60):
        arms = {name: made_answers(2 * seed + i, topics=seed) for i, name in enumerate("ab")}
        split = {name: WordArm.from_texts(list(groups.values())) for name, groups in arms.items()}
        texts = texts_values(split, {name: list(groups) for name, groups in arms.items()}, 9, seed)
        parts = {
            "words": words_values(split, 850, seed),
            "texts": {name: actual.pooled for name, actual in texts.items()},
            "between": {name: actual.between for name, actual in texts.items()},
        }
        for name, part in parts.items():
            measured = part["a"].minus(part["b"]) if difference else part["a"]
            ends = jackknife_interval(measured.value, measured.replicates)
            runs.setdefault(name, []).append([measured.value, *ends])
    for part, actual in runs.items():
        value, low, high = np.swapaxes(actual, 0, 1)
        expected, spread = value.mean(axis=0), value.std(axis=0)
        covered = ((low <= expected) & (expected <= high)).mean(axis=0)
        width = (high - low).mean(axis=0) / (2 * 1.96 * spread)
        for column, measure in enumerate(BETWEEN if part == "between" else POOLED):
            if measure.name != "mtld":
                assert covered[column] >= 0.87, (measure.name, part, covered[column])
                assert width[column] < 2.2, (measure.name, part, width[column])
