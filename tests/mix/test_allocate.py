"""Exact counts, the same prompts for every arm of one size, and shards that nested mixes share."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.mix.allocate import allocate, needed_shards, window
from synthdiv.prompts.shards import CYCLE, Grid
from synthdiv.prompts.split import largest_remainder

grids = st.builds(Grid, st.integers(1, 1500), st.sampled_from([1, 7, 50, 256]))
weights = st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0]), min_size=1, max_size=6)
even = st.sampled_from([1, 2, 3, 4, 6, 12]).map(lambda count: [1.0] * count)
real_shares = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])


def pairs(grid, rows, shares, *how):
    return {
        (source, shard) for source, shards in needed_shards(grid, rows, (*shares,), *how).items() for shard in shards
    }


@given(st.integers(0, 10_000), weights)
def test_largest_remainder_is_exact_and_within_one_of_the_share(total, shares):
    counts = largest_remainder(total, shares)
    assert sum(counts) == total
    assert all(abs(count - total * share / sum(shares)) < 1 for count, share in zip(counts, shares, strict=True))


@pytest.mark.parametrize(
    ("total", "shares", "counts"), [(10, [1, 1, 1], [4, 3, 3]), (7, [0.5, 0.25, 0.25], [3, 2, 2]), (0, [1, 2], [0, 0])]
)
def test_largest_remainder_by_hand(total, shares, counts):
    assert largest_remainder(total, shares) == counts


@given(grids)
def test_shards_part_the_order_into_nearly_equal_whole_cycles(grid):
    shards = [grid.positions(shard) for shard in range(grid.shards)]
    assert sorted(position for shard in shards for position in shard) == list(range(grid.rows))
    assert grid.shards % CYCLE == 0
    assert max(map(len, shards)) <= grid.shard_rows
    shard_of = grid.shard_of()
    assert all(shard_of[position] == number for number, shard in enumerate(shards) for position in shard)


@given(grids, weights, real_shares, st.integers(0, 20), st.data())
def test_counts_are_exact(grid, shares, real_share, rotation, data):
    rows = data.draw(st.integers(1, grid.rows))
    owners = allocate(grid, rows, shares, real_share, rotation % len(shares))
    counts = Counter(owners)
    real, generated = largest_remainder(rows, [real_share, 1 - real_share])
    assert len(owners) == rows
    assert counts[-1] == real
    order = [(rotation + index) % len(shares) for index in range(len(shares))]
    exact = largest_remainder(generated, [shares[source] for source in order])
    assert [counts[source] for source in order] == exact


@given(grids, even, real_shares, real_shares, st.integers(0, 11), st.data())
def test_nested_mixes_need_only_shards_of_the_largest(grid, shares, one, other, rotation, data):
    """Equal sources that fill a cycle: a smaller mix, or one with more real rows, needs no shard of its own."""
    rows = data.draw(st.integers(1, grid.rows))
    fewer = data.draw(st.integers(1, rows))
    small = pairs(grid, fewer, shares, max(one, other), rotation % len(shares))
    assert small <= pairs(grid, rows, shares, min(one, other), rotation % len(shares))


@given(grids, weights, real_shares, real_shares, st.integers(0, 5), st.data())
def test_any_weights_cost_at_most_a_shard_for_every_source_but_one(grid, shares, one, other, rotation, data):
    rows = data.draw(st.integers(1, grid.rows))
    fewer = data.draw(st.integers(1, rows))
    small = pairs(grid, fewer, shares, max(one, other), rotation % len(shares))
    assert len(small - pairs(grid, rows, shares, min(one, other), rotation % len(shares))) <= len(shares) - 1


@given(grids, weights, st.integers(0, 5), st.data())
def test_a_single_source_answers_every_shard_that_any_mix_needs(grid, shares, rotation, data):
    rows = data.draw(st.integers(1, grid.rows))
    several = needed_shards(grid, rows, (*shares,), 0.0, rotation % len(shares))
    alone = needed_shards(grid, rows, (1.0,), 0.0, 0)[0]
    assert all(set(shards) <= set(alone) for shards in several.values())


@given(grids, weights, st.integers(0, 5), st.integers(0, 30), st.data())
def test_a_larger_real_share_keeps_the_human_rows_of_a_smaller_one(grid, shares, rotation, turn, data):
    """In a regime of replacement the total stays, in one of scarce labels the human rows stay and the total grows."""
    rows = data.draw(st.integers(1, grid.rows))
    places = window(grid.rows, rows, turn)
    low, high = sorted(data.draw(st.tuples(*[st.floats(0, 1)] * 2)))
    owners = [allocate(grid, rows, shares, share, rotation % len(shares), 0, turn) for share in (low, high)]
    less, greater = ({place for place, owner in zip(places, each, strict=True) if owner < 0} for each in owners)
    assert less <= greater
    few, more = sorted(data.draw(st.tuples(*[st.integers(1, rows)] * 2)))
    assert allocate(grid, rows, shares, 0.0, 0, few, turn)[:few] == [-1] * few
    assert window(grid.rows, few, turn) == window(grid.rows, more, turn)[:few] == places[:few]


@given(grids, even, st.integers(0, 11), st.data())
def test_rows_generated_on_top_of_fixed_human_ones_need_only_shards_of_the_largest_mix(grid, shares, rotation, data):
    rows = data.draw(st.integers(1, grid.rows))
    fewer = data.draw(st.integers(1, rows))
    real = data.draw(st.integers(1, fewer))
    more_real = data.draw(st.integers(real, fewer))
    how = (shares, 0.0, rotation % len(shares))
    assert Counter(allocate(grid, rows, *how, real))[-1] == real
    assert pairs(grid, fewer, *how, real) <= pairs(grid, rows, *how, real)
    assert pairs(grid, rows, *how, more_real) <= pairs(grid, rows, *how, real)


@given(st.integers(1, 1500), st.integers(1, 10), st.data())
def test_turns_take_prompts_far_apart(total, turns, data):
    rows = data.draw(st.integers(1, total))
    starts = sorted(window(total, rows, turn)[0] for turn in range(turns))
    assert all(sorted(window(total, total, turn)) == list(range(total)) for turn in range(turns))
    gaps = [after - before for before, after in itertools.pairwise([*starts, total + starts[0]])]
    assert min(gaps) >= total / (3 * turns) - 1


@pytest.mark.parametrize("count", [2, 3, 4, 6, 12])
def test_blocks_of_equal_sources_alternate_row_by_row(count):
    """The order is dealt like cards: every `count` rows in a row are one of each source."""
    owners = allocate(Grid(240, 5), 240, [1.0] * count, 0.0)
    assert all(sorted(owners[at : at + count]) == list(range(count)) for at in range(0, 240, count))


@given(st.sampled_from([2, 3, 4, 6]), st.integers(1, 40))
def test_rotations_are_a_latin_square(count, cycles):
    """Each source owns each block once over all rotations."""
    grid = Grid(CYCLE * cycles, 1)
    squares = [allocate(grid, grid.rows, [1.0] * count, 0.0, rotation) for rotation in range(count)]
    assert all(sorted(column) == list(range(count)) for column in zip(*squares, strict=True))


def test_human_rows_follow_generated_ones():
    assert allocate(Grid(10, 5), 10, [1.0], 0.3) == [0] * 7 + [-1] * 3
