"""Figures for papers and dashboards, as PDF and PNG, with a panel for each measure: a line for each arm, and the grid
as a heat map."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthdiv.views.layout import number
from synthdiv.views.report.arms import INTERVAL, Arm
from synthdiv.views.report.collect import VANILLA
from synthdiv.views.report.heat import SHADES, grid_of, heat, spread_of
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.plots import colour, known
from synthdiv.views.report.tables import heading

INK = "#333333"
COLUMNS = 2  # panels side by side, at most
PALE, DARK = (0.93, 0.95, 0.98), (0.35, 0.55, 0.80)  # the ends of the shades of a heat map


def draw(arms: Sequence[Arm], names: Sequence[str], labels: Labels, path: Path) -> None:
    """Draw these measures of all arms into `path` with the suffixes .pdf and .png."""
    arms = sorted(arms, key=labels.order)
    across = min(COLUMNS, len(names))
    down = math.ceil(len(names) / across)
    models = {arm.key: f"{labels.name(arm)} ({arm.replicates})" for arm in arms}
    figure = new_figure(across * 3.4 + max(map(len, models.values())) * 0.075, down * (len(arms) * 0.24 + 1.0) + 0.3)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axis, name in zip(panels, names, strict=False):
        draw_panel(axis, arms, name)
    for axis in panels[len(names) :]:
        axis.set_axis_off()
    panels[0].set_yticks(range(len(arms)), list(models.values()))
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.supxlabel(caption(arms, names), fontsize=7, color="#666666")
    save(figure, path)


def draw_heat(arms: Sequence[Arm], names: Sequence[str], labels: Labels, path: Path) -> None:
    """Draw the grid of arms for each measure, shaded over the range of the trained arms, as on the page."""
    grid = grid_of(arms, labels)
    wide = len(grid.columns) * 1.3 + max(map(len, grid.rows)) * 0.085 + 0.5
    figure = new_figure(wide, len(names) * (len(grid.rows) * 0.28 + 0.8) + 0.6)
    panels = figure.subplots(len(names), 1, squeeze=False, sharex=True).ravel()
    for axis, name in zip(panels, names, strict=True):
        axis.set_title(heading(next(arm.means[name].like for arm in arms if name in arm.means)), fontsize=9, color=INK)
        axis.spines[:].set_visible(False)
        axis.tick_params(labelsize=8, colors=INK, length=0)
        for place, boxes in enumerate(heat(grid, name).values()):
            start = 0
            for box in boxes:
                axis.barh(place, box.wide, 1, start, color=shade(box.shade), edgecolor="white", align="edge")
                middle = (start + box.wide / 2, place + 0.5)
                axis.annotate(box.text or box.small, middle, ha="center", va="center", fontsize=7, color=INK)
                start += box.wide
        axis.set_yticks([place + 0.5 for place in range(len(grid.rows))], [*grid.rows])
        axis.set_ylim(len(grid.rows), 0)
        axis.set_xlim(0, len(grid.columns))
    middles = [at + 0.5 for at in range(len(grid.columns))]
    panels[-1].set_xticks(middles, [textwrap.fill(each, 20) for each in grid.headings])
    words = "mean over trained models; white: outside of the range of the trained arms, or undefined"
    figure.supxlabel(words, fontsize=7)
    save(figure, path)


def shade(name: str) -> tuple[float, ...]:
    if not name.startswith("shade"):
        return (1.0, 1.0, 1.0)
    place = int(name.removeprefix("shade")) / (SHADES - 1)
    return tuple(low + place * (high - low) for low, high in zip(PALE, DARK, strict=True))


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {"Software": None})):
        figure.savefig(path.with_suffix(suffix), metadata=metadata)


def new_figure(wide: float, high: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(max(wide, 6.5), max(high, 2.8)), dpi=150, layout="constrained", facecolor="white")


def draw_panel(axis: Any, arms: Sequence[Arm], name: str) -> None:
    """The trained models of each arm as rings, their mean as a point, and its interval. The axis has the range of the
    trained arms: a vanilla student outside it is named at the edge."""
    means = [arm.means[name] for arm in arms if name in arm.means]
    axis.set_title(f"{heading(means[0].like)}, n {spread_of([mean.n for mean in means])}", fontsize=9, color=INK)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=INK)
    axis.tick_params(axis="y", length=0)
    axis.locator_params(axis="x", nbins=5)
    axis.grid(axis="x", color="#E4E4E4", lw=0.6)
    axis.set_axisbelow(True)
    trained = [arm for arm in arms if arm.axes.get("mix") != VANILLA]
    for place, arm in enumerate(arms):
        if known(arm, name) and arm in trained:
            draw_arm(axis, arm, name, place)
    low, high = axis.get_xlim() if axis.lines else (math.nan, math.nan)
    for place, arm in enumerate(arms):
        value = arm.means[name].value if name in arm.means else math.nan
        if low <= value <= high and arm not in trained:
            draw_arm(axis, arm, name, place)
            axis.set_xlim(low, high)
        elif not math.isfinite(value) or arm not in trained:
            left = value < low or value == -math.inf
            words = "×" if math.isnan(value) else f"← {number(value)}" if left else f"{number(value)} →"
            side = {"ha": "left", "x": 0.01} if left else {"ha": "right", "x": 0.99}
            transform = axis.get_yaxis_transform()
            axis.text(side["x"], place, words, transform=transform, ha=side["ha"], va="center", color=INK, fontsize=7)


def draw_arm(axis: Any, arm: Arm, name: str, place: int) -> None:
    mean, shade = arm.means[name], colour(arm)
    values = [row.scores[name].value for row in arm.rows if name in row.scores]
    if mean.spread == INTERVAL:
        axis.plot([mean.low, mean.high], [place, place], color=shade, lw=1.4)
    axis.plot(values, [place] * len(values), color=shade, marker="o", mfc="none", ms=3.5, mew=0.7, ls="")
    axis.plot([mean.value], [place], color=shade, marker="o", ms=4.5, ls="")


def caption(arms: Sequence[Arm], names: Sequence[str]) -> str:
    """What the marks are, of those that are drawn. In brackets behind an arm: its trained models."""
    means = [arm.means[name] for arm in arms for name in names if name in arm.means]
    words = "ring: a trained model, point: their mean"
    words += ", bar: 95 % t interval over them" if any(mean.spread == INTERVAL for mean in means) else ""
    words += ", ×: undefined or not measured" if any(math.isnan(mean.value) for mean in means) else ""
    return words + "; in brackets: number of trained models"
