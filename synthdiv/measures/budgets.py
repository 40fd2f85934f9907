"""All lexical scores of one arm, and differences between arms: two budgets, within and between prompts, as published.

There are two kinds of measure: measures of a set of texts, with jackknife intervals, and means over prompts.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from synthdiv.core.types import DataError, Score
from synthdiv.measures import bleu
from synthdiv.measures.answers import repetitions
from synthdiv.measures.arm import POOLED, WordArm, words_values
from synthdiv.measures.growth import fit_in_order, in_order_measures
from synthdiv.measures.intervals import (
    Jackknifed,
    Measure,
    balanced,
    jackknife_masks,
    mean_score,
    prompt_means,
    set_scores,
)
from synthdiv.measures.sentences import sentences
from synthdiv.measures.texts import BETWEEN, Texts, texts_values

if TYPE_CHECKING:
    import numpy as np

    from synthdiv.measures.ngrams import NgramTable

Groups = Mapping[Any, Sequence[str]]  # the answers to each prompt, by its id
STEP = 1000  # words between two points of the vocabulary curve in the published Heaps' law
PUBLISHED = (
    Measure("published_self_bleu_3_aggregated", "0-100", False, bleu.NEEDS_FULL_POOL),
    *in_order_measures(STEP),
)


class SetResult(NamedTuple):
    """Set-level measures whose names end in `suffix`; `note` says what was left out."""

    suffix: str
    measures: Sequence[Measure]
    values: Jackknifed
    note: str = ""


class MeanResult(NamedTuple):
    """A measure with one value per prompt: `means` (prompts,), NaN for a prompt where it is `undefined`."""

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
class LexicalResult:
    """The values of one arm with replicates and values per prompt, from which scores and differences are made."""

    sets: list[SetResult]
    means: list[MeanResult]

    def scores(self) -> list[Score]:
        scores: list[Score] = []
        for part in self.sets:
            scores += set_scores(part.measures, part.values, part.suffix, part.note)
        return scores + [part.score() for part in self.means]

    def minus(self, other: LexicalResult) -> list[Score]:
        """Return the differences from another arm with the same prompts; their names end in `-vanilla`."""
        sets = [
            SetResult(f"{student.suffix}-vanilla", student.measures, student.values.minus(vanilla.values), student.note)
            for student, vanilla in zip(self.sets, other.sets, strict=True)
        ]
        means = [
            student._replace(name=f"{student.name}-vanilla", means=student.means - vanilla.means)
            for student, vanilla in zip(self.means, other.means, strict=True)
        ]
        return LexicalResult(sets, means).scores()


def lexical_scores(student: Groups, vanilla: Groups | None, words: int, length: int, seed: int = 0) -> list[Score]:
    """Return every lexical score of `student` and its differences from `vanilla`, on answers to the same prompts.

    `words` is the budget of the `@words` measures: answers in the given order of prompts, up to that many words. In the
    `@texts` measures each answer is cut to `length` words, and prompts with a shorter answer in either arm are left out
    of both. Both budgets use lower-cased words without punctuation. `…_within@texts` compares the answers to one
    prompt, mean over prompts; `…_between@texts` compares the first answer to each prompt. `published_…` are the
    variants of S1; the set-level ones use the first answer to each prompt, because S1 had one. Their values depend on
    the number and length of the answers.

    Intervals of set-level measures leave out groups of prompts (`jackknife_masks`, `seed`), the same groups in both
    arms, so each `<name>-vanilla` (student minus vanilla) has a paired interval. n counts the prompts used, the smaller
    count for a difference. NaN with a note if there is too little text. Raises DataError if the arms have different
    prompts.
    """
    result, vanilla_result = lexical_results(student, vanilla, words, length, seed)
    return result.scores() + (result.minus(vanilla_result) if vanilla_result else [])


def lexical_results(
    student: Groups, vanilla: Groups | None, words: int, length: int, seed: int = 0
) -> tuple[LexicalResult, LexicalResult | None]:
    """Return the results of both arms from which `lexical_scores` are made."""
    arms = {"student": student} | ({} if vanilla is None else {"vanilla": vanilla})
    if vanilla is not None and list(student) != list(vanilla):
        raise DataError(
            f"student answers {len(student)} prompts, vanilla {len(vanilla)}: give both the same prompts in one order"
        )
    results = results_by_arm(arms, words, length, seed, shared_budget=True)
    return results["student"], results.get("vanilla")


def lexical_arm_scores(
    arms: Mapping[str, Groups], words: int, length: int, seed: int = 0, paired: bool = True
) -> dict[str, list[Score]]:
    """Return the lexical scores of several arms, without differences. The `@texts` budget uses their common prompts.

    With `paired=False` the prompts of different arms are unrelated, and each arm gives as many texts as the arm with
    the fewest long answers.
    """
    return {name: result.scores() for name, result in results_by_arm(arms, words, length, seed, paired).items()}


def words_scores(student: Groups, vanilla: Groups | None, words: int, seed: int = 0) -> list[Score]:
    """Return only the `@words` scores of `lexical_scores`; single answers may be missing."""
    arms = {"student": student} | ({} if vanilla is None else {"vanilla": vanilla})
    values = words_values(
        {name: WordArm.from_texts(list(groups.values())) for name, groups in arms.items()}, words, seed
    )
    scores = set_scores(POOLED, values["student"], "@words")
    if vanilla is None:
        return scores
    return scores + set_scores(POOLED, values["student"].minus(values["vanilla"]), "@words-vanilla")


def results_by_arm(
    arms: Mapping[str, Groups], words: int, length: int, seed: int, paired: bool = True, shared_budget: bool = False
) -> dict[str, LexicalResult]:
    """Return every measure of each arm: set-level measures on `@words`, as published and on `@texts`, then means. With
    `shared_budget` the `@words` replicates of all arms have one budget, as differences between arms need."""
    word_arms = {name: WordArm.from_texts(list(groups.values())) for name, groups in arms.items()}
    if shared_budget:
        by_words = words_values(word_arms, words, seed)
    else:
        by_words = {name: words_values({name: arm}, words, seed)[name] for name, arm in word_arms.items()}
    by_texts = texts_values(word_arms, {name: list(groups) for name, groups in arms.items()}, length, seed, paired)
    results = {}
    for name, groups in arms.items():
        arm = word_arms[name]
        answer_sentences = [sentences(text) for group in groups.values() for text in group]
        table, owner = bleu.sentence_table(answer_sentences, 3)
        individual = bleu.individual_values(table, owner, len(answer_sentences), 3)
        means = answer_means(arm, [len(split) for split in answer_sentences], individual)
        sets = [
            SetResult("@words", POOLED, by_words[name]),
            SetResult("", PUBLISHED, published_values(arm, table, owner, seed)),
        ]
        texts = texts_result(by_texts[name])
        results[name] = LexicalResult([*sets, *texts.sets], [*texts.means, *means])
    return results


def texts_result(texts: Texts) -> LexicalResult:
    """Return the `@texts` measures of one arm: pooled, between prompts and within prompts."""
    undefined = "one answer, or none long enough"
    sets = [
        SetResult("@texts", POOLED, texts.pooled, texts.note),
        SetResult("_between@texts", BETWEEN, texts.between, texts.note),
    ]
    means = [
        MeanResult(f"{m.name}_within@texts", values, m.unit, m.higher_is_better, undefined, texts.note)
        for m, values in zip(BETWEEN, texts.within, strict=True)
    ]
    return LexicalResult(sets, means)


def texts_scores(
    arms: Mapping[str, Mapping[Hashable, Sequence[list[str]]]],
    vanilla_of: Mapping[str, str],
    length: int,
    seed: int = 0,
) -> dict[str, list[Score]]:
    """Return the `@texts` scores of many arms on the prompts that all of them answered with at least `length` words.

    Each arm has its answers as words, cut to `length` words or more. `vanilla_of` maps an arm to its vanilla student,
    for the differences; an arm that is absent from it, or is its own vanilla student, gets none.
    """
    word_arms = {name: WordArm.from_words(list(groups.values())) for name, groups in arms.items()}
    by_arm = texts_values(word_arms, {name: list(groups) for name, groups in arms.items()}, length, seed)
    parts = {name: texts_result(texts) for name, texts in by_arm.items()}
    return {
        name: part.scores() + (part.minus(parts[vanilla_of[name]]) if vanilla_of.get(name, name) != name else [])
        for name, part in parts.items()
    }


def published_values(arm: WordArm, sentences: NgramTable, owner: np.ndarray, seed: int) -> Jackknifed:
    """Return PUBLISHED of the first answer to each prompt; `owner` is the answer index of each of the `sentences`."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    first = np.flatnonzero(np.diff(arm.prompt, prepend=-1))
    prompt = arm.prompt[first]
    is_first = np.isin(owner, first)
    prompt_index = np.searchsorted(first, owner, side="right") - 1
    start = np.cumsum(arm.lengths) - arm.lengths
    size = arm.lengths[first]
    word_prompt = np.repeat(prompt, size)
    codes = arm.table.words[np.repeat(start[first] - (np.cumsum(size) - size), size) + np.arange(len(word_prompt))]

    def values(keep: np.ndarray) -> np.ndarray:
        self_bleu = bleu.aggregated_value(sentences, prompt_index, is_first & keep[prompt][prompt_index], len(first), 3)
        return np.array([self_bleu, *fit_in_order(codes[keep[word_prompt]], STEP)])

    all_values = values(np.ones(arm.prompts, dtype=bool))
    kept = jackknife_masks(arm.prompts, seed)
    with ThreadPoolExecutor(2) as pool:  # numpy releases the interpreter lock
        replicates = np.array([*pool.map(values, kept)]).reshape(-1, len(PUBLISHED))
    return Jackknifed(all_values, balanced(all_values, replicates, kept), len(first))


def answer_means(arm: WordArm, sentences: Sequence[int], individual: np.ndarray) -> list[MeanResult]:
    """Return the measures of single answers, as means over each prompt's answers."""

    def mean(name: str, values: Any, unit: str, higher_is_better: bool | None, undefined: str) -> MeanResult:
        return MeanResult(name, prompt_means(values, arm.prompt, arm.prompts), unit, higher_is_better, undefined)

    return [
        mean("response_words", arm.lengths, "words", None, "no answer"),
        mean("empty", arm.lengths == 0, "share of answers", None, "no answer"),
        mean("sentences", sentences, "sentences", None, "no answer"),
        mean("repetition_4", repetitions(arm.tokens), "share", False, "no answer of four words"),
        mean("published_self_bleu_3_individual", individual, "0-100", False, bleu.NEEDS_TWO_SENTENCES),
    ]
