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


def allocate(grid: Grid, rows: int, weights: list[float], real_share: float, rotation: int = 0) -> list[int]:
    """The source index of each of the first `rows` positions, -1 for human. Counts are exact by largest remainder.

    Generated rows come first and human rows follow, so a larger real share needs the shards of a smaller mix. If whole
    shards do not give the exact counts, sources with too many rows give up the last rows of their first shard.
    """
    real, generated = largest_remainder(rows, [real_share, 1 - real_share])
    if not generated:
        return [-1] * rows
    order = [(rotation + index) % len(weights) for index in range(len(weights))]
    exact = dict(zip(order, largest_remainder(generated, [weights[source] for source in order]), strict=True))
    shard_of = grid.shard_of()[:generated]
    owner = owners(grid.shards, weights, rotation)
    result = [owner[shard] for shard in shard_of]
    counts = Counter(result)
    for giver in order:
        spare = [position for position in range(generated) if result[position] == giver]
        spare.sort(key=lambda position: (shard_of[position], -position))
        for taker in order:
            moved = min(counts[giver] - exact[giver], exact[taker] - counts[taker])
            for position in spare[: max(0, moved)]:
                result[position] = taker
                counts.update({giver: -1, taker: 1})
            spare = spare[max(0, moved) :]
    return result + [-1] * real


def needed(grid: Grid, allocation: list[int]) -> dict[int, list[int]]:
    """Source index → the shards it must answer, in order."""
    shard_of = grid.shard_of()
    shards: dict[int, set[int]] = {}
    for position, source in enumerate(allocation):
        if source >= 0:
            shards.setdefault(source, set()).add(shard_of[position])
    return {source: sorted(numbers) for source, numbers in sorted(shards.items())}


@lru_cache(maxsize=256)
def needed_shards(
    grid: Grid, rows: int, weights: tuple[float, ...], real_share: float, rotation: int
) -> dict[int, list[int]]:
    """`needed` of `allocate`, computed once for the many cells of a sweep that share a mix."""
    return needed(grid, allocate(grid, rows, list(weights), real_share, rotation))
