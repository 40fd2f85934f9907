"""How alike the students of a population write: their answers to the same test prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import Artifact, Run
from synthdiv.evaluate.suite import EvaluatedStudent, Suite, item, write_suite
from synthdiv.generate.generate import read_samples
from synthdiv.measures.similarity import ngram_vectors, source_similarity, unit_rows


@dataclass
class AlikeSuite(Suite):
    """Between-student similarity of a population, the same for each of its members."""

    headlines = ("alike", "voices")
    reading = (
        "`alike` is how alike members of a population answer the same test prompt: 0 (no more than different ones) "
        "to 1 (the same text); `voices` is for how many wholly different students they count."
    )

    decoding: str = ""
    """The decoding whose first answers are compared; empty: the first."""
    n: int = setting(2, least=1)
    """Words of the n-grams by which answers are compared."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        answers = arm.members.get(self.decoding or next(iter(arm.responses)), [])
        stage = Alike(len(answers), self.n)
        return Node(stage, dict(zip(stage.input_names(), answers, strict=True))) if answers else None


@dataclass
class Alike(Stage):
    """Inputs: the answers of each student, `student-0` and so on. Scores: as of `source_similarity`; items: the mean
    cosine over pairs of students, of each prompt."""

    name = "alike"

    members: int = 2
    """How many students there are."""
    n: int = 2
    """Words of the n-grams."""

    def input_names(self) -> list[str]:
        return [f"student-{number}" for number in range(self.members)]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        answers = {
            name: {row.id: row.response for row in read_samples(artifact.path) if not row.sample}
            for name, artifact in inputs.items()
        }
        prompts = list(answers["student-0"])
        vectors = ngram_vectors({name: [texts[key] for key in prompts] for name, texts in answers.items()}, self.n)
        pairs = list(combinations(map(unit_rows, vectors.values()), 2))
        cosines = sum(one.multiply(other).sum(axis=1) for one, other in pairs) / len(pairs)
        items = [item(key, "cosine", value) for key, value in zip(prompts, cosines, strict=True)]
        write_suite(out, source_similarity(vectors), items, AlikeSuite)
        return {"prompts": len(prompts), "students": self.members}
