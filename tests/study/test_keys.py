"""Keys of whole cells: frozen for one cell per preset, and changed by exactly what changes the numbers.

`python tests/study/test_keys.py --write` adds the keys of new presets. With `--change` it also writes those of others
anew, after a stage's `version` was raised: each finished artifact of that stage is lost to its users. Where these cost
money or a device (answers, training, verdicts), the reason stands in docs/decisions.md. A field added later has a
`before`, and changes no key.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import sys
import typing
from collections.abc import Iterator
from enum import Enum
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.__main__ import conf_dir
from synthdiv.core.fields import type_hints, without_none
from synthdiv.study.config import Cell
from synthdiv.study.expand import Expander
from synthdiv.study.pipeline import graph

GOLDEN = Path(__file__).parents[1] / "golden" / "keys.json"
FILES = ["prompts=files", "prompts.table.path=p.jsonl", "prompts.table.sha256=cd"]
FOLDER = ["student.checkpoint.path=folder", "student.checkpoint.sha256=ef"]
ROWS = ["prompts.table.rows=900", "student=smollm_135m", "student.checkpoint.commit=ab"]
ANSWERS = ["generators.models.0.recorded.path=a.jsonl", "generators.models.0.recorded.sha256=cd"]
MORE = {  # what a cell of a preset needs beside it
    "prompts/files": ["mix=human", *FILES[1:], *ROWS],
    "prompts/hub": ["mix=human", "prompts.table.hub=a/b", "prompts.table.commit=cd", *ROWS],
    "prompts/gsm8k": ["mix=human", *ROWS],
    "generators/none": ["mix=human"],
    "generators/hosted": ["mix=single", "generators.models.0.hosted.id=m"],
    "generators/checkpoint": ["mix=single", "generators.models.0.checkpoint.path=folder"],
    "generators/smollm2_pypi": ["mix=single"],
    "generators/recorded": ["mix=single", *FILES, *ROWS, *ANSWERS],
    "generators/gsm8k_6b": ["mix=single", *FILES, *ROWS],
    "generators/gsm8k_175b": ["mix=single", *FILES, *ROWS],
    "mix/multi_decoding": ["generators.models.1.sampling.temperature=1"],
    "student/checkpoint": FOLDER,
    "judge/panel": ["evaluate=quality"],
    "judge/rules": ["evaluate=quality"],
    "judge/toy": ["evaluate=quality"],
    "judge/toy_panel": ["evaluate=quality"],
    "evaluate/quality": ["judge=toy"],
    "experiment/what_matters": ["student=llama_1b", "prompts.table.rows=9000"],
    "experiment/what_matters_smollm2": ["prompts.table.rows=240"],
    "evaluate/toy_levels": ["prompts=toy_levels"],
    "evaluate/toy_suites": ["prompts=toy_suites", "judge=toy"],
    "evaluate/eggs_tiny": ["prompts=toy_suites", "judge=toy_panel"],
    "rounds/verifier": ["judge=toy"],
    "rounds/decoding_only": ["mix=single", "generators=toy"],
    "prompts/dolly": ["mix=human", *ROWS],
    "experiment/eggs_8b": ["generators=small", "prompts.table.rows=15000"],
    "experiment/eggs_70b": ["generators=small", "prompts.table.rows=15000"],
    "experiment/thesis_grid": ["generators=small", "prompts.table.rows=15000"],
    "evaluate/thesis": ["judge=toy"],
    "experiment/gsm8k_real": ["mix=human", "prompts.table.rows=9000"],
}
GROUPS = ("prompts", "generators", "mix", "student", "train", "rounds", "evaluate", "judge", "experiment")
FROZEN = {
    f"{group}/{path.stem}": [f"{group}={path.stem}", *MORE.get(f"{group}/{path.stem}", [])]
    for group in GROUPS
    for path in sorted((conf_dir() / group).glob("*.yaml"))
}


@cache
def expander() -> Expander:
    ConfigStore.instance().store(name="cell", node=Cell, provider="synthdiv")
    return Expander(ConfigLoaderImpl(create_config_search_path(str(conf_dir()))), "config", [])


def cell(*words: str) -> Cell:
    (point,) = expander().expand({}, list(words))
    return point.cell


def key(*words: str) -> str:
    return graph(cell(*words)).key


def keys_now(name: str) -> dict[str, str]:
    """The key of a frozen cell, and by stage a digest of the keys of its nodes."""
    item, stages = graph(cell(*FROZEN[name])), dict[str, list[str]]()
    for node in item.nodes().values():
        stages.setdefault(node.stage.name, []).append(node.key)
    digests = {stage: hashlib.sha256("".join(keys).encode()).hexdigest()[:16] for stage, keys in sorted(stages.items())}
    return {"cell": item.key[:16], **digests}


@pytest.mark.parametrize("name", FROZEN)
def test_the_keys_of_a_cell_are_frozen(name):
    """Finished work of every user hangs on these. Raise the `version` of a stage whose bytes change."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert name in golden, "a new preset: python tests/study/test_keys.py --write"
    now = keys_now(name)
    changed = [stage for stage in golden[name] if golden[name][stage] != now.get(stage)]
    assert now == golden[name], f"other keys for {', '.join(changed)}: every finished artifact of these is lost"


