"""The instrument: does each measure see a collapse of known size, and nothing else? No model is trained or asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import Artifact, Run, Score
from synthdiv.evaluate.suite import EvaluatedStudent, Suite, item, write_suite
from synthdiv.measures.budgets import TextBudget, arm_estimates, texts_estimates
from synthdiv.measures.estimates import Estimate
from synthdiv.measures.semantic import Prompted, Reference
from synthdiv.measures.vectors import VectorArm
from synthdiv.measures.word_arm import WordArm
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.encoder import encode_batches, open_encoder
from synthdiv.models.load import weights_folder
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_collapse import COLLAPSES, CONTROLS, TextLaw, divergence, text_law

CHANGES = (*COLLAPSES, *CONTROLS)
SUBSET, SAMPLES = 100, 4  # so many texts about each of the first questions, one about each other, as students answer


@dataclass
class Trials:
    """The sets of texts that are drawn."""

    sizes: list[int] = field(default_factory=lambda: [100, 1000])
    """Numbers of texts at which collapses are looked for."""
    strengths: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.2, 0.4, 0.8])
    """Strengths of each collapse, 0 to 1, ascending."""
    draws: int = setting(20, least=3)
    """Sets of human texts from which chance is known."""
    encoded: int = setting(1000, least=0)
    """The largest number of texts at which semantic measures are taken; 0: none."""

    def check(self, name: str) -> list[str]:
        wrong = []
        if (
            not self.strengths
            or [*self.strengths] != sorted({*self.strengths})
            or not 0 <= self.strengths[0] <= self.strengths[-1] <= 1
        ):
            wrong.append(f"{name}.strengths={self.strengths}: needs different shares from 0 to 1, ascending")
        if not self.sizes or [*self.sizes] != sorted({*self.sizes}) or min(self.sizes) < 10:
            wrong.append(f"{name}.sizes={self.sizes}: needs different numbers of texts from 10 on, ascending")
        return wrong


@dataclass
class InstrumentSuite(Suite, Trials):
    """Measures against known collapses of the toy world's human law. The student has no part in it."""

    headlines = tuple(f"{change}/distinct_2@words" for change in CHANGES)
    reading = (
        "A value is the distance from equal sets of human texts, in their standard deviations, at the largest number "
        "of texts and the greatest strength; with 20 draws, beyond ±2.1 it is significant at 5 %."
    )

    encoder: Checkpoint | None = None
    """A model of sentence-transformers; null: no semantic measures."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        if not getattr(arm.prompts.stage, "toy", None):
            return None
        stage = Instrument(self.sizes, self.strengths, self.draws, self.encoded if self.encoder else 0)
        encoder = {"encoder": Node(self.encoder)} if self.encoder and self.encoded else {}
        return Node(stage, {"prompts": arm.prompts, **encoder})


@dataclass
class Instrument(Stage, Trials):
    """Inputs: `prompts`, for their world, and with `encoded` an `encoder`. Output: `scores.json`, and `items.parquet`:
    `prompt` is CHANGE@STRENGTH and `order` the number of texts; measures `kl` and `lost` are the exact divergence."""

    name = "instrument"

    def input_names(self) -> tuple[str, ...]:
        return ("prompts", "encoder") if self.encoded else ("prompts",)

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        human = text_law(Law(inputs["prompts"].stage.toy.world))
        encoder = open_encoder(weights_folder(inputs["encoder"]), run.device) if self.encoded else None
        changed = {(change, x): text_law(human.law, change, x) for change in CHANGES for x in self.strengths}
        items, scores, known = list[dict[str, Any]](), dict[str, Score](), dict[str, Any]()
        for (change, strength), law in changed.items():
            pairs = zip(("kl", "lost"), divergence(human, law), strict=True)
            items += [item(f"{change}@{strength}", name, value) for name, value in pairs]
        for place, size in enumerate(self.sizes):
            reader = Reader(human, size, encoder if size <= self.encoded else None, known)
            null = [reader.values(human, "null", draw) for draw in range(self.draws)]
            for at, ((change, strength), law) in enumerate(changed.items()):
                run.progress(place * len(changed) + at, len(self.sizes) * len(changed), "sets of texts measured")
                for name, one in reader.values(law, change, str(strength)).items():
                    z = distance(one.value, [each[name].value for each in null])
                    items.append(item(f"{change}@{strength}", name, z, order=size))
                    note = "undefined in one of the sets, or the same in all human ones" if math.isnan(z) else ""
                    score = Score(f"{change}/{name}", z, self.draws, unit="deviations", note=note)
                    better = one.measure.higher_is_better
                    scores[score.name] = replace(score, higher_is_better=better)  # the last size and strength stay
        write_suite(out, [*scores.values()], items, InstrumentSuite)
        return {"sets": len(self.sizes) * (self.draws + len(changed))}


def distance(value: float, null: Sequence[float]) -> float:
    """The distance of a value from equal draws in standard deviations of a new draw: t with len(null) - 1 degrees of
    freedom without a collapse. NaN where one is undefined or the draws do not vary."""
    spread = float(np.std(null, ddof=1)) * math.sqrt(1 + 1 / len(null))
    return (value - float(np.mean(null))) / spread if spread > 1e-9 * max(abs(value), 1e-3) else math.nan


@dataclass(frozen=True, eq=False)
class Reader:
    """Every measure of sets of `size` texts; `known` holds the vectors of texts that were encoded before."""

    human: TextLaw
    size: int
    encoder: Any
    known: dict[str, Any]

    def values(self, law: TextLaw, *name: int | str) -> dict[str, Estimate]:
        """By name, without intervals, of one draw."""
        groups = self.draw(law, *name)
        budget = TextBudget(5 * self.size, texts=self.size // 2, length=5, within=2, draws=SAMPLES)
        arm = WordArm(groups, intervals=False)
        estimates = [*arm_estimates(arm, budget), *texts_estimates(arm, budget)]
        estimates += Prompted.of(self.vectors(groups), "").estimates(self.reference, 0) if self.encoder else []
        return {each.measure.name: each for each in estimates}

    def draw(self, law: TextLaw, *name: int | str) -> list[Sequence[str]]:
        several = min(self.size, SUBSET)
        first = law.draw(several, SAMPLES, self.size, "several", *name)
        return first + law.draw(self.size - several, 1, self.size, "one", *name)

    @cached_property
    def reference(self) -> Reference:
        return Reference.of(self.vectors(self.draw(self.human, "reference")), 0)

    def vectors(self, groups: list[Sequence[str]]) -> VectorArm:
        texts = [text for group in groups for text in group]
        for chunk, vectors in encode_batches(self.encoder, {*texts} - {*self.known}):
            self.known.update(zip(chunk, vectors, strict=True))
        prompt = np.repeat(np.arange(len(groups)), list(map(len, groups)))
        one_group = np.append(np.zeros(len(groups), dtype=int), -1)
        return VectorArm(np.stack([self.known[text] for text in texts]), prompt, one_group)
