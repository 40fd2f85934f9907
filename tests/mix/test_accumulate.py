"""The rows of rounds: each from its block of prompts, exactly so many of them, with the round that wrote them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest

from synthdiv.core.types import DataError
from synthdiv.generate.generate import Generate
from synthdiv.generate.spec import Backend, Recorded
from synthdiv.mix.accumulate import Accumulate
from synthdiv.mix.mix import Mix, read_mix
from synthdiv.prompts.prompt_set import read_prompts
from tests.models.small import build

BLOCK = 12


@pytest.fixture(scope="module")
def blocks(root, prompts):
    """The mixes of three rounds over blocks of 12 prompts, a quarter of each human."""
    return [build(root, *round_of(root, prompts, number)) for number in range(3)]


def round_of(root, prompts, number, text="{id} in {number}", real_first=None):
    file = root / f"{number}{text.strip()[:1]}.jsonl"
    rows = [
        {"id": row["id"], "prompt": "", "response": text.format(id=row["id"], number=number)}
        for row in read_prompts(prompts, "train")
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    name, first = f"student-{number}", number * BLOCK
    stage = Mix(
        BLOCK, [name], [1.0], 0.25, train_rows=BLOCK, shard_rows=BLOCK, first=first, round=number,
        real_first=first if real_first is None else real_first,
    )  # fmt: skip
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
    made = build(root, Accumulate(3, 3 * BLOCK), prompts, *blocks)
    rows = read_mix(made)
    assert [row["id"] for row in rows] == [row["id"] for block in blocks for row in read_mix(block)]
    assert [row["position"] for row in rows] == list(range(3 * BLOCK))
    assert made.manifest["summary"] == {"rows": 36, "rounds": {"0": 12, "1": 12, "2": 12}}
    two = read_mix(build(root, Accumulate(2, 2 * BLOCK), prompts, *blocks[:2]))
    assert two == rows[:24], "a round adds rows and changes none"


def test_a_fixed_number_of_rows_is_drawn_from_all_rounds_alike(root, prompts, blocks):
    everything = {(row["id"], row["response"]) for block in blocks for row in read_mix(block)}
    counts: Counter[int] = Counter()
    for seed in range(20):
        rows = read_mix(build(root, Accumulate(3, BLOCK, True, seed), prompts, *blocks))
        assert len({(row["id"], row["response"]) for row in rows} & everything) == len(rows) == BLOCK
        assert [row["position"] for row in rows] == list(range(BLOCK))
        counts.update(row["round"] for row in rows)
    assert all(60 <= counts[number] <= 100 for number in range(3)), counts  # 80 each, sd 5


def test_a_student_that_writes_only_empty_text_fails_its_round(root, prompts):
    with pytest.raises(DataError, match="round 2: student-2 wrote only empty text, from which nothing can be learned"):
        build(root, *round_of(root, prompts, 2, " "))