def test_no_preset_has_gone_unnoticed():
    assert set(json.loads(GOLDEN.read_text(encoding="utf-8"))) == set(FROZEN)


def spots(record: Any, prefix: str = "") -> Iterator[tuple[str, Any, str, Any]]:
    """Every plain field of a cell: dotted name, owner, field name, type. A block that is null is not entered."""
    for item in dataclasses.fields(record):
        value, name = getattr(record, item.name), f"{prefix}{item.name}"
        hint = without_none(type_hints(type(record))[item.name])
        if dataclasses.is_dataclass(value):
            yield from spots(value, f"{name}.")
        elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            for index, inner in enumerate(value):
                yield from spots(inner, f"{name}.{index}.")
        elif not dataclasses.is_dataclass(hint) and value != []:
            yield name, record, item.name, hint


def another(value: Any, hint: Any, name: str) -> Any:
    """A value of the same type that is not `value`."""
    if name == "mix.source":
        return "elm"
    if isinstance(value, Enum):
        members = list(type(value))
        return members[members.index(value) - 1]
    if typing.get_origin(hint) is dict:
        return value | {"x": 1}
    if typing.get_origin(hint) is list:
        return [*(value or []), "x"] if typing.get_args(hint)[0] is str else [3.0, 1.0, 1.0, 1.0]
    return {
        bool: lambda: not value,
        int: lambda: (value or 0) + 1,
        float: lambda: (value or 0) / 2 + 0.125,
        str: lambda: f"{value}x",
    }[hint]()


def indifferent(before: Cell) -> tuple[set[str], set[str]]:
    """The fields whose change leaves the key of the cell as it was, and all fields."""
    was, same, every = graph(copy.deepcopy(before)).key, set(), set()
    for place, (name, *_) in enumerate(list(spots(before))):
        if name.endswith(".backend") or name in ("rounds.member", "rounds.lineage"):
            continue  # another backend needs other blocks, and a member needs a population
        changed = copy.deepcopy(before)
        _, owner, field, hint = list(spots(changed))[place]
        setattr(owner, field, another(getattr(owner, field), hint, name))
        every.add(name)
        if graph(changed).key == was:
            same.add(name)
    return same, every


NEVER = ["sweep", "rerun", "runtime.*", "track.*", "report.*", "student.name", "*.facts.*", "generators.path"]
NEVER += ["judge.*"]  # no suite here asks judges
NEVER += ["mix.spare"]  # no filter here removes a row
NEVER += ["mix.temperatures", "mix.tolerance"]  # of mix=single_matched
NEVER += ["prompts.licence"]  # a fact
NEVER += ["generators.top_logprobs", "generators.grade.*"]  # transformers keep none; only backend law has a grade
VOICES = [*(f"student.pretrain.toy.{name}" for name in ("families", "overlap", "shift"))]  # a student has its own law
VOICES += ["generators.models.0.pretrain.toy.shift"]  # and the first family speaks no foreign dialect
IN_ROUNDS = [f"rounds.{name}" for name in ("prompts", "data", "init", "writers", "seeds", "real*", "filter", "least")]
NEVER += [*IN_ROUNDS, "rounds.drop", "rounds.sampling.*"]  # round 0 is the study without rounds
LOCATORS = ["*.path", "*.revision", "*.hub"]
ONLY_ONE = ["mix.weights", "mix.rotation", *(f"generators.models.{index}.*" for index in (1, 2, 3))]
INDIFFERENT = {
    "mix=none": ["generators.*", "mix.*", "train.*", "rounds.round"],
    "mix=human": [
        "generators.*",
        *(f"mix.{x}" for x in ("weights", "source", "real_share", "real_rows", "rotation", "sample", "level")),
    ],
    "mix=single": [*ONLY_ONE, "generators.shift"],
    "mix=multi": ["mix.source"],
    "mix=multi mix.real_share=0.5": ["mix.source"],
}


