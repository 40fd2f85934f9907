"""Axes, seeds and arms: what a report groups by, derived from the graph."""

from __future__ import annotations

import copy

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthdiv.__main__ import conf_dir
from synthdiv.mix.mix import OVERLAP
from synthdiv.study import pipeline
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander
from synthdiv.study.pipeline import Known, graph
from synthdiv.study.records import arm, cell_record, node_record
from synthdiv.views.report.arms import value_of
from tests.conftest import FILES, sources

ConfigStore.instance().store(name="cell", node=Cell, provider="synthdiv")
EXPANDER = Expander(ConfigLoaderImpl(create_config_search_path(str(conf_dir()))), "config", [])


def record(*words: str):
    (point,) = EXPANDER.expand({}, list(words))
    return cell_record(point, graph(point.cell))


AXES = {  # an axis, and two values of it
    "train.lr": ("1e-3", "1e-2"),
    "mix.weights": ("[1,2,3,4]", "[4,3,2,1]"),
    "mix.real_rows": ("12", "24"),
    "mix.level": ("0", "1"),
    "generators.overlap": ("0", "1"),
    "generators.shift": ("0", "0.5"),
    "generators.batch_tokens": ("512", "1024"),
    "generators.models.0.sampling.temperature": ("0.5", "1"),
    "generators.models.2.sampling.temperature": ("0.5", "1"),
    "evaluate.suites.0.words": ("100", "200"),
    "student.pretrain.tokens": ("3000", "4000"),
    "generators": ("toy_small", "toy_large"),
    "student": ("toy_small", "toy_large"),
    "train": ("toy", "full"),
}
KINDS = ("mix=none", "mix=human", "mix=single", "mix=single mix.source=ash", "mix=multi", "mix=multi mix.real_share=1")
OF_GENERATORS = {axis for axis in AXES if axis.startswith("generators.")}
USED = {  # kind → the axes that make no difference
    "mix=none": {"train.lr", "mix.weights", "mix.real_rows", "mix.level", "train", "generators"} | OF_GENERATORS,
    "mix=human": {"mix.weights", "mix.real_rows", "mix.level", "generators"} | OF_GENERATORS,
    "mix=single": {"mix.weights", "generators.models.2.sampling.temperature", "generators.shift"},  # the first family
    "mix=single mix.source=ash": {"mix.weights", "generators.models.0.sampling.temperature"},
    "mix=multi": set(),
    "mix=multi mix.real_share=1": {"mix.weights", "mix.level", "generators"} | OF_GENERATORS,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", AXES)
def test_an_axis_is_not_applicable_exactly_where_it_changes_no_key(kind, axis):
    one, other = (record(*kind.split(), f"{axis}={value}") for value in AXES[axis])
    assert (one.axes[axis] == "n/a") == (other.axes[axis] == "n/a") == (one.key == other.key)
    assert (one.key == other.key) == (axis in USED[kind])


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(axes=st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=2, unique=True))
def test_cells_that_share_parts_have_the_graphs_of_whole_cells(axes, monkeypatch):
    """A part has every block that its nodes read: the reference gives them the whole cell."""
    known = Known()
    judged = ["judge=toy", "evaluate.suites=[{suite: collapse},{suite: quality}]"]
    words = [
        "mix=none,multi",
        "student.pretrain.toy.family=0",
        *judged,
        *(f"{axis}={','.join(AXES[axis])}" for axis in axes),
    ]
    for point in EXPANDER.expand({}, words):
        shared = graph(point.cell, known)
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "once", lambda known, make, part, cell=point.cell: make(cell))
            whole = graph(point.cell)
        assert list(shared.nodes()) == list(whole.nodes())


@pytest.mark.parametrize("axis", ["overlap", "shift"])
def test_an_axis_of_toy_families_is_not_applicable_to_other_sources(axis):
    words = [*FILES, "mix=single", sources("one")]
    (one,), (other,) = (EXPANDER.expand({}, [*words, f"generators.{axis}={value}"]) for value in ("0.5", "1"))
    one, other = (cell_record(point, graph(point.cell)) for point in (one, other))
    assert one.axes[f"generators.{axis}"] == other.axes[f"generators.{axis}"] == "n/a"
    assert one.key == other.key


@pytest.mark.parametrize("kind", ["mix=none", "mix=human"])
def test_an_axis_of_toy_families_is_one_of_their_students_too_whoever_answers(kind):
    one, other = (record(kind, "student=toy_family", *words) for words in ([], ["generators.overlap=1"]))
    assert one.key != other.key
    assert [value_of(each, "student.pretrain.toy.overlap") for each in (one, other)] == ["default", "1"]
    assert "student.pretrain.toy.overlap" not in record("mix=multi", "generators.overlap=1").axes


def test_a_source_that_nobody_chose_says_of_how_many_it_is_the_first():
    assert record("mix=single").axes["source"] == "oak (1 of 4 sources)"
    assert record("mix=single").key == record("mix=single", "mix.source=oak").key
    assert record("mix=multi", "mix.source=oak").key == record("mix=multi").key
    assert record("mix=multi", "mix.source=oak").axes["source"] == "n/a"


@pytest.mark.parametrize(
    ("words", "other"),
    [("mix=human", True), ("mix=human mix.rows=40", False), ("mix=multi", True), ("mix=multi mix.rows=40", False),
     ("mix=multi mix.real_share=0.5", False), ("mix=multi mix.real_rows=50", False),
     ("mix=topics generators=toy mix.rows=40", True)],
)  # fmt: skip
def test_real_rows_rotate_where_there_are_other_prompts_for_them(words, other):
    one, turned = record(*words.split()), record(*words.split(), "mix.real_rotation=1")
    assert (one.key == turned.key) == other == (turned.seeds["mix.real_rotation"] == "n/a")
    assert one.arm == turned.arm


