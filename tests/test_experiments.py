"""The experiments of a known truth, whole: up to an hour of two cores each. They are built in the project's own
`outputs`, so that finished work is not done again and the reports are there to be read; docs/statistics.md,
docs/levels.md, docs/rounds.md and docs/instrument.md say what they showed."""

from __future__ import annotations

import subprocess

import numpy as np
import pandas
import pytest
from conftest import ROOT, command
from scipy import stats

from tests.result_pages import Worlds, critical

HOURS = 3600
pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * HOURS)]


def table(experiment: str, name: str) -> pandas.DataFrame:
    """A table of the report, after the whole sweep."""
    launch = ("-m", f"experiment={experiment}", "hydra/launcher=local", "hydra.launcher.jobs=2")
    for words in (launch, ("report", experiment)):
        subprocess.run(command(*words), cwd=ROOT, check=True, timeout=4 * HOURS)
    path = ROOT / "outputs" / "reports" / experiment / f"{name}.csv"
    return pandas.read_csv(path, keep_default_na=False, na_values=["nan"])


def test_several_sources_beat_the_best_single_where_sources_differ_lose_where_one_is_strange_and_null_is_null():
    made = table("toy_eggs", "contrasts")
    null = made[made["arm"].str.contains("overlap 1") & ~made["arm"].str.contains("shift") & made["p"].notna()]
    assert (null["p"] < 0.05).mean() <= 0.1
    assert not (null["verdict"] == "shown").any()
    large = made[(made["measure"] == "truth/js") & made["arm"].str.endswith("toy_large")]
    best = large[large["contrast"] == "multi - best single"]
    four = best[best["arm"].str.contains(r"[1,1,1,1,0,0,0,0]", regex=False)]
    assert (four["high"] < 0).all()
    assert len(four) == 2
    (shifted,) = best[best["arm"].str.contains("shift 0.5")].to_dict("records")
    assert (shifted["verdict"], shifted["low"] > 0) == ("shown", True)
    singles = large[(large["contrast"] == "single - human") & ~large["arm"].str.contains("overlap 1")]
    assert (len(singles), (singles["difference"] > 0).all()) == (16, True)


def test_levels_are_reached_and_the_lowest_is_the_furthest_from_the_human_law():
    made = table("toy_levels", "arms")
    levels = made[(made["mix"] == "single") & (made["mix.level"] != "random") & (made["real_share"] == "0.0")]
    for rows in ("300", "600"):
        arms = levels[levels["rows"] == rows].sort_values("mix.level", key=lambda column: column.astype(float))
        reached = arms[arms["measure"] == "reached/vendi_1"]["mean"]
        assert (len(reached), reached.is_monotonic_increasing) == (5, True)
        distance = arms[arms["measure"] == "truth/excess_nll_words"]["mean"]
        assert distance.idxmax() == distance.index[0]


def by_round(cells: pandas.DataFrame, measure: str, rounds: str, lineage: str, members: str) -> pandas.DataFrame:
    """Rounds by replicates, each the mean over these members. In round 0 the axes of rounds do not apply."""
    axes = {"rounds": [rounds, "n/a"], "rounds.lineage": [lineage, "n/a"], "rounds.member": members.split()}
    axes |= {"measure": [measure], "mix": ["human", "students_of_human"]}
    return cells[cells[[*axes]].isin(axes).all(axis=1)].pivot_table("value", "rounds.round", "train.seed")


def ends(differences: pandas.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % t interval over replicates, of each round after the first."""
    return stats.t.interval(0.95, differences.shape[1] - 1, differences.mean(axis=1)[1:], differences.sem(axis=1)[1:])


def test_replace_collapses_accumulate_does_not_and_a_pool_is_no_better_than_its_members():
    cells, every = table("toy_rounds", "cells"), "0 1 2 3"
    for lineage in ("single", "pooled"):
        js, kept = (by_round(cells, "truth/js", data, lineage, every) for data in ("replace", "accumulate"))
        assert js.shape == kept.shape == (5, 3)
        assert js.mean(axis=1).is_monotonic_increasing
        assert (ends(js - js.loc["0"])[0] > 0).all()
        assert (ends(js - kept)[0] > 0).all()
        assert (kept - kept.loc["0"]).mean(axis=1).max() < 0.2 * (js - js.loc["0"]).mean(axis=1).max()
        coverage = by_round(cells, "truth/coverage", "replace", lineage, every)
        assert (ends(coverage - coverage.loc["0"])[1] < 0).all()
        distinct = by_round(cells, "plain/distinct_2@texts", "replace", lineage, every).mean(axis=1)
        assert distinct["4"] > distinct["0"], "over prompts, bigrams do not see this collapse"
    fresh, again = (by_round(cells, "truth/js", rule, "single", "n/a") for rule in ("fresh_sources", "trained_again"))
    assert (ends(fresh - fresh.loc["0"])[0] < 0).all()
    assert ends(again - again.loc["0"])[0][-1] > 0
    made = pandas.read_csv(ROOT / "outputs" / "reports" / "toy_rounds" / "contrasts.csv")
    assert set(made.loc[made["contrast"] == "pooled - mean of single lineages", "verdict"]) == {"not shown"}


def test_lexical_measures_see_a_cut_tail_no_lost_minority_and_no_change_of_quality():
    table("instrument", "arms")
    worlds = Worlds([str(ROOT / "outputs")])
    strongest = {name: worlds.towards(name, 1000, "quality", "0.8") for name in worlds.better if "@" in name}
    lexical = {name: z for name, z in strongest.items() if worlds.better[name] is not None and len(z)}
    assert [len(worlds.z["entropy_2@words", size, "tail", "0.8"]) for size in (100, 1000, 10000)] == [20, 20, 20]
    for name in ("entropy_2@words", "entropy_3@words", "distinct_3@words", "compression_gzip@words"):
        assert float(worlds.seen(name, 1000, "tail")) <= 0.4
        assert float(worlds.seen(name, 10000, "temperature")) <= 0.2
    for change in ("modes", "dialect", "topics"):
        assert {worlds.seen(name, 1000, change) for name in lexical} == {"–"}
    assert sum((abs(z) > critical()).mean() for z in lexical.values()) < 0.1 * len(lexical)
