"""Self-BLEU against sacrebleu itself, text by text, and what is true of it."""

from __future__ import annotations

import math
import random
from itertools import chain

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from synthdiv.measures import self_bleu, self_bleu_aggregated, self_bleu_individual
from synthdiv.measures.bleu import (
    NEEDS_FULL_POOL,
    NEEDS_TWO_SENTENCES,
    NEEDS_TWO_TEXTS,
    bleu_scores,
    self_bleu_of,
    tokens_13a,
)
from synthdiv.measures.estimates import ON_BOUND
from synthdiv.measures.ngrams import ngrams
from synthdiv.measures.words import sentences, words
from tests.measures.material import HUMAN, SYNTHETIC, left_out_interval, real_answers, real_rows

SMALL = st.text(alphabet="ab .", max_size=14)  # few letters and spaces: duplicates, ties in length, empty texts
SENTENCES = st.lists(st.sampled_from(["the", "cat", "The", "sat", "on", "3.5", "mat."]), max_size=9).map(" ".join)


def reference(texts, n):
    """sacrebleu, each text against all the others."""
    bleu = BLEU(max_ngram_order=n, effective_order=True)
    return float(np.mean([bleu.sentence_score(x, texts[:i] + texts[i + 1 :]).score for i, x in enumerate(texts)]))


def of_four_words(texts):
    """The sentences of each text that the published modes score."""
    return [[sentence for sentence in sentences(text) if len(words(sentence)) >= 4] for text in texts]


def english(seed, texts):
    rng = random.Random(seed)
    subject, verb = ["The old king", "A dog", "She", "Nobody's friend"], ["saw", "didn't like", "bought", "gave"]
    thing = ["3.5 apples", "the well-known book", "U.S. dollars, mostly", "a &quot;gift&quot;", "rain\nand snow"]
    end = [".", "!", " because it was late.", ", and then left...", " (again)?"]
    return [
        "".join([rng.choice(subject), " ", rng.choice(verb), " ", rng.choice(thing), rng.choice(end)])
        * rng.choice([1, 1, 2])
        for _ in range(texts)
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "texts",
    [
        english(0, 40),
        [*english(1, 41), "", "Yes", "Yes", "no match whatsoever here"],
        ["a b c d", "a b", "a b c d e f", "x"],  # 4 is as far from 2 as from 6: the shorter counts
        ["a a a a", "a a", "a b a b a", "a"],  # clipping, with one text alone at the top and with ties
        ["one", "one"],
        ["word", "other"],
        ["", "", "a b c", "b c d"],
        [
            "Привет, мир!",
            "Привет мир",
            "你好 世界",
            "naïve café – “quoted”",
            "naïve cafe",
            "e\u0301te\u0301 \U0001f600",
        ],
        ["same text here"] * 5 + ["same text"],
        ["all of them are equal"] * 4,
        ["b c d", "a b c d e", "e d c b a b c", "   ", "c"],
        ["a\u00a0b c\td\u2003e", "a b\nc d e", "<skipped>a b", "a-\nb &amp; &lt;c&gt;"],
    ],
)
def test_self_bleu_is_sacrebleu(texts, n):
    assert self_bleu(texts, n).value == pytest.approx(reference(texts, n), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("name", [HUMAN, SYNTHETIC])
def test_self_bleu_is_sacrebleu_on_real_answers(name, n):
    texts = [text[:200] for text in real_answers(name, 80, skip=9000)]
    texts += ["", "Yes.", *texts[:5]]
    assert self_bleu(texts, n).value == pytest.approx(reference(texts, n), rel=1e-9)


def test_self_bleu_is_sacrebleu_on_many_answers_to_one_prompt():
    several = {}
    for row in real_rows(SYNTHETIC, 39_282):
        several.setdefault(row["id"], []).append(row["response"][:500])
    texts = max(several.values(), key=len)
    assert len(texts) > 20
    for n in (2, 3, 4):
        assert self_bleu(texts, n).value == pytest.approx(reference(texts, n), rel=1e-9)


@settings(max_examples=150)
@given(st.lists(SMALL | SENTENCES, min_size=2, max_size=8), st.sampled_from([2, 3, 4]))
def test_self_bleu_is_sacrebleu_on_random_texts(texts, n):
    if sum(bool(text.strip()) for text in texts) > 1:
        assert self_bleu(texts, n).value == pytest.approx(reference(texts, n), rel=1e-9, abs=1e-12)
    else:
        assert math.isnan(self_bleu(texts, n).value)


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from([*"ab19.,,-- \n\t\u3000&;'()/é", "<skipped>", "&amp;", "&lt;"]), max_size=25).map("".join)
)
@example("1..5 a..5 .,1- -,-\n2 <skip-\nped> &amp;lt; x.\n.y")
def test_tokens_are_those_of_sacrebleu(text):
    assert tokens_13a([text]) == [Tokenizer13a()(text.rstrip()).split()]


@pytest.mark.parametrize("texts", [[], ["only one text"], ["", ""], [" ", "\n", ""], ["", "one text", ""]])
def test_self_bleu_undefined(texts):
    score = self_bleu(texts)
    assert np.isnan([score.value, score.low, score.high]).all()
    assert (score.note, score.n) == (NEEDS_TWO_TEXTS, len(texts))


def test_self_bleu_extremes():
    assert self_bleu(["a b c d", "a b c d"]).value == pytest.approx(100)
    assert self_bleu(["a b c", "d e f"]).value == 0  # a finding: nothing is shared
    score = self_bleu(["the very same"] * 30)
    assert (score.value, score.note) == (100, ON_BOUND)


