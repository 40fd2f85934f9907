"""Each row has a random stream of its own, and `draw` turns it into tokens of exactly the model's law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.generate.hf import draw, processors
from synthdiv.generate.spec import Sampling
from synthdiv.generate.stream import row_seed, uniforms

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


def law(scores, sampling):
    """What the settings mean, by definition: softmax at the temperature, the smallest head of at least top_p."""
    p = torch.softmax(scores.double() / sampling.temperature, -1).numpy()
    order = np.argsort(-p, kind="stable")
    keep = order[: np.searchsorted(np.cumsum(p[order]), sampling.top_p) + 1]
    kept = np.zeros_like(p)
    kept[keep] = p[keep]
    return kept / kept.sum()


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0), Sampling(0.7, 0.9), Sampling(1.5, 0.6)])
def test_tokens_are_drawn_from_the_law(sampling):
    """Total variation of 20,000 draws over 40 tokens is about 0.02 by chance; a wrong temperature or cut gives 0.1."""
    scores = torch.randn(40, generator=torch.Generator().manual_seed(3)) * 2
    wanted = law(scores, sampling)
    rows = [row_seed(0, "m", "s", "train", 0, str(number), 0) for number in range(N)]
    chosen = processors(rows, sampling, "cpu")(torch.zeros((N, 1), dtype=torch.long), scores.repeat(N, 1)).argmax(-1)
    counts = np.bincount(chosen.numpy(), minlength=40)
    assert np.abs(counts / N - wanted).sum() / 2 < 0.025
    assert not counts[wanted == 0].any()
    for other in (Sampling(sampling.temperature * 1.3, sampling.top_p), Sampling(sampling.temperature, 0.75)):
        assert np.abs(law(scores, other) - wanted).sum() / 2 > 0.05  # the bound tells these apart


def test_steps_take_the_stream_in_order():
    """With a uniform law the token of a step is the uniform of that step in whole parts."""
    process = draw(["ab", "cd"], 5, "cpu")
    flat = torch.zeros((2, 10))
    drawn = torch.stack([process(None, flat).argmax(-1) for _ in range(5)], 1)
    wanted = np.floor(np.stack([uniforms("ab", 5), uniforms("cd", 5)]) * 10)
    np.testing.assert_array_equal(drawn.numpy(), wanted)


@pytest.mark.parametrize("uniform", [0.0, 5e-324, 1 - 2**-53, 1.0])
def test_a_token_without_mass_is_never_drawn(monkeypatch, uniform):
    """1.0 is what a float32 device makes of the largest double below 1."""
    monkeypatch.setattr("synthdiv.generate.hf.uniforms", lambda _stream, count: np.full(count, uniform))
    random = torch.Generator().manual_seed(0)
    for gaps in ([0], [99], [0, 1, 98, 99], list(range(1, 99))):
        scores = torch.randn((50, 100), generator=random) * 5
        scores[:, gaps] = -torch.inf
        chosen = draw(["0"] * 50, 1, "cpu")(None, scores).argmax(-1)
        assert not torch.isinf(scores[torch.arange(50), chosen]).any()
        held = [token for token in range(100) if token not in gaps]
        assert set(chosen.tolist()) == ({held[0]} if uniform < 0.5 else {held[-1]})


def test_greedy_has_no_processor_at_all():
    assert processors(["0"], Sampling(0.0), "cpu") == transformers.LogitsProcessorList()
