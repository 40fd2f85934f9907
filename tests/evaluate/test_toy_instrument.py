"""The toy world as an instrument: a large student learns the human law, the null shows nothing, and what differs by law
differs in students. Five replicates, in each of which every seed is another one (docs/toy_world.md has the numbers).

Rotations of the four sources: the first four replicates are a Latin square, in which each source owns each block of
prompts once. The fifth begins the next square, with other prompts, so no replicate repeats another's assignment of
prompts to sources.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from synthdiv.core.store import Store
from synthdiv.evaluate.suite import read_scores
from synthdiv.study.pipeline import graph
from tests.models.small import cpu_run
from tests.study.test_keys import cell

REPLICATES, SOURCES = 5, 4
NULL = ["generators.overlap=1"]
SHIFTED = [*NULL, "generators.shift=0.5"]
ARMS = {
    "human": ["mix=human"], "single": ["mix=single"], "null single": ["mix=single", *NULL],
    "null multi": ["mix=multi", *NULL], "shifted multi": ["mix=multi", *SHIFTED],
}  # fmt: skip
SEEDS = ("prompts", "generators", "train", "student.pretrain", "evaluate.respond")


def truth(root, words: list[str], replicate: int) -> dict[str, float]:
    """Scores of the truth suite of one cell, with everything that it stands on built."""
    seeds = [f"{name}.seed={replicate}" for name in SEEDS] + [f"mix.rotation={replicate % SOURCES}"]
    one = cell("generators=toy", "student=toy_large", *words, *seeds)
    node, nodes = graph(one).suites["truth"], {}
    node.gather(nodes)
    store, run = Store(root), cpu_run()
    for each in nodes.values():
        made, _ = store.obtain(each, run)
    return {score.name: score.value for score in read_scores(made.path)}


def interval(differences: np.ndarray, level: float) -> tuple[float, float]:
    """A t interval of the mean over replicates."""
    half = stats.t.ppf((1 + level) / 2, len(differences) - 1) * differences.std(ddof=1) / math.sqrt(len(differences))
    return differences.mean() - half, differences.mean() + half


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_world_is_learnt_and_shows_what_its_laws_say(tmp_path):
    scores = {
        name: [truth(tmp_path, words, replicate) for replicate in range(REPLICATES)] for name, words in ARMS.items()
    }
    js = {name: np.array([score["truth/js"] for score in rows]) for name, rows in scores.items()}
    print({name: (rows.mean().round(4), rows.std(ddof=1).round(4)) for name, rows in js.items()})
    print(
        {name: np.round([row[name] for row in scores["human"]], 3) for name in ("truth/excess_nll", "truth/coverage")}
    )
    human = {name: np.mean([row[name] for row in scores["human"]]) for name in ("truth/excess_nll", "truth/coverage")}
    assert human["truth/excess_nll"] <= 1
    assert human["truth/coverage"] >= 0.8
    low, high = interval(js["null multi"] - js["null single"], 0.9)
    assert -0.03 <= low <= high <= 0.03
    assert interval(js["single"] - js["human"], 0.95)[0] > 0
    assert interval(js["shifted multi"] - js["null single"], 0.95)[0] > 0, "the first family is the unshifted source"


def test_sources_by_law_are_learnt_alike_where_their_laws_are_one(tmp_path):
    """The null in small: with one law, one source and four give sets of rows that the law explains equally."""
    few = ["prompts.toy.rows=360", "prompts.test=60", "student.pretrain.tokens=2000", "train.epochs=1",
           "evaluate.suites.1.prompts=2", "evaluate.respond.samples=1"]  # fmt: skip
    one, four = (truth(tmp_path, [f"mix={mix}", *NULL, *few, "student=toy_small"], 1) for mix in ("single", "multi"))
    assert abs(one["truth/js"] - four["truth/js"]) < 0.1
    assert 0 < four["truth/js"] <= math.log(2)
