"""One kind of figure: a panel per measure, a line per arm with a point per cell and a dash at the mean of the arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthdiv.core.types import Score
from synthdiv.views.report.arms import Arm
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.tables import heading

POINT, BAR, INK = "#0072B2", "#56B4E9", "#333333"  # of Okabe and Ito: safe for colour-blind readers
CAPTION = "point: one cell, bar: 95 % over prompts (this model, not this method), dash: mean of the arm"
COLUMNS = 3  # panels side by side, at most


def draw(arms: Sequence[Arm], names: Sequence[str], labels: Labels, path: Path) -> None:
    """Draw these measures of all arms."""
    arms = sorted(arms, key=labels.order)
    across = min(COLUMNS, len(names))
    down, words = math.ceil(len(names) / across), [labels.name(arm) for arm in arms]
    figure = new_figure(across * 3.2 + max(map(len, words)) * 0.075, down * (len(arms) * 0.26 + 0.9) + 0.3)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axis, name in zip(panels, names, strict=False):
        draw_panel(axis, arms, name)
    for axis in panels[len(names) :]:
        axis.set_axis_off()
    panels[0].set_yticks(range(len(arms)), words)
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.supxlabel(CAPTION + special_marks(arms, names), fontsize=7, color="#666666")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def new_figure(wide: float, high: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(wide, 6.5), max(high, 2.8)), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def draw_panel(axis: Any, arms: Sequence[Arm], name: str) -> None:
    """The points, bars and dashes of one measure."""
    like = next(arm.means[name].like for arm in arms if name in arm.means)
    axis.set_title(heading(like), fontsize=9, color=INK)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=INK)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=5)
    axis.grid(axis="x", color="#E4E4E4", lw=0.6)
    axis.set_axisbelow(True)
    if name.endswith("-vanilla"):
        axis.axvline(0, color="#999999", lw=0.8)
    for place, arm in enumerate(arms):
        scores = [row.scores[name] for row in arm.rows if name in row.scores]
        for index, score in enumerate(scores):
            draw_score(axis, score, place + (index - (len(scores) - 1) / 2) * 0.6 / len(scores))
        for sign, at, test in (("∞", 0.99, math.isinf), ("×", 0.01, math.isnan)):
            if any(test(score.value) for score in scores):
                axis.text(at, place, sign, transform=axis.get_yaxis_transform(), ha="center", va="center", color=POINT)
        if scores and math.isfinite(centre := arm.means[name].value):
            axis.plot([centre, centre], [place - 0.4, place + 0.4], color=INK, lw=1.4)


def draw_score(axis: Any, score: Score, height: float) -> None:
    """A point and its interval."""
    if math.isfinite(score.value):
        if math.isfinite(score.low) and math.isfinite(score.high):
            axis.plot([score.low, score.high], [height, height], color=BAR, lw=1.0)
        axis.plot([score.value], [height], color=POINT, marker="o", ms=3.5, mec="white", mew=0.4, ls="")


def special_marks(arms: Sequence[Arm], names: Sequence[str]) -> str:
    values = [row.scores[name].value for arm in arms for row in arm.rows for name in names if name in row.scores]
    infinite, undefined = any(map(math.isinf, values)), any(map(math.isnan, values))
    return (", ∞: infinite" if infinite else "") + (", ×: undefined, see cells.md" if undefined else "")