@given(st.lists(SENTENCES, min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_self_bleu_bounds_order_and_doubling(texts, rng):
    if sum(map(bool, texts)) < 2:
        return
    value = self_bleu(texts).value
    assert 0 <= value <= 100 + 1e-9
    shuffled = rng.sample(texts, len(texts))
    assert self_bleu(shuffled).value == pytest.approx(value, rel=1e-12)
    assert self_bleu(texts * 2).value == pytest.approx(100 * sum(map(bool, texts)) / len(texts))


@given(st.lists(st.lists(SENTENCES, max_size=5), min_size=1, max_size=5), st.sampled_from([1, 2, 3, 4]))
def test_groups_are_scored_independently(groups, n):
    owner = np.repeat(np.arange(len(groups)) * 3, np.array([len(group) for group in groups]))  # with gaps
    tokens = tokens_13a(text for group in groups for text in group)
    table = ngrams(tokens, n)
    actual = bleu_scores(table, table.lengths, np.ones(len(tokens), dtype=bool), n, owner)
    for number, group in enumerate(groups):
        alone = ngrams(tokens_13a(group), n)
        expected = bleu_scores(alone, alone.lengths, np.ones(len(group), dtype=bool), n)
        assert actual[owner == 3 * number] == pytest.approx(expected, rel=1e-12, nan_ok=True)
        mean = self_bleu(group, n).value if group else math.nan
        assert (expected.mean() if len(group) else math.nan) == pytest.approx(mean, rel=1e-12, nan_ok=True)


@given(st.lists(SENTENCES, min_size=1, max_size=8), st.data())
def test_scores_of_a_selection_are_those_of_a_table_of_the_selection(texts, data):
    tokens = [text.split() for text in texts]
    present = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    kept = np.array([data.draw(st.integers(0, len(text))) for text in tokens])
    again = ngrams([text[:k] for text, k, is_present in zip(tokens, kept, present, strict=True) if is_present], 3)
    expected = self_bleu_of(again, again.lengths, np.ones(len(again.lengths), dtype=bool))
    actual = bleu_scores(ngrams(tokens, 3), kept, present, 3)
    assert np.isnan(actual[~present]).all()
    assert self_bleu_of(ngrams(tokens, 3), kept, present) == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_the_interval_leaves_out_groups_of_prompts():
    texts = english(2, 46)
    prompts = [f"p{number // 2}" for number in range(46)]
    score = self_bleu(texts, 3, prompts, seed=4)
    expected = left_out_interval(
        score.value, lambda kept: reference([text for i, text in enumerate(texts) if kept[i // 2]], 3), 23, 4, 0, 100
    )
    assert (score.low, score.high) == pytest.approx(expected, rel=1e-9)
    assert (score.name, score.n, score.higher_is_better, score.note) == ("self_bleu_3", 23, False, "")


def test_prompts_and_texts_must_match():
    for measure in (self_bleu, self_bleu_individual, self_bleu_aggregated):
        with pytest.raises(ValueError, match="2 answers and 1 prompts"):
            measure(["a b", "c d"], prompts=["p"])


def individual_reference(texts, prompts, n):
    """Mean over prompts of the mean over answers of sacrebleu among an answer's sentences."""
    means = {}
    for text, prompt in zip(of_four_words(texts), prompts, strict=True):
        if len(text) > 1:
            means.setdefault(prompt, []).append(reference(text, n))
    return [np.mean(values) for values in means.values()]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_individual_mode_is_sacrebleu_within_each_answer(n):
    texts = [" ".join(english(seed, 1 + seed % 5)) for seed in range(24)]
    prompts = [number // 3 for number in range(24)]
    expected = individual_reference(texts, prompts, n)
    score = self_bleu_individual(texts, n, prompts)
    assert score.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert score.n == len(expected)


def test_individual_mode_on_real_answers():
    texts = real_answers(SYNTHETIC, 60, skip=20_000)
    expected = individual_reference(texts, range(60), 3)
    score = self_bleu_individual(texts)
    assert score.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert score.n == len(expected) > 20
    assert score.note == f"{60 - score.n} of 60 prompts left out: {NEEDS_TWO_SENTENCES}"


@pytest.mark.parametrize("n", [2, 3])
def test_aggregated_mode_is_sacrebleu_in_each_full_pool(n):
    texts = english(5, 230)  # the last 30 are no pool
    pools = [list(chain(*of_four_words(texts[start : start + 100]))) for start in (0, 100)]
    expected = np.mean([reference(pool, n) for pool in pools])
    assert self_bleu_aggregated(texts, n).value == pytest.approx(expected, rel=1e-9)


def test_aggregated_mode_on_real_answers():
    texts = [text[:80] for text in real_answers(HUMAN, 100)]
    expected = reference(list(chain(*of_four_words(texts))), 3)
    score = self_bleu_aggregated(texts)
    assert score.value == pytest.approx(expected, rel=1e-9)
    assert score.low < score.value < score.high
    assert score.n == 100


def test_published_variants_count_words_where_no_blank_parts_them():
    """A blank in every sentence of English, none in most of Chinese."""
    texts = [f"今天天气很好{number}。我们去公园{number}。" for number in range(100)]
    assert self_bleu_individual(texts).n == 100
    assert math.isfinite(self_bleu_aggregated(texts).value)


def test_published_modes_undefined():
    short = "Yes. No it is not so."  # one sentence of four words
    score = self_bleu_individual([short, short])
    assert (math.isnan(score.value), score.note) == (True, f"2 of 2 prompts left out: {NEEDS_TWO_SENTENCES}")
    for texts in ([], english(0, 99), ["No. Yes."] * 100):
        score = self_bleu_aggregated(texts)
        assert (math.isnan(score.value), score.note) == (True, NEEDS_FULL_POOL)