def test_a_source_without_a_weight_is_in_no_mix():
    """The mix of three sources is that of a preset of three."""
    (point,) = EXPANDER.expand({}, ["mix=multi", "mix.weights=[1,0,1,1]"])
    few = copy.deepcopy(point.cell)
    few.generators.models.pop(1)
    few.mix.weights = None
    assert graph(few).key == graph(point.cell).key


def test_a_mix_without_overlap_takes_the_prompt_sets_of_all_suites():
    """Otherwise it does not depend on the evaluation."""
    words = ["mix=human", "prompts=toy_suites", "student=toy_suites", "judge=toy", "evaluate=toy,toy_suites"]
    for overlap, names in (("report", set()), ("remove", {f"{OVERLAP}safety:topic", f"{OVERLAP}safety:look_alikes"})):
        graphs = [graph(point.cell) for point in EXPANDER.expand({}, [*words, f"mix.overlap={overlap}"])]
        sets = [{name.partition(" ")[0] for name in item.mix.inputs if name != "prompts"} for item in graphs]
        assert sets == [set(), names]


def test_the_axes_of_every_cell():
    assert record("mix=single", "mix.source=elm", "train.lr=1").axes == {
        "prompts": "toy", "generators": "toy_small", "student": "toy_small", "train": "toy", "evaluate": "toy",
        "judge": "n/a",
        "mix": "single", "source": "elm", "rows": 2900, "real_share": 0.0, "train.lr": "1",
    }  # fmt: skip
    none = record("mix=none", "mix.rows=50", "runtime.threads=2", "sweep=x", "track.samples=3").axes
    assert none == {
        "prompts": "toy", "generators": "n/a", "student": "toy_small", "train": "n/a", "evaluate": "toy",
        "judge": "n/a",
        "mix": "none", "source": "n/a", "rows": "n/a", "real_share": "n/a",
    }  # fmt: skip
    assert record("mix=human").axes["real_share"] == 1.0
    assert record("mix=multi", "mix.rows=48").axes["rows"] == 48


SEEDS = [
    "prompts.seed",
    "generators.seed",
    "mix.real_rotation",
    "mix.rotation",
    "mix.sample",
    "student.pretrain.seed",
    "train.seed",
    "evaluate.respond.seed",
]


@settings(max_examples=12)
@given(st.fixed_dictionaries({seed: st.integers(0, 3) for seed in SEEDS}))
def test_cells_of_one_arm_differ_in_seeds_alone(values):
    words = [f"{seed}={value}" for seed, value in values.items()]
    one = record("mix=multi", "mix.real_share=0.5", *words)
    assert one.arm == record("mix=multi", "mix.real_share=0.5").arm
    assert one.seeds == values
    assert not set(SEEDS) & set(one.axes)


@pytest.mark.parametrize(
    "word", ["train.lr=1", "mix=single", "student=toy_large", "evaluate.suites.0.words=9", "mix.rows=48"]
)
def test_another_cell_is_another_arm(word):
    assert record(word).arm != record("mix=multi").arm


def test_an_arm_needs_no_change_of_its_cell():
    (point,) = EXPANDER.expand({}, ["train.seed=3", "prompts.seed=4"])
    arm(point.cell)
    assert (point.cell.train.seed, point.cell.prompts.seed) == (3, 4)


def test_seeds_that_enter_nothing_are_not_applicable():
    assert record("mix=none").seeds | {"prompts.seed": 42, "evaluate.respond.seed": 0} == {
        "prompts.seed": 42, "generators.seed": "n/a", "mix.real_rotation": "n/a", "mix.rotation": "n/a",
        "mix.sample": "n/a", "student.pretrain.seed": 0, "train.seed": "n/a", "evaluate.respond.seed": 0,
    }  # fmt: skip
    recorded = [*FILES, "prompts.table.rows=30", sources("one", "two")]
    assert record(*recorded, "mix=multi").seeds["generators.seed"] == "n/a"
    assert record(*recorded, "mix=multi", "mix.rotation=1").seeds["mix.rotation"] == 1
    assert record(*recorded, "mix=single").seeds["mix.rotation"] == "n/a"


def test_a_cell_says_how_much_it_trains_where_that_was_declared_to_differ():
    assert record("mix=human").unmatched == ""
    assert record("mix=human", "mix.rows=48", "report.unmatched=true").unmatched == "4 epochs of 48 rows"
    steps = ("train.match=steps", "train.budget=1200", "report.unmatched=true")
    assert record("mix=human", *steps).unmatched == "1,200 steps"
    early = ("train.stop=early", "train.epochs=3")
    assert record("mix=human", *early).unmatched.startswith("stops early, after at most 3 epochs of ")
    left = ("train.overlong=drop", "train.left_out=0.02")
    assert record("mix=human", *left).unmatched.endswith(" rows less up to 2.0% of them")
    assert record("mix=none", *steps).unmatched == "", "what is not trained has no budget"


def test_a_node_is_written_with_all_it_takes_to_build_it():
    (point,) = EXPANDER.expand({}, [*FILES, "prompts.table.rows=30", "mix=none"])
    rows = [node_record(node) for node in graph(point.cell).nodes().values()]
    (prompts,) = [row for row in rows if row.stage == "prompts"]
    assert prompts.fields["table"]["path"] == "prompts.jsonl", "a locator is no identity, and a worker needs it"
    known = set()
    for row in rows:
        assert set(row.inputs.values()) <= known, "inputs come first"
        known.add(row.key)
