"""The suite on the fine-tuning set itself: how diverse it is, how far from the target task, how right and how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import Artifact, ConfigError, Run
from synthdiv.evaluate.suite import EvaluatedStudent, Suite, item, json_number, write_suite
from synthdiv.measures.estimates import SHARE, Measure, join_notes, mean_of, undefined
from synthdiv.measures.reference import mauve, two_sample_auc
from synthdiv.measures.spectrum import vendi
from synthdiv.measures.words import words
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.mix.selection import hashed, right_answers
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.encoder import encode
from synthdiv.models.load import weights_folder
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.split import rank

VENDI = Measure("vendi_1", "vectors", True, "too few answers", 1)
RIGHT = Measure("right", SHARE, True, "no label is known", 0, 1)
WORDS = Measure("words", "words", None, "no answer", 0)


@dataclass
class ReachedSuite(Suite):
    """The level of diversity that a fine-tuning set reached, and its shift to the split `target`."""

    headlines = ("reached/vendi_1", "reached/auc")
    diversity = headlines
    caveats = ("reached/right", "reached/words")
    reading = (
        "`reached/…` is on the fine-tuning set, by other vectors (n-grams of characters, or an encoder) and by other "
        "measures than selection has: the effective number of different answers, and the shift to the split `target` "
        "(AUC .5: none)."
    )

    texts: int = setting(200, least=20)
    """How many answers that are not empty, by a fixed random order of prompts; and at most so many of the target."""
    pattern: str = ""
    """A regular expression whose last match in an answer and in the human one is its label; empty: none."""
    encoder: Checkpoint | None = None
    """A model of sentence-transformers, another one than selected the rows; null: hashed n-grams of characters."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        if not arm.mix:
            return None
        inputs = {"prompts": arm.prompts, "mix": arm.mix} | ({"encoder": Node(self.encoder)} if self.encoder else {})
        if self.encoder and inputs["encoder"].key in arm.mix.ancestry():
            raise ConfigError(
                f"evaluate.suites: reached has encoder={self.encoder.path or self.encoder.hub}, which selected the "
                "rows too (mix.diversity.encoder), so it sees what it chose; choose another one, or encoder=null"
            )
        return Node(Reached(self.texts, self.pattern, self.encoder is not None), inputs)


@dataclass
class Reached(Stage):
    """Inputs: `prompts` and `mix`, and with `encoded` an `encoder`. Output: `scores.json` and `items.parquet`."""

    name = "reached"
    version = 3

    texts: int = 200
    """How many answers."""
    pattern: str = ""
    """The regular expression for labels."""
    encoded: bool = setting(False, before=False)
    """There is a sentence encoder."""

    def input_names(self) -> list[str]:
        return ["prompts", "mix", *["encoder"] * self.encoded]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        mix_rows = sorted(read_mix(inputs["mix"]), key=lambda row: rank(0, "reached", row["id"]))
        written = [row for row in mix_rows if row["response"].strip()]  # an empty answer has no direction
        rows, target = written[: self.texts], read_prompts(inputs["prompts"], "target", self.texts)
        texts, cut = [row["response"] for row in (*rows, *target)], np.zeros(0, dtype=bool)
        if self.encoded:
            run.close()  # the encoder takes the place of the open model
            both, cut = encode(weights_folder(inputs["encoder"]), texts, run.device)
        else:
            both = hashed(texts, analyzer="char_wb", ngram_range=(3, 5))
        vectors, human = both[: len(rows)], both[len(rows) :]
        short = f"{len(rows)} answers; the measure is of {self.texts}" if len(rows) < self.texts else ""
        notes = [f"{len(mix_rows) - len(written)} empty answers left out"] * (len(written) < len(mix_rows))
        notes += [f"{cut.sum()} texts exceed the encoder's context"] * bool(cut.any())
        values: dict[Measure, list[float]] = {
            RIGHT: right_answers(inputs["prompts"], self.pattern, rows),
            WORDS: [len(words(row["response"])) for row in rows],
        }
        scores = [
            undefined(VENDI, short, len(rows)).score() if short else vendi(vectors),
            two_sample_auc(vectors, human),
            mauve(vectors, human),
            *(mean_of(measure, each).score() for measure, each in values.items()),
        ]
        named = [replace(each, name=f"reached/{each.name}", note=join_notes(each.note, *notes)) for each in scores]
        items = [
            item(row["id"], f"reached/{measure.name}", value, sample=row["sample"], finish=row["finish"])
            for measure, each in values.items()
            for row, value in zip(rows, each, strict=True)
        ]
        write_suite(out, named, items, ReachedSuite)
        return {score.name: json_number(score.value) for score in scores}
