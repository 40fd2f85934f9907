"""Filters of a round's rows: what a judge accepts, and what surprises the vanilla student; human rows always pass."""

from __future__ import annotations

import pytest

from synthdiv.core.types import DataError
from synthdiv.evaluate.likelihood import Likelihood, Target, read_likelihood
from synthdiv.evaluate.row_filter import RoundFilter, RowFilter
from synthdiv.evaluate.rubric import Rubric
from synthdiv.evaluate.verdicts import JudgeModel, read_verdicts
from synthdiv.generate.generate import Generate
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.source import Source
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.mix.mix import Mix, read_mix
from tests.models.small import WORLD, build, node_of, tiny_model

ROWS = 40
RUBRIC = Rubric("quality", 1, None, "{prompt} {response}", ["1", "2", "3", "4", "5"], [1, 2, 3, 4, 5])


@pytest.fixture(scope="module")
def mix(root, prompts):
    """Answers of a family of which half state a wrong value, and a quarter human rows."""
    law = build(root, Family(0, 4, 1.0, 0.0, WORLD, Grade(wrong=0.5)))
    stage = Mix(ROWS, ["student-0"], [1.0], 0.25, train_rows=ROWS, shard_rows=ROWS, round=1)
    how = {"sampling": Sampling(1.0, 1.0, 40), "rows": ROWS, "shard_rows": ROWS, "round": 1}
    shards = [
        build(root, Generate("student-0", Backend.law, shard=shard, **how), prompts, law)
        for shard in stage.shards()[0]
    ]  # fmt: skip
    return build(root, stage, prompts, *shards)


@pytest.fixture(scope="module")
def verdicts(root, prompts, mix):
    node = JudgeModel(Source("truth", Backend.exact)).verdicts(RUBRIC, node_of(prompts), node_of(mix))

    def made(node):
        return build(root, node.stage, *map(made, node.inputs.values()))

    return made(node)


def test_a_verifier_keeps_the_rows_that_the_judge_accepts(root, prompts, mix, verdicts):
    ratings = {row["prompt_id"]: row["value"] for row in read_verdicts(verdicts)}
    made = build(root, RowFilter(ROWS, RoundFilter.verifier, least=4.0), prompts, mix, verdicts)
    kept, every = read_mix(made), read_mix(mix)
    assert kept == [row for row in every if row["source"] == "human" or ratings[row["id"]] >= 4]
    removed = made.manifest["summary"]["removed"]["student-0"]
    assert 5 < removed < 25, "half of 30 state a wrong value"
    assert len(kept) + removed == len(every)


def test_a_verifier_that_accepts_nothing_fails_the_round(root, prompts, mix, verdicts):
    with pytest.raises(DataError, match=r"filter=verifier: accepts none of 30 rows; lower rounds\.least=6"):
        build(root, RowFilter(ROWS, RoundFilter.verifier, least=6.0), prompts, mix, verdicts)


def test_surprise_drops_an_exact_share_of_the_generated_rows_the_least_surprising(root, prompts, mix):
    vanilla = build(root, tiny_model(0))
    likelihood = build(root, Likelihood(Target.authors, authors=1), prompts, vanilla, mix)
    nll = {row["id"]: row["nll"] / row["tokens"] for row in read_likelihood(likelihood)}
    made = build(root, RowFilter(ROWS, RoundFilter.surprise, drop=0.2), prompts, mix, likelihood)
    kept = {row["id"] for row in read_mix(made)}
    dropped = [row for row in read_mix(mix) if row["id"] not in kept]
    assert made.manifest["summary"]["removed"] == {"student-0": 6}
    assert {row["source"] for row in dropped} == {"student-0"}
    written = {row["id"] for row in read_mix(mix) if row["source"] != "human"}
    assert max(nll[row["id"]] for row in dropped) <= min(nll[key] for key in kept & written)
