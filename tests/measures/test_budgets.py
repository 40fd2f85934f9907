"""The lexical scores of an arm: on both budgets, with intervals, the same whatever other arms there are."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.core.types import DataError
from synthdiv.measures import (
    distinct_n,
    heaps_in_order,
    lexical_scores,
    repetition_rate,
    response_length,
    self_bleu_aggregated,
    self_bleu_individual,
    sentence_count,
)
from synthdiv.measures.budgets import WITHIN, TextBudget, WordArm, texts_gaps, words_scores
from synthdiv.measures.estimates import NO_SPREAD
from synthdiv.measures.lexical import COUNT_MEASURES
from tests.measures.material import count_measures, made_answers

ON_WORDS = [f"{measure.name}@words" for measure in COUNT_MEASURES]
ON_TEXTS = [f"{measure.name}@texts" for measure in COUNT_MEASURES]
PARTS = [f"{measure.name}_within@texts" for measure in WITHIN]
DEFINED = [*ON_WORDS, *ON_TEXTS, *PARTS]  # of made_answers with BUDGET
BUDGET = TextBudget(words=480, texts=40, length=9, cap=50, within=2, draws=2)
ANSWERS = st.lists(st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join), max_size=4)


def by_name(student, vanilla=None, budget=BUDGET, seed=0):
    actual = lexical_scores(student, vanilla, budget, seed)
    assert len({score.name for score in actual}) == len(actual)
    return {score.name: score for score in actual}


def firsts(groups):
    return [texts[0] for texts in groups.values()]


def cut(text, length):
    return " ".join(text.split()[:length])


def test_values_are_those_of_the_plain_functions_on_the_budget():
    student = made_answers(0, prompts=80)
    scores = by_name(student)
    texts, left = [], BUDGET.words
    for text in firsts(student):
        texts += [cut(text, min(left, 9))] * (left > 0)  # 480 / 50 words of one answer
        left -= len(text.split()[:9])
    assert [scores[name].value for name in ON_WORDS] == pytest.approx(count_measures(texts), rel=1e-9)
    assert {scores[name].n for name in ON_WORDS} == {len(texts)}
    first = [cut(text, 9) for text in firsts(student)]
    assert [scores[name].value for name in ON_TEXTS] == pytest.approx(count_measures(first[:40]), rel=1e-9)
    assert {scores[name].n for name in ON_TEXTS} == {40}
    within = [distinct_n([cut(text, 9) for text in texts], 2).value for texts in student.values()]
    assert scores["distinct_2_within@texts"].value == pytest.approx(np.mean(within))
    assert scores["distinct_2_within@texts"].n == 80


def test_what_copies_and_repetitions_do_to_mtld_and_self_bleu_is_in_their_notes():
    """With every text twice MTLD hardly moves, and distinct-2 halves. An answer that says itself again fills the budget
    with fewer answers, so Self-BLEU falls, as if answers were more diverse."""
    plain = made_answers(0, prompts=80, words=6)
    copied = {(copy, key): texts for copy in range(2) for key, texts in plain.items()}
    one, two = by_name(plain), by_name(copied, budget=replace(BUDGET, words=960))
    assert two["mtld@words"].value > 0.8 * one["mtld@words"].value
    assert two["distinct_2@words"].value < 0.6 * one["distinct_2@words"].value
    assert "it does not see copied answers" in two["mtld@words"].note
    again = by_name({key: [f"{text} {text}" for text in texts] for key, texts in plain.items()})
    assert again["self_bleu_3@words"].value < 0.7 * one["self_bleu_3@words"].value
    assert again["self_bleu_3@words"].note.startswith("it falls where answers repeat themselves")
    assert not by_name(made_answers(0, prompts=80))["self_bleu_3@texts"].note, "exactly as many texts"


def test_single_answers_and_published_variants_are_the_plain_functions():
    """Answers of two sentences or one, some that repeat themselves; one full pool and 3000 words in the first."""
    made = made_answers(0, prompts=190, samples=3).values()
    student = {
        p: [". ".join(texts[: 2 - p % 5 // 4]), " ".join(texts[2:] * (1 + p % 2))] for p, texts in enumerate(made)
    }
    scores = by_name(student)
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


def test_every_value_has_an_interval_a_direction_and_a_difference():
    student, vanilla = made_answers(0, prompts=80), made_answers(1, prompts=80, topics=0)
    scores, other = by_name(student, vanilla), by_name(vanilla)
    alone = [name for name in scores if not name.endswith("-vanilla")]
    assert list(scores) == [*alone, *(f"{name}-vanilla" for name in alone)]
    for name in DEFINED:
        level, gap = scores[name], scores[f"{name}-vanilla"]
        assert level.low < level.value < level.high or "no interval" in level.note, level
        assert gap.low < gap.value < gap.high or NO_SPREAD in gap.note, gap
        assert gap.value == pytest.approx(level.value - other[name].value, rel=1e-9, abs=1e-12)
    assert scores["self_bleu_3@words"].higher_is_better is False
    assert scores["distinct_2@words-vanilla"].higher_is_better is True
    assert scores["heaps_k@words"].higher_is_better is None


def test_a_narrower_vocabulary_is_seen_by_every_measure():
    scores = by_name(made_answers(0, prompts=80, vocabulary=40), made_answers(1, prompts=80, vocabulary=400))
    for name in (*ON_WORDS, *ON_TEXTS):
        gap = scores[f"{name}-vanilla"]
        if gap.higher_is_better is not None and "distinct_3" not in name:
            assert gap.low > 0 if gap.higher_is_better is False else gap.high < 0, gap


def test_against_itself_the_difference_is_zero():
    arm = made_answers(0, prompts=80)
    scores = by_name(arm, arm, seed=3)
    assert all((scores[f"{name}-vanilla"].value, NO_SPREAD in scores[f"{name}-vanilla"].note) == (0, True)
               for name in DEFINED)  # fmt: skip


def test_the_budgets_make_length_irrelevant():
    """Twice as long answers of the same law; a topic in each would be another law."""
    short, long = made_answers(0, prompts=200, words=9), made_answers(1, prompts=200, words=18)
    plainly = [distinct_n(list(chain(*arm.values())), 1).value for arm in (short, long)]
    assert plainly[0] > 1.2 * plainly[1]
    scores = by_name(short, long, replace(BUDGET, words=900, texts=150, length=6))
    for name in ("distinct_1@words", "entropy_1@words", "distinct_1@texts", "entropy_1@texts"):
        gap = scores[f"{name}-vanilla"]
        assert gap.low < 0 < gap.high, gap
    assert scores["response_words-vanilla"].high < -8


# Kinds of fault: what a number may depend on.


@settings(max_examples=25, deadline=None)
@given(st.lists(ANSWERS, min_size=3, max_size=6), st.lists(ANSWERS, min_size=6, max_size=6), st.integers(1, 4))
def test_a_number_of_an_arm_does_not_depend_on_another_arm(groups, others, length):
    budget = TextBudget(words=12, texts=2, length=length, cap=2, within=2, draws=2)
    student, vanilla = dict(enumerate(groups)), dict(zip(range(len(groups)), others, strict=False))
    alone, beside = by_name(student, None, budget), by_name(student, vanilla, budget)
    assert repr(alone) == repr({name: beside[name] for name in alone})


def test_a_number_does_not_depend_on_the_number_of_answers_to_a_prompt():
    """Five draws of one law: four answers to each prompt for one group, one for the other."""
    made = made_answers(0, prompts=120, samples=5)
    four, one = {p: texts[:4] for p, texts in made.items()}, {p: texts[:1] for p, texts in made.items()}
    first, other = by_name(four), by_name(one)
    for name in (*ON_WORDS, *ON_TEXTS):
        assert first[name] == other[name]
    unequal = {p: texts * (1 + number % 3) for number, (p, texts) in enumerate(four.items())}
    assert by_name(unequal)["distinct_2_within@texts"] == first["distinct_2_within@texts"]
    assert math.isnan(other["distinct_2_within@texts"].value)


def test_one_runaway_answer_is_not_the_sample():
    arm = made_answers(0, prompts=120)
    looped = arm | {"p0": ["round and " * 3000, *arm["p0"][1:]], "p7": ["again " * 2000]}
    calm, wild = by_name(arm, None, replace(BUDGET, words=900)), by_name(looped, None, replace(BUDGET, words=900))
    for name in ON_WORDS:
        if not name.startswith("heaps_k"):
            assert wild[name].value == pytest.approx(calm[name].value, rel=0.1, abs=0.02), name
    assert calm["words_cut@words"].value == 0
    assert wild["words_cut@words"].value > 0.8
    assert wild["looping"].value == pytest.approx(1.5 / 120)
    assert wild["looping"].low > 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 60), st.integers(1, 9))
@settings(deadline=None)
def test_words_are_of_first_answers_in_order_each_up_to_the_cap(lengths, words, cap):
    groups = {number: [" ".join(f"w{number}" for _ in range(size)), "more"] for number, size in enumerate(lengths)}
    budget = TextBudget(words=words, texts=2, length=1, cap=cap)
    most, total, used = max(words // cap, 1), 0, 0
    while used < len(lengths) and total < words:
        total += min(lengths[used], most)
        used += 1
    score = {score.name: score for score in words_scores(groups, budget=budget)}["entropy_1@words"]
    if total < words:
        assert score.note == f"{total} words in first answers of at most {most}, the budget needs {words}"
    else:
        assert score.n == used
        assert math.isnan(score.value) == (words < 20)


@given(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=9), st.integers(1, 4), st.integers(2, 5))
@settings(deadline=None, max_examples=50)
def test_texts_are_exactly_so_many_first_answers_that_are_long_enough(sizes, length, texts):
    groups = {n: [" ".join([f"w{n}"] * size) for size in group] for n, group in enumerate(sizes)}
    scores = by_name(groups, None, TextBudget(words=9, texts=texts, length=length, within=2, draws=2))
    long = [n for n, group in enumerate(sizes) if group and group[0] >= length][:texts]
    score = scores["distinct_1@texts"]
    if len(long) < texts:
        assert score.note == f"{len(long)} first answers have {length} words, the budget needs {texts}"
    elif texts * length >= 20:
        assert (score.value, score.n) == (pytest.approx(1 / length), texts)
    short = [not group or group[0] < length for group in sizes]
    assert scores["passed_over@texts"].value == pytest.approx(np.mean(short))
    enough = [group for group in sizes if len(group) >= 2 and min(group[:2]) >= length]
    within = scores["distinct_2_within@texts"]
    assert (within.n == len(enough)) or length == 1
    assert math.isnan(within.value) == (len(enough) < 2 or length == 1)


def test_a_contrast_is_on_the_first_prompts_where_both_arms_have_long_answers():
    student, vanilla = made_answers(0, prompts=80), made_answers(1, prompts=80, topics=0)
    student |= {f"p{number}": ["short"] for number in range(0, 10, 2)}
    vanilla |= {f"p{number}": ["short"] for number in range(1, 6, 2)}
    both = [p for p in student if len(student[p][0].split()) >= 9 <= len(vanilla[p][0].split())][:40]
    gap = by_name(student, vanilla)["distinct_2@texts-vanilla"]
    wanted = [distinct_n([cut(arm[p][0], 9) for p in both], 2).value for arm in (student, vanilla)]
    assert gap.value == pytest.approx(wanted[0] - wanted[1], rel=1e-9)
    assert (gap.n, gap.note) == (40, "")
    fewer = by_name(student, vanilla, replace(BUDGET, texts=75))["distinct_2@texts-vanilla"]
    assert (fewer.n, fewer.note) == (72, "on 72 texts, fewer than 75")
    none = by_name(student, vanilla, replace(BUDGET, texts=150))["distinct_2@texts-vanilla"]
    assert none.note == "both arms have 9 words in the first answers to 72 prompts, the budget needs 150"


def law(rng, names, count):
    return " ".join(rng.choices(names, k=count))


def test_a_contrast_of_selected_texts_is_marked_and_shown_only_if_its_sign_lasts():
    """Long answers of the student are richer, its short ones poorer: what is long enough says nothing of the rest."""
    rng = random.Random(0)
    rich, plain, poor = ([f"w{number}" for number in range(size)] for size in (400, 100, 8))
    vanilla = {p: [law(rng, plain, 12)] for p in range(90)}
    student = {p: [law(rng, rich, 12) if p % 2 else law(rng, poor, 6)] for p in range(90)}
    gap = by_name(student, vanilla, replace(BUDGET, length=10))["entropy_1@texts-vanilla"]
    assert math.isnan(gap.value)
    assert gap.note.startswith("not shown: ")
    assert gap.note.endswith("selected: the shares passed over differ by 0.50")
    richer = {p: [law(rng, rich, 12 if p % 2 else 6)] for p in range(90)}
    gap = by_name(richer, vanilla, replace(BUDGET, length=10))["entropy_1@texts-vanilla"]
    assert gap.value > 0
    assert gap.note == "selected: the shares passed over differ by 0.50; the same sign at 5 words"
    arms = [WordArm(list(groups.values())) for groups in (richer, vanilla)]
    half = {each.measure.name: each.value for each in texts_gaps(*arms, replace(BUDGET, length=5))}
    assert half["entropy_1@texts"] > 0


def test_same_seed_same_scores_and_the_seed_moves_only_intervals():
    arms = made_answers(0, prompts=80), made_answers(1, prompts=80)
    one, again, other = (by_name(*arms, seed=seed) for seed in (1, 1, 2))
    assert repr(one) == repr(again)
    for name in ("distinct_2@words", "entropy_1@texts", "self_bleu_3@texts-vanilla"):
        assert one[name].value == other[name].value
        assert one[name].low != other[name].low


def test_words_scores_are_the_words_part_of_all():
    arms = made_answers(0, prompts=80), made_answers(1, prompts=80)
    everything = [score for name, score in by_name(*arms).items() if "@words" in name]
    assert repr(words_scores(*arms, budget=BUDGET)) == repr(everything)


def test_arms_with_other_prompts_are_refused():
    other = made_answers(1, prompts=39)
    with pytest.raises(DataError, match="40 prompts, vanilla 39"):
        by_name(made_answers(0), other)
    with pytest.raises(DataError, match="the same prompts in one order"):
        by_name(other, dict(reversed(other.items())))


def test_more_answers_than_are_drawn_is_a_mistake():
    assert TextBudget(within=4, draws=3).check("b") == [
        "b.within=4: more than b.draws=3, among which they are looked for"
    ]
    assert not TextBudget().check("b")


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
    texts = list(chain(*student.values()))
    budget = TextBudget(words=90, texts=2, length=3, cap=2, within=2, draws=2)
    for score in lexical_scores(student, student if other else None, budget):
        assert math.isnan(score.low) == math.isnan(score.high)
        assert score.note or not math.isnan(score.low), score
        assert score.n or math.isnan(score.value), score
        if not texts and "passed" not in score.name:
            assert math.isnan(score.value), score
