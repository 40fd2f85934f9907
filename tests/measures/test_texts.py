"""The budget of equal texts: the same prompts in all arms, answers of one length, within and between prompts."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.measures import distinct_n, self_bleu
from synthdiv.measures.arm import MIN_WORDS, POOLED, WordArm
from synthdiv.measures.intervals import balanced, jackknife_masks
from synthdiv.measures.lexical import COUNT_MEASURES
from synthdiv.measures.texts import BETWEEN, long_prompts, texts_values, within_prompt_values
from synthdiv.measures.words import words
from tests.measures.material import SYNTHETIC, count_measures, made_answers, real_rows

K = len(COUNT_MEASURES)  # MTLD and compression follow; they have tests of their own
ANSWERS = st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join)
ARMS = st.lists(st.lists(ANSWERS, max_size=3), min_size=1, max_size=5)


def by_texts(arms, length, seed=0, paired=True):
    split = {name: WordArm.from_texts(list(groups.values())) for name, groups in arms.items()}
    return texts_values(split, {name: list(groups) for name, groups in arms.items()}, length, seed, paired)


def cut(groups, length):
    return [[" ".join(words(text)[:length]) for text in group] for group in groups]


def shared(arms, length):
    """The prompts to which every arm has answers, all of them long enough."""
    long = [{p for p, texts in a.items() if texts and min(len(words(t)) for t in texts) >= length} for a in arms]
    return [prompt for prompt in arms[0] if all(prompt in some for some in long)]


def test_values_and_replicates_are_those_of_plain_functions_on_the_cut_texts():
    arms = {"a": made_answers(0, prompts=36, samples=3), "b": made_answers(1, prompts=36, samples=2, topics=0)}
    prompts = shared(list(arms.values()), 10)
    assert 5 < len(prompts) < 30
    actual = by_texts(arms, 10, seed=3)
    for name, groups in arms.items():
        chosen = cut([groups[prompt] for prompt in prompts], 10)
        texts = actual[name]
        assert texts.pooled.value[:K] == pytest.approx(count_measures(list(chain(*chosen))), rel=1e-9)
        assert len(texts.pooled.value) == len(POOLED)
        assert texts.pooled.prompts == texts.between.prompts == len(prompts)
        assert texts.note.startswith(f"{36 - len(prompts)} of 36 prompts left out: ")
        assert "with an answer below 10 words" in texts.note
        masks = jackknife_masks(len(prompts), seed=3)
        left = [[group for group, stays in zip(chosen, mask, strict=True) if stays] for mask in masks]
        drawn = balanced(
            count_measures(list(chain(*chosen))), [count_measures(list(chain(*groups))) for groups in left], masks
        )
        assert texts.pooled.replicates[:, :K] == pytest.approx(drawn, rel=1e-9)
        first = [[group[0] for group in groups] for groups in (chosen, *left)]
        between = np.array([[self_bleu(some, 3).value, distinct_n(some, 2).value] for some in first])
        assert texts.between.value == pytest.approx(between[0], rel=1e-9)
        assert texts.between.replicates == pytest.approx(balanced(between[0], between[1:], masks), rel=1e-9)
        among = np.array([[self_bleu(group, 3).value, distinct_n(group, 2).value] for group in chosen])
        places = [list(groups).index(prompt) for prompt in prompts]
        assert texts.within[:, places] == pytest.approx(among.T, rel=1e-9)
        assert np.isnan(np.delete(texts.within, places, axis=1)).all()
    assert [measure.name for measure in BETWEEN] == ["self_bleu_3", "distinct_2"]


@settings(max_examples=60)
@given(ARMS)
def test_within_is_the_plain_function_on_each_prompts_answers(groups):
    actual = within_prompt_values(WordArm.from_texts(groups))
    for column, group in zip(actual.T, groups, strict=True):
        if len(group) < 2:
            assert np.isnan(column).all()
        else:
            expected = [self_bleu(group, 3).value, distinct_n(group, 2).value]
            assert column == pytest.approx(expected, rel=1e-9, nan_ok=True)


@given(ARMS, st.integers(1, 5))
def test_long_prompts_have_answers_and_no_short_one(groups, length):
    expected = [bool(group) and min(len(text.split()) for text in group) >= length for group in groups]
    assert long_prompts(WordArm.from_texts(groups), length).tolist() == expected


@settings(max_examples=60)
@given(ARMS, ARMS, st.integers(1, 4))
def test_all_arms_give_the_same_prompts_whatever_their_order(one, two, length):
    a, b = (dict(enumerate(groups)) for groups in (one, two))
    b = dict(reversed(b.items()))
    prompts = shared([a, b], length)
    actual = by_texts({"a": a, "b": b}, length)
    for name, groups in (("a", a), ("b", b)):
        chosen = cut([groups[prompt] for prompt in prompts], length)
        texts = list(chain(*chosen))
        if len(prompts) < 2 or sum(len(text.split()) for text in texts) < MIN_WORDS:
            assert np.isnan(actual[name].pooled.value).all()
            assert actual[name].pooled.missing_reason
        else:
            dropped = len(groups) - len(prompts)
            assert actual[name].pooled.prompts == len(prompts)
            assert actual[name].note.startswith(f"{dropped} of {len(groups)} prompts left out" if dropped else "")
            assert actual[name].pooled.value[:K] == pytest.approx(count_measures(texts), rel=1e-9, nan_ok=True)


def test_words_after_the_budget_do_not_matter():
    arm = made_answers(0)
    longer = {prompt: [f"{text} and so on" for text in texts] for prompt, texts in arm.items()}
    short, long = by_texts({"a": arm}, 9)["a"], by_texts({"a": longer}, 9)["a"]
    assert (short.pooled.value[:K] == long.pooled.value[:K]).all()
    assert (short.within == long.within).all()
    assert (short.between.replicates == long.between.replicates).all()
    assert short.note == ""


def test_unpaired_arms_give_their_own_first_prompts_as_many_as_the_fewest():
    one, two = made_answers(0, prompts=30), {f"q{i}": texts for i, texts in enumerate(made_answers(1).values())}
    actual = by_texts({"a": one, "b": two}, 11, paired=False)
    long = [[texts for texts in arm.values() if min(len(t.split()) for t in texts) >= 11] for arm in (one, two)]
    count = min(map(len, long))
    assert len(long[0]) != len(long[1])
    for name, groups in zip("ab", long, strict=True):
        assert actual[name].pooled.prompts == count
        expected = count_measures(list(chain(*cut(groups[:count], 11))))
        assert actual[name].pooled.value[:K] == pytest.approx(expected, rel=1e-9)
    assert math.isnan(by_texts({"a": one, "b": two}, 11)["a"].pooled.value[0])  # paired, they share no prompt


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(
    ("arm", "kept"),
    [({}, 0), ({"p": []}, 0), ({"p": ["a b c"], "q": ["a b"]}, 1), ({"p": ["a b c", "a"], "q": ["a b c"]}, 1)],
)
def test_an_arm_with_few_long_prompts_is_excluded(arm, kept, paired):
    large = made_answers(0) | {"p": ["a b c"], "q": ["a b c"]}
    actual = by_texts({"small": arm, "large": large}, 3, paired=paired)
    small, alone = actual["small"], by_texts({"large": large}, 3)["large"]
    assert np.isnan(small.pooled.value).all()
    assert np.isnan(small.between.value).all()
    assert np.isnan(small.within).all()
    assert small.pooled.missing_reason == f"{kept} prompts have answers of 3 words, less than a tenth of the most, 42"
    assert actual["large"].pooled.value == pytest.approx(alone.pooled.value, nan_ok=True)


def test_fewer_than_two_common_prompts_are_undefined_with_a_note():
    one, two = made_answers(0), {f"other {prompt}": texts for prompt, texts in made_answers(1, prompts=20).items()}
    for texts in by_texts({"a": one, "b": two}, 3).values():
        assert np.isnan(texts.pooled.value).all()
        assert texts.pooled.missing_reason == "fewer than 2 prompts have answers of 3 words in all of 2 (b has 20)"


def test_one_answer_a_prompt_has_nothing_within():
    texts = by_texts({"a": made_answers(0, samples=1)}, 9)["a"]
    assert np.isnan(texts.within).all()
    assert texts.within.shape == (2, 40)
    assert np.isfinite(texts.pooled.value[:K]).all()
    assert (texts.pooled.value[:K][[0, 2]] == texts.between.value).all()


def test_real_models_on_shared_prompts():
    names = ("gpt3-6b-finetuning", "gpt3-175b-finetuning", "gpt3-175b-verification")
    arms: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for row in real_rows(SYNTHETIC, 39_282):
        if row["source"] in arms:
            arms[row["source"]].setdefault(row["id"], []).append(row["response"])
    prompts = shared(list(arms.values()), 40)
    assert len(prompts) > 50
    actual = by_texts(arms, 40)
    for name, groups in arms.items():
        chosen = cut([groups[prompt] for prompt in prompts], 40)
        assert actual[name].pooled.prompts == len(prompts)
        assert actual[name].pooled.value[:K] == pytest.approx(count_measures(list(chain(*chosen))), rel=1e-9)
