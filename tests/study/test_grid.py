"""Zip, exclude, union and cap: equal to a brute force expansion, and mistakes are refused with a hint."""

from __future__ import annotations

import itertools
import re
import sys
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from synthdiv.core.types import ConfigError
from synthdiv.study.grid import MAX_COMBINATIONS, GridSpec, combinations

AXES = {"train.seed": 0, "mix.rotation": 1, "prompts.seed": 2, "train.lr": 3, "mix": 4, "generators.seed": 5}
parse = OverridesParser.create().parse_overrides


def expanded(arguments=(), **spec):
    return combinations(GridSpec(**spec), list(arguments), parse, "synthdiv -m")


def seeds(words):
    return [tuple(word.split("=")[1] for word in point) for point in words]


def column(least, most):
    return st.lists(st.integers(0, 5), min_size=least, max_size=most, unique=True)


@st.composite
def grids(draw):
    """Axes with their numbers, some in zipped groups, a union, and exclusions of values of the axes."""
    keys = draw(st.permutations(list(AXES)))[: draw(st.integers(1, 5))]
    cut = draw(st.integers(0, len(keys) - 1))
    params = {key: draw(column(1, 3)) for key in keys[cut:]}
    groups = []
    for part in [keys[:cut]] if draw(st.booleans()) else [keys[: cut // 2], keys[cut // 2 : cut]]:
        length = draw(st.integers(2, 3))
        groups += [{key: draw(column(length, length)) for key in part}] if part else []
    also = draw(st.lists(st.fixed_dictionaries({keys[cut]: column(1, 2)}), max_size=2))
    known = {key: sorted(values) for block in (params, *groups) for key, values in block.items()}
    known[keys[cut]] += [value for change in also for value in change[keys[cut]]]
    exclude = [
        {key: draw(st.lists(st.sampled_from(known[key]), min_size=1, max_size=2, unique=True)) for key in chosen}
        for chosen in draw(st.lists(st.sets(st.sampled_from(sorted(known)), min_size=1, max_size=2), max_size=2))
    ]
    return params, also, groups, exclude


def brute_force(params, also, groups, exclude):
    """Every assignment of values to keys that the grid has, tested one by one."""
    points = set()
    keys = [*params, *(key for group in groups for key in group)]
    rows = [list(zip(*group.values(), strict=True)) for group in groups]
    for grid in [params, *(params | change for change in also)]:
        for values in itertools.product(range(6), repeat=len(keys)):
            point = dict(zip(keys, values, strict=True))
            inside = all(point[key] in grid[key] for key in params)
            inside &= all(
                tuple(point[key] for key in group) in values for group, values in zip(groups, rows, strict=True)
            )
            out = any(all(point[key] in values for key, values in rule.items()) for rule in exclude)
            if inside and not out:
                points.add(frozenset(point.items()))
    return points


def written(blocks):
    return [{key: ",".join(map(str, values)) for key, values in block.items()} for block in blocks]


@given(grids())
def test_a_random_grid_is_its_brute_force_expansion(grid):
    params, also, groups, exclude = grid
    wanted = brute_force(*grid)
    spec = {"params": written([params])[0], "also": written(also), "zip": written(groups), "exclude": written(exclude)}
    if not wanted:
        with pytest.raises(ConfigError, match="leaves none of"):
            expanded(**spec)
        return
    points = expanded(**spec)
    assert len(points) == len(set(points))
    assert {
        frozenset((key, int(value)) for key, value in (word.split("=") for word in words)) for words in points
    } == wanted


def test_axes_of_a_zipped_group_vary_together_and_fastest():
    zips = [{"train.lr": "1,2", "mix.rotation": "3,4"}]
    assert seeds(expanded(params={"train.seed": "0,1"}, zip=zips)) == [
        ("0", "1", "3"), ("0", "2", "4"), ("1", "1", "3"), ("1", "2", "4"),
    ]  # fmt: skip


def test_a_zipped_key_of_the_command_line_stays_in_its_group_unless_it_has_one_value():
    zips = [{"train.lr": "1,2", "mix.rotation": "3,4"}]
    assert seeds(expanded(["train.lr=8,9"], zip=zips)) == [("8", "3"), ("9", "4")]
    assert seeds(expanded(["train.lr=8"], zip=zips)) == [("8", "3"), ("8", "4")]
    assert seeds(expanded(["train.lr=8", "mix.rotation=7"], zip=zips)) == [("8", "7")]
    with pytest.raises(ConfigError, match=r"train\.lr has 3 values, mix\.rotation has 2 values"):
        expanded(["train.lr=7,8,9"], zip=zips)


def test_excluded_values_are_compared_by_meaning():
    params = {"train.lr": "1e-4,0.01", "mix": "human,'multi'"}
    assert seeds(expanded(params=params, exclude=[{"train.lr": "0.0001", "mix": "multi"}])) == [
        ("0.0001", "human"), ("0.01", "human"), ("0.01", "'multi'"),
    ]  # fmt: skip


def test_an_exclusion_without_effect_after_a_command_line_override_is_accepted():
    params = {"mix": "human,single", "train.seed": "0,1"}
    assert seeds(expanded(["mix=single"], params=params, exclude=[{"mix": "human", "train.seed": "1"}])) == [
        ("single", "0"), ("single", "1"),
    ]  # fmt: skip


def test_the_same_cell_of_two_grids_is_one_cell():
    points = expanded(["mix=human"], params={"mix": "human,single", "train.seed": "0,1"}, also=[{"mix": "multi"}])
    assert seeds(points) == [("human", "0"), ("human", "1")]


HUMAN = {"mix": "human,single"}
MANY = "1,001 cells are more than the 1,000 that need no confirmation; to run them all add hydra.sweeper.cells=1001"
SLIPS = {
    "lengths": (
        {"zip": [{"train.seed": "0,1,2", "train.lr": "1,2"}]},
        "train.seed has 3 values, train.lr has 2 values",
    ),
    "in params and in zip": ({"params": HUMAN, "zip": [HUMAN]}, "mix stands in params and in zip"),
    "in two groups": ({"zip": [HUMAN, HUMAN]}, "mix stands in two groups of zip"),
    "no value": ({"params": {"mix": " "}}, "hydra.sweeper.params: mix has no value"),
    "an empty axis": ({"params": {"train.seed": "range(3,1)"}}, "train.seed=range(3,1): has no value"),
    "an empty group": ({"zip": [{}]}, "hydra.sweeper.zip: has an empty group"),
    "an empty exclusion": ({"exclude": [{}]}, "hydra.sweeper.exclude: has an empty group"),
    "everything excluded": ({"params": HUMAN, "exclude": [HUMAN]}, "leaves none of 2 cells"),
    "a value twice": ({"params": {"train.lr": "1e-3,2,0.001"}}, "train.lr=0.001 is listed twice"),
    "a misspelt key": ({"exclude": [{"trian.lr": "1"}]}, "trian.lr: no such field; did you mean train.lr"),
    "a key of zip": ({"zip": [{"trian.lr": "1"}]}, "trian.lr: no such field"),
    "a value of no cell": (
        {"params": HUMAN, "exclude": [{"mix": "humna"}]},
        "mix=humna is in no cell; the grid has human, single",
    ),
    "a key of no cell": ({"params": HUMAN, "exclude": [{"train.seed": "1"}]}, "does not set this key"),
    "too many": ({"params": {"train.seed": "range(0,1001)"}}, MANY),
    "far too many": ({"params": dict.fromkeys(AXES, "range(0,100)")}, "1,000,000,000,000 cells are more"),
    "an endless axis": ({"params": {"train.seed": "range(0,10000000000)"}}, "has more than 1,000,000 values"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_mistake_is_refused_with_a_hint(slip):
    spec, message = SLIPS[slip]
    with pytest.raises(ConfigError, match=re.escape(message)):
        expanded(**spec)


def test_a_key_that_is_swept_twice_is_refused():
    with pytest.raises(ConfigError, match=r"train\.seed: swept twice, train\.seed=5,6 the second time"):
        expanded(["train.seed=0,1", "train.seed=5,6"])


def test_the_cap_counts_cells_after_exclusion_and_can_be_raised():
    params = {"train.seed": "range(0,1010)", "mix.rotation": "0,1"}
    left = expanded(params=params, exclude=[{"mix.rotation": "1"}, {"train.seed": "range(0,10)"}])
    assert len(left) == 1000
    assert len(expanded(params={"train.seed": "range(0,1001)"}, cells=1001)) == 1001
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.cells=1001"):
        expanded(params={"train.seed": "range(0,1001)"}, cells=1000)
    assert MAX_COMBINATIONS >= 100_000, "a study of a hundred thousand cells can be permitted"


@pytest.mark.parametrize(("answer", "continues"), [("y\n", True), ("yes\n", True), ("n\n", False), ("", False)])
def test_a_terminal_asks_for_confirmation(answer, continues, monkeypatch, capsys):
    terminal = SimpleNamespace(isatty=lambda: True, readline=lambda: answer)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    params = {"train.seed": "range(0,1001)"}
    if continues:
        assert len(expanded(params=params)) == 1001
    else:
        with pytest.raises(ConfigError):
            expanded(params=params)
    assert "1,001 cells are more than the 1,000 that need no confirmation. Continue? [y/N]" in capsys.readouterr().err


def test_a_file_may_have_bare_values_but_no_lists():
    groups = {"also": [{"train.lr": 1e-4}], "zip": [], "exclude": [{"prompts.system": None}]}
    spec = GridSpec.read({"train.seed": 3, "mix": "human,none", "report.unmatched": True}, 1000, **groups)
    assert spec.params == {"train.seed": "3", "mix": "human,none", "report.unmatched": "true"}
    assert (spec.also, spec.exclude) == ([{"train.lr": "0.0001"}], [{"prompts.system": "null"}])
    with pytest.raises(ConfigError, match=r'mix is a list or a mapping; write the values as text, mix: "a,b"'):
        GridSpec.read({"mix": ["human", "none"]}, 1000)
