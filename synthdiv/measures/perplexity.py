"""Perplexity 2 (human test answers under the student) and 1 (the student's own answers under the vanilla student).

The log-likelihoods are computed with the chat template, at temperature 1, without truncation of the distribution.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from synthdiv.core.lazy import np
from synthdiv.core.types import DataError, Score
from synthdiv.measures.estimates import VANILLA, Estimate, Measure, mean_of, undefined
from synthdiv.measures.intervals import pseudo_values
from synthdiv.measures.pairing import compared, unknown_reason

EMPTY = "all answers are empty"


class AnswerNLL(NamedTuple):
    """One answer under one model. `nll` is -ln q in nats, summed over the answer's tokens and one EOS (none after a
    truncated answer); `tokens` >= 1 counts them, EOS included; `bytes` >= 0 is the length of the answer in UTF-8."""

    nll: float
    tokens: int
    bytes: int


Answers = Mapping[str, "Sequence[AnswerNLL]"]


def likelihood_scores(student: Mapping[str, AnswerNLL], vanilla: Mapping[str, AnswerNLL] | None = None) -> list[Score]:
    """Return the perplexity-2 scores of `student` and its paired differences from `vanilla`; lower is better.

    Both map prompt ids to answers.

    - `nll_2`, nats/token: mean over answers of NLL per token (S1); t interval over prompts.
    - `perplexity_2`: exp of `nll_2` and of its interval.
    - `perplexity_2_pooled`: exp of all NLL / all tokens; t interval of the linearised ratio.
    - `perplexity_2_median`: median over answers of exp(NLL per token); interval from order statistics.
    - `nll_2_byte`, nats/byte: all NLL / all bytes, comparable across tokenizers; linearised.
    - `nll_2-vanilla`, `nll_2_pooled-vanilla` (all NLL / all tokens) and `nll_2_byte-vanilla`: student minus vanilla, on
      the common prompts.
    - `nll_2_median-vanilla`, nats/token: median over these prompts of the difference of NLL per token; interval from
      order statistics.

    NaN with a note if there are no answers, an NLL is NaN, there are no bytes, or the token or byte counts of an answer
    differ between student and vanilla (different template or tokenizer). An infinite NLL gives infinite means without
    an interval. Raises DataError for an answer without a token.
    """
    base = None if vanilla is None else {prompt: [answer] for prompt, answer in vanilla.items()}
    return _scores({prompt: [answer] for prompt, answer in student.items()}, base, 2)


def published_perplexity(nll: Sequence[float]) -> Score:
    """Return S1's mean perplexity of answers with `nll` nats per token, for comparison with its tables alone: answers
    further than 1.5 times the interquartile range from the quartiles *of this arm* are left out (Tukey's fences). Arms
    lose unequal shares (12.6 % and 5.7 % there), which the note says; no other score leaves anything out. NaN without
    answers, or if the square of a perplexity is no number."""
    measure = Measure("published_perplexity_2", "perplexity", False, "no answers", 1)
    per_token = np.array(nll, dtype=float)
    if not (len(per_token) and (per_token < 300).all()):
        return undefined(measure, "a likelihood is missing or 0" if len(nll) else "", len(nll)).score()
    values = np.exp(per_token)
    low, high = np.quantile(values, [0.25, 0.75])
    inliers = values[(values >= low - 1.5 * (high - low)) & (values <= high + 1.5 * (high - low))]
    note = f"{1 - len(inliers) / len(values):.1%} of the answers of this arm left out as outliers, as published"
    return mean_of(measure, inliers, note=note).score()


def own_answer_scores(
    student: Mapping[str, Sequence[AnswerNLL]], vanilla: Mapping[str, Sequence[AnswerNLL]] | None = None
) -> list[Score]:
    """Return the perplexity-1 scores of the student's own answers, by prompt id, under the *vanilla* student.

    A low value is close to the mode of the vanilla student; no direction is better. The scores are those of
    `likelihood_scores` with 1 in place of 2, without the pooled ones. The answers to one prompt are averaged first, so
    the units are prompts: `perplexity_1_median` is the median over prompts of exp(mean over its answers of NLL per
    token), and `nll_1_byte` is mean NLL / mean bytes of an answer, every prompt with the same weight. In the
    differences `vanilla` holds the vanilla student's own answers, so tokens and bytes may differ.

    NaN with a note and DataError as in `likelihood_scores`; a prompt without an answer also raises DataError.
    """
    return _scores(student, vanilla, 1)


def _scores(student: Answers, vanilla: Answers | None, kind: int) -> list[Score]:
    """Return the levels, of which some are perplexities, and the differences, which are all in nats."""
    counts = (lambda answers: [each[1:] for each in answers]) if kind == 2 else None  # tokens and bytes
    compared_scores = compared(lambda arm: _estimates(arm, kind), student, vanilla, counts)
    scores = {score.name: score for score in compared_scores}
    mean, perplexity, median = scores[f"nll_{kind}"], f"perplexity_{kind}", f"perplexity_{kind}_median"
    levels = [mean, _exp(mean, perplexity), scores[median], scores[f"nll_{kind}_byte"]]
    nats = [f"nll_{kind}", f"nll_{kind}_median", f"nll_{kind}_byte"]
    if kind == 2:
        levels.append(_exp(scores["nll_2_pooled"], "perplexity_2_pooled"))
        nats.insert(1, "nll_2_pooled")
    return levels if vanilla is None else [*levels, *(scores[name + VANILLA] for name in nats)]


def _estimates(arm: Answers, kind: int) -> list[Estimate]:
    better = False if kind == 2 else None  # perplexity 1 has no better direction
    measures = {
        name: Measure(f"nll_{kind}{name}", "nats/byte" if name == "_byte" else "nats/token", better, EMPTY, 0)
        for name in ("", "_pooled", "_median", "_byte")
    }
    typical = Measure(f"perplexity_{kind}_median", "perplexity", better, EMPTY, 1)
    _check(arm)
    reason = unknown_reason({prompt: [one.nll for one in answers] for prompt, answers in arm.items()})
    reason = reason if arm else "no answers"
    if reason:
        return [undefined(measure, reason, len(arm)) for measure in (*measures.values(), typical)]
    columns = [np.array(answers, dtype=float).T for answers in arm.values()]
    per_token = np.array([(nll / tokens).mean() for nll, tokens, _ in columns])
    with np.errstate(over="ignore"):  # infinite
        perplexity = np.exp(per_token)
    nll, tokens, size = np.array([column.mean(axis=1) for column in columns]).T
    impossible = int(np.isinf(nll).sum())
    note = f"{impossible} of {len(arm)} prompts have an answer of probability 0" if impossible else ""
    return [
        mean_of(measures[""], per_token, note=note),
        _ratio(measures["_pooled"], nll, tokens, note),
        mean_of(measures["_median"], per_token, median=True, note=note),
        _ratio(measures["_byte"], nll, size, note),
        mean_of(typical, perplexity, median=True, note=note),
    ]


def _ratio(measure: Measure, numerators: np.ndarray, denominators: np.ndarray, note: str) -> Estimate:
    """Return the ratio of two sums over prompts."""
    if not denominators.sum():
        return undefined(measure, EMPTY, len(numerators))
    pooled = mean_of(measure, pseudo_values(numerators, denominators), note=note)
    value = float(numerators.sum() / denominators.sum())  # infinite where pseudo-values are NaN
    return dataclasses.replace(pooled, value=value, n=len(numerators))


def _check(arm: Answers) -> None:
    for prompt, answers in arm.items():
        if not answers:
            raise DataError(f"prompt {prompt!r} has no answer: leave the prompt out, or give its answers")
        for answer in answers:
            if answer.tokens < 1 or answer.bytes < 0:
                raise DataError(
                    f"answer to prompt {prompt!r}: {answer}; needs at least 1 token, because EOS counts, and at least "
                    "0 bytes"
                )


def _exp(score: Score, name: str) -> Score:
    """Return exp of a mean of nats per token and of its interval."""
    value, low, high = (
        math.exp(x) if x < 709 or math.isnan(x) else math.inf for x in (score.value, score.low, score.high)
    )
    return dataclasses.replace(score, name=name, value=value, low=low, high=high, unit="perplexity")
