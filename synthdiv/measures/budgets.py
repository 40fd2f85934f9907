"""Every lexical score of one arm's answers beside other arms: on two budgets, within and between prompts, as published.

Two kinds of measure: those of a set of texts, whose intervals leave out groups of prompts, and means over prompts.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from synthdiv.core.types import DataError, Score
from synthdiv.measures import bleu
from synthdiv.measures.answers import repetitions
from synthdiv.measures.arm import POOLED, Arm, on_words
from synthdiv.measures.growth import in_order, in_order_measures
from synthdiv.measures.intervals import Measure, Measured, deletions, evened, mean_score, prompt_means, set_scores
from synthdiv.measures.sentences import sentences
from synthdiv.measures.texts import BETWEEN, Texts, on_texts

if TYPE_CHECKING:
    import numpy as np

    from synthdiv.measures.ngrams import Ngrams

Groups = Mapping[Any, Sequence[str]]  # the answers to each prompt, by its id
STEP = 1000  # words between two readings of the vocabulary in the published Heaps' law
PUBLISHED = (
    Measure("published_self_bleu_3_aggregated", "0-100", False, bleu.FULL_POOL),
    *in_order_measures(STEP),
)


class SetPart(NamedTuple):
    """Set-level measures under one suffix; `note` says what was left out."""

    suffix: str
    measures: Sequence[Measure]
    measured: Measured
    note: str = ""


class MeanPart(NamedTuple):
    """A measure with one value a prompt (prompts,), NaN where it is `undefined`."""

    name: str
    means: np.ndarray
    unit: str
    higher_is_better: bool | None
    undefined: str
    note: str = ""

    def score(self) -> Score:
        score = mean_score(*self[:5])
        return replace(score, note="; ".join(part for part in (score.note, self.note) if part))


@dataclass(frozen=True, eq=False)
class Lexical:
    """All that is measured of one arm, before it becomes scores: differences need the replicates and the prompts."""

    sets: list[SetPart]
    means: list[MeanPart]

    def scores(self) -> list[Score]:
        found = [
            score for part in self.sets for score in set_scores(part.measures, part.measured, part.suffix, part.note)
        ]
        return found + [part.score() for part in self.means]

    def minus(self, other: Lexical) -> list[Score]:
        """The differences to another arm with the same prompts, each name followed by `-vanilla`."""
        sets = [
            SetPart(f"{a.suffix}-vanilla", a.measures, a.measured.minus(b.measured), a.note)
            for a, b in zip(self.sets, other.sets, strict=True)
        ]
        means = [
            a._replace(name=f"{a.name}-vanilla", means=a.means - b.means)
            for a, b in zip(self.means, other.means, strict=True)
        ]
        return Lexical(sets, means).scores()


def lexical_scores(student: Groups, vanilla: Groups | None, words: int, length: int, seed: int = 0) -> list[Score]:
    """Every lexical score of `student`, and its differences to `vanilla`, both with the answers to the same prompts.

    `words` is the budget of the `@words` measures: texts prompt by prompt, in the order given, until so many words. In
    the `@texts` measures each answer is cut to `length` words; prompts with a shorter one in either arm are left out of
    both. Both see lower-cased words without punctuation, so that sacrebleu's tokenizer has nothing left to split.
    `…_within@texts` is among the answers to one prompt, mean over prompts; `…_between@texts` takes the first answer to
    each. `published_…` are S1's own variants, the set-level ones on the first answer to each prompt, as S1 had one;
    their value depends on how many answers there are and how long they are.

    Intervals of set-level measures leave out groups of prompts (`deletions`, `seed`), the same for both arms, so that
    each `<name>-vanilla` (student minus vanilla) has its own. n counts the prompts that entered, the smaller count for
    a difference. NaN with a note where there is too little. DataError: arms with other prompts.
    """
    mine, base = lexical(student, vanilla, words, length, seed)
    return mine.scores() + (mine.minus(base) if base else [])


def lexical(
    student: Groups, vanilla: Groups | None, words: int, length: int, seed: int = 0
) -> tuple[Lexical, Lexical | None]:
    """What `lexical_scores` are made of, of both arms."""
    arms = {"student": student} | ({} if vanilla is None else {"vanilla": vanilla})
    if vanilla is not None and list(student) != list(vanilla):
        raise DataError(
            f"student answers {len(student)} prompts and vanilla {len(vanilla)}: they must be the same, in one order"
        )
    found = measured(arms, words, length, seed, together=True)
    return found["student"], found.get("vanilla")


def lexical_groups(
    arms: Mapping[str, Groups], words: int, length: int, seed: int = 0, paired: bool = True
) -> dict[str, list[Score]]:
    """`lexical_scores` of several arms, without differences; the `@texts` budget takes the prompts that all have.

    Not `paired`: prompts of different arms have nothing to do with each other, and each arm gives as many texts as the
    one with the fewest long ones.
    """
    return {name: found.scores() for name, found in measured(arms, words, length, seed, paired).items()}


def words_scores(student: Groups, vanilla: Groups | None, words: int, seed: int = 0) -> list[Score]:
    """The `@words` scores alone, as `lexical_scores` has them, of arms in which single answers may be missing."""
    arms = {"student": student} | ({} if vanilla is None else {"vanilla": vanilla})
    found = on_words({name: Arm.of(list(groups.values())) for name, groups in arms.items()}, words, seed)
    mine = set_scores(POOLED, found["student"], "@words")
    if vanilla is None:
        return mine
    return mine + set_scores(POOLED, found["student"].minus(found["vanilla"]), "@words-vanilla")


def measured(
    arms: Mapping[str, Groups], words: int, length: int, seed: int, paired: bool = True, together: bool = False
) -> dict[str, Lexical]:
    """Every measure of each arm. Set-level ones first, on `@words`, as published and on `@texts`.

    `together`: differences of the arms are taken, so their replicates share one budget.
    """
    split = {name: Arm.of(list(groups.values())) for name, groups in arms.items()}
    if together:
        by_words = on_words(split, words, seed)
    else:
        by_words = {name: on_words({name: arm}, words, seed)[name] for name, arm in split.items()}
    by_texts = on_texts(split, {name: list(groups) for name, groups in arms.items()}, length, seed, paired)
    found = {}
    for name, groups in arms.items():
        arm = split[name]
        said = [sentences(text) for group in groups.values() for text in group]
        table, owner = bleu.sentence_table(said, 3)
        individual = bleu.individual(table, owner, len(said), 3)
        means = answer_means(arm, [len(found) for found in said], individual)
        sets = [SetPart("@words", POOLED, by_words[name]), SetPart("", PUBLISHED, published(arm, table, owner, seed))]
        texts = of_texts(by_texts[name])
        found[name] = Lexical([*sets, *texts.sets], [*texts.means, *means])
    return found


def of_texts(texts: Texts) -> Lexical:
    """One arm on the `@texts` budget: in all, between prompts and within them."""
    alone = "one answer, or none long enough"
    sets = [
        SetPart("@texts", POOLED, texts.pooled, texts.note),
        SetPart("_between@texts", BETWEEN, texts.between, texts.note),
    ]
    means = [
        MeanPart(f"{m.name}_within@texts", values, m.unit, m.higher_is_better, alone, texts.note)
        for m, values in zip(BETWEEN, texts.within, strict=True)
    ]
    return Lexical(sets, means)


def texts_scores(
    arms: Mapping[str, Mapping[Hashable, Sequence[list[str]]]], against: Mapping[str, str], length: int, seed: int = 0
) -> dict[str, list[Score]]:
    """The `@texts` scores of many arms on the prompts that all of them answered in `length` words.

    Each arm has its answers as words, cut to `length` or longer. `against` names the untouched student of an arm, for
    the differences; an arm that is none of its keys, or is its own, gets none.
    """
    split = {name: Arm.split(list(groups.values())) for name, groups in arms.items()}
    found = on_texts(split, {name: list(groups) for name, groups in arms.items()}, length, seed)
    parts = {name: of_texts(texts) for name, texts in found.items()}
    return {
        name: part.scores() + (part.minus(parts[against[name]]) if against.get(name, name) != name else [])
        for name, part in parts.items()
    }


def published(arm: Arm, sentences: Ngrams, owner: np.ndarray, seed: int) -> Measured:
    """PUBLISHED of the first answer to each prompt, as S1 had one; `owner` is the answer of each of the `sentences`."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    first = np.flatnonzero(np.diff(arm.prompt, prepend=-1))
    prompt = arm.prompt[first]
    is_first = np.isin(owner, first)
    asked = np.searchsorted(first, owner, side="right") - 1
    start = np.cumsum(arm.lengths) - arm.lengths
    size = arm.lengths[first]
    reader = np.repeat(prompt, size)
    read = arm.table.words[np.repeat(start[first] - (np.cumsum(size) - size), size) + np.arange(len(reader))]

    def values(keep: np.ndarray) -> np.ndarray:
        self_bleu = bleu.aggregated(sentences, asked, is_first & keep[prompt][asked], len(first), 3)
        return np.array([self_bleu, *in_order(read[keep[reader]], STEP)])

    every = values(np.ones(arm.prompts, dtype=bool))
    kept = deletions(arm.prompts, seed)
    with ThreadPoolExecutor(2) as pool:  # numpy releases the interpreter
        drawn = np.array([*pool.map(values, kept)]).reshape(-1, len(PUBLISHED))
    return Measured(every, evened(every, drawn, kept), len(first))


def answer_means(arm: Arm, sentences: Sequence[int], individual: np.ndarray) -> list[MeanPart]:
    """What is measured of one answer at a time, mean over each prompt's answers."""

    def part(name: str, values: Any, unit: str, higher_is_better: bool | None, undefined: str) -> MeanPart:
        return MeanPart(name, prompt_means(values, arm.prompt, arm.prompts), unit, higher_is_better, undefined)

    return [
        part("response_words", arm.lengths, "words", None, "no answer"),
        part("empty", arm.lengths == 0, "share of answers", None, "no answer"),
        part("sentences", sentences, "sentences", None, "no answer"),
        part("repetition_4", repetitions(arm.tokens), "share", False, "no answer of four words"),
        part("published_self_bleu_3_individual", individual, "0-100", False, bleu.TWO_SENTENCES),
    ]
