"""One figure per measure: arms side by side, a point per cell, a dash at the mean of each arm."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthdiv.core.types import Score
from synthdiv.views.report.arms import Arm
from synthdiv.views.report.collect import CellRow
from synthdiv.views.report.labels import Labels, direction

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
)  # Okabe and Ito: safe for colour-blind readers
MARKERS = ("o", "s", "D", "^", "v", "P")
INK, FAINT = "#333333", "#E4E4E4"
SLOT = 0.76  # share of the distance between two arms that the students of an arm occupy
CHARACTERS = 15  # of the caption per inch
CAPTION = "point: one cell, bar: 95 % over prompts (this model, not this method), dash: mean of the arm"


def draw_measure(arms: Sequence[Arm], name: str, labels: Labels, path: Path) -> None:
    """Draw one measure; a column for each panel."""
    arms = [arm for arm in arms if name in arm.means]
    panels = labels.all_panels(arms)
    places = [positions(arms, labels, panel) for panel in panels]
    figure = new_figure(sum(map(width, places)) + 1.1, 3.9 + tallest(places) * 0.055)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=list(map(width, places)))[0]
    for axis, panel, place in zip(grid, panels, places, strict=True):
        draw_panel(axis, arms, name, labels, panel, place)
        axis.set_title(labels.title(panel), fontsize=9, color=INK)
        name_arms(axis, place)
    first = arms[0].means[name].like
    grid[0].set_ylabel(first.unit or "value", fontsize=9, color=INK)
    finish(figure, heading(first), arms, labels, path, [name])


def draw_overview(arms: Sequence[Arm], names: Sequence[str], labels: Labels, path: Path) -> None:
    """Draw several measures in one figure, at most three per row, each with its panels side by side."""
    panels = labels.all_panels(arms)
    places = [positions(arms, labels, panel) for panel in panels]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    wide, high = max(3.4, sum(map(width, places)) + 0.6), 2.3 + tallest(places) * 0.055
    figure = new_figure(wide * columns, high * rows + 0.5)
    blocks = figure.subfigures(rows, columns, squeeze=False).ravel()
    for block, name in zip(blocks, names, strict=False):
        like = next(arm.means[name].like for arm in arms if name in arm.means)
        grid = block.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=list(map(width, places)))[0]
        block.suptitle(heading(like), fontsize=10, color=INK)
        grid[0].set_ylabel(like.unit or "value", fontsize=8, color=INK)
        for axis, panel, place in zip(grid, panels, places, strict=True):
            draw_panel(axis, arms, name, labels, panel, place)
            axis.set_title(labels.title(panel), fontsize=8, color=INK)
            name_arms(axis, place)
    finish(figure, "", arms, labels, path, names)


def heading(score: Score) -> str:
    side = direction(score)
    return score.name + (f"  ({side})" if side else "")


def new_figure(wide: float, high: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(wide, 5.0), high), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def positions(arms: Sequence[Arm], labels: Labels, panel: tuple[str, ...]) -> dict[str, int]:
    """The place of each label in a panel: arms that differ in the student only share a place."""
    inside = sorted((arm for arm in arms if labels.within(arm, panel)), key=labels.order)
    return {label: place for place, label in enumerate(dict.fromkeys(labels.label(arm) for arm in inside))}


def width(place: dict[str, int]) -> float:
    return max(1.6, 0.38 * len(place))


def tallest(places: Sequence[dict[str, int]]) -> int:
    return max(len(label) for place in places for label in place)


def draw_panel(
    axis: Any, arms: Sequence[Arm], name: str, labels: Labels, panel: tuple[str, ...], place: dict[str, int]
) -> None:
    """The points, bars and dashes of one measure in one panel."""
    style_axes(axis, place, name)
    slot = SLOT / len(labels.students)
    for arm in arms:
        if name not in arm.means or not labels.within(arm, panel):
            continue
        student = labels.students.index(labels.student(arm))
        centre = place[labels.label(arm)] + (student - (len(labels.students) - 1) / 2) * slot
        style = {"color": COLOURS[student % len(COLOURS)], "marker": MARKERS[student % len(MARKERS)]}
        scores = [row.scores[name] for row in arm.rows if name in row.scores]
        for index, score in enumerate(scores):
            draw_score(axis, centre + (index - (len(scores) - 1) / 2) * slot * 0.7 / len(scores), score, style)
        draw_exceptions(axis, centre, scores, style["color"])
        mean = arm.means[name].value
        if math.isfinite(mean) and len(scores) > 1:
            dash = [centre - slot * 0.42, centre + slot * 0.42]
            axis.plot(dash, [mean, mean], color=style["color"], lw=1.6, zorder=2)


def draw_score(axis: Any, x: float, score: Score, style: dict[str, str]) -> None:
    """A point and its interval."""
    if math.isfinite(score.value):
        if math.isfinite(score.low) and math.isfinite(score.high):
            axis.plot([x, x], [score.low, score.high], color=style["color"], lw=0.9, alpha=0.65, zorder=3)
        axis.plot([x], [score.value], ms=4, mec="white", mew=0.4, ls="", zorder=4, **style)


def draw_exceptions(axis: Any, x: float, scores: Sequence[Score], colour: str) -> None:
    """Mark an infinite cell at the upper edge and an undefined one at the lower edge."""
    signs = (
        ("∞", 0.98, "top", any(math.isinf(score.value) for score in scores)),
        ("×", 0.02, "bottom", any(math.isnan(score.value) for score in scores)),
    )
    for sign, height, side, present in signs:
        if present:
            edge = axis.get_xaxis_transform()
            axis.text(x, height, sign, transform=edge, ha="center", va=side, color=colour, fontsize=9, zorder=5)


def style_axes(axis: Any, place: dict[str, int], name: str) -> None:
    """No frame, and a band behind every other arm."""
    for spine in ("top", "right"):
        axis.spines[spine].set_visible(False)
    for spine in ("left", "bottom"):
        axis.spines[spine].set_color("#999999")
    for at in range(0, len(place), 2):
        axis.axvspan(at - 0.5, at + 0.5, color="#F5F5F5", lw=0, zorder=0)
    axis.grid(axis="y", color=FAINT, lw=0.6, zorder=1)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", labelsize=8, colors=INK)
    axis.set_xlim(-0.5, len(place) - 0.5)
    axis.set_xticks([])
    axis.tick_params(axis="x", length=0)
    if name.endswith("-vanilla"):
        axis.axhline(0, color="#999999", lw=0.8, zorder=1)


def name_arms(axis: Any, place: dict[str, int]) -> None:
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(list(place.values()), list(place), fontsize=8, color=INK, **slanted)
    axis.tick_params(axis="x", labelbottom=True)


def finish(figure: Any, title: str, arms: Sequence[Arm], labels: Labels, path: Path, names: Sequence[str]) -> None:
    """Add the title, the caption and, if there are several, the students; write the file."""
    from matplotlib.lines import Line2D

    students = enumerate(labels.students if len(labels.students) > 1 else [])
    handles = [
        Line2D([], [], ls="", ms=5, marker=MARKERS[at % len(MARKERS)], color=COLOURS[at % len(COLOURS)], label=student)
        for at, student in students
    ]
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    caption = CAPTION + special_marks([row for arm in arms for row in arm.rows], names)
    legend = figure.legend(
        handles=handles,
        title=textwrap.fill(caption, int(figure.get_figwidth() * CHARACTERS)),
        loc="outside lower center",
        ncols=6,
        fontsize=8,
        frameon=False,
    )
    legend.get_title().set(fontsize=7.5, color="#666666", ha="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def special_marks(rows: Sequence[CellRow], names: Sequence[str]) -> str:
    values = [row.scores[name].value for row in rows for name in names if name in row.scores]
    return (", ∞: infinite" if any(map(math.isinf, values)) else "") + (
        ", ×: undefined, see cells.md" if any(map(math.isnan, values)) else ""
    )
