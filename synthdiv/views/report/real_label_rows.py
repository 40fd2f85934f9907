"""How many real rows alone give the result of each synthetic arm: a table for sweeps with real-only learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from synthdiv.measures.estimates import VANILLA as GAP
from synthdiv.measures.real_labels import real_labels
from synthdiv.views.layout import Row, interval
from synthdiv.views.report.arms import Arm
from synthdiv.views.report.collect import VANILLA
from synthdiv.views.report.comparisons import OF_SOURCES, REAL_SHARE, agree
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.shared_replicates import matched

NO_PAIRS = "no replicate has equal seeds and a finite value in this arm and in all of the curve"


def real_label_rows(arms: Sequence[Arm], measures: Sequence[str], labels: Labels) -> list[Row]:
    """A row for each synthetic arm beside a real-only curve, and each measure that has a better direction and is of the
    student (so it is compared with the vanilla one), not of the fine-tuning set."""
    human = [arm for arm in arms if arm.axes.get("mix") == "human" and "rows" in arm.axes]
    synthetic, table = [arm for arm in arms if arm.axes.get("mix") not in ("human", VANILLA)], list[Row]()
    for arm in synthetic:
        curve = {int(one.axes["rows"]): one for one in human if agree(arm, one, (*OF_SOURCES, REAL_SHARE, "rows"))}
        if len(curve) < 2:
            continue
        matching = matched([arm, *curve.values()])
        for name in measures:
            mean = arm.means.get(name)
            if not mean or mean.like.higher_is_better is None or f"{name}{GAP}" not in arm.means:
                continue
            scores = [[row.scores[name].value for row in each if name in row.scores] for each in matching]
            pairs = [each for each in scores if len(each) > len(curve) and all(map(math.isfinite, each))]
            values, *levels = [[each[at] for each in pairs] or [math.nan] for at in range(1 + len(curve))]
            score = real_labels(values, dict(zip(curve, levels, strict=True)))
            row = {"arm": labels.name(arm), "measure": name, "real rows": score.value, "models": len(pairs)}
            table.append(row | {"95 %": interval(score.low, score.high), "note": score.note if pairs else NO_PAIRS})
    return table
