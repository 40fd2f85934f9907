"""How many voices a mix has: how alike its sources answer the same test prompts. No student has a part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import Artifact, ConfigError, Run
from synthdiv.evaluate.suite import EvaluatedStudent, Suite, item, write_suite
from synthdiv.generate.generate import Split, read_samples
from synthdiv.measures.similarity import ngram_vectors, source_similarity
from synthdiv.measures.words import truncate_words
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.encoder import encode
from synthdiv.models.load import weights_folder

# headlines of the suite students_alike, whose scores the same stage makes
OF_STUDENTS = ("students/ngrams/alike", "students/ngrams/voices")


@dataclass
class SourcesAlikeSuite(Suite):
    """Between-source similarity per prompt, and the effective number of sources, of a mix of several."""

    headlines = ("ngrams/voices", "ngrams/alike", "vectors/voices", "vectors/alike", *OF_STUDENTS)
    diversity = ("ngrams/alike", "vectors/alike")

    sets: list[str] = field(default_factory=list)
    """Sets of sources that are also measured alone, each `NAME=SOURCE,SOURCE,…`: a family, a size."""
    length: int = setting(100, least=1)
    """Words to which answers are cut, so that length has no part in it."""
    encoder: Checkpoint | None = None
    """A model of sentence-transformers; null: word bigrams only."""

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        names = [source.name for source in arm.sources]
        if len(names) < 2:
            return None
        wrong = [text for text in self.sets if len(members(text)) < 2 or not {*members(text)} <= {*names}]
        if wrong:
            needs = f"needs NAME=SOURCE,SOURCE,… with two or more of {', '.join(names)}"
            raise ConfigError(f"evaluate.suites: sets of sources_alike: {wrong[0]!r} {needs}")
        which: dict[str, Any] = {"split": Split.test, "rows": getattr(arm.prompts.stage, "test", 0)}
        inputs = {source.name: source.answers(arm.prompts, **which) for source in arm.sources}
        stage = SourcesAlike(names, self.sets, self.length, self.encoder is not None)
        return Node(stage, inputs | ({"encoder": Node(self.encoder)} if self.encoder else {}))


@dataclass
class SourcesAlike(Stage):
    """Inputs: the answers of each of `sources` to the test prompts, and with `encoded` an `encoder`."""

    name = "sources_alike"

    sources: list[str] = field(default_factory=list)
    """Names of the sources."""
    sets: list[str] = field(default_factory=list)
    """Sets of sources that are also measured alone, each `NAME=SOURCE,SOURCE,…`."""
    length: int = 100
    """Words to which answers are cut."""
    encoded: bool = False
    """There is a sentence encoder."""
    prefix: str = setting("", before="")
    """Begins the names of the scores."""

    def input_names(self) -> list[str]:
        return [*self.sources, *["encoder"] * self.encoded]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        read = {name: read_samples(inputs[name].path, failed=True) for name in self.sources}
        answers = {name: {row.id: row.response for row in rows if not row.sample} for name, rows in read.items()}
        ids = list(next(iter(answers.values())))
        cut = {name: [truncate_words(rows[key], self.length) for key in ids] for name, rows in answers.items()}
        texts = {name: [text if words else "" for text, words in rows] for name, rows in cut.items()}
        kinds: dict[str, dict[str, Any]] = {"ngrams": ngram_vectors(texts)}
        if self.encoded:
            flat = [text for rows in texts.values() for text in rows]
            encoded, _ = encode(weights_folder(inputs["encoder"]), flat, run.device, 32, run.progress)
            encoded[[not text for text in flat]] = np.nan  # no answer has no meaning
            kinds["vectors"] = dict(zip(texts, np.split(encoded, len(texts)), strict=True))
        scores = []
        for kind, vectors in kinds.items():
            scores += [replace(score, name=f"{self.prefix}{kind}/{score.name}") for score in source_similarity(vectors)]
            for text in self.sets:
                of_set = source_similarity({name: vectors[name] for name in members(text)})[-3:]
                scores += [
                    replace(each, name=f"{self.prefix}{kind}/{each.name}/{text.partition('=')[0]}") for each in of_set
                ]
        lengths = [(key, name, words) for name, rows in cut.items() for key, (_, words) in zip(ids, rows, strict=True)]
        write_suite(out, scores, [item(key, f"{name}/words", words) for key, name, words in lengths], SourcesAlikeSuite)
        return {"prompts": len(ids), "sources": len(texts)}


def members(text: str) -> list[str]:
    """The sources of a set `NAME=SOURCE,SOURCE,…`."""
    return [name for name in text.partition("=")[2].split(",") if name]
