"""G-Vendi: the effective number of directions into which the rows of a fine-tuning set would move a model (Jung et al.
2025, Prismatic Synthesis, arXiv 2505.20161, where it predicts accuracy out of distribution)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, Run
from synthdiv.evaluate.suite import EvaluatedStudent, Suite, item, write_suite
from synthdiv.measures.spectrum import vendi
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.models.chat import Chat
from synthdiv.models.load import Precision
from synthdiv.models.score import answer_gradients
from synthdiv.prompts.split import rank


@dataclass
class GradientSettings:
    """Whose gradients, of how many rows."""

    rows: int = setting(1000, least=2)
    """Rows of the set, by a random order of their prompts: compare sets at one number."""
    dimensions: int = setting(1024, least=0)
    """Dimensions to which gradients are projected, which bound the score; 0: whole gradients, for small models."""
    seed: int = setting(0, least=0)
    """Seed of the order, of the projection and of the interval."""


@dataclass
class GradientDiversitySuite(Suite, GradientSettings):
    """The diversity of a fine-tuning set in the gradients of the vanilla student."""

    headlines = ("g_vendi",)

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        if not arm.mix:
            return None
        stage = GradientDiversity(self.rows, self.dimensions, self.seed, arm.settings.precision)
        return Node(stage, {"prompts": arm.prompts, "mix": arm.mix, "model": arm.vanilla_model})


@dataclass
class GradientDiversity(Stage, GradientSettings):
    """Inputs: `prompts`, `mix`, and the `model` whose gradients are taken."""

    name = "gradient_diversity"
    version = 2
    model_input = "model"
    unit = "rows"

    precision: Precision = Precision.fp32
    """The format of the weights."""

    def input_names(self) -> tuple[str, ...]:
        return ("prompts", "mix", "model")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        rows = min(self.rows, inputs["mix"].stage.rows)  # type: ignore[attr-defined]
        return Work(rows, trained_tokens=rows * sum(inputs["prompts"].stage.assumed_tokens))  # type: ignore[attr-defined]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        mix_rows = read_mix(inputs["mix"])  # sources and rounds one after the other
        rows = sorted(mix_rows, key=lambda row: rank(self.seed, "gradients", row["id"]))[: self.rows]
        opened = run.model(inputs["model"], self.precision.value)
        chat = Chat.for_prompts(opened.tokenizer, inputs["prompts"])
        pairs = chat.scored_pairs([row["prompt"] for row in rows], [row["response"] for row in rows])
        gradients = answer_gradients(opened, pairs, self.dimensions, self.seed, run.progress)
        score = vendi(gradients, 1, [row["id"] for row in rows], self.seed)
        lengths = np.linalg.norm(gradients, axis=1)
        items = [item(row["id"], "gradient_norm", length) for row, length in zip(rows, lengths, strict=True)]
        write_suite(out, [replace(score, name="g_vendi", unit="rows")], items, GradientDiversitySuite)
        return {"rows": len(rows), "tokens": sum(len(prompt) + len(answer) for prompt, answer in pairs)}
