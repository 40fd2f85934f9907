"""A source at the likelihood of several sources, from the launch to the report, in the toy world."""

from __future__ import annotations

import csv

import pytest

from synthdiv.core.stage import Node
from synthdiv.core.store import Store
from synthdiv.evaluate.likelihood import Likelihood, Target
from synthdiv.mix.matched import nll_a_token
from synthdiv.study.pipeline import graph
from tests.models.small import cpu_run
from tests.study.test_keys import cell

SMALL = [
    "generators=toy",
    "mix.rows=900",
    "train.epochs=1",
    "evaluate.suites.1.prompts=2",
    "evaluate.respond.samples=2",
]
TOLERANCE = 0.05  # of `mix.tolerance`


def test_a_matched_source_is_as_likely_under_the_vanilla_student_as_several_and_reported(typed, tmp_path):
    done = typed("-m", "mix=multi,single,single_matched", "mix.source=elm", "sweep=matched", *SMALL)
    assert done.code == 0, done.err
    store, nll = Store(tmp_path / "outputs"), {}
    for mix in ("multi", "single", "single_matched"):
        item = graph(cell(f"mix={mix}", "mix.source=elm", *SMALL))
        assert store.has(item.train), "the keys of the launch"
        inputs = {"prompts": item.prompts, "model": item.student, "0": item.mix}
        nll[mix] = nll_a_token(store.obtain(Node(Likelihood(Target.authors, authors=1), inputs), cpu_run())[0])
    assert nll["single_matched"] == pytest.approx(nll["multi"], rel=TOLERANCE)
    assert nll["single"] < 0.9 * nll["multi"], "elm as it is: more likely than the others"
    assert typed("report", "matched").code == 0
    folder = tmp_path / "outputs" / "reports" / "matched"
    with (folder / "contrasts.csv").open() as file:
        names = {row["contrast"] for row in csv.DictReader(file)}
    assert "multi - single_matched elm" in names
    assert "nats a token of multi" in (folder / "index.html").read_text()
