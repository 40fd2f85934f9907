"""Interactive figures as plotly specifications: data and layout, without colours of the page, which the browser adds.
Every figure has its table, because plotly cannot be used by keyboard."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.views.layout import Row, arrow, finite, interval, number
from synthdiv.views.report.arms import INTERVAL, ROUND, Arm, Mean, value_of
from synthdiv.views.report.collect import VANILLA, finished, read_or
from synthdiv.views.report.contrasts import SHOWN, Contrast
from synthdiv.views.report.heat import columns_of, values_of, within
from synthdiv.views.report.labels import Labels, axis_words, began
from synthdiv.views.report.tables import comparison_name, comparison_rows, heading, mean_row

COLOURS = {  # of Okabe and Ito: safe for colour-blind readers
    "none": "#999999", "human": "#009E73", "single": "#0072B2", "multi": "#D55E00", "multi_decoding": "#CC79A7",
}  # fmt: skip
LINES = (*COLOURS.values(), "#E69F00", "#56B4E9", "#000000")
OTHER, EFFECT, NOISE = "#E69F00", "#2B8CD6", "rgba(140,140,140,0.35)"
NAMED = 12  # arms that have their names in a legend; of more only the mixes
ROUNDING = 1e-12  # differences that are no larger are zero
CURVE, POINTS = "metrics.parquet", 120  # of a curve, at most
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
OUTSIDE = (
    "A bar is the 95 % interval over at least three trained models. The axes have the range of the trained arms: "
    "double-click to see the vanilla student where it is outside."
)


@dataclass(frozen=True)
class Plot:
    """A figure: its identifier in the page, what it shows, its specification, and the same numbers as a table."""

    name: str
    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    rows: Sequence[Row]
    note: str = ""


def colour(arm: Arm) -> str:
    return COLOURS.get(str(arm.axes.get("mix")), OTHER)


def text(words: str) -> str:
    """Words in a figure: plotly reads tags."""
    return html.escape(words, quote=False)


def bar(mean: Mean) -> dict[str, Any]:
    """The interval over trained models; a range of one or two models is no interval and has no bar."""
    known = mean.spread == INTERVAL
    return {"type": "data", "symmetric": False, "array": [mean.high - mean.value if known else None],
            "arrayminus": [mean.value - mean.low if known else None], "thickness": 1.2, "width": 4}  # fmt: skip


def forest(measure: str, outcomes: Sequence[Contrast], labels: Labels) -> Plot | None:
    """The comparisons on one measure, each with its interval before a bar of the noise. Comparisons with the vanilla
    student are in the table: they would squeeze all others."""
    rows = comparison_rows(outcomes := [each for each in outcomes if each.measure == measure], labels)
    drawn = [each for each in outcomes if math.isfinite(each.effect.value) and not each.name.endswith("vanilla")][::-1]
    if not any(abs(each.effect.value) > ROUNDING for each in drawn):
        return None
    names = [text(comparison_name(each, labels)) for each in drawn]
    noise = {"type": "data", "array": [finite(each.noise) for each in drawn], "thickness": 11, "width": 0}
    data: list[dict[str, Any]] = [{
        "type": "scatter", "mode": "markers", "name": "noise: 95 % of differences of two models of one arm",
        "x": [0] * len(drawn), "y": names, "marker": {"size": 1, "color": NOISE}, "error_x": noise | {"color": NOISE},
        "hoverinfo": "skip",
    }]  # fmt: skip
    hover = [
        f"{name}<br>{each.verdict}: {number(each.effect.value)} {interval(*each.effect.interval())}, "
        f"{each.effect.replicates} models, n {each.effect.n or 'sets'}" for name, each in zip(names, drawn, strict=True)
    ]  # fmt: skip
    sides = [[abs(end - each.effect.value) for end in each.effect.interval()] for each in drawn]
    below, above = ([finite(side) for side in each] for each in zip(*sides, strict=True))
    symbols = ["circle" if each.verdict == SHOWN else "circle-open" for each in drawn]
    data.append({
        "type": "scatter", "mode": "markers", "name": "difference", "y": names, "hovertext": hover, "hoverinfo": "text",
        "x": [each.effect.value if abs(each.effect.value) > ROUNDING else 0 for each in drawn],
        "marker": {"size": 9, "symbol": symbols, "color": EFFECT},
        "error_x": {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.6,
                    "width": 4, "color": EFFECT},
    })  # fmt: skip
    title = measure + arrow(drawn[0].higher_is_better) + (f" ({drawn[0].unit})" if drawn[0].unit else "")
    order = {"categoryorder": "array", "categoryarray": names}
    yaxis = {**order, "tickfont": {"size": 11}, "range": [-0.6, len(drawn) - 0.4]}
    ends = [end for each in drawn for end in (each.effect.value, *each.effect.interval(), each.noise, -each.noise)]
    low, high = min(filter(math.isfinite, ends)), max(filter(math.isfinite, ends))
    xaxis: dict[str, Any] = {"title": {"text": "difference"}, "zeroline": True, "nticks": 6}
    xaxis |= {"range": [low - 0.05 * (high - low), high + 0.05 * (high - low)]}
    layout = {"xaxis": xaxis, "yaxis": yaxis, "showlegend": False}
    return Plot(f"forest {measure}", title, data, layout | {"height": 70 + 26 * len(drawn)}, rows)


def against(x: str, y: str, arms: Sequence[Arm], labels: Labels) -> Plot | None:
    """Two measures of every arm that has both."""
    both = [arm for arm in sorted(arms, key=labels.order) if all(known(arm, name) for name in (x, y))]
    if len(both) < 2:
        return None
    data, rows = list[dict[str, Any]](), list[Row]()
    for arm in both:
        across, up, mix = arm.means[x], arm.means[y], str(arm.axes.get("mix"))
        listed = len(both) <= NAMED or all(trace["legendgroup"] != mix for trace in data)
        name = text(labels.name(arm) if len(both) <= NAMED else labels.mix(arm).split(" ")[0])
        symbol = SYMBOLS[sum(trace["marker"]["color"] == colour(arm) for trace in data) % len(SYMBOLS)]
        data.append({
            "type": "scatter", "mode": "markers", "legendgroup": mix, "showlegend": listed,
            "name": name, "x": [across.value], "y": [up.value],
            "hovertext": f"{text(labels.name(arm))}<br>{tip(across)}<br>{tip(up)}", "hoverinfo": "text",
            "error_x": bar(across), "error_y": bar(up),
            "marker": {"size": 11, "color": colour(arm), "symbol": symbol}, "cliponaxis": True,
        })  # fmt: skip
        facts = {f"{name}: {key}": value for name in (x, y) for key, value in mean_row(arm.means[name], arm).items()}
        rows.append({"arm": labels.name(arm)} | {key: facts[key] for key in facts if "seeds that vary" not in key})
    axes = {
        f"{axis}axis": {"title": {"text": text(heading(both[0].means[name].like))}, **trained_range(both, name)}
        for axis, name in (("x", x), ("y", y))
    }
    return Plot(f"{x} {y}", f"{y} against {x}", data, axes | {"height": 420}, rows, OUTSIDE)


def trained_range(arms: Sequence[Arm], name: str) -> dict[str, Any]:
    """The range of an axis: that of the trained arms, which the vanilla student would squeeze."""
    means = [arm.means[name] for arm in arms if arm.axes.get("mix") != VANILLA]
    ends = [end for mean in means for end in (mean.value, mean.low, mean.high) if math.isfinite(end)]
    margin = 0.06 * (max(ends, default=0) - min(ends, default=0))
    return {"range": [min(ends) - margin, max(ends) + margin]} if margin else {}


def along(axis: str, measure: str, arms: Sequence[Arm], labels: Labels) -> Plot | None:
    """A measure along an axis of numbers, such as the rounds: a line for all arms that are equal but for it. An arm to
    which another axis does not apply, as those of rounds to round 0, belongs to every line that it begins. What is
    undefined is no point, and is in the table with its reason."""
    arms = [arm for arm in sorted(arms, key=labels.order) if measure in arm.means and is_number(value_of(arm, axis))]
    others = ["mix", "source", *(other for other in labels.varying if other not in (axis, "source"))]
    if axis == ROUND:  # students of human answers go on from them, and the share of human answers is the round's
        others = [other for other in others if other != "real_share"]
        arms = [replace(arm, axes=arm.axes | {"mix": began(arm)}) for arm in arms]
    data, rows = list[dict[str, Any]](), list[Row]()
    for line in columns_of(arms, others):
        inside = [(float(value_of(arm, axis)), arm) for arm in arms if within(values_of(arm, others), line)]
        listed = sorted(inside, key=lambda point: point[0])
        points = [point for point in listed if known(point[1], measure)]
        if len({at for at, _ in points}) < 2:
            continue
        means, last = [arm.means[measure] for _, arm in points], points[-1][1]
        name = " ".join(labels.name(last).replace(axis_words(axis, value_of(last, axis)), "").split())
        shade = LINES[len(data) % len(LINES)] if axis == ROUND else colour(last)  # rounds begin with one mix
        bars = [bar(mean) for mean in means]
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": text(name), "x": [at for at, _ in points],
            "y": [mean.value for mean in means], "hovertext": [f"{text(name)}<br>{tip(mean)}" for mean in means],
            "hoverinfo": "text+x", "line": {"color": shade, "dash": dash_of(data, shade)},
            "error_y": bars[0] | {end: [each[end][0] for each in bars] for end in ("array", "arrayminus")},
        })  # fmt: skip
        rows += [{axis: at, "arm": labels.name(arm)} | mean_row(arm.means[measure], arm) for at, arm in listed]
    if not data:
        return None
    title = heading(arms[0].means[measure].like)
    rounds = sorted({at for trace in data for at in trace["x"]})
    ticks = {"tickmode": "array", "tickvals": rounds} if axis == ROUND else {}
    layout = {"xaxis": {"title": {"text": text(axis)}, **ticks}, "yaxis": {"title": {"text": text(title)}}}
    layout["height"] = 300 + 22 * len(data)  # with room for the legend
    return Plot(f"{measure} along {axis}", f"{title} by {axis}", data, layout, rows)


def is_number(value: str) -> bool:
    return value.replace(".", "", 1).replace("-", "", 1).replace("e", "", 1).isdecimal()


def dash_of(data: Sequence[dict[str, Any]], shade: str) -> str:
    return DASHES[sum(trace["line"]["color"] == shade for trace in data) % len(DASHES)]


def known(arm: Arm, name: str) -> bool:
    return name in arm.means and math.isfinite(arm.means[name].value)


def tip(mean: Mean) -> str:
    ends = f" [{number(mean.low)}, {number(mean.high)}]" if mean.spread == INTERVAL else ""
    return f"{text(mean.like.name)}: {number(mean.value)}{ends}, {mean.replicates} models, n {mean.n:,}"


def losses(root: Path, arms: Sequence[Arm], labels: Labels) -> Plot | None:
    """Training loss by step: the mean over the trained models of an arm, averaged in at most `POINTS` stretches."""
    data, rows = list[dict[str, Any]](), list[Row]()
    for arm in sorted(arms, key=labels.order):
        trained = [finished(root, model) for model in {row.model for row in arm.rows} if model.isalnum()]
        curves = [curve for path in trained if (curve := read_or(None, path, curve_of, CURVE))]
        if not curves:
            continue
        steps = min((steps for steps, _ in curves), key=lambda each: each[-1])  # of the shortest training
        mean = np.mean([np.interp(steps, *curve) for curve in curves], axis=0).tolist()
        name = labels.name(arm)
        data.append({
            "type": "scatter", "mode": "lines", "name": text(name), "x": steps, "y": mean,
            "line": {"color": colour(arm), "width": 1.6, "dash": dash_of(data, colour(arm))},
            "hovertemplate": f"{text(name)}<br>step %{{x:.0f}}: %{{y:.4g}}<extra></extra>",
        })  # fmt: skip
        rows.append({"arm": name, "models": len(curves), "first": mean[0], "last": mean[-1], "steps": steps[-1]})
    axes = {"xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "loss (nats per supervised token)"}}}
    note = "The mean over the trained models of an arm. The table has the first and the last stretch."
    return Plot("loss", "Training loss", data, axes | {"height": 420}, rows, note) if data else None


def curve_of(path: Path) -> tuple[list[float], list[float]] | None:
    """The steps and losses of a training, averaged in stretches of equal length; None where nothing was trained."""
    if not (path / CURVE).exists():
        return None
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path / CURVE, columns=["step", "loss"])
    parts = [np.array_split(table[name].to_numpy(), min(POINTS, len(table))) for name in ("step", "loss")]
    steps, loss = ([float(np.mean(part)) for part in column] for column in parts)
    return steps, loss
