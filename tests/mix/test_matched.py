"""One source at the likelihood of several sources under the vanilla student."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from synthdiv.core.types import Artifact, DataError
from synthdiv.mix.matched import Matched, a_token, share_of
from synthdiv.mix.mix import Mix, read_mix
from tests.models.small import build, cpu_run, tiny_model


@pytest.fixture(scope="module")
def student(root):
    return build(root, tiny_model(0))


@pytest.fixture(scope="module")
def pools(root, prompts, student, tmp_path_factory):
    """Three mixes of human answers to other prompts, by their NLL a token, with it."""
    made = [build(root, Mix(20, real_share=1.0, train_rows=48, real_rotation=turn), prompts) for turn in range(3)]
    path = tmp_path_factory.mktemp("nll")
    pairs = zip(made, made[1:] + made[:1], strict=True)
    nll = [matched([one, one, other], prompts, student, path)["nll"]["multi"] for one, other in pairs]
    return sorted(zip(nll, made, strict=True), key=lambda pair: pair[0])


def matched(mixes, prompts, student, path):
    """The first is that of several sources, the others are those at temperatures 0.5 and 1."""
    stage = Matched(20, [0.5, 1.0])
    inputs = dict(zip(stage.input_names(), [prompts, student, *mixes], strict=True))
    return stage.build(inputs, path, cpu_run())


@given(
    rows=st.lists(st.tuples(*[st.tuples(st.floats(0.1, 50), st.integers(1, 40))] * 2), min_size=1, max_size=9),
    at=st.floats(0, 1),
)
def test_the_likelihood_a_token_is_matched_where_lengths_differ(rows, at):
    low, high = zip(*rows, strict=True)
    wanted = a_token(low) + at * (a_token(high) - a_token(low))
    assume(abs(a_token(high) - a_token(low)) > 1e-6)
    share = share_of(low, high, wanted)
    nll, tokens = ((1 - share) * sum(column) + share * sum(other) for column, other in
                   zip(zip(*low, strict=True), zip(*high, strict=True), strict=True))  # fmt: skip
    assert nll / tokens == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("order", [(0, 2), (2, 0)])
def test_rows_of_two_temperatures_are_mixed_and_say_what_they_reach(pools, prompts, student, tmp_path, order):
    (_, first), (_, second), (middle, wanted) = pools[order[0]], pools[order[1]], pools[1]
    summary = matched([wanted, first, second], prompts, student, tmp_path)
    rows, parts = read_mix(Artifact(None, "", tmp_path)), (read_mix(first), read_mix(second))
    assert sum(row == part for row, part in zip(rows, parts[1], strict=True)) == int(20 * summary["shares"]["1"])
    assert all(row in pair for row, *pair in zip(rows, *parts, strict=True))
    (again := tmp_path / "again").mkdir()
    other = pools[2 if summary["achieved"] < middle else 0][1]
    rows_as_one = matched([wanted, Artifact(None, "", tmp_path), other], prompts, student, again)["nll"]["0.5"]
    assert summary["achieved"] == pytest.approx(rows_as_one)


def test_a_likelihood_out_of_reach_names_the_closest_temperature(pools, prompts, student, tmp_path):
    (_, low), (_, middle), (_, high) = pools
    with pytest.raises(DataError, match=r"the closest is 0.5; give a wider range"):
        matched([low, middle, high], prompts, student, tmp_path)
