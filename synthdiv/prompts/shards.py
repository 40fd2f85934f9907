"""The fixed grid of shards over the order of the train prompts.

The order is dealt like cards to cycles of `CYCLE` shards: position p of a cycle goes to its shard p mod CYCLE. So every
prefix of the order takes about as many rows from each shard of its last cycle, every shard is as stratified as the
order, and the shards of a source are whole shards for every size of the mix.
"""

from __future__ import annotations

from dataclasses import dataclass

CYCLE = 12  # shards of a cycle; 1, 2, 3, 4, 6 or 12 equal sources own whole shards of it


@dataclass(frozen=True)
class Grid:
    """`rows` train prompts in shards of at most `shard_rows`: nearly equal, a multiple of `CYCLE` of them."""

    rows: int
    shard_rows: int

    @property
    def cycles(self) -> int:
        return max(1, -(-self.rows // (CYCLE * self.shard_rows)))

    @property
    def shards(self) -> int:
        return self.cycles * CYCLE

    def starts(self) -> list[int]:
        """First position of each cycle, and `rows` at the end. Cycles but the last are multiples of CYCLE: otherwise
        the first shards would gain a row in every cycle, and equal sources would have unequal counts."""
        step = CYCLE * -(-self.rows // (CYCLE * self.cycles))
        return [min(self.rows, step * cycle) for cycle in range(self.cycles + 1)]

    def shard_of(self) -> list[int]:
        """The shard of every position."""
        starts = self.starts()
        return [
            cycle * CYCLE + (position - starts[cycle]) % CYCLE
            for cycle in range(self.cycles)
            for position in range(starts[cycle], starts[cycle + 1])
        ]

    def positions(self, shard: int) -> list[int]:
        """The positions of one shard, in order."""
        cycle, card = divmod(shard, CYCLE)
        starts = self.starts()
        return list(range(starts[cycle] + card, starts[cycle + 1], CYCLE))
