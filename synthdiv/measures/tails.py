"""The tail of perplexity 2: how the rarest tokens of human answers fare under a model, and under the untouched one;
and that of perplexity 1, of own answers.

A mean hides them. Collapse begins where the untouched model was least sure already.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.core.types import DataError, Score
from synthdiv.measures.intervals import Measure, jackknife_scores
from synthdiv.measures.perplexity import in_both, shuffled

if TYPE_CHECKING:
    import numpy as np

QUANTILES = {"q50": 0.5, "q90": 0.9, "q99": 0.99}
TAIL = 0.01  # of the untouched model's tokens are its tail
LEAST = 500  # tokens: five in the tail; with fewer it is a matter of one word

INFINITE = "infinite in the untouched model"
LEVELS = [Measure(f"nll_2_token_{name}", "nats/token", False, INFINITE) for name in QUANTILES]
TAILS = [
    Measure("tail_share", "share of tokens", False, INFINITE),
    Measure("nll_2_tail", "nats/token", False, INFINITE),
]
GAPS = [measure._replace(name=f"{measure.name}-vanilla") for measure in (*LEVELS, TAILS[1])]

Tokens = Mapping[str, Sequence[float]]
OwnTokens = Mapping[str, Sequence[Sequence[float]]]  # of each answer to a prompt


def tail_scores(student: Tokens, vanilla: Tokens | None = None, seed: int = 0) -> list[Score]:
    """Tail scores over the tokens of human answers: by prompt id, -ln q in nats of each token, EOS included.

    - `nll_2_token_q50`, `_q90`, `_q99`, nats/token: quantiles over all tokens; lower is better.
    - `tail_share`: the share of the student's tokens that are as improbable as the untouched model's rarest 1 %, beyond
      that model's 99 % quantile; exactly 1 % in the untouched model, more where the tail was lost.
    - `nll_2_tail`, nats/token: mean over the tokens that *are* the untouched model's rarest 1 %.
    - `-vanilla` of the quantiles and of `nll_2_tail`: less the untouched model's, on the prompts that both have.

    Without `vanilla` the student is the untouched one. Its rarest tokens were picked by its own values, so another
    model of equal merit does better on just these: `nll_2_tail-vanilla` says how much two students differ in that, its
    sign alone says nothing; `tail_share` picks no token and has a null value, 1 %.

    A quantile q is the smallest value with no more than 1 - q of the tokens above it. Tokens that tie with the 99 %
    quantile count by the part that makes the untouched model's tail exactly 1 % of its tokens, in both arms alike.
    Intervals leave out groups of prompts and find threshold and tail again on the rest, because the threshold is an
    estimate too. Simulated on skewed tokens, 25 to 1,500 prompts, they cover in 92 to 99 % of cases; where there are
    under 2,000 tokens, `nll_2_tail` and the level of the 99 % quantile in 84 to 92 %. NaN with a note: fewer than 500
    tokens, a token without a likelihood, arms of other tokens (template or tokenizer differ). An infinite value has no
    interval. Raises DataError for an answer with no token.
    """
    alone = _scores(LEVELS, _levels, [student], student, seed)
    if vanilla is None:
        return alone + _scores(TAILS, _tail, [student, student], student, seed)
    common, note = in_both(student, vanilla)
    arms = [student, vanilla]
    return alone + _scores(TAILS, _tail, arms, common, seed, note) + _scores(GAPS, _gaps, arms, common, seed, note)


def own_tail_scores(student: OwnTokens, vanilla: OwnTokens | None = None, seed: int = 0) -> list[Score]:
    """Quantiles over the tokens of own answers under the *untouched* student: by prompt id, of each answer -ln q in
    nats of each token.

    - `nll_1_token_q50`, `_q90`, `_q99`, nats/token; no direction is better. A token weighs one over the answers to its
      prompt, so a prompt counts once, as in `own_scores`; else these are the quantiles of `tail_scores`.
    - each `-vanilla`: less that of the untouched student's own answers, on the prompts that both have. The tokens are
      others, so nothing but the prompts is paired, and intervals leave these out of both arms together.

    Simulated on skewed tokens, 50 to 600 prompts of one answer or eight, intervals of the differences cover in 91 to
    95 % of cases, those of the levels in 89 to 94 %, of the 99 % quantile in 83 to 89 %.
    NaN with a note: fewer than 500 tokens in an arm, a token without a likelihood. An infinite value has no interval.
    Raises DataError for a prompt with no answer and for an answer with no token.
    """
    alone = _own_scores([student], student, seed)
    if vanilla is None:
        return alone
    common, note = in_both(student, vanilla)
    return alone + _own_scores([student, vanilla], common, seed, note)


class Weighed(NamedTuple):
    """The tokens of one arm, ascending: value, weight and number of the prompt, each (n,)."""

    values: np.ndarray
    weights: np.ndarray
    prompt: np.ndarray

    @classmethod
    def of(cls, prompts: Sequence[Sequence[Sequence[float]]]) -> Weighed:
        import numpy as np

        values = np.concatenate([np.asarray(answer, dtype=float) for answers in prompts for answer in answers])
        sizes = [sum(map(len, answers)) for answers in prompts]
        prompt = np.repeat(np.arange(len(prompts)), sizes)
        weights = np.repeat([1 / len(answers) for answers in prompts], sizes)
        order = np.argsort(values, kind="stable")
        return cls(values[order], weights[order], prompt[order])

    def quantiles(self, kept: np.ndarray) -> list[float]:
        """The smallest values with no more than 1 - q of the weight above them, of the prompts `kept` (prompts,)."""
        import numpy as np

        reached = np.cumsum(self.weights * kept[self.prompt])
        least = (np.array([*QUANTILES.values()]) - 1e-9) * reached[-1]  # the slack of `quantile`
        return [float(value) for value in self.values[np.searchsorted(reached, least)]]


def quantile(values: np.ndarray, q: float) -> float:
    """The smallest of `values` (n,) with no more than 1 - q of them above it (Hyndman and Fan 1996, definition 1)."""
    import numpy as np

    place = len(values) - 1 - int((1 - q) * len(values) + 1e-9)  # the slack: 1 % of 500 is 5, whatever its last bit
    return float(np.partition(values, place)[place])


def tail_weights(untouched: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How far each of `values` (m,) is in the tail of `untouched` (n,): 1 above its 99 % quantile, 0 below, and at it
    the part that makes the weights of `untouched` itself sum to 1 % of n."""
    import numpy as np

    threshold = quantile(untouched, 1 - TAIL)
    part = (TAIL * len(untouched) - (untouched > threshold).sum()) / (untouched == threshold).sum()
    return np.where(values == threshold, min(max(part, 0.0), 1.0), values > threshold)


