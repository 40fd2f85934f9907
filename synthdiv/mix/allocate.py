"""Which source answers which prompt, in exact counts, on the fixed grid of shards."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from synthdiv.prompts.shards import Grid
from synthdiv.prompts.split import largest_remainder


def owners(shards: int, weights: list[float], rotation: int) -> list[int]:
    """The source that owns each shard: the one with the largest deficit, so that every prefix is nearly in proportion.

    `rotation` shifts all sources by that many shards, so that another source owns each block.
    """
    total, counts, owner = sum(weights), [0] * len(weights), list[int]()
    for shard in range(shards + rotation):
        deficits = [round(weight / total * (shard + 1) - n, 9) for weight, n in zip(weights, counts, strict=True)]
        source = deficits.index(max(deficits))
        counts[source] += 1
        owner.append(source)
    return owner[rotation:]


def window(total: int, rows: int, turn: int) -> list[int]:
    """The positions of `rows` of `total` prompts: the first ones, or those from the place that belongs to a `turn` on,
    around the end. Places follow the golden ratio: however many turns there are, they are far apart."""
    first = total * (turn * 618_034 % 1_000_000) // 1_000_000
    return [(first + row) % total for row in range(rows)] if first else list(range(rows))


def allocate(
    grid: Grid, rows: int, weights: list[float], real_share: float, rotation: int = 0, real_rows: int = 0, turn: int = 0
) -> list[int]:
    """The source index of each row of the `window`, -1 for human. Counts are exact by largest remainder.

    With a share of real rows, generated rows come first and human rows follow, so a larger share needs the shards of a
    smaller mix. A number of real rows is the first ones, whatever is generated on top. If whole shards do not give the
    exact counts, sources with too many rows give up the last rows of their first shard.
    """
    real, generated = largest_remainder(rows, [real_share, 1 - real_share])
    if real_rows:
        real, generated = real_rows, rows - real_rows
    if generated < 1:
        return [-1] * rows
    shards, positions = grid.shard_of(), window(grid.rows, rows, turn)
    positions = positions[real:] if real_rows else positions[:generated]
    shard_of = [shards[position] for position in positions]
    order = [(rotation + positions[0] + index) % len(weights) for index in range(len(weights))]
    exact = dict(zip(order, largest_remainder(generated, [weights[source] for source in order]), strict=True))
    owner = owners(grid.shards, weights, rotation)
    result = [owner[shard] for shard in shard_of]
    counts = Counter(result)
    for giver in order:
        spare = [row for row in range(generated) if result[row] == giver]
        spare.sort(key=lambda row: (shard_of[row], -row))
        for taker in order:
            moved = min(counts[giver] - exact[giver], exact[taker] - counts[taker])
            for row in spare[: max(0, moved)]:
                result[row] = taker
                counts.update({giver: -1, taker: 1})
            spare = spare[max(0, moved) :]
    return [-1] * real + result if real_rows else result + [-1] * real


@lru_cache(maxsize=256)
def needed_shards(
    grid: Grid, rows: int, weights: tuple[float, ...], real_share: float, rotation: int, real_rows: int = 0,
    turn: int = 0, spares: int = 0,
) -> dict[int, list[int]]:  # fmt: skip
    """Source index → the shards it must answer for a mix and its spare rows, in order. Computed once for the many cells
    of a sweep that share a mix."""
    allocation = allocate(grid, rows, list(weights), real_share, rotation, real_rows, turn)
    allocation += [source for _, source in further_rows(grid, rows, list(weights), rotation, turn, spares)]
    shard_of, shards = grid.shard_of(), dict[int, set[int]]()
    for position, source in zip(window(grid.rows, len(allocation), turn), allocation, strict=True):
        if source >= 0:
            shards.setdefault(source, set()).add(shard_of[position])
    return {source: sorted(numbers) for source, numbers in sorted(shards.items())}


def further_rows(
    grid: Grid, rows: int, weights: list[float], rotation: int, turn: int, count: int
) -> list[tuple[int, int]]:
    """The next `count` positions after a mix, each with the source that owns its shard (-1: there is no source)."""
    positions = window(grid.rows, min(rows + count, grid.rows), turn)[rows:] if count else []
    if not weights or not positions:
        return [(position, -1) for position in positions]
    owner, shard_of = owners(grid.shards, weights, rotation), grid.shard_of()
    return [(position, owner[shard_of[position]]) for position in positions]
