"""Cells of a grid: order, ways of writing values, which of two settings of a key counts, interpolations."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from synthdiv import launch
from synthdiv.__main__ import conf_dir
from synthdiv.core.types import ConfigError
from synthdiv.evaluate.suite import typed_items
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander
from synthdiv.study.grid import GridSpec


@pytest.fixture(scope="module")
def loader():
    ConfigStore.instance().store(name="cell", node=Cell, provider="synthdiv")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture(scope="module")
def expander(loader):
    return Expander(loader, "config", [])


def values(points, *fields):
    return [tuple(eval(f"cell.{field}", {"cell": point.cell}) for field in fields) for point in points]


def test_the_last_key_varies_fastest(expander):
    points = expander.expand({}, ["train.seed=0,1", "prompts.seed=5", "mix.rotation=0,1,2"])
    assert values(points, "train.seed", "mix.rotation") == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert points[1].overrides == ("train.seed=0", "prompts.seed=5", "mix.rotation=1")


def test_a_repeated_key_keeps_its_first_place_and_its_last_value(expander):
    points = expander.expand({}, ["train.seed=0", "mix.rotation=0,1", "train.seed=7,8"])
    assert values(points, "train.seed", "mix.rotation") == [(7, 0), (7, 1), (8, 0), (8, 1)]
    assert values(expander.expand({}, ["train.seed=0,1", "train.seed=3"]), "train.seed") == [(3,)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("range(1,4)", [1, 2, 3]),
        ("choice(4,2)", [4, 2]),
        ("range(0,10,step=5)", [0, 5]),
        ("3", [3]),
        ("glob(*)", None),
        ("range(3,1)", None),
        ("interval(0,1)", None),
    ],
)
def test_ways_of_writing_values(written, meant, expander):
    if meant is None:
        with pytest.raises(ConfigError):
            expander.expand({}, [f"train.seed={written}"])
    else:
        assert values(expander.expand({}, [f"train.seed={written}"]), "train.seed") == [(each,) for each in meant]


def test_every_preset_of_a_group_by_glob(expander):
    kinds = [point.cell.mix.kind.value for point in expander.expand({}, ["mix=glob(*)"])]
    assert {*kinds} == {"human", "multi", "multi_decoding", "none", "single", "single_matched"}
    assert len(kinds) == len([*(conf_dir() / "mix").glob("*.yaml")])


def test_text_with_commas_and_quotes_stays_as_it_was_typed(expander):
    (point,) = expander.expand({}, ["prompts.system='Be brief, and x=1, \"y\".'"])
    assert point.cell.prompts.system == 'Be brief, and x=1, "y".'
    (again,) = expander.expand({}, list(point.overrides))
    assert again.cell == point.cell, "the overrides of a cell give that cell again"
    points = expander.expand({}, ["prompts.system='a, b',null,'c'"])
    assert values(points, "prompts.system") == [("a, b",), (None,), ("c",)]


def test_the_command_line_overrides_the_grid_of_an_experiment(expander):
    points = expander.expand({"mix": "human,multi", "train.seed": "0,1"}, ["train.seed=5", "mix.rows=9"])
    assert values(points, "mix.kind.value", "train.seed", "mix.rows") == [("human", 5, 9), ("multi", 5, 9)]


def test_also_adds_the_grid_again_with_keys_changed(loader):
    hydra = OmegaConf.create({"hydra": {"job": {"config_name": "config"}, "overrides": {"hydra": []}}})
    params, also = {"mix": "human,multi", "train.seed": "0,1"}, [{"mix": "multi", "generators.overlap": "1"}]
    expander = launch.expander(loader, hydra)
    points = expander.points(GridSpec(params, also), ["train.seed=3"])
    assert values(points, "mix.kind.value", "generators.overlap", "train.seed") == [
        ("human", 0.5, 3), ("multi", 0.5, 3), ("multi", 1, 3),
    ]  # fmt: skip


def test_every_source_is_a_cell_of_each_generator_and_one_cell_where_a_mix_has_not_one_source(expander):
    points = expander.expand({}, ["mix=single,multi", "mix.source=every", "train.seed=0,1"])
    sources = values(points, "mix.kind.value", "mix.source", "train.seed")
    names = ("oak", "elm", "ash", "fir")
    assert sources[:8] == [("single", name, seed) for seed in (0, 1) for name in names]
    assert sources[8:] == [("multi", "every", 0), ("multi", "every", 1)]
    assert points[1].overrides == ("mix=single", "train.seed=0", "mix.source=elm")
    assert len(expander.expand({}, ["mix=single", "mix.source=every,elm"])) == 4, "each cell once"


def test_an_unknown_key_of_an_experiment_is_refused_too(expander):
    with pytest.raises(ConfigError, match=r"did you mean train\.seed"):
        expander.expand({"train.sed": "0,1"}, [])


def test_the_printed_command_of_a_cell_has_its_launcher(loader):
    words = ["hydra/launcher=local", "hydra.launcher.jobs=2", "hydra.mode=MULTIRUN", "hydra.sweeper.cells=9"]
    (point,) = Expander(loader, "config", words).expand({}, ["mix=human"])
    assert point.config == ("hydra/launcher=local", "hydra.launcher.jobs=2")


def test_a_list_that_is_replaced_after_an_item_was_set_does_not_change_later_cells(expander):
    """A regression that the random cells of test_config showed."""
    item, whole = "evaluate.respond.decodings.0.sampling.top_p=0.5", "evaluate.respond.decodings=[{name: greedy}]"
    (before,) = expander.expand({}, ["evaluate=toy"])
    expander.expand({}, ["evaluate=toy", item, whole])
    (after,) = expander.expand({}, ["evaluate=toy"])
    assert after.cell == before.cell


INTERPOLATIONS = [  # across blocks, within a block, below a list, as an item of a list, and of an interpolated value
    ("evaluate.respond.seed", "${prompts.seed}"),
    ("mix.rotation", "${train.seed}"),
    ("generators.models.0.sampling.max_new_tokens", "${prompts.test}"),
    ("mix.weights", "['${train.lr}',1,1,1]"),
    ("generators.seed", "${evaluate.respond.seed}"),
    ("prompts.system", "'answer ${mix.rows} of ${prompts.seed}'"),
    ("train.lora.targets", "['${student.name}']"),
]
SOURCES = {
    "prompts.seed": "1,2,3",
    "train.seed": "0,7",
    "prompts.test": "30,40",
    "train.lr": "1e-3,1",
    "mix.rows": "16,null",
}


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_interpolations_follow_the_values_of_each_cell_as_in_hydra(data, expander):
    words = [
        f"{key}={value}" for key, value in data.draw(st.lists(st.sampled_from(INTERPOLATIONS), min_size=1, unique=True))
    ]
    words += [
        f"{key}={SOURCES[key]}" for key in data.draw(st.sets(st.sampled_from(sorted(SOURCES)), min_size=1, max_size=2))
    ]
    words += data.draw(st.sampled_from([[], ["student=toy_small,toy_large"], ["mix=human,multi"]]))
    params = data.draw(st.sets(st.sampled_from(words)))  # hydra.sweeper.params, the others on the command line
    arguments = data.draw(st.permutations([word for word in words if word not in params]))
    points = expander.expand(dict(word.split("=", 1) for word in sorted(params)), arguments)
    for point in points[:: max(1, len(points) // 3)]:
        config = compose("config", list(point.overrides))
        typed_items(config)
        assert point.cell == OmegaConf.to_object(config)


def mutable_parts(value):
    """The ids of all dataclasses, lists and mappings below a cell."""
    if not isinstance(value, dict | list) and not dataclasses.is_dataclass(value):
        return []
    value = vars(value) if dataclasses.is_dataclass(value) else value
    return [id(value), *itertools.chain(*map(mutable_parts, value.values() if isinstance(value, dict) else value))]


AXES = ["train.seed=0,1", "mix=human,multi", "mix.rows=16,null", "evaluate=toy,study", "prompts.seed=${train.seed},3"]


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(words=st.sets(st.sampled_from(AXES), min_size=1))
def test_cells_share_no_object_that_can_change(words, expander):
    cells = [point.cell for _ in range(2) for point in expander.expand({}, sorted(words))]
    parts = [part for cell in cells for part in mutable_parts(cell)]
    assert len(set(parts)) == len(parts)


def test_an_interpolation_across_blocks_has_the_value_of_its_own_cell(expander):
    points = expander.expand({}, ["evaluate.respond.seed=${prompts.seed}", "prompts.seed=1,2,3"])
    assert values(points, "evaluate.respond.seed") == [(1,), (2,), (3,)]
    listed = expander.expand({}, ["mix.weights=['${prompts.seed}',1,1,1]", "prompts.seed=1,2,3"])
    assert [point.cell.mix.weights[0] for point in listed] == [1.0, 2.0, 3.0]
