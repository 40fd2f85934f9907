"""The graph of a level of diversity: what its rows are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from synthdiv.core.stage import Node
from synthdiv.mix.mix import Mix
from synthdiv.mix.selection import Selection
from synthdiv.study.config import By, Cell


def level_inputs(cell: Cell, mix: Mix, mixed: Callable[[Cell], Node]) -> dict[str, Node]:
    """The input `level` of a mix, or nothing: rows selected from mixes of all prompts, which are filtered as it is.
    `mixed` gives the mix of a cell."""
    way, have, pools = cell.mix.way(), cell.prompts.train_rows, range(cell.generators.samples)
    if not way or way.by is not By.selection or not mix.sources:
        return {}
    allocation = mix.allocation()
    human, first = allocation.count(-1), mix.positions()[allocation.index(-1)] if -1 in allocation else 0
    mix.level, mix.spare = True, 0.0
    stage = Selection(mix.rows - human, len(pools), cell.mix.level, [first, human, have], way.near, way.pattern)
    plain = replace(cell.mix, rows=have, real_share=0.0, real_rows=None, real_rotation=0, spare=0.0)
    plain = replace(plain, level=None, diversity=None)
    mixes = {str(at): mixed(replace(cell, mix=replace(plain, sample=at))) for at in pools}
    return {"level": Node(stage, {"prompts": Node(cell.prompts), **mixes})}
