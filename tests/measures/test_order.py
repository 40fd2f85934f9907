"""MTLD against lexicalrichness; compression against its parts; intervals that cover."""

from __future__ import annotations

import gzip
import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.measures import order
from synthdiv.measures.estimates import prompt_groups
from synthdiv.measures.order import CODECS, codec_ratio, compression_ratio, mtld
from synthdiv.measures.words import words
from tests.measures.material import HUMAN, real_answers

COPIES = order.MTLD.caution
ONE = np.zeros(1, dtype=np.int64)


def groups(prompt, seed=0):
    return prompt_groups(int(prompt.max()) + 1, seed)


def mtld_of(tokens, prompt, seed=0, **how):
    return order.mtld_of(tokens, prompt, groups(prompt, seed), seed, **how)


def compression_of(texts, prompt, seed=0, **how):
    return order.compression_of(texts, prompt, groups(prompt, seed), seed=seed, **how)


def reference(tokens, threshold=0.72):
    richness = pytest.importorskip("lexicalrichness", reason="lexicalrichness is not installed")
    return richness.LexicalRichness(list(tokens), preprocessor=None, tokenizer=None).mtld(threshold)


def zipf(rng, count, vocabulary=2000):
    share = 1 / np.arange(1, vocabulary + 1)
    drawn = np.searchsorted(np.cumsum(share / share.sum()), rng.random(count))
    return [f"word{number}" for number in drawn]


def answers(seed, prompts, samples, length):
    """Answers whose words come from Zipf's law, but for a share from a prompt's own twelve."""
    rng = np.random.default_rng(seed)
    tokens = []
    for _ in range(prompts):
        share, own = rng.beta(2, 6), zipf(rng, 12)
        for _ in range(samples):
            count = max(1, rng.poisson(length * rng.lognormal(0, 0.5)))
            swap = rng.random(count) < share
            text = zip(zipf(rng, count), swap, rng.integers(0, 12, count), strict=True)
            tokens.append([own[k] if swapped else word for word, swapped, k in text])
    return tokens, np.repeat(np.arange(prompts), samples)


@pytest.mark.parametrize("count", [50, 51, 60, 137, 1000, 20_000])
@pytest.mark.parametrize("threshold", [0.66, 0.72, 0.75])
def test_mtld_is_the_reference_on_one_text(count, threshold):
    tokens = zipf(np.random.default_rng(count), count)
    assert mtld_of([tokens], ONE, threshold=threshold)[0] == pytest.approx(reference(tokens, threshold), rel=1e-9)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=50, max_size=150))
def test_mtld_is_the_reference_on_any_text(tokens):
    assert mtld_of([tokens], ONE)[0] == pytest.approx(reference(tokens), rel=1e-9)


def test_mtld_is_the_reference_on_real_texts():
    tokens = [text for text in map(words, real_answers(HUMAN, 2000)) if len(set(text)) < len(text) >= 50][:50]
    assert len(tokens) == 50
    for text in tokens:
        assert mtld_of([text], ONE)[0] == pytest.approx(reference(text), rel=1e-9)
    together = [word for text in tokens for word in text]  # answers to one prompt stay in order
    assert mtld_of(tokens, np.zeros(50, dtype=np.int64))[0] == pytest.approx(reference(together), rel=1e-9)


def test_pooled_mtld_is_the_mean_of_the_reference_over_orders():
    tokens, _ = answers(0, 2, 1, 400)
    both = [reference(tokens[0] + tokens[1]), reference(tokens[1] + tokens[0])]
    actual = {mtld_of(tokens, np.arange(2), seed=seed, orders=1)[0] for seed in range(20)}
    assert sorted(actual) == pytest.approx(sorted(both), rel=1e-9)
    many = mtld_of(tokens, np.arange(2), orders=100)[0]
    assert min(both) < many < max(both)


def test_mtld_extremes():
    assert mtld(["the"] * 100).value == 2  # the second word brings the share to one half
    assert mtld(["a b c d"] * 30).value == pytest.approx(6)  # 4 distinct of 6 is the first at or below 0.72
    fresh = " ".join(f"w{i}" for i in range(500))
    assert math.isnan(mtld([fresh]).value)
    assert mtld([fresh + " w3"]).value > 10_000  # the reference's partial factor, far from complete


@pytest.mark.parametrize("texts", [[], [""], ["!"] * 99, ["a b c"] * 16, [" ".join(f"w{i}" for i in range(99))]])
def test_mtld_undefined_has_a_note(texts):
    score = mtld(texts)
    assert math.isnan(score.value)
    assert "50 words" in score.note
    assert score.n == len(texts)


def test_mtld_of_one_prompt_or_few_factors_has_no_interval():
    tokens, prompt = answers(1, 30, 2, 60)
    texts = [" ".join(text) for text in tokens]
    full = mtld(texts, prompt.tolist())
    assert full.low < full.value < full.high
    assert (full.n, full.note, full.name, full.unit, full.higher_is_better) == (30, COPIES, "mtld", "words", True)
    one = mtld(texts, ["same"] * 60)
    few = mtld([" ".join(tokens) for tokens in np.split(np.array(zipf(np.random.default_rng(9), 200)), 20)])
    for score in (one, few):
        assert math.isfinite(score.value)
        assert math.isnan(score.low)
        assert "no interval" in score.note


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"threshold": 1.0}, {"orders": 0}])
def test_mtld_rejects_invalid_arguments(wrong):
    with pytest.raises(ValueError, match=r"threshold|orders"):
        mtld(["a b"] * 50, **wrong)


