"""Pairs of question and answer that a generator writes: on topics, or paraphrases of pairs of a mix."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.files import write_rows
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.generate.generate import read_samples
from synthdiv.mix.fine_tuning_set import FineTuningSet, read_mix, write_mix
from synthdiv.prompts import prompt_set
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.questions import WholeTable
from synthdiv.prompts.split import nearly_in
from synthdiv.prompts.table import normalise

REPLACED = 0.9  # share of the rows that are paraphrases at level 0
PAIR = re.compile(r"\s*Question:(.+?)\n\s*Answer:(.+)", re.DOTALL)


@dataclass
class PairPrompts(WholeTable):
    """What a generator is asked. Inputs: `prompts` of the study, and without topics the `mix` to be paraphrased."""

    name = "pair_prompts"

    rows: int = 0
    """How many requests there are."""
    wording: str = ""
    """What is asked, with slots."""
    topics: list[str] = field(default_factory=list)
    """The topics, in turn; empty: the pairs of the mix."""

    test = property(lambda self: self.rows)

    def input_names(self) -> list[str]:
        return ["prompts"] if self.topics else ["prompts", "mix"]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        pairs = [] if self.topics else read_mix(inputs["mix"])
        rows = [{name: row[name] for name in ("id", "prompt", "response")} for row in pairs]
        for at in range(self.rows if self.topics else 0):
            rows.append({"id": f"topic-{at}", "topic": self.topics[at % len(self.topics)]})
        rows = [row | {"prompt": filled(self.wording, row)} for row in rows]
        self.split(rows)
        write_rows(rows, out / prompt_set.FILE)
        return {"rows": len(rows)}


def filled(wording: str, row: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda slot: row.get(slot[1], slot[0]), wording)


@dataclass
class Written(FineTuningSet):
    """The pairs of a mix, if there is one, and the first usable pairs that were written. Inputs: `prompts`, `answers`
    to `PairPrompts`, and with `paraphrases` the `mix`. Output: `mix.parquet`."""

    name = "written"
    version = 2
    shows_texts = True

    rows: int = 0
    """How many rows there are."""
    paraphrases: bool = False
    """They are paraphrases of the pairs of the mix."""
    spare: int = setting(0, before=0)
    """The most further pairs, after the others, for the place of those that filters of the mix remove."""

    def input_names(self) -> list[str]:
        return ["prompts", "answers", *["mix"] * self.paraphrases]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        kept_rows = read_mix(inputs["mix"]) if self.paraphrases else []
        original = {row["id"]: (normalise(row["prompt"]), normalise(row["response"])) for row in kept_rows}
        sides = [read_prompts(inputs["prompts"], side) for side in ("test", "target")]
        samples = sorted(read_samples(inputs["answers"].path, failed=True), key=lambda row: row.sample)
        read = [PAIR.fullmatch(sample.response) for sample in samples]
        held_out = nearly_in([pair[1] for pair in read if pair], [row["prompt"] for side in sides for row in side])
        pairs, outcomes = list[dict[str, Any]](), Counter[str]()
        for sample, pair in zip(samples, read, strict=True):
            if not pair or "Question:" in pair[2] or not all(re.search(r"\w", text) for text in pair.groups()):
                outcomes["unreadable"] += 1
            elif pair[1] in held_out:
                outcomes["held out"] += 1
            elif (normalise(pair[1]), normalise(pair[2])) == original.get(sample.id):
                outcomes["identical"] += 1
            else:
                texts = {"id": f"{sample.id}~{sample.sample}", "prompt": pair[1].strip(), "response": pair[2].strip()}
                pairs.append(vars(sample) | texts | {"position": len(kept_rows) + len(pairs)})
        rows = [*kept_rows, *pairs][: self.rows + self.spare]
        if len(rows) < self.rows:
            level = math.ceil(100 * (1 - len(pairs) / self.rows / REPLACED)) / 100  # that replaces so many of all rows
            closest = f"; the closest level is {level:.2f}" if kept_rows else ""
            raise DataError(
                f"mix.level: {len(rows)} of {self.rows} rows, because of the pairs written some are of no use, "
                f"{dict(outcomes)}{closest}; raise mix.diversity.tries, or change mix.diversity.wording"
            )
        write_mix(rows, out)
        return {"rows": len(rows), "used": len(rows) - len(kept_rows), **outcomes}
