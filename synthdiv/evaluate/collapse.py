"""The collapse suite: did the output distribution narrow? Perplexity 2 and lexical diversity beside the untouched."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.evaluate.likelihood import read_likelihood
from synthdiv.generate.stage import read_samples
from synthdiv.measures.collapse import lexical_scores
from synthdiv.measures.intervals import mean_interval
from synthdiv.measures.likelihood import AnswerNLL, likelihood_scores
from synthdiv.measures.words import REGEX, words
from synthdiv.prompts.split import rank
from synthdiv.stage import Stage
from synthdiv.suite import item, write_suite
from synthdiv.types import Artifact, DataError, Run, Sample, Score


@dataclass
class Collapse(Stage):
    """Inputs: of the student its answers in each decoding and, where the prompts have human answers, their likelihood;
    then the same of the untouched student unless `vanilla`, where the student is the untouched one.

    `words` is the budget of the `@words` measures: the texts of prompt after prompt until that many words. `word` is
    the one regular expression for them.
    """

    name = "collapse"

    decodings: list[str] = field(default_factory=list)
    human: bool = True
    vanilla: bool = False
    words: int = 10000
    word: str = REGEX
    seed: int = 0

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        if self.word != REGEX:
            raise DataError(f"collapse.word={self.word}: this version counts words by {REGEX}")
        width = len(self.decodings) + self.human
        student, untouched = inputs[:width], None if self.vanilla else inputs[width:]
        scores: list[Score] = []
        items: list[dict[str, Any]] = []
        if self.human:
            own = {
                row["id"]: AnswerNLL(row["nll"], row["tokens"], row["bytes"]) for row in read_likelihood(student[-1])
            }
            base = untouched and {
                row["id"]: AnswerNLL(row["nll"], row["tokens"], row["bytes"]) for row in read_likelihood(untouched[-1])
            }
            scores += likelihood_scores(own, base or None)
            items += [item(key, "nll_2", nll / tokens, bytes=size) for key, (nll, tokens, size) in own.items()]
        for index, decoding in enumerate(self.decodings):
            mine = grouped(read_samples(student[index].path))
            theirs = grouped(read_samples(untouched[index].path)) if untouched else None
            found = self._lexical(mine, theirs) + answer_scores(mine)
            scores += [dataclasses.replace(score, name=f"{decoding}/{score.name}") for score in found]
            items += list(length_items(mine, decoding))
        write_suite(out, scores, items)
        return {"scores": len(scores), "undefined": sum(score.value != score.value for score in scores)}

    def _lexical(self, mine: dict[str, list[Sample]], theirs: dict[str, list[Sample]] | None) -> list[Score]:
        texts = [[row.response for row in rows] for rows in mine.values()]
        base = [[row.response for row in theirs[key]] for key in mine] if theirs else None
        return lexical_scores(texts, base, self.words, self.seed)


def grouped(rows: list[Sample]) -> dict[str, list[Sample]]:
    """Samples by prompt, prompts in one shuffled order (the same in every arm), samples by index.

    Not in the order of ids: they can begin with the stratum, and a budget of words takes the first prompts.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (rank(0, "texts", row.id), row.sample)):
        groups[row.id].append(row)
    return dict(groups)


def answer_scores(groups: dict[str, list[Sample]]) -> list[Score]:
    """Rates of answers cut at the token limit and of empty ones: they stay in every measure, so that is shown."""
    scores = []
    for name, test in (("truncated", is_truncated), ("empty", is_empty)):
        values = [sum(map(test, rows)) / len(rows) for rows in groups.values()]
        low, high = mean_interval(values)
        scores.append(
            Score(name, sum(values) / len(values), len(values), max(low, 0.0), min(high, 1.0), "share of answers", None)
        )
    return scores


def is_truncated(row: Sample) -> bool:
    return row.finish == "length"


def is_empty(row: Sample) -> bool:
    return not row.response.strip()


def length_items(groups: dict[str, list[Sample]], decoding: str) -> Iterator[dict[str, Any]]:
    for key, rows in groups.items():
        for row in rows:
            yield item(
                key,
                "response_words",
                len(words(row.response)),
                sample=row.sample,
                decoding=decoding,
                bytes=len(row.response.encode()),
                finish=row.finish,
            )
