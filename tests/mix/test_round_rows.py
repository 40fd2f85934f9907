"""The rows of rounds: each from its block of prompts, exactly so many of them, with the round that wrote them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace

import pytest

from synthdiv.core.types import DataError
from synthdiv.evaluate.likelihood import Likelihood, Target, read_likelihood
from synthdiv.evaluate.rubric import Rubric
from synthdiv.evaluate.verdicts import JudgeModel, read_verdicts
from synthdiv.generate.generate import Generate
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.source import Source
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.mix.mix import Mix
from synthdiv.mix.round_rows import RoundFilter, RoundRows
from synthdiv.prompts.prompt_set import read_prompts
from tests.models.small import WORLD, build, node_of, tiny_model

FIELDS_SHOWN = (
    "mix.first", "mix.real_first", "mix.round", "round_rows.mixes", "round_rows.rows", "round_rows.drawn",
    "round_rows.seed", "round_rows.filter", "round_rows.unfiltered", "round_rows.least", "round_rows.drop",
)  # fmt: skip

BLOCK = 12


@pytest.fixture(scope="module")
def blocks(root, prompts):
    """The mixes of three rounds over blocks of 12 prompts, a quarter of each human."""
    return [build(root, *round_of(root, prompts, number)) for number in range(3)]


def round_of(root, prompts, number, text="{id} in {number}", real_first=None, short=(), **fields):
    file = root / f"{number}{text.strip()[:1]}{len(short)}.jsonl"
    rows = [
        {"id": row["id"], "prompt": "", "response": text.format(id=row["id"], number=number)}
        for row in read_prompts(prompts, "train")
    ]
    for place in short:
        rows[number * BLOCK + place]["response"] = "no"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    name, first = f"student-{number}", number * BLOCK
    stage = Mix(
        BLOCK, [name], [1.0], 0.25, train_rows=BLOCK, shard_rows=BLOCK, first=first, round=number,
        real_first=first if real_first is None else real_first,
    )  # fmt: skip
    stage = replace(stage, **fields)
    recorded = Recorded(str(file), id="id", sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    shape = {"rows": BLOCK, "shard_rows": BLOCK, "first": first, "round": number}
    shards = [
        build(
            root,
            Generate(name, Backend.recorded, recorded, shard=shard, **shape),
            prompts,
        )
        for shard in stage.shards()[0]
    ]
    return stage, prompts, *shards


def test_the_rows_of_a_round_are_those_of_its_block(prompts, blocks):
    train = read_prompts(prompts, "train")
    for number, block in enumerate(blocks):
        rows = read_mix(block)
        expected = train[number * BLOCK : (number + 1) * BLOCK]
        assert [row["id"] for row in rows] == [row["id"] for row in expected]
        assert [row["position"] for row in rows] == list(range(BLOCK)), "held-out rows are chosen by it"
        assert Counter(row["source"] for row in rows) == {f"student-{number}": 9, "human": 3}
        assert {row.get("round", 0) for row in rows} == {number}
        assert [row["response"] for row in rows[9:]] == [row["response"] for row in expected[9:]]


def test_human_rows_can_stay_those_of_another_block(root, prompts):
    train, rows = read_prompts(prompts, "train"), read_mix(build(root, *round_of(root, prompts, 2, real_first=0)))
    assert [row["id"] for row in rows] == [row["id"] for row in [*train[24:33], *train[9:12]]]


def test_accumulated_rows_are_all_rows_of_all_rounds(root, prompts, blocks):
    made = build(root, RoundRows(3, 3 * BLOCK), prompts, *blocks)
    rows = read_mix(made)
    assert [row["id"] for row in rows] == [row["id"] for block in blocks for row in read_mix(block)]
    assert [row["position"] for row in rows] == list(range(3 * BLOCK))
    assert made.manifest["summary"]["rounds"] == {"0": 12, "1": 12, "2": 12}
    assert made.manifest["summary"]["sources"] == {"student-0": 9, "student-1": 9, "student-2": 9, "human": 9}
    two = read_mix(build(root, RoundRows(2, 2 * BLOCK), prompts, *blocks[:2]))
    assert two == rows[:24], "a round adds rows and changes none"


def test_a_round_is_refilled_from_its_own_block_and_positions_stay_apart(root, prompts):
    """Eight rows of a block and four further prompts; a student answers three of them in one word."""
    short, fields = (0, 3, 9), {"rows": 8, "spare": 0.5, "min_words": 2}
    mixes = [build(root, *round_of(root, prompts, number, short=short, **fields)) for number in (1, 2)]
    train = read_prompts(prompts, "train")
    for number, each in enumerate(mixes, 1):
        block = train[number * BLOCK : (number + 1) * BLOCK]
        assert [row["id"] for row in read_mix(each)] == [block[place]["id"] for place in (1, 2, 4, 5, 6, 7, 8, 10)]
        assert Counter(row["source"] for row in read_mix(each)) == {f"student-{number}": 6, "human": 2}
    for rows, drawn in ((16, False), (8, True)):
        made = build(root, RoundRows(2, rows, drawn), prompts, *mixes)
        assert len({row["position"] for row in read_mix(made)}) == len(read_mix(made)) == rows
        assert made.manifest["summary"]["removed"] == {f"student-{number}": {"length": 2} for number in (1, 2)}
        assert made.manifest["summary"]["refilled"] == {"student-1": 2, "student-2": 2}


def test_a_fixed_number_of_rows_is_drawn_from_all_rounds_alike(root, prompts, blocks):
    everything = {(row["id"], row["response"]) for block in blocks for row in read_mix(block)}
    counts: Counter[int] = Counter()
    for seed in range(20):
        rows = read_mix(build(root, RoundRows(3, BLOCK, True, seed), prompts, *blocks))
        assert len({(row["id"], row["response"]) for row in rows} & everything) == len(rows) == BLOCK
        assert [row["position"] for row in rows] == list(range(BLOCK))
        counts.update(row["round"] for row in rows)
    assert all(60 <= counts[number] <= 100 for number in range(3)), counts  # 80 each, sd 5


def test_a_student_that_writes_only_empty_text_fails_its_round(root, prompts):
    with pytest.raises(DataError, match="round 2: student-2 wrote only empty text, from which nothing can be learned"):
        build(root, *round_of(root, prompts, 2, " "))


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
    made = build(root, RoundRows(1, ROWS, filter=RoundFilter.verifier, least=4.0), prompts, mix, verdicts)
    kept, every = read_mix(made), read_mix(mix)
    assert kept == [row for row in every if row["source"] == "human" or ratings[row["id"]] >= 4]
    removed = len(every) - len(kept)
    assert 5 < removed < 25, "half of 30 state a wrong value"
    assert made.manifest["summary"]["removed"] == {"student-0": {"verifier": removed}}, "as of a mix, for its card"


def test_a_verifier_that_accepts_nothing_fails_the_round(root, prompts, mix, verdicts):
    with pytest.raises(DataError, match=r"filter=verifier: accepts none of 30 rows; lower rounds\.least=6"):
        build(root, RoundRows(1, ROWS, filter=RoundFilter.verifier, least=6.0), prompts, mix, verdicts)


def test_surprise_drops_an_exact_share_of_the_generated_rows_the_least_surprising(root, prompts, mix):
    vanilla = build(root, tiny_model(0))
    likelihood = build(root, Likelihood(Target.authors, authors=1), prompts, vanilla, mix)
    nll = {row["id"]: row["nll"] / row["tokens"] for row in read_likelihood(likelihood)}
    made = build(root, RoundRows(1, ROWS, filter=RoundFilter.surprise, drop=0.2), prompts, mix, likelihood)
    kept = {row["id"] for row in read_mix(made)}
    dropped = [row for row in read_mix(mix) if row["id"] not in kept]
    assert len(dropped) == 6
    assert {row["source"] for row in dropped} == {"student-0"}
    written = {row["id"] for row in read_mix(mix) if row["source"] != "human"}
    assert max(nll[row["id"]] for row in dropped) <= min(nll[key] for key in kept & written)


def test_rows_of_round_0_pass_a_filter_of_accumulated_rows(root, prompts, mix, verdicts):
    stage = RoundRows(2, 2 * ROWS, filter=RoundFilter.verifier, unfiltered=1, least=4.0)
    rows = read_mix(build(root, stage, prompts, mix, mix, verdicts))
    filtered = read_mix(build(root, RoundRows(1, ROWS, filter=RoundFilter.verifier, least=4.0), prompts, mix, verdicts))
    assert rows == read_mix(mix) + [row | {"position": ROWS + row["position"]} for row in filtered]
