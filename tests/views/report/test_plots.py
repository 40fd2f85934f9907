"""Figures of the page: what each has on its axes, and a table with the same numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from synthdiv.measures.replicates import Effect
from synthdiv.views.report import plots
from synthdiv.views.report.arms import arms_of
from synthdiv.views.report.contrasts import Contrast
from synthdiv.views.report.heat import counts, grid_of, heat, shown_headlines
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.plots import against, along, forest
from tests.views.report.test_arms import row


def test_a_line_along_the_rounds_begins_with_the_arm_of_round_0_to_which_no_other_axis_of_rounds_applies() -> None:
    axes = {"rounds.prompts": "n/a", "rounds.round": "0"}
    rows = [row("multi", 1.0, f"a{seed}", **axes) for seed in range(3)]
    for prompts in ("same", "fresh"):
        for at in (1, 2):
            axes = {"rounds.prompts": prompts, "rounds.round": str(at)}
            rows += [row("multi", at + seed / 10, f"{prompts}{at}{seed}", **axes) for seed in range(3)]
    arms = arms_of(rows)
    plot = along("rounds.round", "x", arms, Labels(arms))
    assert plot is not None
    assert [(trace["name"], trace["x"]) for trace in plot.data] == [
        ("multi prompts fresh", [0, 1, 2]), ("multi prompts same", [0, 1, 2])
    ]  # fmt: skip
    assert all(value is not None for value in plot.data[0]["error_y"]["array"][1:]), "three models have an interval"
    assert [line["rounds.round"] for line in plot.rows] == [0, 1, 2] * 2
    assert along("rounds.prompts", "x", arms, Labels(arms)) is None, "no axis of numbers"


def test_the_range_of_an_axis_is_that_of_the_trained_arms() -> None:
    arms = arms_of([row("none", 90.0), row("human", 1.0), row("multi", 2.0)])
    plot = against("x", "x", arms, Labels(arms))
    assert plot is not None
    assert plot.layout["xaxis"]["range"] == pytest.approx([0.94, 2.06])
    assert [trace["name"] for trace in plot.data] == ["vanilla", "human", "multi"]
    assert plot.data[0]["error_x"]["array"] == [None], "one model has no interval"
    assert [line["arm"] for line in plot.rows] == ["vanilla", "human", "multi"]


def test_a_forest_has_each_interval_before_the_noise_and_leaves_the_vanilla_student_to_the_table() -> None:
    arms = arms_of([row("multi", 2.0), row("human", 1.0)])
    effects = [
        Effect(-0.5, 0.1, 4, 5, 9, limit=0.6),
        Effect(0.2, math.nan, math.nan, 2, 9),
        Effect(-80.0, 1.0, 4, 5, 9),
    ]
    names = ["multi - best single", "multi - human", "human - vanilla"]
    made = [
        Contrast(name, "x", arms[name[0] == "h"], effect, "nats", False, p, noise=0.3)
        for name, effect, p in zip(names, effects, (0.01, math.nan, 0.01), strict=True)
    ]
    plot = forest("x", made, Labels(arms))
    assert plot is not None
    noise, drawn = plot.data
    assert plot.layout["yaxis"]["categoryarray"] == ["multi − human", "multi − best single"]
    assert noise["error_x"]["array"] == [0.3, 0.3]
    assert plot.layout["xaxis"]["zeroline"]
    low, high = plot.layout["xaxis"]["range"]
    assert (-0.7 < low < -0.6, 0.3 < high < 0.4) == (True, True), "with every interval and the noise, without -80"
    assert (drawn["x"], drawn["y"]) == ([0.2, -0.5], ["multi − human", "multi − best single"])
    assert drawn["marker"]["symbol"] == ["circle-open", "circle"], "filled where it is shown"
    half = pytest.approx(0.1 * stats.t.ppf(0.975, 4))
    assert drawn["error_x"]["array"] == [None, half], "two models have no interval"
    assert drawn["error_x"]["arrayminus"] == [None, pytest.approx(0.1)], "up to what is possible"
    assert [line["comparison"] for line in plot.rows][-1] == "human − vanilla"
    assert plot.title == "x ↓ (nats)"
    assert forest("x", [replace(made[0], effect=Effect(1e-17, 0.1, 4, 5, 9))], Labels(arms)) is None, "rounding"


def test_shades_are_of_the_trained_arms_and_undefined_is_no_zero() -> None:
    rows = [row("none", 90.0), row("human", 0.0), row("multi", float("nan"), generators="small")]
    rows += [row("single", 2.0, generators=size, source="ada") for size in ("small", "large")]
    arms = arms_of(rows)
    boxes = {name: [(box.text, box.shade, box.wide) for box in each] for name, each in
             heat(grid_of(arms, Labels(arms)), "x").items()}  # fmt: skip
    assert boxes == {
        "vanilla": [("90", "outside", 2)],
        "human": [("0", "shade0", 2)],
        "single ada": [("2", "shade6", 1), ("2", "shade6", 1)],
        "multi": [("—", "undefined", 1), ("", "", 1)],
    }
    assert counts([arm.means["x"] for arm in arms]) == "1 model, n 5"


def test_many_columns_become_rows() -> None:
    axes = [{"generators": size, "rows": str(count)} for size in ("small", "large") for count in range(1, 8)]
    arms = arms_of([row("multi", 1.0, **each) for each in axes])
    grid = grid_of(arms, Labels(arms))
    assert grid.headings == ["small", "large"]
    assert list(grid.rows)[:2] == ["multi · rows 1", "multi · rows 2"]


def test_each_suite_has_its_first_headline_before_another_has_its_second() -> None:
    cell = row("human", 1.0)
    score = cell.scores["x"]
    names = ["a1", "a2", "a1-vanilla", "b1", "c1"]
    cell.scores.clear()
    cell.scores.update(dict.fromkeys(names, score) | {"c1": row("human", float("nan")).scores["x"]})
    cell.suites.update({name: name[0] for name in names})
    drawn, minor, undefined = shown_headlines([cell], 2)
    assert (drawn, minor, undefined) == (["a1", "b1"], ["a2", "a1-vanilla"], {"c1": "too few words"})


def test_the_loss_of_an_arm_is_the_mean_at_equal_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its models stopped at half of the steps."""
    curves = {"m1": ([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]), "m2": ([0.5, 1.0, 1.5, 2.0], [4.0, 4.0, 3.0, 3.0])}
    monkeypatch.setattr(plots, "finished", lambda root, model: model)
    monkeypatch.setattr(plots, "read_or", lambda missing, path, read, file: curves[path])
    arms = arms_of([row("multi", 1.0, model, {"train.seed": model}) for model in curves])
    plot = plots.losses(Path(), arms, Labels(arms))
    assert plot is not None
    assert plot.data[0]["x"] == [0.5, 1.0, 1.5, 2.0]
    assert plot.data[0]["y"] == [4.0, 4.0, 3.25, 3.0]
