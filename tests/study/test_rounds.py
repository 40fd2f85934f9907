"""The graph of a round: who writes, which prompts, which rows are kept, and what is shared between cells."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.core.types import ConfigError
from synthdiv.generate.generate import Generate, Split
from synthdiv.mix.mix import Mix
from synthdiv.study.pipeline import graph
from synthdiv.study.records import cell_record
from synthdiv.train.train import Train
from tests.study.test_keys import cell, expander
from tests.views.test_plan import estimate, frozen

SMALL = ["prompts.toy.rows=312", "prompts.test=12", "generators=toy", "generators.shard_rows=5", "mix.rows=60"]
SPARE = ["mix.min_words=2", "mix.spare=0.5"]
STEPS = ["train.match=steps", "train.budget=9"]


def made(*words: str):
    return graph(cell(*SMALL, *words))


def chain(item) -> list:
    """The trainings of a cell, oldest first."""
    return [node for node in item.nodes().values() if isinstance(node.stage, Train)]


def mixes(item) -> dict[int, list]:
    actual: dict[int, list] = {}
    for node in item.mix.ancestry().values():
        if isinstance(node.stage, Mix):
            actual.setdefault(node.stage.round, []).append(node)
    return actual


def test_students_answer_as_long_as_the_evaluation_lets_them_unless_it_is_given():
    for words, tokens in (([], {40}), (["rounds.sampling.max_new_tokens=7"], {7}), (["evaluate=short"], {160})):
        nodes = made("mix=human", "rounds=replace", "rounds.sampling.temperature=0.3", *words).mix.inputs
        how = [node.stage.sampling for name, node in nodes.items() if name != "prompts"]
        assert ({each.max_new_tokens for each in how}, {each.temperature for each in how}) == (tokens, {0.3})


@pytest.mark.parametrize("preset", ["replace", "accumulate", "accumulate_fixed", "trained_again", "surprise", "pooled"])
def test_round_0_is_the_study_without_rounds(preset):
    assert made(f"rounds={preset}", "rounds.round=0").key == made().key


@settings(max_examples=15)
@given(
    data=st.sampled_from(["replace", "accumulate", "accumulate_fixed"]),
    init=st.sampled_from(["base", "continue"]),
    lineage=st.sampled_from(["single", "pooled"]),
    rounds=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_round_r_of_two_cells_that_begin_alike_is_one_node(data, init, lineage, rounds):
    """The later cell has every node of the earlier student in its graph; so has one with other settings at round 0."""
    words = [f"rounds.data={data}", f"rounds.init={init}", f"rounds.lineage={lineage}", "rounds.seeds=2"]
    early, late = (made(*words, f"rounds.round={number}") for number in sorted(rounds))
    assert early.train.key in late.nodes()
    assert early.mix.key in late.nodes()
    assert len(chain(late)) == (max(rounds) + 1 if lineage == "single" else 2 * max(rounds) + 1)
    if data != "replace" and max(rounds) > 1:  # of one mix of rounds 0 and 1 the students differ, of the next all does
        other = made(*words, "rounds.data=replace", f"rounds.round={max(rounds)}")
        assert {node.key for node in mixes(other)[1]} == {node.key for node in mixes(late)[1]}
        assert made("rounds.lineage=single", "rounds.seeds=2").train.key in {*late.nodes()} & {*other.nodes()}


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["human", "single", "multi"]),
    prompts=st.sampled_from(["fresh_block", "same"]),
    lineage=st.sampled_from(["single", "pooled", "segmented"]),
    real=st.sampled_from([0.0, 0.25]),
    round=st.integers(1, 4),
)
def test_fresh_blocks_are_disjoint_and_never_test_prompts(kind, prompts, lineage, real, round):
    words = [f"mix={kind}", f"rounds.round={round}", f"rounds.prompts={prompts}", f"rounds.real_share={real}"]
    item = made(*words, "rounds.seeds=3", f"rounds.lineage={lineage}", "rounds.member=1", *STEPS)
    blocks = {number: {*nodes[0].stage.positions()} for number, nodes in mixes(item).items()}
    assert [*blocks] == list(range(round + 1))
    assert {len(block) for block in blocks.values()} == {20 if lineage == "segmented" else 60}
    if prompts == "same":
        assert all(block == blocks[0] for block in blocks.values())
    else:
        assert not any(one & other for one, other in combinations(blocks.values(), 2))
        assert set().union(*blocks.values()) <= set(range(300)), "the train prompts"
    for number, nodes in mixes(item).items():  # students answer exactly these prompts, each one of them
        shards = [shard for name, shard in nodes[0].inputs.items() if name != "prompts"]
        for shard in shards if number else ():
            assert isinstance(shard.stage, Generate)
            assert (shard.stage.split, shard.stage.round) == (Split.train, number)
            assert isinstance(shard.inputs["model"].stage, Train)
        owners = nodes[0].stage.owners()
        assert owners.count("human") == (round_half(real, len(owners)) if number else owners.count("human"))


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["human", "multi"]),
    prompts=st.sampled_from(["fresh_block", "same"]),
    lineage=st.sampled_from(["single", "pooled", "segmented"]),
    real=st.sampled_from(["new", "same"]),
    round=st.integers(1, 4),
)
def test_a_block_has_further_prompts_of_its_own_for_rows_that_filters_remove(kind, prompts, lineage, real, round):
    """30 rows and 24 further prompts, or of member 1 of a segmented population 10 and 8; blocks follow each other."""
    words = [f"mix={kind}", f"rounds.round={round}", f"rounds.prompts={prompts}", f"rounds.real={real}", "mix.rows=30"]
    words += ["rounds.real_share=0.2", "rounds.seeds=3", f"rounds.lineage={lineage}", "rounds.member=1", *STEPS]
    plain, refilled = (mixes(made(*words, *more)) for more in ([], ["mix.min_words=2", "mix.spare=0.8"]))
    rows, width, part = (10, 18, 18) if lineage == "segmented" else (30, 54, 0)
    for number, (node, *_) in refilled.items():
        stage, first = node.stage, part + (54 * number if prompts == "fresh_block" else 0)
        begins = {"human": part if real == "same" else first}
        assert Counter(stage.owners()) == Counter(plain[number][0].stage.owners()), "in exact counts"
        for place, (position, name) in enumerate(zip(stage.positions(), stage.owners(), strict=True)):
            assert position == begins.get(name, first) + place
        writers = [name for name in stage.owners() if name != "human"]
        for names in ({*writers}, {"human"} & {*stage.owners()}):
            begin = begins["human"] if names == {"human"} else first
            further = [position for position, name in stage.spares() if name in names]
            assert further == ([*range(begin + rows, begin + width)] if names else [])
        for shard in (node.inputs[name].stage for name in node.inputs if name != "prompts") if number else ():
            assert (shard.first, shard.rows, first + width <= 270) == (first, width, True), "shards are of the block"


def round_half(share: float, rows: int) -> int:
    return int(share * rows + 0.5)


def test_members_of_a_pool_write_equal_parts_and_train_on_the_same_rows():
    items = [made("rounds.round=2", "rounds=pooled", f"rounds.member={member}") for member in range(4)]
    assert len({item.mix.key for item in items}) == 1
    assert len({item.train.key for item in items}) == 4
    owners = items[0].mix.stage.owners()
    assert {owners.count(f"student-{member}") for member in range(4)} == {15}
    writers = {items[0].mix.inputs[name].inputs["model"].key for name in items[0].mix.inputs if name != "prompts"}
    assert writers == {made("rounds.round=1", "rounds=pooled", f"rounds.member={k}").train.key for k in range(4)}


def test_a_segment_is_the_prompts_that_a_member_answers():
    words = ("rounds=segmented", *STEPS)
    items = [made(*words, f"rounds.member={member}") for member in range(4)]
    for number in (0, 1):
        parts = [item.mix if number else mixes(item)[0][0] for item in items]
        positions = [{*part.stage.positions()} for part in parts]
        assert set().union(*positions) == set(range(60 * number, 60 * number + 60))
        assert {len(each) for each in positions} == {15}
    assert {node.inputs["model"].key for name, node in items[2].mix.inputs.items() if name != "prompts"} == {
        made(*words, "rounds.member=2", "rounds.round=0").train.key
    }


def test_single_lineages_have_the_members_of_the_population():
    """So the mean over them is what a population is compared with."""
    for member in range(4):
        single, pooled = (
            made("rounds=pooled", f"rounds.lineage={lineage}", "rounds.round=0", f"rounds.member={member}")
            for lineage in ("single", "pooled")
        )
        assert single.key == pooled.key
    families = ["rounds=toy_families", "student=toy_family", "rounds.member=2", "rounds.round=1"]
    single, pooled = (made(*families, f"rounds.lineage={lineage}") for lineage in ("single", "pooled"))
    assert single.student.key == pooled.student.key
    assert single.student.stage.toy.family == 2
    words = [*SMALL, *families, "rounds.lineage=pooled", "rounds.students.1.facts.licence=MIT"]
    (point,) = expander().expand({}, words)
    assert cell_record(point, graph(point.cell)).licences["student-2"] == "MIT", "rows that it wrote carry its terms"
    assert single.vanilla["truth"].key == pooled.vanilla["truth"].key


def test_a_continued_student_starts_from_the_weights_before():
    base, item = made("rounds.round=2"), made("rounds.round=2", "rounds.init=continue")
    assert [node.inputs["student"].key for node in chain(base)] == [base.student.key] * 3
    trainings = chain(item)
    assert [node.inputs["student"].key for node in trainings[1:]] == [node.key for node in trainings[:-1]]
    again = made("rounds=trained_again", "rounds.round=3")
    assert len(chain(again)) == 4
    assert {node.inputs["mix"].key for node in chain(again)} == {made().mix.key}
    assert {node.inputs["tokens"].key for node in chain(again)} == {made().train.inputs["tokens"].key}


def test_controls_have_no_student_among_their_writers():
    fresh = made("mix=multi", "rounds=fresh_sources", "rounds.round=3")
    assert len(chain(fresh)) == 1
    assert {node.stage.source for name, node in fresh.mix.inputs.items() if name != "prompts"} == {
        "oak", "elm", "ash", "fir"
    }  # fmt: skip
    assert min(fresh.mix.stage.positions()) == 180
    human = made("mix=human", "rounds=fresh_sources", "rounds.round=3")
    assert human.mix.stage.positions() == list(range(180, 240))
    cooled = made("mix=single", "rounds=decoding_only", "rounds.sampling.temperature=0.5", "rounds.round=3")
    answers = [node for name, node in cooled.mix.inputs.items() if name != "prompts"]
    assert {node.stage.sampling.temperature for node in answers} == {0.125}
    assert len(chain(cooled)) == 1


@pytest.mark.parametrize(("real", "first"), [("same", 0), ("new", 120)])
def test_human_rows_rotate_or_stay(real, first):
    item = made("mix=human", "rounds.round=2", "rounds.real_share=0.25", f"rounds.real={real}")
    places, owners = item.mix.stage.positions(), item.mix.stage.owners()
    assert [place for place, owner in zip(places, owners, strict=True) if owner == "human"] == [
        *range(first + 45, first + 60)
    ]
    assert [place for place, owner in zip(places, owners, strict=True) if owner != "human"] == [*range(120, 165)]


@pytest.mark.parametrize("data", ["replace", "accumulate", "accumulate_fixed"])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_round_has_so_many_rows_and_equal_steps(data, number):
    item = made(f"rounds.data={data}", f"rounds.round={number}", *STEPS)
    assert item.mix.stage.rows == (60 * (number + 1) if data == "accumulate" else 60)
    assert {node.stage.budget for node in chain(item)} == {9}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["rounds.round=5"], r"6 blocks of 60 fresh prompts need 360 train prompts and there are 300; set mix.rows=50"),
        (["rounds=accumulate"], "rounds.data=accumulate: gives rounds other numbers of rows"),
        (["rounds=segmented"], "rounds.lineage=segmented: gives rounds other numbers of rows"),
        (["rounds=segmented", *STEPS, "rounds.seeds=7"], "7 segments of equal length need a multiple of 7"),
        (["rounds.lineage=pooled", "rounds.round=1"], "rounds.lineage=pooled: needs a population"),
        (["rounds=pooled", "rounds.member=4"], "rounds.member=4: the population has members 0 to 3"),
        (["rounds=trained_again", "rounds.init=base"], "rounds.writers=initial: needs rounds.init=continue"),
        (["rounds=decoding_only", "mix=multi"], "rounds.writers=decoding: is exact for one source by law"),
        (["rounds=decoding_only", "mix=single", "rounds.sampling.top_p=0.9"], r"top_p=1"),
        (["rounds=decoding_only", "mix=single", "mix.real_share=0.5"], "without human rows"),
        (["rounds=decoding_only", "mix=single", "generators.models.0.sampling.top_p=0.9"], r"top_p=1"),
        (["rounds=verifier", *STEPS], "rounds.filter=verifier: needs a first judge"),
        (["rounds=verifier", "judge=rules", *STEPS], "rounds.filter=verifier: needs a first judge that rates quality"),
        (["rounds=pooled", "mix.rows=3"], "of 4 members of a pool each writes a part; set mix.rows=4 or more"),
        (["rounds=replace", "rounds.sampling.max_new_tokens=256"], r"context of the students, 256 tokens; set.*=64"),
        (["rounds=toy_families", "rounds.seeds=2"], "a population is of families or of seeds"),
        (["rounds.round=3", *SPARE],
            r"4 blocks of 60 fresh prompts and 30 further ones \(mix.spare=0.5\) need 360 .*300; set mix.rows=50, or"),
        (["rounds=segmented", *STEPS, *SPARE, "mix.rows=240", "rounds.round=0"],
            "1 block of 240 fresh prompts and 120 further .* 360 .* 300; set mix.rows=200$"),
        (["rounds.prompts=same", "rounds.round=3", *SPARE, "mix.rows=240"], "needs 120 further prompts .* are 60;"),
        (["rounds=surprise", *STEPS, "mix.spare=0.5"], "rounds.filter=surprise leaves out a share of all that student"),
        (["rounds=verifier", "judge=toy", *STEPS, "mix.spare=0.5"], "these rows have no replacement; set mix.spare=0"),
        (["rounds=replace", "train.method=qlora", "rounds.init=continue"], "cannot be merged into 4-bit weights"),
    ],
)  # fmt: skip
def test_rounds_that_cannot_be_are_refused_at_plan(words, problem, tmp_path):
    with pytest.raises(ConfigError, match=problem):
        frozen(*SMALL, *words, root=tmp_path)


def test_arms_of_a_sweep_of_rounds_are_matched_and_share_their_beginning(tmp_path):
    rounds = {"rounds": "replace,accumulate", "rounds.round": "0,1,2", "train.budget": "5,9"}
    plan = frozen(*SMALL, "train.match=steps", root=tmp_path, params=rounds)
    assert len({item.key for item in plan.graphs}) == 2 * (1 + 2 + 2)
    records = [cell_record(point, item) for point, item in zip(plan.points, plan.graphs, strict=True)]
    assert {(record.axes["rounds"], record.axes["rounds.round"]) for record in records} == {
        ("n/a", "0"), ("replace", "1"), ("accumulate", "1"), ("replace", "2"), ("accumulate", "2")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "mix", "share"),
    [
        (["mix=human"], "students_of_human", 0.25),
        (["mix=human", "rounds.writers=sources"], "human", 1.0),
        (["mix=human", "rounds.round=0"], "human", 1.0),
        (["mix=multi", "mix.real_share=0.5"], "multi", 0.25),
        (["mix=multi", "mix.real_share=0.5", "rounds.round=0"], "multi", 0.5),
    ],
)
def test_rows_that_students_write_are_not_called_human(words, mix, share):
    (point,) = expander().expand({}, [*SMALL, "rounds=replace", "rounds.round=2", "rounds.real_share=0.25", *words])
    axes = cell_record(point, graph(point.cell)).axes
    assert (axes["mix"], axes["real_share"]) == (mix, share)
    assert axes["mix.real_share"] == ("n/a" if mix.endswith("human") else 0.5)


def test_an_axis_of_rounds_is_not_applicable_where_it_changes_no_key():
    for axis, one, other in (
        ("rounds.data", "replace", "accumulate_fixed"),
        ("rounds.seeds", "2", "3"),
        ("rounds.init", "base", "continue"),
        ("rounds.member", "0", "1"),
    ):
        for more in (["rounds.round=0"], ["rounds.round=1"], ["rounds.round=1", "rounds.lineage=pooled"]):
            points = [
                expander().expand({}, [*SMALL, "rounds.seeds=2", *more, f"{axis}={value}"])[0] for value in (one, other)
            ]
            records = [cell_record(point, graph(point.cell)) for point in points]
            assert (records[0].axes[axis] == "n/a") == (records[0].key == records[1].key), (axis, more)


def test_the_bill_of_rounds_counts_every_training_once(tmp_path):
    costs = estimate(*SMALL, root=tmp_path, params={"rounds": "pooled", "rounds.member": "0,1,2,3"})
    assert sum(node.stage.name == "train" for node in costs.nodes.values()) == 8
    assert not costs.bill.unknown
