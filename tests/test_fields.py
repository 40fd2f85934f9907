"""A field that changes no output is no identity: every field of every stage is changed here, and an output with it.

A field that is added to a stage and listed neither here nor in `FIELDS_SHOWN` of another test file fails. Run as a
program with `--write`, this file records the outputs of stages that give the same bytes everywhere
(`golden/outputs.json`).
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import hashlib
import json
import re
import sys
import tempfile
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a program: `tests` is a package beside this file
import synthdiv.study.pipeline  # noqa: F401  # imports every stage but those of suites
from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact
from synthdiv.evaluate.likelihood import Target
from synthdiv.evaluate.suite import own_suites, suite_class
from synthdiv.generate.generate import Split, read_samples
from synthdiv.generate.spec import Backend
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.models.load import Precision
from synthdiv.prompts.toy_world import Pool
from synthdiv.train.pretrain import Architecture
from synthdiv.train.recipe import LossOn, Method, Shape, StopRule
from synthdiv.train.schedule import Match
from tests.scenes import Scenes, rows_of

for suite in own_suites():
    suite_class(suite)  # imports its stages
GOLDEN = Path(__file__).parent / "golden" / "outputs.json"
LAW = {
    "seed": 1, "entities": 30, "categories": 3, "relations": 1, "values": 7, "dialects": 6, "phrasings": 14,
    "prompt_phrasings": 6, "zipf": 0.5, "tail": 0.7, "thirds": True,
}  # fmt: skip

# scene: {field of its stage: a value other than the scene's}. What a scene is made of stands in `Scenes`.
CHANGES: dict[str, dict[str, Any]] = {
    "toy": {
        "toy.rows": 50, "toy.pool": Pool.refused, "toy.planted": 0.2, "test": 10, "target": 5, "seed": 1,
    } | {f"toy.world.{key}": LAW[key] for key in LAW},
    "shown": {"system": "Be brief.", "date": "2020-02-02"},
    "table": {
        "table.where": ["kind=a"], "table.columns.prompt": "other", "table.columns.response": "alternative",
        "table.columns.id": "id", "table.columns.context": "id", "table.columns.category": "kind",
    },
    "pretrain": {
        "toy.family": 2, "toy.families": 2, "toy.rows": 210, "toy.refusals": 0.5, "toy.judging": 50,
        "toy.overlap": 0.5, "toy.shift": 0.5,
        "architecture": Architecture.gpt2, "hidden": 24, "layers": 2, "heads": 4, "vocabulary": 410, "context": 200,
        "tokens": 3500, "batch_rows": 30, "lr": 2e-2, "seed": 1,
    } | {f"toy.world.{key}": LAW[key] for key in LAW if key != "thirds"},
    "law": {
        "family": 1, "families": 3, "overlap": 0.0, "shift": 0.4, "grade.wrong": 0.5, "grade.tail": 0.1,
    } | {f"world.{key}": LAW[key] for key in LAW},
    "text": {"text.separator": "---", "text.megabytes": 0.004},
    "generate": {
        "source": "elm", "sampling.temperature": 0.5, "sampling.top_p": 0.5, "sampling.max_new_tokens": 6,
        "sampling.top_k": 2, "sampling.min_p": 0.3, "sampling.repetition_penalty": 3.0, "sampling.stop": ["e"],
        "precision": Precision.bf16, "seed": 1, "round": 1, "split": Split.test, "rows": 30, "shard_rows": 2,
        "shard": 1, "first": 2,
    },
    "respond": {"samples": 3, "subset": 4},
    "rounded": {"batch_tokens": 40},
    "recorded": {
        "backend": Backend.hf, "recorded.source": "kind", "recorded.answerer": "y",
        "recorded.where": ["take=last"], "recorded.prompt": "other", "recorded.response": "alternative",
        "recorded.id": "next",
    },
    "mix": {
        "rows": 30, "sources": ["elm", "oak"], "weights": [0.5, 0.5], "real_share": 0.5, "train_rows": 36,
        "shard_rows": 4, "real_rows": 9, "real_rotation": 1,
    },
    "even": {"rotation": 1},
    "full": {
        "method": Method.lora, "epochs": 0.9, "batch_rows": 12, "max_tokens": 45, "loss_on": LossOn.all, "lr": 2e-3,
        "schedule": Shape.constant, "warmup": 0.6, "weight_decay": 0.5, "clip": 1e-3, "validation": 0.2,
        "precision": Precision.bf16, "seed": 1,
    },
    "budget": {"match": Match.supervised_tokens, "budget": 3, "packing": True},
    "early": {"stop": StopRule.budget, "evaluate_every": 3, "patience": 2},
    "lora": {"lora.r": 4, "lora.alpha": 8.0, "lora.dropout": 0.5, "lora.targets": ["up_proj"],
        "lora.rslora": True, "lora.dora": True, "lora.modules_to_save": ["embed_tokens"],
    },
    "likelihood": {"target": Target.support, "limit": 3, "precision": Precision.bf16, "batch_tokens": 60},
    "collapse": {
        "decodings": ["other"], "human": False, "vanilla": True, "vectors": True, "words": 20, "texts": 3,
        "length": 3, "cap": 3, "within": 3, "draws": 3, "seed": 1,
    },
    "judge_prompts": {"rubric.instruction": "{response} {prompt}", "limit": 3, "samples": 2, "appended": "Give 2."},
    "vectors": {"human": True, "length": 2, "batch_rows": 3},
    "truth": {"vanilla": True},
    "gradient_diversity": {"rows": 9, "dimensions": 0, "seed": 1, "precision": Precision.bf16},
    "sources_alike": {"sources": ["y", "x"], "sets": [], "length": 2, "encoded": True},
    "instrument": {"sizes": [14], "strengths": [0.6], "draws": 4, "encoded": 12},
    "selection": {"rows": 9, "pools": 2, "level": 0.0, "human": [0, 30, 48], "near": 0.4, "seed": 1, "encoded": True},
    "reached": {"texts": 30, "encoded": True},
    "questions": {
        "table.where": ["kind=a"], "table.columns.prompt": "other", "table.columns.response": "alternative",
        "table.columns.id": "id", "table.columns.context": "id", "table.columns.category": "kind",
        "choices": None,
    },
    "requests": {
        "table.where": ["kind=a"], "table.columns.prompt": "other", "table.columns.id": "id",
        "table.columns.context": "id", "table.columns.category": "kind", "limit": 3,
    },
    "choices": {"precision": Precision.bf16, "batch_tokens": 60},
    "downstream": {"files": ["other"], "patterns": ["e"], "vanilla": True},
}  # fmt: skip

CONTENT = "names the content that a locator points at: other content, other output"
HUB = "a dataset or a model of a hub, which needs a network"
TABLE = ("commit", "subset", "part", "sha256", "rows")
COLUMNS = ("prompt", "response", "id", "context", "category")
RENDERED = ("system", "date", "template")
NOT_SHOWN = {
    **{f"checkpoint.{name}": CONTENT for name in ("sha256", "commit")},
    **dict.fromkeys(("pretrain.text.sha256", "gguf.sha256", "generate.recorded.sha256"), CONTENT),
    **{f"{stage}.asked.{name}": CONTENT for stage in ("harness", "task_texts") for name in ("sha256", "release")},
    **{
        f"{table}.{name}": HUB if name in ("commit", "subset", "part") else CONTENT
        for table in ("prompts.table", "questions.table", "requests.table", "requests.templates")
        for name in TABLE
    },
    **{
        f"{stage}.{name}": "as in prompts"
        for stage in ("fact_questions", "questions", "requests", "pair_prompts", "task_texts")
        for name in RENDERED
    },
    **{f"{stage}.world.{name}": "as in prompts" for stage in ("fact_questions", "requests.toy") for name in LAW},
    **{f"requests.toy.{name}": "as in prompts" for name in ("rows", "pool", "planted")},
    **{
        f"{stage}.table.{name}": "it has no table"
        for stage in ("pair_prompts", "task_texts")
        for name in (*TABLE, "where", *(f"columns.{column}" for column in COLUMNS))
    },
    "requests.table.columns.response": "requests have no answers",
    "generate.recorded.rows": "the number of rows of that content, for the graph",
    "judge_prompts.rows": "a bound on the number of rows, for the graph",
    **{
        f"judge_prompts.rubric.{name}": "the name and version of the wording, which every score carries"
        for name in ("name", "version")
    },
    **dict.fromkeys(("verdicts.shards", "judge_prompts.authors", "likelihood.authors"), "the number of inputs"),
    **dict.fromkeys(
        ("collapse.word", "collapse.sentence", "vectors.word"),
        "the constant of measures/words.py, put into the key; the build refuses any other",
    ),
}


def shown_elsewhere() -> list[str]:
    """The fields whose effect other tests show: `FIELDS_SHOWN` of these files."""
    texts = (file.read_text(encoding="utf-8") for file in Path(__file__).parent.rglob("test_*.py"))
    lists = (re.search(r"^FIELDS_SHOWN = (\(.*?\))(  # fmt: skip)?$", text, re.MULTILINE | re.DOTALL) for text in texts)
    return [name for match in lists if match for name in ast.literal_eval(match[1])]


def leaves(kind: type, where: str) -> list[str]:
    """The dotted names of all fields but locators, blocks included."""
    hints, actual = typing.get_type_hints(kind), []
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], f"{where}.{field.name}"
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        if dataclasses.is_dataclass(hint):
            actual += leaves(typing.cast("type", hint), name)
        elif not field.metadata.get("locator"):
            actual.append(name)
    return actual


def stages(kind: type = Stage) -> set[type]:
    """Every stage of the package; those of tests are not of it."""
    actual = {inner for inner in kind.__subclasses__() if inner.__module__.startswith("synthdiv.")}
    return actual.union(*(stages(inner) for inner in kind.__subclasses__()))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp("scenes"))


def changed(stage: Any, field: str, value: Any) -> Any:
    stage = copy.deepcopy(stage)
    *blocks, last = field.split(".")
    block = stage
    for name in blocks:
        block = getattr(block, name)
    assert getattr(block, last) != value, f"{field} is {value!r} already"
    setattr(block, last, value)
    return stage


SHOWN = [(scene, field, value) for scene, fields in CHANGES.items() for field, value in fields.items()]


@pytest.mark.parametrize(("scene", "field", "value"), SHOWN, ids=[f"{scene}-{field}" for scene, field, _ in SHOWN])
def test_a_field_changes_an_output(scenes, scene, field, value):
    assert scenes.outputs(scene, changed(scenes.stage(scene), field, value)) != scenes.outputs(scene)


def test_every_field_of_every_stage_is_listed(scenes):
    listed = [f"{scenes.stage(scene).name}.{field}" for scene, field, _ in SHOWN] + [*NOT_SHOWN, *shown_elsewhere()]
    fields = [name for kind in stages() if kind.name for name in leaves(kind, kind.name)]
    assert sorted(listed) == sorted(fields), (
        "list each field in CHANGES with a value that shows, or in FIELDS_SHOWN of the test file that shows it, or say "
        "why nothing does"
    )


# Golden outputs: rows, and not files, whose bytes depend on the version of a library.

ROWS: dict[str, Callable[[Path], Any]] = {
    "toy": rows_of,
    "table": rows_of,
    "law": lambda path: [dataclasses.asdict(row) for row in read_samples(path)],
    "recorded": lambda path: [dataclasses.asdict(row) for row in read_samples(path)],
    "mix": lambda path: read_mix(Artifact(None, "", path)),
}


def golden(scenes: Scenes, scene: str) -> dict[str, Any]:
    made = scenes.artifact(scene, scenes.stage(scene))
    text = json.dumps(ROWS[scene](made.path), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"stage": made.stage.name, "version": made.stage.version, "rows": digest}


@pytest.mark.parametrize("scene", ROWS)
def test_other_rows_need_another_version(scenes, scene):
    actual, known = golden(scenes, scene), json.loads(GOLDEN.read_text(encoding="utf-8"))[scene]
    if actual["version"] == known["version"]:
        assert actual == known, (
            f"raise the version of {actual['stage']} (or of the stage before it that changed), then run "
            "`python tests/test_fields.py --write`"
        )
    assert actual == known, "the version is new: run `python tests/test_fields.py --write`"


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    with tempfile.TemporaryDirectory() as folder:
        made = {scene: golden(Scenes(Path(folder)), scene) for scene in ROWS}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
