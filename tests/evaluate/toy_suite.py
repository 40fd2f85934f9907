"""A suite made for a test: the words of the plain answers. One file, as a user would write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, Run
from synthdiv.evaluate.suite import EvaluatedStudent, Suite, item, write_suite
from synthdiv.generate.generate import read_samples
from synthdiv.measures.estimates import Measure, mean_of


@dataclass
class WordsSuite(Suite):
    """How long the answers are."""

    headlines = ("toy/words",)

    least: int = setting(1, least=0)
    """Shorter answers count as empty."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node:
        inputs = {"answers": arm.responses["plain"]} | ({"vanilla": vanilla.responses["plain"]} if vanilla else {})
        return Node(Words(self.least, vanilla is not None), inputs)


@dataclass
class Words(Stage):
    """Inputs: `answers`, and those of the vanilla student where `compared`."""

    name = "toy_words"
    unit = "answers"

    least: int = 1
    compared: bool = True

    def input_names(self) -> tuple[str, ...]:
        return ("answers", "vanilla") if self.compared else ("answers",)

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        return Work(inputs["answers"].stage.answers())

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        rows = read_samples(inputs["answers"].path)
        counts = [max(len(row.response.split()), self.least) for row in rows]
        score = mean_of(Measure("toy/words", "words", None, "no answer"), counts).score()
        write_suite(
            out, [score], [item(row.id, "toy/words", n) for row, n in zip(rows, counts, strict=True)], WordsSuite
        )
        return {"answers": len(rows)}
