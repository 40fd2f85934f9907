"""The suite on the fine-tuning set itself: how diverse it is, how far from the target task, how right and how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import Artifact, Run
from synthdiv.evaluate.suite import EvaluatedStudent, Suite, json_number, write_suite
from synthdiv.measures.estimates import SHARE, Measure, join_notes, mean_of, undefined
from synthdiv.measures.reference import mauve, two_sample_auc
from synthdiv.measures.spectrum import vendi
from synthdiv.measures.words import words
from synthdiv.mix.mix import read_mix
from synthdiv.mix.selection import hashed, right_answers
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.split import rank

VENDI = Measure("vendi_1", "vectors", True, "too few answers", 1)
RIGHT = Measure("right", SHARE, True, "no label is known", 0, 1)
WORDS = Measure("words", "words", None, "no answer", 0)


@dataclass
class ReachedSuite(Suite):
    """The level of diversity that a fine-tuning set reached, and its shift to the split `target`."""

    headlines = ("reached/vendi_1", "reached/auc")
    caveats = ("reached/right", "reached/words")
    reading = (
        "`reached/…` is on the fine-tuning set, by n-grams of characters and by other measures than selection has: the "
        "effective number of different answers, and the shift to the split `target` (AUC .5: none)."
    )

    texts: int = setting(200, least=20)
    """How many answers that are not empty, by a fixed random order of prompts; and at most so many of the target."""
    pattern: str = ""
    """A regular expression whose last match in an answer and in the human one is its label; empty: none."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        return Node(Reached(self.texts, self.pattern), {"prompts": arm.prompts, "mix": arm.mix}) if arm.mix else None


@dataclass
class Reached(Stage):
    """Inputs: `prompts` and `mix`. Output: `scores.json` and `items.parquet`."""

    name = "reached"
    version = 2

    texts: int = 200
    """How many answers."""
    pattern: str = ""
    """The regular expression for labels."""

    def input_names(self) -> tuple[str, ...]:
        return ("prompts", "mix")

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        every = sorted(read_mix(inputs["mix"]), key=lambda row: rank(0, "reached", row["id"]))
        written = [row for row in every if row["response"].strip()]  # an empty answer has no direction
        rows, target = written[: self.texts], read_prompts(inputs["prompts"], "target", self.texts)
        vectors, human = (
            hashed([row["response"] for row in part], analyzer="char_wb", ngram_range=(3, 5)) for part in (rows, target)
        )
        short = f"{len(rows)} answers; the measure is of {self.texts}" if len(rows) < self.texts else ""
        empty = f"{len(every) - len(written)} empty answers left out" if len(written) < len(every) else ""
        scores = [
            undefined(VENDI, short, len(rows)).score() if short else vendi(vectors),
            two_sample_auc(vectors, human),
            mauve(vectors, human),
            mean_of(RIGHT, right_answers(inputs["prompts"], self.pattern, rows)).score(),
            mean_of(WORDS, [len(words(row["response"])) for row in rows]).score(),
        ]
        named = [replace(each, name=f"reached/{each.name}", note=join_notes(each.note, empty)) for each in scores]
        write_suite(out, named, [], ReachedSuite)
        return {score.name: json_number(score.value) for score in scores}
