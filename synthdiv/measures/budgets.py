"""All lexical scores of one arm, and its differences from another: two budgets, within prompts, as published.

A number of an arm never depends on another arm: each fills its budgets by itself, from first answers in one fixed order
of prompts. A contrast on `@texts` takes the first prompts to which both arms have an answer that is long enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.types import DataError, Score
from synthdiv.measures import bleu
from synthdiv.measures.estimates import SHARE, Estimate, Measure, estimates, jackknife, mean_of, scores_of, undefined
from synthdiv.measures.intervals import pseudo_values
from synthdiv.measures.lexical import COUNT_MEASURES, REPETITION_CAUTION, bounded_by, count_values
from synthdiv.measures.ngrams import ngrams
from synthdiv.measures.order import CODECS, FEW_FACTORS, MTLD, compression_measure, compression_of, mtld_of
from synthdiv.measures.word_arm import WordArm, answer_estimates, published_estimates

Groups = Mapping[Any, Sequence[str]]  # the answers to each prompt, by its id, prompts in the one order of all arms
MIN_WORDS = 20
SELECTED = 0.1  # a larger difference of the shares passed over: the texts that remain are a selection
POOLED = (*COUNT_MEASURES, MTLD, *map(compression_measure, CODECS))
SHORT = "no prompt with so many long answers"
WITHIN = [m._replace(undefined=SHORT) for m in COUNT_MEASURES if m.name in ("self_bleu_3", "distinct_2")]
PASSED_OVER = Measure("passed_over", SHARE, None, "no prompt", 0, 1)
WORDS_CUT = Measure("words_cut", "share of words", None, "beyond the budget", 0, 1)


@dataclass
class TextBudget:
    """How much text measures see; every arm fills it from its own answers."""

    words: int = setting(10000, least=1)
    """Budget of the `@words` measures: first answers, prompt after prompt, until that many words."""
    cap: int = setting(50, least=1)
    """No answer gives more than words / cap words to `@words`, so that one runaway answer is not the sample."""
    texts: int = setting(100, least=2)
    """Budget of the `@texts` measures: that many first answers of `length` words or more."""
    length: int = setting(50, least=1)
    """Words to which answers are cut for the `@texts` measures and the sentence vectors."""
    within: int = setting(4, least=2)
    """Budget of the `_within@texts` measures: that many answers of `length` words or more to one prompt."""
    draws: int = setting(8, least=2)
    """The first answers to a prompt among which `within` are looked for; prompts with fewer answers do not count."""

    def check(self, name: str) -> list[str]:
        if self.within <= self.draws:
            return []
        return [f"{name}.within={self.within}: more than {name}.draws={self.draws}, among which they are looked for"]

    @property
    def most(self) -> int:
        """The most words that one answer gives to `@words`."""
        return max(self.words // self.cap, 1)


def lexical_scores(student: Groups, vanilla: Groups | None, budget: TextBudget, seed: int = 0) -> list[Score]:
    """Return every lexical score of `student`, and its differences from `vanilla`, on answers to the same prompts.

    - `…@words`: on the first answer to each prompt, in the given order of prompts, up to `budget.words` words.
    - `…@texts`: on `budget.texts` first answers of `budget.length` words; NaN for fewer. `…_within@texts` compares the
      answers to one prompt, mean over prompts.
    - `passed_over@texts`, `passed_over_within@texts`, `words_cut@words`: what the budgets leave out.
    - `published_…`: the variants of S1, on first answers, without a budget.
    - `response_words`, `sentences`, `repetition_4`, `empty`, `looping`: means of single answers.

    Budgets use lower-cased words without punctuation. Intervals of set-level measures leave out groups of prompts
    (`seed`), the same groups in both arms, so each `<name>-vanilla` (student minus vanilla) has a paired interval. n
    counts prompts. NaN with a note if there is too little text. Raises DataError if the arms have different prompts.
    """
    levels, gaps = lexical_estimates(student, vanilla, budget, seed)
    return scores_of([*levels, *gaps])


def lexical_estimates(
    student: Groups, vanilla: Groups | None, budget: TextBudget, seed: int = 0
) -> tuple[list[Estimate], list[Estimate]]:
    """Return the estimates of the student, and of its differences from `vanilla`, from which scores are made."""
    if vanilla is not None and list(student) != list(vanilla):
        raise DataError(
            f"student answers {len(student)} prompts, vanilla {len(vanilla)}: give both the same prompts in one order"
        )
    arm = WordArm(list(student.values()), seed)
    rest, texts = arm_estimates(arm, budget), texts_estimates(arm, budget)
    if vanilla is None:
        return [*rest, *texts], []
    other = WordArm(list(vanilla.values()), seed)
    gaps = [one.minus(each) for one, each in zip(rest, arm_estimates(other, budget), strict=True)]
    return [*rest, *texts], [*gaps, *texts_contrasts(arm, other, budget)]


def arm_estimates(arm: WordArm, budget: TextBudget) -> list[Estimate]:
    """Return everything but the `@texts` measures."""
    return [*words_estimates(arm, budget), *published_estimates(arm), *answer_estimates(arm)]


def words_scores(*arms: Groups, budget: TextBudget, seed: int = 0) -> list[Score]:
    """Return only the `@words` scores of `lexical_scores`, of one arm or two; answers to prompts may be missing."""
    return scores_of(*(words_estimates(WordArm(list(arm.values()), seed), budget) for arm in arms))


def words_estimates(arm: WordArm, budget: TextBudget) -> list[Estimate]:
    """Return POOLED on the `@words` budget, and the share of words that the cap of one answer cuts."""
    sample, cut, total = list[list[str]](), list[int](), 0
    for text in arm.first:
        if total >= budget.words:
            break
        sample.append(text[: min(budget.most, budget.words - total)])
        cut.append(max(len(text) - budget.most, 0))
        total += len(sample[-1])
    words_cut = WORDS_CUT._replace(name=f"{WORDS_CUT.name}@words")
    if total < budget.words:
        short = f"{total} words in first answers of at most {budget.most}, the budget needs {budget.words}"
        return [*set_estimates(sample, "@words", arm, short), undefined(words_cut, short, len(sample))]
    shares = np.full(len(arm.first), math.nan)
    shares[: len(cut)] = pseudo_values(cut, [len(text) for text in arm.first[: len(cut)]])
    return [*set_estimates(sample, "@words", arm), mean_of(words_cut, shares)]


def set_estimates(sample: Sequence[list[str]], suffix: str, arm: WordArm, reason: str = "") -> list[Estimate]:
    """Return POOLED of a sample of the texts of an arm, one for each prompt, or NaN with a `reason`."""
    measures = [m._replace(name=m.name + suffix) for m in POOLED]
    measures[0] = measures[0]._replace(caution=REPETITION_CAUTION if suffix == "@words" else "")
    if not reason and (count := sum(map(len, sample))) < MIN_WORDS:
        reason = f"{count} words: at least {MIN_WORDS} are needed"
    if reason:
        return [undefined(m, reason, len(sample)) for m in measures]
    table, prompt, group, seed = ngrams(sample, 3), np.arange(len(sample)), arm.groups(len(sample)), arm.seed
    value, pseudo = jackknife(lambda keep: count_values(table, keep[group]), np.bincount(group, table.lengths))
    counts = estimates(bounded_by(table, measures[: len(COUNT_MEASURES)]), value, pseudo, len(sample))
    joined = [" ".join(text) for text in sample]
    ordered = [mtld_of(sample, prompt, group, seed)]
    ordered += [compression_of(joined, prompt, group, codec, seed) for codec in CODECS]
    rest = measures[len(COUNT_MEASURES) :]
    ordered_estimates = [Estimate(m, *each, len(sample)) for m, each in zip(rest, ordered, strict=True)]
    return [*counts, replace(ordered_estimates[0], no_interval=FEW_FACTORS), *ordered_estimates[1:]]


def texts_estimates(arm: WordArm, budget: TextBudget) -> list[Estimate]:
    """Return the `@texts` measures: POOLED, and those with one value for each prompt."""
    texts = [text[: budget.length] for text in arm.first if len(text) >= budget.length][: budget.texts]
    short = f"{len(texts)} first answers have {budget.length} words, the budget needs {budget.texts}"
    reason = short if len(texts) < budget.texts else ""
    return [*set_estimates(texts, "@texts", arm, reason), *prompt_estimates(arm, budget)]


def prompt_estimates(arm: WordArm, budget: TextBudget) -> list[Estimate]:
    """Return WITHIN among the answers to each prompt, means over prompts that have enough of them (NaN below two,
    because one prompt says nothing of the others); and the shares of prompts that the `@texts` budget passes over, of
    those with `draws` answers the ones whose answers are too short."""
    values, passed = np.full((len(WITHIN), len(arm.tokens)), math.nan), np.full(len(arm.tokens), math.nan)
    for prompt, group in enumerate(arm.tokens):
        if len(group) >= budget.draws:
            long = [text[: budget.length] for text in group[: budget.draws] if len(text) >= budget.length]
            passed[prompt] = len(long) < budget.within
            if len(long) >= budget.within:
                values[:, prompt] = within_prompt(long[: budget.within])
    within = [mean_of(m._replace(name=f"{m.name}_within@texts"), x) for m, x in zip(WITHIN, values, strict=True)]
    enough = f"{budget.within} answers of {budget.length} words among their first {budget.draws}"
    few = f"fewer than two prompts have {enough}"
    return [
        *(replace(each, value=math.nan, reason=few) if each.n < 2 else each for each in within),
        mean_of(PASSED_OVER._replace(name="passed_over@texts"), ~arm.long(budget.length)),
        mean_of(PASSED_OVER._replace(name="passed_over_within@texts", undefined="fewer answers"), passed),
    ]


def within_prompt(group: Sequence[list[str]]) -> list[float]:
    """Return Self-BLEU-3 and distinct-2 of the answers to one prompt, of one length."""
    table = ngrams(group, 3)
    pairs = [pair for text in group for pair in pairwise(text)]
    distinct = len(set(pairs)) / len(pairs) if pairs else math.nan
    return [bleu.self_bleu_of(table, table.lengths, np.ones(len(group), dtype=bool), 3), distinct]


def texts_contrasts(student: WordArm, vanilla: WordArm, budget: TextBudget) -> list[Estimate]:
    """Return the differences of the `@texts` measures: of sets on the first prompts where both arms have a long answer,
    of WITHIN on the prompts where both have enough.

    Where the shares passed over differ by more than SELECTED, what remains is a selection: the contrast is marked, made
    again at half the length, and undefined where its sign changes.
    """
    *gaps, passed, passed_within = texts_gaps(student, vanilla, budget)
    half = replace(budget, length=max(budget.length // 2, 1))
    repeated: list[Estimate] = []
    checked = []
    for gap in gaps:
        share = passed_within if "_within" in gap.measure.name else passed
        if abs(share.value) > SELECTED and not math.isnan(gap.value):
            repeated = repeated or texts_gaps(student, vanilla, half)
            again = next(each for each in repeated if each.measure.name == gap.measure.name)
            checked.append(selected(gap, again, share.value, half.length))
        else:
            checked.append(gap)
    return [*checked, passed, passed_within]


def texts_gaps(student: WordArm, vanilla: WordArm, budget: TextBudget) -> list[Estimate]:
    """Return the differences of `texts_estimates`, sets on common prompts: `budget.texts` of them, or at least half."""
    both = np.flatnonzero(student.long(budget.length) & vanilla.long(budget.length))[: budget.texts]
    few = len(both) < budget.texts
    on = f"on {len(both)} texts, fewer than {budget.texts}" if few else ""
    short = f"both arms have {budget.length} words in the first answers to {len(both)} prompts, the budget needs"
    reason = f"{short} {budget.texts}" if 2 * len(both) < budget.texts else ""
    arms = [
        [
            *set_estimates([arm.first[prompt][: budget.length] for prompt in both], "@texts", arm, reason),
            *prompt_estimates(arm, budget),
        ]
        for arm in (student, vanilla)
    ]
    gaps = [one.minus(other) for one, other in zip(*arms, strict=True)]
    return [gap.with_note(on) if gap.whole and not math.isnan(gap.value) else gap for gap in gaps]


def selected(gap: Estimate, again: Estimate, passed_over: float, length: int) -> Estimate:
    """Mark a contrast on selected texts; NaN if its sign is another in `again`, at half the length."""
    note = f"selected: the shares passed over differ by {abs(passed_over):.2f}"
    if gap.value * again.value > 0 or gap.value == again.value == 0:
        return gap.with_note(f"{note}; the same sign at {length} words")
    reason = f"not shown: {gap.value:.4g}, but {again.value:.4g} at {length} words"
    return replace(gap, value=math.nan, reason=reason).with_note(note)