def _levels(student: np.ndarray) -> list[float]:
    return [quantile(student, q) for q in QUANTILES.values()]


def _tail(student: np.ndarray, untouched: np.ndarray) -> list[float]:
    """`tail_share` and `nll_2_tail`."""
    share = float(tail_weights(untouched, student).mean())
    weights = tail_weights(untouched, untouched)
    there = weights > 0  # infinity times 0 is not 0
    return [share, float(weights[there] @ student[there] / weights.sum())]


def _gaps(student: np.ndarray, untouched: np.ndarray) -> list[float]:
    mine = [*_levels(student), _tail(student, untouched)[1]]
    theirs = [*_levels(untouched), _tail(untouched, untouched)[1]]
    return _less(mine, theirs)


def _less(mine: list[float], theirs: list[float]) -> list[float]:
    return [a - b if math.isfinite(b) else math.nan for a, b in zip(mine, theirs, strict=True)]


def _scores(
    measures: list[Measure],
    statistic: Callable[..., list[float]],
    arms: list[Tokens],
    common: Iterable[str],
    seed: int,
    note: str = "",
) -> list[Score]:
    """`statistic` takes the tokens of each arm as one array, aligned, and gives the values of `measures`."""
    import numpy as np

    prompts = shuffled(common, seed)
    problem = _problem(arms, prompts)
    if problem:
        return _undefined(measures, len(prompts), problem)
    tokens = [np.concatenate([np.asarray(arm[p], dtype=float) for p in prompts]) for arm in arms]
    prompt = np.repeat(np.arange(len(prompts)), [len(arms[0][p]) for p in prompts])
    scores = jackknife_scores(measures, lambda kept: statistic(*(x[kept[prompt]] for x in tokens)), len(prompts), seed)
    zero = sum(int(np.isinf(x).sum()) for x in tokens[: len({id(arm) for arm in arms})])
    notes = [note, f"{zero} tokens have probability 0" if zero else ""]
    return [_told(score, *notes) for score in scores]


