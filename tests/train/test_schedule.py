"""A schedule meets its budget exactly, sees every row once an epoch, and is settled by its seed."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.train.module import factor
from synthdiv.train.rows import Row
from synthdiv.train.schedule import Match, exact, order, schedule

supervised = st.lists(st.integers(1, 9), min_size=1, max_size=30)
batches, seeds, budgets = st.integers(1, 8), st.integers(0, 2**32 - 1), st.integers(1, 200)


@given(supervised, batches, st.sampled_from(Match), budgets, seeds)
def test_budgets_are_exact(tokens, batch, match, budget, seed):
    steps = schedule(tokens, batch, match, budget, seed)
    seen = list(chain(*steps))
    assert all(len(step) == batch for step in steps[:-1])
    assert 1 <= len(steps[-1]) <= batch
    if match is Match.rows:
        assert len(seen) == budget
    elif match is Match.steps:
        assert len(steps) == budget
        assert len(steps[-1]) == batch
    else:
        spent = sum(tokens[row] for row in seen)
        assert spent - tokens[seen[-1]] < budget <= spent


@given(supervised, batches, st.integers(1, 4), seeds)
def test_every_epoch_is_a_permutation_of_its_own(tokens, batch, epochs, seed):
    rows = len(tokens)
    seen = list(chain(*schedule(tokens, batch, Match.rows, rows * epochs, seed)))
    for epoch in range(epochs):
        part = seen[epoch * rows : (epoch + 1) * rows]
        assert sorted(part) == list(range(rows))
        assert part == order(rows, seed, epoch).tolist()


@given(supervised, batches, st.integers(1, 4), seeds)
def test_a_parted_schedule_has_the_same_rows_and_no_step_of_two_epochs(tokens, batch, epochs, seed):
    budget = len(tokens) * epochs
    parted = schedule(tokens, batch, Match.rows, budget, seed, parted=True)
    assert list(chain(*parted)) == list(chain(*schedule(tokens, batch, Match.rows, budget, seed)))
    assert len(parted) == epochs * -(-len(tokens) // batch)


@given(supervised, batches, st.integers(1, 60), seeds)
def test_a_budget_of_tokens_is_met_to_the_token(tokens, batch, budget, seed):
    rows = [Row(tuple(range(count + 2)), 2) for count in tokens]
    steps = schedule(tokens, batch, Match.supervised_tokens, budget, seed)
    cut, exactly = exact(rows, steps, budget)
    assert sum(cut[number].supervised for step in exactly for number in step) == budget
    assert all(cut[number].supervised for step in exactly for number in step)
    assert [len(step) for step in exactly] == [len(step) for step in steps]
    assert cut[: len(rows)] == rows
    assert len(cut) <= len(rows) + 1


def test_the_published_training_has_its_303_steps():
    """S1, 70B: 13,509 rows, 5 % of them for validation, 3 epochs, 128 rows a step."""
    rows = 13_509 - round(0.05 * 13_509)
    assert len(schedule([1] * rows, 128, Match.rows, 3 * rows, 0, parted=True)) == 303


@given(supervised, batches, budgets, seeds)
def test_a_larger_budget_begins_as_the_smaller(tokens, batch, budget, seed):
    short = schedule(tokens, batch, Match.steps, budget, seed)
    assert schedule(tokens, batch, Match.steps, budget + 3, seed)[:budget] == short


def test_seed_and_epoch_shuffle():
    orders = [order(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(actual) for actual in orders}) == 4


@given(st.integers(1, 300), st.sampled_from(["cosine", "constant"]), st.floats(0, 0.99))
def test_the_learning_rate_rises_to_its_peak_and_does_not_rise_again(steps, shape, warmup):
    shares = [factor(step, steps, shape, warmup) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    rising = next((place for place in range(1, steps) if shares[place] <= shares[place - 1]), steps)
    assert all(after <= before for before, after in zip(shares[rising:], shares[rising + 1 :], strict=False))


@pytest.mark.parametrize(
    ("shape", "warmup", "wanted"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("constant", 0.5, [1 / 3, 2 / 3, 1, 1]),
        ("cosine", 0.0, [1, 0.853553, 0.5, 0.146447]),
        ("cosine", 0.5, [1 / 3, 2 / 3, 1, 0.5]),
    ],
)
def test_the_learning_rate_by_hand(shape, warmup, wanted):
    assert [factor(step, 4, shape, warmup) for step in range(4)] == pytest.approx(wanted, abs=1e-6)
