"""How alike several authors answer the same prompts: what the suites of sources and of students share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact, Run
from synthdiv.evaluate.suite import HEADLINE, item, write_suite
from synthdiv.generate.generate import read_samples
from synthdiv.measures.similarity import ngram_vectors, source_similarity
from synthdiv.measures.words import truncate_words
from synthdiv.models.encoder import encode
from synthdiv.models.load import weights_folder


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
            for score in source_similarity(vectors):
                role = HEADLINE if score.name in ("alike", "voices") else ""
                scores.append(replace(score, name=f"{self.prefix}{kind}/{score.name}", role=role))
            for text in self.sets:
                of_set = source_similarity({name: vectors[name] for name in members(text)})[-3:]
                scores += [
                    replace(each, name=f"{self.prefix}{kind}/{each.name}/{text.partition('=')[0]}") for each in of_set
                ]
        lengths = [(key, name, words) for name, rows in cut.items() for key, (_, words) in zip(ids, rows, strict=True)]
        write_suite(out, scores, [item(key, f"{name}/words", words) for key, name, words in lengths])
        return {"prompts": len(ids), "sources": len(texts)}


def members(text: str) -> list[str]:
    """The sources of a set `NAME=SOURCE,SOURCE,…`."""
    return [name for name in text.partition("=")[2].split(",") if name]
