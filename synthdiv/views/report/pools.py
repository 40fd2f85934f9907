"""What a comparison takes from other arms of its sweep: the error that it pools with them, and the unit of margins."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.measures.estimates import VANILLA as GAP
from synthdiv.measures.replicates import ReplicateError, replicate_error
from synthdiv.study.claims import POOLS
from synthdiv.views.report.alike import Alike
from synthdiv.views.report.arms import LINEAGE, ROUND, Arm, value_of
from synthdiv.views.report.collect import VANILLA, CellRow
from synthdiv.views.report.comparisons import OF_SOURCES, ArmIndex

Seeds = tuple[tuple[str, Any], ...]  # of a replicate
KEPT = 200  # tables of levels, one for each measure and list of replicates


class SweepArms:
    """The arms of a whole sweep, whichever of them a page shows: so every page has the same numbers."""

    def __init__(self, arms: Sequence[Arm]):
        self.arms, groups = arms, defaultdict[tuple[Any, str], list[Arm]](list)
        for one in arms:
            if one.axes.get("mix") not in ("human", VANILLA) and value_of(one, LINEAGE) not in POOLS:
                groups[one.axes.get("student"), value_of(one, ROUND)].append(one)
        self.pools = {key: ErrorPool(members) for key, members in groups.items()}
        self.index, self._ends = ArmIndex(arms), dict[str, list[Arm]]()

    def error(
        self, rows: Sequence[list[CellRow]], level: np.ndarray, compared: Sequence[Arm], measure: str
    ) -> ReplicateError | None:
        """The error of the arms `compared`, whose `level` (arms, replicates) is that of `rows`, and of the other arms
        of their pool. Of arms in rounds only those of the same round, and no members of a population: a round descends
        from the one before, members share their rows, and errors that depend on each other are too small together.
        Students that are compared have errors of different size, so theirs alone counts."""
        pools = {(one.axes.get("student"), value_of(one, ROUND)) for one in compared}
        pool = self.pools.get(pools.pop()) if len(pools) == 1 else None
        return pool.error(rows, level, compared, measure) if pool else pooled_error(level)

    def span(self, arm: Arm, measure: str) -> float:
        """|human - vanilla| of the arms that are comparable, of several the ones launched first. The vanilla student's
        difference to itself is 0."""
        if (key := repr(arm.axes)) not in self._ends:
            alike = self.index.agreeing(arm, *OF_SOURCES)
            ends = [one for one in alike if one.axes["mix"] in ("human", VANILLA)]
            self._ends[key] = sorted(ends, key=lambda one: one.launch)
        alike = [one for one in self._ends[key] if measure in one.means]
        human, vanilla = (
            [one.means[measure].value for one in alike if one.axes["mix"] == mix] for mix in ("human", VANILLA)
        )
        vanilla += [0.0] * measure.endswith(GAP)
        return abs(human[0] - vanilla[0]) if human and vanilla else math.nan


class ErrorPool:
    """Synthetic arms of one student: those that were launched first, so that an arm that is added later changes
    nothing."""

    def __init__(self, arms: Sequence[Arm]):
        first = min((one.launch for one in arms), default="")
        self.arms = [one for one in arms if one.launch == first]
        self.rows = Alike(((at, row), row.seeds) for at, one in enumerate(self.arms) for row in one.rows)
        self.partners = lru_cache(maxsize=KEPT)(self._partners)
        self.levels = lru_cache(maxsize=KEPT)(self._levels)
        self.whole = lru_cache(maxsize=KEPT)(lambda seeds, measure: pooled_error(self.levels(seeds, measure)[1]))

    def error(
        self, rows: Sequence[list[CellRow]], level: np.ndarray, compared: Sequence[Arm], measure: str
    ) -> ReplicateError | None:
        """The error of the arms `compared` and of those of this pool that have all replicates of the comparison."""
        seeds = tuple(tuple(row[0].seeds.items()) for row in rows)
        places, levels = self.levels(seeds, measure)
        inside = [places[one.key] for one in compared if one.key in places]
        if len(inside) == len(compared):
            return self.whole(seeds, measure)
        return pooled_error(np.concatenate([level, np.delete(levels, inside, axis=0)]))

    def _partners(self, seeds: Seeds) -> dict[int, CellRow]:
        """By place of an arm its cell with these seeds, where it has one only."""
        cells = defaultdict[int, list[CellRow]](list)
        for at, row in self.rows.like(dict(seeds)):
            cells[at].append(row)
        return {at: each[0] for at, each in cells.items() if len(each) == 1}

    def _levels(self, seeds: Sequence[Seeds], measure: str) -> tuple[dict[str, int], np.ndarray]:
        """The levels (arms, replicates) of the arms that have all these replicates, as different models, with finite
        scores; by key of an arm its row."""
        by_seeds, table = [self.partners(each) for each in seeds], dict[str, list[float]]()
        for at in by_seeds[0] if by_seeds else ():
            cells = [each[at] for each in by_seeds if at in each]
            scores = [cell.scores[measure].value for cell in cells if measure in cell.scores]
            if len({cell.model for cell in cells}) == len(seeds) == len(scores) and all(map(math.isfinite, scores)):
                table[self.arms[at].key] = scores
        levels = np.array([*table.values()]).reshape(len(table), len(seeds))
        return {key: place for place, key in enumerate(table)}, levels


def pooled_error(levels: np.ndarray) -> ReplicateError | None:
    return replicate_error(levels) if min(levels.shape) > 1 else None
