"""The configuration: every file composes, every group is a field, and our expansion gives what Hydra would."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Iterator, Sequence

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from synthdiv.__main__ import conf_dir
from synthdiv.evaluate.suite import typed_items
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander
from synthdiv.study.grid import GridSpec
from synthdiv.study.schema import known_keys, leaves, nearest

CONF = conf_dir()
PRESETS = sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.glob("*/**/*.yaml"))
FIELDS = {item.name for item in dataclasses.fields(Cell)}


@pytest.fixture(scope="module")
def loader() -> Iterator[object]:
    ConfigStore.instance().store(name="cell", node=Cell, provider="synthdiv")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture(scope="module")
def expander(loader: object) -> Expander:
    return Expander(loader, "config", [])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_file_composes_and_is_short(preset, loader):
    group, _, name = preset.rpartition("/")
    place = f"{group}@judge.rubrics.{name}" if group == "judge/rubric" else group
    if group != "experiment":  # a cell of each is in test_keys.py
        assert isinstance(OmegaConf.to_object(compose("config", [f"{place}={name}"])), Cell)
    if group == "judge/rubric":
        return  # a text is as long as it is
    lines = (CONF / f"{preset}.yaml").read_text(encoding="utf-8").splitlines()
    limit = 30 if group == "experiment" else 12  # a grid has its claims too
    assert len([line for line in lines if not line.startswith("#")]) <= limit
    assert all(len(line) < 400 for line in lines)


@pytest.mark.parametrize("name", [preset.removeprefix("experiment/") for preset in PRESETS if "experiment/" in preset])
def test_every_cell_of_every_experiment_composes(name, loader, expander):
    config = loader.load_configuration("config", [f"experiment={name}"], RunMode.MULTIRUN)
    sweeper = OmegaConf.to_container(config.hydra.sweeper)
    points = expander.points(GridSpec.read(**sweeper), [])
    assert len(points) > 1
    assert config.sweep == name
    assert len({point.overrides for point in points}) == len(points)
    alone = GridSpec.read(**sweeper | {"cells": 1})
    for point in points[:: max(1, len(points) // 10)]:  # some ten of a large grid
        assert expander.points(alone, list(point.overrides)) == [point], "its printed command runs this cell alone"


def test_every_group_is_a_field_and_every_block_of_a_cell_has_presets():
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert groups - {"experiment"} == FIELDS - {"sweep", "rerun"}
    (root,) = [path for path in CONF.iterdir() if path.is_file()]
    assert list(OmegaConf.load(root)) == ["defaults"], "config.yaml is the defaults list and nothing else"


def test_every_field_is_declared_and_nothing_else():
    keys = list(leaves(Cell))
    assert len(keys) == len(set(keys))
    assert all(map(known_keys().fullmatch, keys))
    for key in ("generators.models.3.sampling.temperature", "evaluate.respond.decodings.1.name", "train.lora.r"):
        assert known_keys().fullmatch(key)
    for key in ("train.foo", "trian", "train.lr.x", "generators.models.name", "generators.models.x.name", "", "train."):
        assert not known_keys().fullmatch(key), key


def test_the_nearest_field_is_the_one_that_was_meant():
    meant = {
        "train.learning_rate": "train.lr",
        "trian.lr": "train.lr",
        "train.batchrows": "train.batch_rows",
        "lr": "train.lr",
        "student.path": "student.checkpoint.path",
        "train.lora_dropout": "train.lora.dropout",
    }
    assert {key: nearest(key)[0] for key in meant} == meant
    assert nearest("qqqq") == []


GROUPS = {
    "prompts": ["toy", "files", "hub"],
    "generators": ["toy_small", "toy_large", "recorded", "none"],
    "mix": ["human", "single", "multi", "none"],
    "student": ["toy_small", "toy_large", "checkpoint", "text"],
    "train": ["full", "lora", "toy"],
    "evaluate": ["study", "toy"],
    "judge": ["none", "rules", "toy"],
    "track": ["none", "wandb"],
}
VALUES = {
    "sweep": ["other", "null_world"],
    "rerun": ["4f1c"],
    "prompts.system": ["null", "'You are brief, and x=1.'", "'{a}'"],
    "prompts.seed": ["1", "42"],
    "prompts.target": ["7"],
    "generators.seed": ["3"],
    "generators.overlap": ["1", "0.25"],
    "generators.path": ["answers.jsonl"],
    "mix.rows": ["16", "null"],
    "mix.weights": ["[1,2,3,4]", "null", "[0.5,0.5]"],
    "mix.source": ["elm", "null", "'elm'"],
    "mix.real_share": ["1", ".5", "1e-1"],
    "student.facts.family": ["x", '"a b"'],
    "train.lr": ["1", "1e-4", "0.001"],
    "train.method": ["full", "lora"],
    "train.lora.targets": ["[q_proj]", "[]"],
    "train.budget": ["100", "null"],
    "evaluate.suites.0.words": ["12"],
    "evaluate.respond.decodings": ["[{name: greedy, sampling: {temperature: 0}}]", "[]"],
    "evaluate.respond.decodings.0.sampling.top_p": ["0.5"],
    "runtime.threads": ["2"],
    "report.measures": ["[a,b]"],
}
overrides = st.tuples(
    st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in GROUPS.items()}),
    st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in VALUES.items()}),
).flatmap(lambda pair: st.permutations([f"{key}={value}" for part in pair for key, value in part.items()]))


def legal(words: list[str]) -> bool:
    """No item of an empty list is set."""
    return not {"evaluate.respond.decodings=[]", "evaluate.respond.decodings.0.sampling.top_p=0.5"} <= set(words)


def hydra_cell(words: Sequence[str]) -> Cell:
    """The cell as Hydra composes it; fields of suites are set when the items have them."""
    late = [word for word in words if word.startswith("evaluate.suites.")]
    config = compose("config", [word for word in words if word not in late])
    typed_items(config)
    for word in late:
        key, value = word.split("=")
        OmegaConf.update(config, key, int(value))
    return OmegaConf.to_object(config)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(words=overrides.filter(legal))
def test_a_random_cell_is_what_hydra_composes_and_leaves_no_trace(words, expander):
    """One expander for all examples: what one cell sets must not be seen by the next."""
    (point,) = expander.expand({}, words)
    assert point.cell == hydra_cell(words)
    groups = [word for word in words if "." not in word and word.split("=")[0] in GROUPS]
    (bare,) = expander.expand({}, groups)
    assert bare.cell == hydra_cell(groups)


AXES = {
    "mix": ["human", "single", "multi"], "student": ["toy_small", "toy_large"], "train": ["full", "toy"],
    "mix.rows": ["16", "null"], "train.lr": ["1e-4", "0.001", "1"], "train.budget": ["100", "null"],
    "generators.path": ["a.jsonl", "b.jsonl"], "evaluate.respond.decodings": ["[{name: greedy}]", "[]"],
}  # fmt: skip


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(keys=st.lists(st.sampled_from(sorted(AXES)), min_size=4, max_size=4, unique=True))
def test_cells_of_a_random_zipped_and_thinned_grid_are_what_hydra_composes(keys, expander):
    one, other, *free = keys
    words = {key: ",".join(AXES[key]) for key in free}
    zips = [{one: ",".join(AXES[one][:2]), other: ",".join(AXES[other][:2])}]
    points = expander.points(GridSpec(words, zip=zips, exclude=[{key: AXES[key][0] for key in (one, free[0])}]), [])
    assert len(points) == len(AXES[free[0]]) * len(AXES[free[1]]) * 2 - len(AXES[free[1]])
    for point in points[:: max(1, len(points) // 3)]:
        assert point.cell == hydra_cell(point.overrides)


def test_cells_of_one_expander_share_no_object(expander):
    """A cell is filled in by resolving: another one must not see it."""
    one, other = expander.expand({}, ["train.seed=0,1"])
    untouched = copy.deepcopy(other.cell)
    one.cell.prompts.toy.world.entities = 7
    one.cell.generators.models.clear()
    assert other.cell == untouched


def test_an_edit_of_a_file_after_expansion_changes_no_cell(tmp_path):
    """All cells are composed before anything runs: hydra#1945."""
    shutil.copytree(CONF, tmp_path / "conf")
    loader = ConfigLoaderImpl(create_config_search_path(str(tmp_path / "conf")))
    points = Expander(loader, "config", []).expand({}, ["train.seed=0,1", "train=toy"])
    for file in tmp_path.rglob("*.yaml"):
        file.write_text("")
    assert [point.cell.train.lr for point in points] == [6e-3, 6e-3]
