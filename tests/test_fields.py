"""A field that changes no output is no identity: every field of every stage is changed here, and an output with it.

A field that is added to a stage and not listed here fails. Run as a program with `--write`, this file records the
outputs of stages that give the same bytes everywhere (`golden/outputs.json`).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import sys
import tempfile
import types
import typing
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a program: `tests` is a package beside this file
import synthdiv.pipeline  # noqa: F401  # imports every stage
from synthdiv.evaluate.collapse import Collapse
from synthdiv.evaluate.likelihood import Likelihood, Target
from synthdiv.evaluate.truth import Truth
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.generate.stage import Generate, Side, read_samples
from synthdiv.mix.stage import Mix, read_mix
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import Precision
from synthdiv.prompts.stage import FILE, Prompts
from synthdiv.prompts.table import Table
from synthdiv.resolve import Resolver
from synthdiv.stage import Stage
from synthdiv.train.pretrain import Architecture, TextCorpus
from synthdiv.train.schedule import Match
from synthdiv.train.stage import Lora, LossOn, Method, Shape, Train
from synthdiv.types import Artifact
from tests.models.small import build, files, tiny_model, toy_prompts

GOLDEN = Path(__file__).parent / "golden" / "outputs.json"
LAW = {
    "seed": 1, "entities": 30, "categories": 3, "relations": 1, "values": 7, "dialects": 6, "phrasings": 44,
    "prompt_phrasings": 6, "zipf": 0.5, "tail": 0.8,
}  # fmt: skip

# scene: {field of its stage: a value other than the scene's}. What a scene is made of stands in `Scenes`.
CHANGES: dict[str, dict[str, Any]] = {
    "toy": {"toy.rows": 50, "test": 10, "target": 5, "seed": 1} | {f"toy.world.{key}": LAW[key] for key in LAW},
    "shown": {"system": "Be brief.", "date": "2020-02-02"},
    "table": {
        "table.where": ["kind=a"], "table.columns.prompt": "other", "table.columns.response": "alternative",
        "table.columns.id": "id", "table.columns.context": "id", "table.columns.category": "kind",
    },
    "pretrain": {
        "toy.family": 1, "toy.families": 3, "toy.rows": 210, "toy.overlap": 0.5, "toy.shift": 0.5,
        "architecture": Architecture.gpt2, "hidden": 24, "layers": 2, "heads": 4, "vocabulary": 410, "context": 200,
        "tokens": 3500, "batch_rows": 30, "lr": 2e-2, "seed": 1,
    } | {f"toy.world.{key}": LAW[key] for key in LAW} | {"toy.world.dialects": 4},
    "text": {"text.separator": "---", "text.megabytes": 0.004},
    "generate": {
        "source": "elm", "sampling.temperature": 0.5, "sampling.top_p": 0.5, "sampling.max_new_tokens": 6,
        "precision": Precision.bf16, "seed": 1, "side": Side.test, "rows": 30, "shard_rows": 2, "shard": 1,
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
        "shard_rows": 4,
    },
    "even": {"rotation": 1},
    "full": {
        "method": Method.lora, "epochs": 0.9, "batch_rows": 12, "max_tokens": 45, "loss_on": LossOn.all, "lr": 2e-3,
        "schedule": Shape.constant, "warmup": 0.6, "weight_decay": 0.5, "clip": 1e-3, "validation": 0.2,
        "precision": Precision.bf16, "seed": 1,
    },
    "budget": {"match": Match.supervised_tokens, "budget": 3},
    "lora": {"lora.r": 4, "lora.alpha": 8.0, "lora.dropout": 0.5, "lora.targets": ["up_proj"]},
    "likelihood": {"target": Target.support, "limit": 3, "precision": Precision.bf16, "batch_tokens": 60},
    "collapse": {"decodings": ["other"], "human": False, "vanilla": True, "words": 20, "seed": 1},
    "truth": {"vanilla": True},
}  # fmt: skip

CONTENT = "names the content that a locator points at: other content, other output"
HUB = "a dataset or a model of a hub, which needs a network"
NOT_SHOWN = {
    **{f"checkpoint.{name}": CONTENT for name in ("sha256", "commit")},
    "pretrain.text.sha256": CONTENT,
    "prompts.table.rows": "the number of rows of that content; another number is refused",
    "generate.recorded.rows": "the number of rows of that content, for the graph",
    "generate.recorded.context": "a column before the prompt that is matched: tests/generate/test_recorded.py",
    "collapse.word": "the constant of measures/words.py, put into the key; the build refuses any other",
    "prompts.template": "for tokenizers without one: tests/models/test_chat.py",
    **{f"prompts.table.{name}": HUB for name in ("commit", "subset", "part")},
    "prompts.table.sha256": CONTENT,
    "generate.recorded.sha256": CONTENT,
}


def leaves(kind: type, where: str) -> list[str]:
    """The dotted names of all fields but locators, blocks included."""
    hints, found = typing.get_type_hints(kind), []
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], f"{where}.{field.name}"
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        if dataclasses.is_dataclass(hint):
            found += leaves(typing.cast("type", hint), name)
        elif not field.metadata.get("locator"):
            found.append(name)
    return found


def stages(kind: type = Stage) -> set[type]:
    """Every stage of the package; those of tests are not of it."""
    found = {inner for inner in kind.__subclasses__() if inner.__module__.startswith("synthdiv.")}
    return found.union(*(stages(inner) for inner in kind.__subclasses__()))


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(path / FILE).to_pylist()


class Scenes:
    """A stage to change in each scene, and what its outputs are; what they stand on is built once."""

    def __init__(self, root: Path):
        self.root = root
        self.known: dict[str, Any] = {}

    def build(self, stage: Stage, *inputs: Artifact) -> Artifact:
        return build(self.root, stage, *inputs)

    def resolved(self, stage: Any) -> Any:
        """As a launch resolves it, whatever was filled in before."""
        table = getattr(stage, "table", None)
        if table:
            table.sha256, table.rows = "", 0
        stage.resolve(Resolver(self.root / "outputs"))
        return stage

    @cached_property
    def prompts(self) -> Artifact:
        return self.build(toy_prompts())

    @cached_property
    def student(self) -> Artifact:
        return self.build(tiny_model(0))

    @cached_property
    def human(self) -> Artifact:
        return self.build(Mix(48, real_share=1.0, train_rows=48, shard_rows=4), self.prompts)

    @cached_property
    def showing(self) -> Artifact:
        """A model whose template shows the system role and the date."""
        import shutil

        folder = shutil.copytree(self.student.path / "model", self.root / "showing")
        template = folder / "chat_template.jinja"
        template.write_text("{{ bos_token }}{{ date_string }}" + template.read_text())
        stage = Checkpoint(str(folder))
        stage.resolve(Resolver(self.root / "outputs"))
        return Artifact(stage, "showing", folder)

    @cached_property
    def answered(self) -> Path:
        """Two answers to each train prompt of the toy set, and columns that say something else."""
        rows = rows_of(self.prompts.path)
        file = self.root / "answers.jsonl"
        written = [
            {
                "id": row["id"], "next": after["id"], "prompt": row["prompt"], "other": after["prompt"],
                "response": f"{source} says {index} {take}", "alternative": f"{source} shouts {index}!",
                "source": source, "take": take, "kind": {"x": "y", "y": "x"}[source] if index // 12 % 2 else source,
            }
            for source in "xy"
            for take in ("first", "last")
            for index, (row, after) in enumerate(zip(rows, rows[1:] + rows[:1], strict=True))
        ]  # fmt: skip
        file.write_text("".join(json.dumps(row) + "\n" for row in written))
        return file

    def recorded(self, source: str = "x", **fields: Any) -> Generate:
        recorded = Recorded(str(self.answered), where=["take=first"], answerer=source)
        return Generate(source, Backend.recorded, recorded, Sampling(1, 1, 4), rows=48, shard_rows=48, **fields)

    def stage(self, scene: str) -> Any:
        """The stage that a scene changes."""
        if scene in ("toy", "shown"):
            return toy_prompts()
        if scene == "table":
            file = self.root / "table.jsonl"
            kinds = [{"kind": "ab"[n % 3 == 0], "id": f"row {n}", "prompt": f"ask {n}"} for n in range(30)]
            more = [{"other": f"{n} asked", "response": f"tell {n}", "alternative": f"{n} told"} for n in range(30)]
            file.write_text("".join(json.dumps(row | rest) + "\n" for row, rest in zip(kinds, more, strict=True)))
            return Prompts(table=Table(path=str(file)), test=6)
        if scene == "pretrain":
            return tiny_model(2)  # the first family has no foreign speech
        if scene == "text":
            file = self.root / "book.txt"
            file.write_text("\n<|doc|>\n".join(f"Chapter {n}.\n---\nThe ship sailed on." for n in range(300)))
            return tiny_model(toy=None, text=TextCorpus(str(file)), context=32, tokens=2000)
        if scene == "generate":
            return Generate("oak", sampling=Sampling(1.0, 1.0, 8), rows=48, shard_rows=4)
        if scene == "rounded":  # in bf16 the rows that share a batch show
            law = Sampling(1.0, 1.0, 16)
            return Generate("oak", sampling=law, precision=Precision.bf16, side=Side.test, samples=8, subset=12)
        if scene == "respond":
            return Generate("student", sampling=Sampling(1.0, 1.0, 8), side=Side.test, samples=2, subset=2)
        if scene == "recorded":
            return self.recorded()
        if scene == "mix":
            return Mix(36, ["oak", "elm"], [0.4, 0.6], train_rows=48, shard_rows=3)
        if scene == "even":
            return Mix(36, ["oak", "elm"], [0.5, 0.5], train_rows=48, shard_rows=3)
        if scene in ("full", "budget", "lora"):
            limit = {"match": Match.steps, "budget": 2} if scene == "budget" else {"epochs": 1.0}
            method = Method.lora if scene == "lora" else Method.full
            return Train(method=method, lora=Lora(r=2), batch_rows=16, lr=1e-3, weight_decay=0.0, **limit)
        return {
            "likelihood": Likelihood(),
            "collapse": Collapse(["plain"], words=30),
            "truth": Truth(),
        }[scene]

    def artifact(self, scene: str, stage: Any) -> Artifact:
        """What shows the fields of `stage`: its own artifact, or for what prompts only pass on, answers to them."""
        if scene == "shown":
            answer = Generate("oak", sampling=Sampling(1.0, 1.0, 8), rows=48, shard_rows=4)
            out = Path(tempfile.mkdtemp(dir=self.root))
            from tests.models.small import cpu_run

            answer.build((self.build(stage), self.showing), out, cpu_run())
            return Artifact(answer, "", out)
        inputs: tuple[Artifact, ...] = ()
        if scene in ("table", "text"):
            stage = self.resolved(stage)
        if scene in ("generate", "rounded", "respond", "recorded", "likelihood"):
            inputs = (self.prompts, self.student)
        if scene in ("mix", "even"):
            shards = [self.build(dataclasses.replace(self.recorded(key), source=name), self.prompts) for name, key in
                      (("oak", "x"), ("elm", "y"))]  # fmt: skip
            whole = [
                self.build(dataclasses.replace(shard.stage, shard=n), self.prompts)
                for shard in shards
                for n in range(12)
            ]
            inputs = (self.prompts, *whole)
        if scene in ("full", "budget", "lora"):
            inputs = (self.student, self.human, self.prompts)
        if scene in ("collapse", "truth"):
            tuned = self.build(self.stage("full"), self.student, self.human, self.prompts)
            arms = [self.said(model) for model in (tuned, self.student)][: 1 if stage.vanilla else 2]
            if scene == "collapse":
                inputs = tuple(a for said in arms for a in (said["answers"], *([said["human"]] if stage.human else [])))
            else:
                inputs = (self.prompts, arms[0]["support"], arms[0]["answers"], *(said["support"] for said in arms[1:]))
        return self.build(stage, *inputs)

    def said(self, model: Artifact) -> dict[str, Artifact]:
        support = Likelihood(Target.support, limit=3)
        return {
            "answers": self.build(self.stage("respond"), self.prompts, model),
            "human": self.build(Likelihood(), self.prompts, model),
            "support": self.build(support, self.prompts, model),
        }

    def outputs(self, scene: str, stage: Any | None = None) -> dict[str, bytes]:
        if stage is not None:
            return files(self.artifact(scene, stage))
        if scene not in self.known:
            self.known[scene] = files(self.artifact(scene, self.stage(scene)))
        return self.known[scene]


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
    listed = [f"{scenes.stage(scene).name}.{field}" for scene, field, _ in SHOWN] + [*NOT_SHOWN]
    fields = [name for kind in stages() for name in leaves(kind, kind.name)]
    assert sorted(listed) == sorted(fields), "list each field in CHANGES with a value that shows, or say why none does"


# Golden outputs: rows, and not files, whose bytes depend on the version of a library.

ROWS: dict[str, Callable[[Path], Any]] = {
    "toy": rows_of,
    "table": rows_of,
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
    found, known = golden(scenes, scene), json.loads(GOLDEN.read_text(encoding="utf-8"))[scene]
    if found["version"] == known["version"]:
        assert found == known, (
            f"raise the version of {found['stage']} (or of the stage before it that changed), then run "
            "`python tests/test_fields.py --write`"
        )
    assert found == known, "the version is new: run `python tests/test_fields.py --write`"


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    with tempfile.TemporaryDirectory() as folder:
        made = {scene: golden(Scenes(Path(folder)), scene) for scene in ROWS}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
