"""Rows that a mix leaves out by their texts, rows that replace them, and what a mix shares with evaluation sets."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.types import DataError
from synthdiv.measures.refusals import is_refusal
from synthdiv.measures.words import words
from synthdiv.mix.fine_tuning_set import FineTuningSet
from synthdiv.prompts.split import SimilarTexts, nearly_in
from synthdiv.prompts.table import normalise

CHANCE = 3  # answers of fewer words are equal by chance ("Yes."), and no sign of leakage
Row = dict[str, Any]


class Filter(Enum):
    """Which rows a mix leaves out by what their answers do."""

    none = "none"
    refusals = "refusals"


class Duplicates(Enum):
    """Answers of which only the first stays: `exact` but for case and white space, `near` by word 3-grams."""

    none = "none"
    exact = "exact"
    near = "near"


class Overlap(Enum):
    """What is done about rows whose prompt or answer is nearly one of an evaluation set."""

    report = "report"
    remove = "remove"
    refuse = "refuse"


def refuses(row: Mapping[str, Any]) -> bool:
    """Whether a server or the text of an answer declines."""
    return row["finish"] == "refusal" or is_refusal(row["response"])


def overlap(rows: list[Row], sets: Mapping[str, Iterable[Row]]) -> dict[str, dict[str, list[bool]]]:
    """By evaluation set, of each row: whether its prompt is nearly one of the set, and whether its answer is."""
    result = {}
    for name, members in sets.items():
        texts = [(row.get("request") or row["prompt"], row["response"] or "") for row in members]
        prompt_matches = nearly_in([row["prompt"] for row in rows], [prompt for prompt, _ in texts])
        answers = [answer for _, answer in texts if len(words(answer)) >= CHANCE]
        answer_matches = nearly_in([row["response"] for row in rows], answers)
        flags = [(row["prompt"] in prompt_matches, row["response"] in answer_matches) for row in rows]
        result[name] = {"prompts": [prompt for prompt, _ in flags], "answers": [answer for _, answer in flags]}
    return result


def overlap_counts(rows: list[Row], shared: Mapping[str, Mapping[str, list[bool]]]) -> dict[str, dict[str, Any]]:
    """By set and kind of `shared`, whose first flags are those of `rows`, how many rows of each source are flagged."""
    sources = [row["source"] for row in rows]
    none = dict.fromkeys(sorted({*sources}), 0)
    return {name: {kind: none | Counter(itertools.compress(sources, flags)) for kind, flags in kinds.items()}
            for name, kinds in shared.items()}  # fmt: skip


class Copies:
    """Recognises answers of which a copy was kept before: looks among the kept ones, which are few where students that
    have collapsed write the same again and again."""

    def __init__(self, texts: list[str], how: Duplicates):
        self.numbers = {text: number for number, text in enumerate(dict.fromkeys(map(normalise, texts)))}
        self.how, self.kept_numbers = how, set[int]()
        self.similar = SimilarTexts(self.numbers) if how is Duplicates.near else None

    def copied(self, text: str) -> bool:
        """Whether a copy of `text` was kept; if not, it is kept now."""
        number = self.numbers[normalise(text)]
        if number in self.kept_numbers or (self.similar and self.similar.added(number)):
            return self.how is not Duplicates.none
        self.kept_numbers.add(number)
        if self.similar:
            self.similar.add(number)
        return False


@dataclass(kw_only=True)
class FilteredSet(FineTuningSet):
    """A fine-tuning set that leaves rows out by their texts."""

    filter: Filter = Filter.none
    """Which rows are left out by their answers; the others stay where they are."""
    duplicates: Duplicates = setting(Duplicates.none, before=Duplicates.none)  # noqa: RUF009
    """Answers of which only the first stays."""
    min_words: int = setting(0, before=0)
    """Rows with shorter answers are left out."""
    max_words: int = setting(0, before=0)
    """Rows with longer answers are left out; 0: none."""
    overlap: Overlap = setting(Overlap.report, before=Overlap.report)  # noqa: RUF009
    """What is done about rows that are nearly in an evaluation set: the splits test and target, and `evaluated`."""
    spare: float = setting(0.0, before=0.0)
    """How many further prompts are answered, as a share of the rows, for the place of rows that filters remove."""

    def filters(self) -> str:
        """What leaves rows out by their texts, in words; empty where nothing does."""
        least, most = self.min_words, self.max_words
        filters = [
            (self.filter is Filter.refusals, "without refusals"), (self.overlap is Overlap.remove, "without overlap"),
            (self.duplicates is not Duplicates.none, f"without {self.duplicates.value} duplicates"),
            (least or most, f"answers of {least} to {most or 'any number of'} words only"),
        ]  # fmt: skip
        return ", ".join(words for applies, words in filters if applies)

    def reason(self, row: Row, leaked: bool, copies: Copies) -> str:
        """Why a row is left out; empty where it stays."""
        length = len(words(row["response"]))
        rules = {
            "refusals": self.filter is Filter.refusals and refuses(row),
            "overlap": self.overlap is Overlap.remove and leaked,
            "length": not self.min_words <= length <= (self.max_words or length),
        }
        other = next((name for name, bad in rules.items() if bad), "")
        return other or ("duplicates" if copies.copied(row["response"]) else "")

    def filtered(self, candidates: list[Row], sets: Mapping[str, Iterable[Row]]) -> tuple[list[Row], dict[str, Any]]:
        """The rows that pass every filter, with spare rows of the same source, which come last, in the place of the
        others; and the counts by source: `overlap` with evaluation sets, `refusals`, `removed` with why, `refilled`."""
        rows, shared = [row for row in candidates if row["position"] < self.rows], overlap(candidates, sets)
        leaked = list(map(any, zip(*(flags for kinds in shared.values() for flags in kinds.values()), strict=True)))
        overlaps = overlap_counts(rows, shared)
        if self.overlap is Overlap.refuse and any(leaked[: len(rows)]):
            raise DataError(
                f"mix.overlap=refuse: the mix overlaps, {overlaps}; mix.overlap=remove leaves these rows out"
            )
        copies, survivors = Copies([row["response"] for row in candidates], self.duplicates), list[Row]()
        used = set[str]()  # prompts whose spare row is in the mix: another author may have answered them too
        removed, refilled, missing = defaultdict[str, Counter[str]](Counter), Counter[str](), Counter[str]()
        for place, row in enumerate(candidates):
            spare, source = place >= len(rows), row["source"]
            if spare and (missing[source] < 1 or row["id"] in used):
                continue
            if why := self.reason(row, leaked[place], copies):
                if not spare:
                    removed[source][why] += 1
                    missing[source] += 1
                continue
            survivors.append(row)
            used |= {row["id"]} if spare else set()
            refilled[source] += spare
            missing[source] -= spare
        if self.spare and +missing:
            short = ", ".join(f"{count} of {source}" for source, count in (+missing).items())
            raise DataError(
                f"mix.spare={self.spare:g}: no further prompt takes the place of {short} that filters remove; raise "
                "mix.spare, lower mix.rows, or set mix.spare=0 and train.match=steps"
            )
        refusals = Counter(row["source"] for row in rows if refuses(row))
        why_removed = {source: dict(each) for source, each in sorted(removed.items())}
        counts = {"overlap": overlaps, "refusals": dict(sorted(refusals.items())), "removed": why_removed}
        return survivors, counts | {"refilled": dict(+refilled)}
