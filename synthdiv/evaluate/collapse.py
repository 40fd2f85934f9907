"""The collapse suite: did the output distribution narrow? Likelihood, lexical and semantic measures, always beside the
untouched student."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact, DataError, Run, Sample, Score
from synthdiv.evaluate.likelihood import human_scores, own_items, perplexity_1_scores
from synthdiv.evaluate.sentence_vectors import read_vectors, truncated_note
from synthdiv.evaluate.suite import item, write_suite
from synthdiv.generate.generate import read_samples
from synthdiv.measures.answers import repetitions
from synthdiv.measures.budgets import lexical_results, words_scores
from synthdiv.measures.intervals import mean_score
from synthdiv.measures.semantic import semantic_scores
from synthdiv.measures.sentences import SENTENCE, sentences
from synthdiv.measures.words import REGEX, words
from synthdiv.prompts.split import rank

TEXTS = "texts.parquet"
AGAINST_HUMAN = ("mauve", "frechet", "precision", "recall", "cluster_entropy")
PER_ANSWER = ("response_words", "sentences", "repetition_4", "empty")


class Said(NamedTuple):
    """One arm in one decoding: its answers, their likelihood under the untouched student, their sentence vectors."""

    answers: Artifact
    own: Artifact
    vectors: Artifact | None


@dataclass
class Collapse(Stage):
    """Inputs: of the student in each decoding its answers, their likelihood under the untouched student and, with
    `vectors`, their sentence vectors; then the likelihood of the human answers under it where there are any (`human`).
    Then the same of the untouched student unless `vanilla`, where the student is the untouched one. Last, with both
    `vectors` and `human`, the sentence vectors of the human answers.

    `words` is the budget of the `@words` measures: the texts of prompt after prompt until that many words. `texts` is
    how many words of each answer the `@texts` measures see. `word` and `sentence` are the one rule for each.

    Output: `scores.json`, `items.parquet`, and `texts.parquet`, the answers cut to `texts` words: the report compares
    all arms of a sweep on the prompts that all of them answered at that length.
    """

    name = "collapse"
    version = 2

    decodings: list[str] = field(default_factory=list)
    human: bool = True
    vanilla: bool = False
    vectors: bool = False
    words: int = 10000
    texts: int = 50
    word: str = REGEX
    sentence: str = SENTENCE
    seed: int = 0

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        if (self.word, self.sentence) != (REGEX, SENTENCE):
            raise DataError("collapse.word, collapse.sentence: this version has one rule for each, " + REGEX)
        width = (2 + self.vectors) * len(self.decodings) + self.human
        student, untouched = inputs[:width], () if self.vanilla else inputs[width : 2 * width]
        human = inputs[-1] if self.human and self.vectors else None
        scores: list[Score] = []
        items: list[dict[str, Any]] = []
        texts: list[dict[str, Any]] = []
        if self.human:
            found, values = human_scores(student[-1], untouched[-1] if untouched else None, self.seed)
            scores, items = found, values
        for index, decoding in enumerate(self.decodings):
            run.progress(index, len(self.decodings), "decodings measured")
            mine, base = self._said(student, index), self._said(untouched, index) if untouched else None
            groups = grouped(read_samples(mine.answers.path))
            found, told = self._decoding(mine, base, groups, human)
            scores += [dataclasses.replace(score, name=f"{decoding}/{score.name}") for score in found]
            items += [{**one, "decoding": decoding} for one in (*answer_items(groups), *told)]
            items += own_items(mine.own, decoding)
            texts += text_rows(groups, decoding, self.texts)
        write_suite(out, scores, items)
        write_texts(out, texts)
        return {"scores": len(scores), "undefined": sum(score.value != score.value for score in scores)}

    def _said(self, arm: Sequence[Artifact], index: int) -> Said:
        width = 2 + self.vectors
        part = arm[width * index : width * (index + 1)]
        return Said(part[0], part[1], part[2] if self.vectors else None)

    def _decoding(
        self, mine: Said, base: Said | None, groups: dict[str, list[Sample]], human: Artifact | None
    ) -> tuple[list[Score], list[dict[str, Any]]]:
        """The scores of one decoding, and the items that have one value a prompt."""
        theirs = grouped(read_samples(base.answers.path)) if base else None
        if theirs:
            theirs = {key: theirs[key] for key in groups}
        student, vanilla = responses(groups), responses(theirs) if theirs else None
        lexical_student, lexical_vanilla = lexical_results(student, vanilla, self.words, self.texts, self.seed)
        scores = lexical_student.scores() + (lexical_student.minus(lexical_vanilla) if lexical_vanilla else [])
        scores += whole_scores(groups, theirs, self.words, self.seed)
        scores += perplexity_1_scores(mine.own, base.own if base else None, self.seed)
        scores += answer_scores(groups)
        if mine.vectors:
            scores += semantic(mine.vectors, base.vectors if base else None, human, self.seed)
        means = [part for part in lexical_student.means if part.name not in PER_ANSWER]
        return scores, [
            item(key, part.name, value) for part in means for key, value in zip(groups, part.means, strict=True)
        ]


def whole_scores(
    groups: dict[str, list[Sample]], theirs: dict[str, list[Sample]] | None, budget: int, seed: int
) -> list[Score]:
    """The `@words` scores without truncated and empty answers: what these do to the others."""
    arms = [
        {key: [row for row in rows if is_whole(row)] for key, rows in arm.items()} for arm in (groups, theirs) if arm
    ]
    every = sum(map(len, groups.values()))
    left = every - sum(map(len, arms[0].values()))
    note = f"without {left} of {every} answers, truncated or empty"
    base = responses(arms[1]) if theirs else None
    found = words_scores(responses(arms[0]), base, budget, seed)
    notes = [(score, "; ".join(filter(None, [score.note, note]))) for score in found]
    return [dataclasses.replace(score, name=f"whole/{score.name}", note=told) for score, told in notes]


def semantic(mine: Artifact, base: Artifact | None, human: Artifact | None, seed: int) -> list[Score]:
    """The scores of sentence vectors, those of the human answers as what they are compared with."""
    arms = [read_vectors(artifact) if artifact else (None, {"id": None}) for artifact in (mine, base, human)]
    (student, own), (vanilla, theirs), (people, written) = ((vectors, rows["id"]) for vectors, rows in arms)
    notes = {
        "": truncated_note(mine),
        "-vanilla": truncated_note(base, "of the untouched student's ") if base else "",
        "human": truncated_note(human, "human ") if human else "",
    }
    scores = []
    for score in semantic_scores(student, vanilla, people, own, theirs, written, seed):
        told = [score.note, notes[""], notes["-vanilla"] if score.name.endswith("-vanilla") else ""]
        told.append(notes["human"] if score.name.removesuffix("-vanilla") in AGAINST_HUMAN else "")
        scores.append(dataclasses.replace(score, note="; ".join(filter(None, told))))
    return scores


def responses(groups: dict[str, list[Sample]]) -> dict[str, list[str]]:
    return {key: [row.response for row in rows] for key, rows in groups.items()}


def grouped(rows: list[Sample]) -> dict[str, list[Sample]]:
    """Samples by prompt, prompts in one shuffled order (the same in every arm), samples by index.

    Not in the order of ids: they can begin with the stratum, and a budget of words takes the first prompts.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (rank(0, "texts", row.id), row.sample)):
        groups[row.id].append(row)
    return dict(groups)