def test_mtld_is_reproducible_by_seed_and_blind_to_words():
    tokens, prompt = answers(2, 40, 2, 30)
    value, drawn = mtld_of(tokens, prompt, seed=3)
    again, redrawn = mtld_of([[word[::-1] for word in text] for text in tokens], prompt, seed=3)
    assert value == again != mtld_of(tokens, prompt, seed=4)[0]
    assert (drawn == redrawn).all()
    assert len(drawn) == 20


def test_mtld_replicates_agree_with_leaving_groups_out():
    """Leaving a group out and reading again moves MTLD as its pseudo-value says."""
    tokens, prompt = answers(3, 40, 1, 300)
    keep = groups(prompt) != 7
    for prompt_left_out in np.flatnonzero(~keep):
        tokens[prompt_left_out] = ["a", "b", "c"] * 100  # far less diverse than the rest
    value, drawn = mtld_of(tokens, prompt)
    left = [text for text, kept in zip(tokens, keep, strict=True) if kept]
    assert drawn.argmin() == 7
    without = value - (drawn[7] - value) / 19
    assert without == pytest.approx(mtld_of(left, np.arange(len(left)))[0], rel=0.15)
    assert drawn.mean() == pytest.approx(value)


def test_prompts_without_a_text_leave_the_value_alone():
    tokens, prompt = answers(4, 30, 2, 60)
    more = prompt_groups(35, 0)
    assert order.mtld_of(tokens, prompt, more)[0] == pytest.approx(mtld_of(tokens, prompt)[0], rel=0.2)
    ratio, drawn = order.compression_of([" ".join(text) for text in tokens], prompt, more)
    assert len(drawn) == 20
    assert np.isfinite([ratio, *drawn]).all()


def test_gzip_is_zlib_at_level_six():
    texts = [" ".join(text) for text in answers(5, 50, 1, 50)[0]]
    data = "\n".join(texts).encode()
    body = len(zlib.compress(data, 6)) - 6 + 18  # 18 bytes of gzip's header and trailer for 6 of zlib's
    assert codec_ratio(texts, "gzip") == len(data) / body
    assert gzip.decompress(gzip.compress(data, 6, mtime=0)) == data


def test_zstd_sees_repeats_that_gzip_cannot():
    texts = [" ".join(text) for text in answers(6, 400, 1, 60)[0]]  # more than 32 KiB, and then again
    assert sum(map(len, texts)) > 2 * 32_768
    assert codec_ratio(texts * 2, "gzip") == pytest.approx(codec_ratio(texts, "gzip"), rel=0.02)
    assert codec_ratio(texts * 2, "zstd") == pytest.approx(2 * codec_ratio(texts, "zstd"), rel=0.05)


@pytest.mark.parametrize("codec", CODECS)
def test_compression_scores(codec):
    texts = [" ".join(text) for text in answers(7, 60, 2, 30)[0]]
    score = compression_ratio(texts, [i // 2 for i in range(120)], codec)
    assert (score.name, score.n, score.higher_is_better, score.note) == (f"compression_{codec}", 60, False, "")
    assert 1 < score.low < score.value < score.high
    assert compression_ratio(texts, [i // 2 for i in range(120)], codec) == score
    assert compression_ratio(texts, [i // 2 for i in range(120)], codec, seed=1) != score
    same = compression_ratio(["the same thing again"] * 999, codec=codec)
    assert same.value > 50
    assert math.isnan(compression_ratio([texts[0] * 10], codec=codec).low)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("texts", [[], [""] * 5000, ["short"]])
def test_compression_undefined_has_a_note(codec, texts):
    score = compression_ratio(texts, codec=codec)
    assert math.isnan(score.value)
    assert "1000 bytes" in score.note


def test_compression_of_odd_text():
    assert compression_ratio(["é\ud800 ☃ 漢字"] * 200).value > 5  # half a surrogate pair: invalid UTF-8 read leniently
    with pytest.raises(ValueError, match="gzip, zstd"):
        compression_ratio(["a"], codec="lzma")


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(min_size=100, max_size=200), min_size=10, max_size=20), st.sampled_from(CODECS))
def test_compression_averages_its_orders(texts, codec):
    prompt = np.arange(len(texts))
    value, drawn = compression_of(texts, prompt, codec=codec)
    assert value > 0.5
    assert drawn.shape == (len(texts),)
    one = compression_of(texts, np.zeros(len(texts), dtype=np.int64), codec=codec)[0]
    assert one == pytest.approx(codec_ratio(texts, codec), rel=1e-12)


def test_ten_megabytes_in_one_text():
    text = " ".join(zipf(np.random.default_rng(8), 1_500_000))
    assert len(text) > 10_000_000
    assert 20 < mtld([text]).value < 100
    assert all(compression_ratio([text], codec=codec, orders=1).value > 2 for codec in CODECS)
