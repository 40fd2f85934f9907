"""What synthetic rows are worth in real labels: where a learning curve of real-only arms has the same value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from synthdiv.core.lazy import np, special
from synthdiv.core.types import Score
from synthdiv.measures.intervals import NONE, Ends
from synthdiv.measures.replicates import DESCRIPTIVE, ENOUGH, NO_VARIATION

GRID = 10_000  # numbers of labels at which the interval is tested


def real_labels(value: float | Sequence[float], curve: Mapping[int, float | Sequence[float]]) -> Score:
    """Return the number of real labels at which `curve` has `value`, linear in the logarithm of labels between points.

    `curve` holds the values of real-only arms by labels. With a value for each replicate, in equal order, means are
    compared, and the interval of three or more has the labels, within the curve, at which the t interval of paired
    differences holds 0 (Fieller 1954). NaN with a note where the curve has the value nowhere, or twice.
    """
    values, labels, places = np.ravel(value), sorted(curve), set[float]()
    levels = np.reshape([curve[each] for each in labels], (len(labels), len(values)))
    mean, points = float(values.mean()), [*zip(labels, levels.mean(axis=1).tolist(), strict=True)]
    for (fewer, before), (more, after) in itertools.pairwise(points):
        if before != after and min(before, after) <= mean <= max(before, after):
            share = (mean - before) / (after - before)
            places.add(round(fewer ** (1 - share) * more**share, 6))
    if len(places) == 1:
        (place,) = places
        ends, note = fieller(place, values, labels, levels) if len(values) > 1 else (NONE, "")
        return Score("real_labels", place, len(points), *ends, unit="labels", note=note)
    points_text = ", ".join(f"{level:.4g} at {labels}" for labels, level in points)
    several, outside = f"the curve has it at {len(places)} numbers of labels", "outside of the real-only curve"
    note = several if places else f"{mean:.4g} is {outside} ({points_text or 'no arm'})"
    return Score("real_labels", math.nan, len(points), unit="labels", note=note)


def fieller(place: float, values: Any, labels: Sequence[int], levels: Any) -> tuple[Ends, str]:
    """The interval around `place` over replicates, with a note; `levels` (labels, replicates) are the curve."""
    if (count := len(values)) < ENOUGH:
        return NONE, DESCRIPTIVE
    grid = np.geomspace(labels[0], labels[-1], GRID)
    gaps = values - np.transpose([np.interp(np.log(grid), np.log(labels), level) for level in levels.T])
    half = special.stdtrit(count - 1, 0.975) * gaps.std(axis=1, ddof=1) / math.sqrt(count)
    inside = [place, *grid[abs(gaps.mean(axis=1)) <= half].tolist()]
    ends = (min(inside), max(inside))
    note = "the interval reaches an end of the curve" if {*ends} & {grid[0], grid[-1]} else ""
    return (NONE, NO_VARIATION) if ends[0] == ends[1] else (ends, note)