def answer_scores(groups: dict[str, list[Sample]]) -> list[Score]:
    """The rate of answers cut at the token limit. They stay in every measure but `whole/`, and so do empty ones."""
    values = [sum(map(is_truncated, rows)) / len(rows) for rows in groups.values()]
    return [mean_score("truncated", values, "share of answers", None, "no answer")]


def is_truncated(row: Sample) -> bool:
    return row.finish == "length"


def is_empty(row: Sample) -> bool:
    return not words(row.response)


def is_whole(row: Sample) -> bool:
    return not is_truncated(row) and not is_empty(row)


def answer_items(groups: dict[str, list[Sample]]) -> Iterator[dict[str, Any]]:
    """PER_ANSWER: what is measured of one answer at a time."""
    for key, rows in groups.items():
        split = [words(row.response) for row in rows]
        for row, text, repeated in zip(rows, split, repetitions(split), strict=True):
            values = {
                "response_words": len(text),
                "sentences": len(sentences(row.response)),
                "repetition_4": repeated,
                "empty": not text,
            }
            size = len(row.response.encode())
            for name, value in values.items():
                told = {"sample": row.sample, "bytes": size, "finish": row.finish}
                yield item(key, name, value, **told)


def text_rows(groups: dict[str, list[Sample]], decoding: str, length: int) -> list[dict[str, Any]]:
    """The first `length` words of each answer."""
    return [
        {"decoding": decoding, "prompt": key, "sample": row.sample, "words": " ".join(words(row.response)[:length])}
        for key, rows in groups.items()
        for row in rows
    ]


def write_texts(out: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out / TEXTS)
