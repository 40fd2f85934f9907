"""The experiments of a known truth, whole: up to an hour of two cores each. They are built in the project's own
`outputs`, so that finished work is not done again and the reports are there to be read; docs/statistics.md and
docs/levels.md say what they showed."""

from __future__ import annotations

import subprocess

import pandas
import pytest
from conftest import ROOT, command

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