def _own_scores(arms: list[OwnTokens], common: Iterable[str], seed: int, note: str = "") -> list[Score]:
    """Of one arm its quantiles; of two the differences, first less second."""
    import numpy as np

    prompts, ending = shuffled(common, seed), "-vanilla" if len(arms) == 2 else ""
    infinite = "infinite in the untouched student's answers"
    measures = [Measure(f"nll_1_token_{name}{ending}", "nats/token", None, infinite) for name in QUANTILES]
    problem = _own_problem(arms, prompts)
    if problem:
        return _undefined(measures, len(prompts), problem)
    tokens = [Weighed.of([arm[p] for p in prompts]) for arm in arms]

    def statistic(kept: np.ndarray) -> list[float]:
        mine, *theirs = [arm.quantiles(kept) for arm in tokens]
        return _less(mine, theirs[0]) if theirs else mine

    scores = jackknife_scores(measures, statistic, len(prompts), seed)
    zero = sum(int(np.isinf(arm.values).sum()) for arm in tokens)
    return [_told(score, note, f"{zero} tokens have probability 0" if zero else "") for score in scores]


def _own_problem(arms: list[OwnTokens], prompts: list[str]) -> str:
    """Why nothing can be said about these tokens; empty when something can."""
    import numpy as np

    for arm in arms:
        empty = next((p for p, answers in arm.items() if not len(answers) or not all(map(len, answers))), None)
        if empty is not None:
            raise DataError(f"prompt {empty!r} has no answer, or one with no token; its EOS is one")
    if not prompts and arms[0]:
        return "no prompt in both arms"
    count = min(sum(len(answer) for p in prompts for answer in arm[p]) for arm in arms)
    if count < LEAST:
        return f"{count} tokens: at least {LEAST} are needed for a tail of 1 %"
    unknown = [p for p in prompts if any(np.isnan(answer).any() for arm in arms for answer in arm[p])]
    if unknown:
        return f"{len(unknown)} of {len(prompts)} prompts have answers without likelihood, the first {unknown[0]!r}"
    return ""


def _undefined(measures: list[Measure], n: int, note: str) -> list[Score]:
    return [Score(m.name, math.nan, n, unit=m.unit, higher_is_better=m.higher_is_better, note=note) for m in measures]


def _told(score: Score, *notes: str) -> Score:
    """With the notes, and an interval of a share that stays among the shares."""
    low, high = (score.low, score.high) if score.unit != "share of tokens" else (max(score.low, 0), min(score.high, 1))
    return dataclasses.replace(score, low=low, high=high, note="; ".join(filter(None, [score.note, *notes])))


def _problem(arms: list[Tokens], prompts: list[str]) -> str:
    """Why nothing can be said about these tokens; empty when something can."""
    import numpy as np

    for arm in arms:
        empty = next((p for p in arm if not len(arm[p])), None)
        if empty is not None:
            raise DataError(f"answer to prompt {empty!r} has no token; its EOS is one")
    if not prompts and arms[0]:
        return "no prompt in both arms"
    count = sum(len(arms[0][p]) for p in prompts)
    unlike = [p for p in prompts if len(arms[0][p]) != len(arms[-1][p])]
    if unlike:
        return f"{len(unlike)} answers differ in tokens between the arms, the first to prompt {unlike[0]!r}"
    if count < LEAST:
        return f"{count} tokens: at least {LEAST} are needed for a tail of 1 %"
    unknown = [p for p in prompts if any(np.isnan(arm[p]).any() for arm in arms)]
    if unknown:
        return f"{len(unknown)} of {len(prompts)} answers have no likelihood, the first to prompt {unknown[0]!r}"
    return ""