@pytest.mark.parametrize("words", INDIFFERENT)
def test_the_key_of_a_cell_changes_with_every_field_but_these(words):
    """Exactly: a field that is missing here must change the key, and one that stands here must not."""
    before = cell(*words.split(), "mix.rows=240")
    before.mix.rotation = 1 if "multi" in words else 0
    same, every = indifferent(before)
    assert same - {"mix.kind"} == expected(every, [*NEVER, *VOICES, *INDIFFERENT[words]]) - {"mix.kind"}


def expected(every: set[str], patterns: list[str]) -> set[str]:
    return {name for name in every if any(fnmatch(name, pattern) for pattern in patterns)}


def test_the_key_of_a_study_of_files_changes_with_every_field_but_these():
    """Nothing is sampled by a recorded source, so how one would sample is no part of it; a path is never identity."""
    block = "{name: %s, backend: recorded, recorded: {answerer: %s, path: f.jsonl, sha256: ab, rows: 99}}"
    before = cell(
        "prompts=files", "generators=recorded", "student=checkpoint", "train=lora", "mix=multi_decoding",
        "prompts.table.path=p.jsonl", "prompts.table.sha256=cd", "prompts.table.rows=99", "prompts.test=3",
        "student.checkpoint.path=folder", "student.checkpoint.sha256=ef", "generators.shard_rows=2",
        f"generators.models=[{','.join(block % (name, name) for name in ('one', 'two', 'three', 'four'))}]",
    )  # fmt: skip
    recorded = ["*.models.*.sampling.*", "*.models.*.precision", "generators.seed", "generators.batch_tokens"]
    toy = ["generators.overlap", "generators.shift", "evaluate.suites.1.*"]
    same, every = indifferent(before)
    assert same - {"mix.kind"} == expected(
        every, [*NEVER, *LOCATORS, *recorded, *toy, "mix.source", "mix.real_rotation"]
    )


def test_kinds_that_mean_another_set_have_another_key():
    kinds = {kind: key(f"mix={kind}") for kind in ("none", "human", "single", "multi")}
    assert len(set(kinds.values())) == 4
    assert key("mix=multi_decoding") == kinds["multi"], "the name says what the sources are, not what is done"
    assert key("mix=multi", "mix.real_share=1") == kinds["human"]
    assert key("mix=single", "mix.source=oak") == kinds["single"]
    assert key("mix=multi", "mix.weights=[2,2,2,2]") == kinds["multi"]
    assert key("mix=multi", "mix.rotation=4") == kinds["multi"]
    assert key("mix=multi", "mix.rotation=1") != kinds["multi"]


def test_human_and_vanilla_are_the_same_under_every_generator_preset():
    presets = ("toy_small", "toy_large", "recorded", "none")
    for kind in ("human", "none"):
        assert len({key(f"mix={kind}", f"generators={preset}") for preset in presets}) == 1
    assert key("mix=none", "train=full") == key("mix=none", "train=lora")


def test_greedy_answers_are_those_of_every_replicate():
    greedy = "evaluate.respond.decodings.0.sampling.temperature=0"
    one, other = (graph(cell("mix=none", greedy, f"evaluate.respond.seed={seed}")).responses for seed in (0, 1))
    assert {name for name in one if one[name].key == other[name].key} == {"published"}


@settings(max_examples=10)
@given(st.permutations(["mix=single", "train.lr=2", "student=toy_large", "prompts.seed=7", "generators.seed=1"]))
def test_the_order_of_overrides_is_irrelevant(words):
    assert key(*words) == key("mix=single", "train.lr=2", "student=toy_large", "prompts.seed=7", "generators.seed=1")


def test_every_other_node_is_shared_by_cells_that_differ_in_training_alone():
    one, other = graph(cell("train.lr=1")), graph(cell("train.lr=2"))
    assert (one.mix.key, one.student.key) == (other.mix.key, other.student.key)
    assert one.vanilla["collapse"].key == other.vanilla["collapse"].key
    assert one.train.key != other.train.key


if __name__ == "__main__" and "--write" in sys.argv:
    before = {} if "--change" in sys.argv else json.loads(GOLDEN.read_text(encoding="utf-8"))
    keys = {name: before.get(name) or keys_now(name) for name in sorted(FROZEN)}
    GOLDEN.write_text(json.dumps(keys, indent=1) + "\n", encoding="utf-8")
