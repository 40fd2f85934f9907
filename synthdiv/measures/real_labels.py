"""What synthetic rows are worth in real labels: where a learning curve of real-only arms has the same value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from synthdiv.core.types import Score


def real_labels(value: float, curve: Mapping[int, float]) -> Score:
    """Return the number of real labels at which `curve` has `value`, linear in the logarithm of labels between points.

    `curve` holds the values of real-only arms by labels. NaN with a note where it has the value nowhere, or twice.
    """
    points, places = sorted(curve.items()), set[float]()
    for (fewer, before), (more, after) in itertools.pairwise(points):
        if before != after and min(before, after) <= value <= max(before, after):
            share = (value - before) / (after - before)
            places.add(round(fewer ** (1 - share) * more**share, 6))
    if len(places) == 1:
        return Score("real_labels", places.pop(), len(points), unit="labels")
    shown = ", ".join(f"{level:.4g} at {labels}" for labels, level in points)
    several, outside = f"the curve has it at {len(places)} numbers of labels", "outside of the real-only curve"
    note = several if places else f"{outside} ({shown or 'no arm'})"
    return Score("real_labels", math.nan, len(points), unit="labels", note=note)
