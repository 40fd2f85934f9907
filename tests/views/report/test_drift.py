"""The drift over rounds: lines begin at the round 0 that arms share, and members of a population are one replicate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from synthdiv.core.types import Score
from synthdiv.views.report.arms import INTERVAL, arms_of, populations
from synthdiv.views.report.collect import CellRow
from synthdiv.views.report.labels import Labels
from synthdiv.views.report.plots import along


def row(number, member, seed, value, data="n/a", lineage="n/a"):
    """A cell; in round 0 the axes of rounds do not apply."""
    begun = {"mix": "students_of_human", "real_share": 0.0} if number else {"mix": "human", "real_share": 1.0}
    axes = begun | {"rounds": data, "rounds.lineage": lineage, "rounds.round": str(number)}
    axes |= {"rounds.member": str(member)}
    name = f"{data}-{lineage}-{number}-{member}"
    scores = {"loss": Score("loss", value, 10), "other": Score("other", math.nan, 10, note="nothing")}
    return CellRow(f"{name}-{seed}", name, axes, {"train.seed": seed}, f"{name}-{seed}", "done", scores=scores)


def rows(members=(0, 1)):
    made = [row(0, member, seed, seed + member) for member in members for seed in range(3)]
    for data, step in (("replace", 1.0), ("accumulate", 0.1)):
        for lineage in ("single", "pooled"):
            made += [
                row(number, member, seed, seed + member + number * step, data, lineage)
                for number in (1, 2) for member in members for seed in range(3)
            ]  # fmt: skip
    return made


def drawn(arms):
    together = populations(arms)
    return along("rounds.round", "loss", together, Labels(together))


def test_every_line_begins_at_the_round_0_that_it_shares():
    plot = drawn(arms_of(rows()))
    assert [trace["x"] for trace in plot.data] == [[0, 1, 2]] * 4
    assert [trace["y"][0] for trace in plot.data] == pytest.approx([1.5] * 4)
    assert sorted(trace["y"][2] - 1.5 for trace in plot.data) == pytest.approx([0.2, 0.2, 2.0, 2.0])
    assert len(plot.rows) == 12
    assert len({(trace["line"]["color"], trace["line"]["dash"]) for trace in plot.data}) == 4
    assert plot.layout["xaxis"]["tickvals"] == [0, 1, 2]


def test_the_members_of_a_population_are_averaged_and_no_replicates():
    for arm in populations(arms_of(rows())):
        assert (arm.means["loss"].replicates, arm.means["loss"].spread) == (3, INTERVAL)


def test_a_population_that_lacks_a_member_is_left_out_with_a_note():
    """The mean over fewer members is that of another population: the number must not change its meaning."""
    made = [each for each in rows() if each.key != "replace-pooled-2-1-0"]
    (arm,) = [one for one in populations(arms_of(made)) if one.rows[0].arm.startswith("replace-pooled-2")]
    mean = arm.means["loss"]
    assert (mean.value, mean.replicates) == (pytest.approx(1.5 + 0.5 + 2), 2), "of seeds 1 and 2"
    assert mean.note == "1 of 3 replicates lack one of 2 members and are left out"
    none = {"loss": Score("loss", math.nan, 10, note="nothing")}
    made = [replace(each, scores=none) if each.arm == "replace-pooled-2-1" else each for each in rows()]
    plot = drawn(arms_of(made))
    assert sorted(len(trace["x"]) for trace in plot.data) == [2, 3, 3, 3]
    (line,) = [line for line in plot.rows if math.isnan(line["mean"])]
    assert (line["models"], line["rounds.round"]) == (0, 2)
    assert line["note"].startswith("3 of 3 replicates lack one of 2 members")


def test_a_member_without_a_score_is_a_member_too():
    made = [replace(each, scores={}) if each.arm == "replace-pooled-2-1" else each for each in rows()]
    every = populations(arms_of(made, scored=False))
    (arm,) = [one for one in every if one.rows[0].arm.startswith("replace-pooled-2")]
    assert math.isnan(arm.means["loss"].value)
    assert arm.axes["rounds.member"] == "0+1"


def test_no_line_depends_on_the_members_of_another():
    """Round 0 of an arm of one member is that member's, whichever other members were launched."""
    one = [*rows((0,)), *(row(0, 1, seed, 99.0) for seed in range(3)), row(1, 1, 0, 99.0, "replace", "pooled")]
    starts = {trace["name"]: trace["y"][0] for trace in drawn(arms_of(one)).data}
    assert {value for name, value in starts.items() if "member 0+1" not in name} == {1.0}
    assert {value for name, value in starts.items() if "member 0+1" in name} == {50.0}


def test_arms_without_a_population_stay_as_they_are():
    plain = arms_of([replace(one, axes={"mix": "human", "train.lr": one.arm}) for one in rows((0,))])
    assert populations(plain) == plain
