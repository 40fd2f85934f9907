"""The replicate is a trained model; with fewer than three the spread is descriptive."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats

from synthdiv.core.types import Score
from synthdiv.views.report.arms import DESCRIPTIVE, INTERVAL, arms_of, text_of
from synthdiv.views.report.collect import CellRow
from synthdiv.views.report.labels import Labels, natural
from synthdiv.views.report.sections import seeds_note


def row(mix: str, value: float, model: str = "m", seeds: Any = None, **axes: Any) -> CellRow:
    axes = {"mix": mix, "source": "n/a", "generators": "n/a", "student": "toy"} | axes
    score = Score("x", value, 5, unit="share", higher_is_better=True, note="" if value == value else "too few words")
    return CellRow(
        f"{mix} {value} {model} {axes}", repr(sorted(axes.items())), axes, seeds or {}, model, "done", "", {"x": score}
    )


@pytest.mark.parametrize(("values", "spread"), [([3.0], DESCRIPTIVE), ([1.0, 3.0], DESCRIPTIVE)])
def test_fewer_than_three_models_show_their_range(values: list[float], spread: str) -> None:
    (arm,) = arms_of([row("human", value, f"m{value}") for value in values])
    mean = arm.means["x"]
    assert (mean.low, mean.high, mean.spread, mean.replicates) == (min(values), max(values), spread, len(values))
    assert mean.value == sum(values) / len(values)


def test_three_models_have_a_t_interval() -> None:
    values = [1.0, 2.0, 6.0]
    (arm,) = arms_of([row("human", value, f"m{value}") for value in values])
    low, high = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem(values))
    assert (arm.means["x"].low, arm.means["x"].high) == pytest.approx((low, high))
    assert arm.means["x"].spread == INTERVAL


@pytest.mark.parametrize("name", ["x", "x-vanilla"])
@pytest.mark.parametrize("values", [[0.9, 0.95, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.02, 0.3]])
def test_the_interval_of_an_arm_is_within_what_is_possible_and_never_of_zero_width(
    name: str, values: list[float]
) -> None:
    rows = [row("human", value, f"m{at}") for at, value in enumerate(values)]
    score = replace(rows[0].scores["x"], name=name, least=0.0 if name == "x" else -1.0, most=1.0)
    for each, value in zip(rows, values, strict=True):
        each.scores[name] = replace(score, value=value)
    mean = arms_of(rows)[0].means[name]
    if len({*values}) == 1:
        assert math.isnan(mean.low)
        assert math.isnan(mean.high)
        assert (mean.spread, mean.note.partition(":")[0]) == ("", "no interval")
    else:
        assert score.least <= mean.low < mean.value < mean.high <= score.most
        assert mean.spread == INTERVAL


def test_cells_of_one_model_are_one_replicate() -> None:
    (arm,) = arms_of([row("human", 1.0, "a"), row("human", 3.0, "a"), row("human", 8.0, "b")])
    assert (arm.replicates, arm.means["x"].value, arm.means["x"].replicates) == (2, 5.0, 2)


def test_undefined_cells_are_noted_and_not_counted_as_zero() -> None:
    (arm,) = arms_of([row("human", 4.0, "a"), row("human", math.nan, "b")])
    assert (arm.means["x"].value, arm.means["x"].replicates) == (4.0, 1)
    assert arm.means["x"].note == "undefined in 1 of 2 cells: too few words"


@pytest.mark.parametrize(
    ("varied", "seeds"), [({"train.seed": 1}, ["train.seed"]), ({"train.seed": 1, "mix.rotation": 2}, None), ({}, [])]
)
def test_an_arm_names_the_seeds_that_vary(varied: dict[str, int], seeds: list[str] | None) -> None:
    base = {"generators.seed": 0, "mix.rotation": 0, "train.seed": 0}
    one, other = row("human", 1.0, "a", base), row("human", 2.0, "b", base | varied)
    (arm,) = arms_of([one, other])
    assert sorted(arm.seeds) == sorted(varied if seeds is None else seeds)
    note = seeds_note([arm])
    for name in base:
        assert (name in note.split(";")[0]) == (name in varied), "over which seeds an interval is"
        assert name in note, "and which did not vary"


def test_a_name_has_the_axes_that_differ() -> None:
    arms = arms_of(
        [
            row("none", 1.0),
            row("human", 1.0),
            row("multi", 2.0, generators="small"),
            row("multi", 3.0, generators="small", **{"generators.overlap": "1.0"}),
        ]
    )
    names = ["vanilla", "human", "multi", "multi overlap 1"]
    assert [Labels(arms).name(arm) for arm in arms] == names


def test_order_is_vanilla_human_single_multi_and_small_before_large() -> None:
    mixes = [("multi", "toy_large"), ("multi", "toy_small"), ("single", "toy_large"), ("single", "toy_small")]
    arms = arms_of([row(mix, 1.0, generators=size) for mix, size in mixes] + [row("human", 1.0), row("none", 1.0)])
    labels = Labels(arms)
    assert [labels.name(arm) for arm in sorted(arms, key=labels.order)] == [
        "vanilla",
        "human",
        "single toy_small",
        "single toy_large",
        "multi toy_small",
        "multi toy_large",
    ]


def test_numbers_in_labels_are_sorted_by_value() -> None:
    assert sorted(["70b", "8b", "135m", "default", "1"], key=natural) == ["default", "1", "8b", "70b", "135m"]


def test_equal_numbers_have_equal_names_and_others_have_others() -> None:
    assert text_of("1e-4") == text_of(0.0001) == "0.0001"
    assert text_of(12_000_001) != text_of(12_000_002), "budgets in tokens"


def test_models_that_share_a_seed_are_one_replicate_of_an_arm() -> None:
    """All variation is of the generator, two seeds of which are crossed with three of training."""
    seeds = [{"generators.seed": at % 2, "train.seed": at // 2} for at in range(6)]
    (arm,) = arms_of(
        [row("multi", each["generators.seed"] + 0.01 * at, f"m{at}", each) for at, each in enumerate(seeds)]
    )
    mean = arm.means["x"]
    assert (arm.replicates, mean.replicates, mean.spread) == (2, 2, DESCRIPTIVE)
    assert mean.note == "2 of 6 models: the others share a seed with these"


def test_models_that_are_evaluated_with_the_same_seeds_are_independent() -> None:
    pairs = [(train, respond) for train in range(3) for respond in range(2)]
    rows = [row("multi", float(train + respond), f"m{train}", {"train.seed": train, "evaluate.respond.seed": respond})
            for train, respond in pairs]  # fmt: skip
    (arm,) = arms_of(rows)
    assert (arm.means["x"].replicates, arm.means["x"].value, arm.means["x"].note) == (3, 1.5, "")
