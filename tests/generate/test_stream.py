"""Each row has a random stream of its own, and `RowSampler` turns it into tokens of exactly the model's law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.generate.spec import Sampling
from synthdiv.generate.stream import HEAD_TOKENS, RowSampler, cut_scores, row_seed, sample_by_inverse_cdf, uniforms

BASE = (0, "model", "oak", "train", 0, "p-1", 0)
N = 20_000


@pytest.mark.parametrize("place", range(len(BASE)))
def test_every_part_of_a_row_gives_another_stream(place):
    other = list(BASE)
    other[place] = other[place] + (1 if isinstance(other[place], int) else "x")
    assert row_seed(*other) != row_seed(*BASE)


def test_a_stream_is_frozen():
    """Another generator or another seeding would change every answer ever sampled."""
    assert row_seed(*BASE) == "38832bfaa78683aa7d9cbd48af436547"
    np.testing.assert_array_equal(uniforms("1f", 2), np.random.Generator(np.random.Philox(key=31)).random(2))


@given(st.integers(0, 2**128 - 1), st.integers(1, 20), st.integers(0, 20))
def test_a_longer_stream_begins_with_the_shorter(seed, short, more):
    name = f"{seed:032x}"
    np.testing.assert_array_equal(uniforms(name, short + more)[:short], uniforms(name, short))


CUTS = [Sampling(1.0, 1.0, top_k=7), Sampling(1.5, 0.9, top_k=12, min_p=0.2)]


def law(scores, sampling):
    """What the settings mean, by definition: softmax at the temperature, the top_k best, the smallest head of at least
    top_p, and of it what has at least min_p times the best."""
    p = torch.softmax(scores.double() / sampling.temperature, -1).numpy()
    order = np.argsort(-p, kind="stable")
    p[order[sampling.top_k or len(p) :]] = 0
    p /= p.sum()
    keep = order[: np.searchsorted(np.cumsum(p[order]), sampling.top_p) + 1]
    kept = np.zeros_like(p)
    kept[keep] = p[keep]
    kept[kept < sampling.min_p * kept.max()] = 0
    return kept / kept.sum()


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0), Sampling(0.7, 0.9), Sampling(1.5, 0.6), *CUTS])
def test_tokens_are_drawn_from_the_law(sampling):
    """Total variation of 20,000 draws over 40 tokens is about 0.02 by chance; a wrong temperature or cut gives 0.1."""
    scores = torch.randn(40, generator=torch.Generator().manual_seed(3)) * 2
    wanted = law(scores, sampling)
    rows = [row_seed(0, "m", "s", "train", 0, str(number), 0) for number in range(N)]
    draws = RowSampler(rows, 1, "cpu", sampling)
    chosen = draws(scores.repeat(N, 1), torch.arange(N), 0)
    counts = np.bincount(chosen.numpy(), minlength=40)
    assert np.abs(counts / N - wanted).sum() / 2 < 0.025
    assert not counts[wanted == 0].any()
    for other in (Sampling(sampling.temperature * 1.3, sampling.top_p), Sampling(sampling.temperature, 0.75)):
        assert np.abs(law(scores, other) - wanted).sum() / 2 > 0.05  # the bound tells these apart


def test_steps_take_the_stream_in_order():
    """With a uniform law the token of a step is the uniform of that step in whole parts; rows go by their number."""
    draws = RowSampler(["ab", "cd"], 5, "cpu", Sampling(1.0, 1.0))
    flat = torch.zeros((2, 10))
    drawn = torch.stack([draws(flat, torch.tensor([1, 0]), step) for step in range(5)], 1)
    wanted = np.floor(np.stack([uniforms("cd", 5), uniforms("ab", 5)]) * 10)
    np.testing.assert_array_equal(drawn.numpy(), wanted)
    assert draws(flat[:1], torch.tensor([1]), 4) == wanted[0, 4]


@pytest.mark.parametrize("uniform", [0.0, 5e-324, 1 - 2**-53, 1.0])
@pytest.mark.parametrize("top_p", [1.0, 0.999999])
def test_a_token_without_mass_is_never_drawn(monkeypatch, uniform, top_p):
    """1.0 is what a float32 device makes of the largest double below 1."""
    monkeypatch.setattr("synthdiv.generate.stream.uniforms", lambda _stream, count: np.full(count, uniform))
    random = torch.Generator().manual_seed(0)
    for gaps in ([0], [99], [0, 1, 98, 99], list(range(1, 99))):
        scores = torch.randn((50, 100), generator=random) * (5 if top_p == 1 else 1)
        scores[:, gaps] = -torch.inf
        chosen = RowSampler(["0"] * 50, 1, "cpu", Sampling(1.0, top_p))(scores, torch.arange(50), 0)
        assert not torch.isinf(scores[torch.arange(50), chosen]).any()
        held = [token for token in range(100) if token not in gaps]
        assert set(chosen.tolist()) == ({held[0]} if uniform < 0.5 else {held[-1]})


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("vocabulary", [1, HEAD_TOKENS - 1, HEAD_TOKENS, HEAD_TOKENS + 1, 5000])
def test_the_head_gives_the_same_token_as_the_whole_vocabulary(top_p, spread, vocabulary):
    """Nuclei of one token up to all: those wider than the head are looked for in the whole."""
    scores = torch.randn((300, vocabulary), generator=torch.Generator().manual_seed(1)) * spread
    streams, rows = [f"{number:032x}" for number in range(300)], torch.arange(300)
    draws = RowSampler(streams, 1, "cpu", Sampling(0.7, top_p))
    wanted = sample_by_inverse_cdf(cut_scores(scores / 0.7, top_p=top_p), draws.table)
    actual = draws(scores, rows, 0)
    if spread:
        assert torch.equal(actual, wanted)
    else:  # of equal tokens either cut takes as many, and not the same ones
        share = torch.tensor(len(set(actual.tolist())) / max(1, len(set(wanted.tolist()))))
        assert 0.8 < share < 1.25


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_repetition_penalty_is_that_of_transformers(temperature):
    """Of the prompt and of what was drawn, whatever rows are left."""
    scores = [torch.randn((3, 30), generator=torch.Generator().manual_seed(step)) for step in range(12)]
    streams, prompts = [f"{number:032x}" for number in range(3)], [[1, 2], [3], [4, 5, 6]]
    draws = RowSampler(streams, 12, "cpu", Sampling(temperature, 1.0, repetition_penalty=4.0), prompts)
    plain = RowSampler(streams, 12, "cpu", Sampling(temperature, 1.0))
    penalty, ids = transformers.RepetitionPenaltyLogitsProcessor(4.0), [list(row) for row in prompts]
    for step in range(12):
        rows = [0, 1, 2] if step < 5 else [2, 0]
        now = torch.cat([penalty(torch.tensor([ids[row]]), scores[step][row : row + 1].clone()) for row in rows])
        wanted = plain(now, torch.tensor(rows), step)
        assert torch.equal(draws(scores[step][rows], torch.tensor(rows), step), wanted)
        for row, token in zip(rows, wanted.tolist(), strict=True):
            ids[row].append(token)


def test_temperature_zero_is_greedy_and_draws_nothing():
    scores = torch.randn((4, 30), generator=torch.Generator().manual_seed(1))
    draws = RowSampler(["no stream"] * 4, 5, "cpu", Sampling(0.0, 1.0))
    assert torch.equal(draws(scores, torch.arange(4), 9), scores.argmax(-1))
