"""Distance of a student's distribution q from a known human distribution p, by exact sums over the support of p.

For one prompt: p, the probabilities of all human answers, and log q of the same answers in nats, EOS included. Nothing
is smoothed: an answer of probability 0 under q makes the excess NLL infinite. q of a string is the probability of its
canonical tokenisation; the mass of other tokenisations counts as off the support.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.estimates import VANILLA, Measure, join_notes, mean_of, undefined

TERCILES = ("head", "middle", "tail")
COVERAGE_RATIO = 0.1  # an answer is covered if q >= this ratio times p
FLOOR = 0.05  # a mean coverage below it says only that q is far from p
INTERVAL_SCOPE = "interval over prompts: this model, not this method"
COVERAGES = ("truth/coverage", *(f"truth/coverage_{tercile}" for tercile in TERCILES))
SHARE = "share"
INFINITE = "q is 0 on a human answer"
ALL = (  # their prompts without a value are those of a difference of two infinite values
    Measure("truth/js", "nats", False, INFINITE, 0.0, math.log(2)),
    Measure("truth/excess_nll", "nats/answer", False, INFINITE, 0.0),
    Measure("truth/excess_nll_facts", "nats/answer", False, INFINITE),
    Measure("truth/excess_nll_words", "nats/answer", False, INFINITE),
    Measure("truth/off_support", SHARE, False, INFINITE, 0.0, 1.0),
    Measure("truth/support_kl", "nats/answer", False, "q has no mass on the human answers", 0.0),
    *(Measure(name, SHARE, True, "no human answer in this part", 0.0, 1.0) for name in COVERAGES),
)
MEASURES = {each.name: each for each in ALL}


def js_divergence(p: np.ndarray, log_q: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence in nats: 0 if q = p, log 2 if they share no answer. The mass of q off the
    support counts half of log 2, whatever is there."""
    q = np.exp(log_q)
    some, middle = q > 0, (p + q) / 2
    reverse = q[some] @ (log_q[some] - np.log(middle[some]))
    return float(p @ np.log(p / middle) + reverse + off_support(log_q) * math.log(2)) / 2


def excess_nll(p: np.ndarray, log_q: np.ndarray) -> float:
    """Return E_p[-log q] - H(p) = KL(p || q) in nats per answer: >= 0, 0 only if q = p; can be infinite."""
    return float(p @ (np.log(p) - log_q))


def off_support(log_q: np.ndarray) -> float:
    """Return the mass of q off the support of p; rounding below 0 is clipped."""
    return max(1 - float(np.exp(log_q).sum()), 0.0)


def support_kl(p: np.ndarray, log_q: np.ndarray) -> float:
    """Return KL(q' || p) in nats per answer; q' is q normalised on the human answers. NaN if q has no mass on them."""
    if log_q.max() == -math.inf:
        return math.nan
    log_q = log_q - log_q.max()
    log_q -= math.log(np.exp(log_q).sum())
    some = log_q > -math.inf
    return float(np.exp(log_q[some]) @ (log_q[some] - np.log(p[some])))


def terciles(p: np.ndarray) -> np.ndarray:
    """Return 0, 1 or 2 for each answer: the third of the mass of p (head, middle, tail) in which it begins.

    Answers are ordered by decreasing p. They are not divided, so the thirds have equal mass only up to one answer, and
    can be empty for few answers.
    """
    order = np.argsort(-p, kind="stable")
    before = np.cumsum(p[order]) - p[order]
    tercile = np.empty(len(p), dtype=int)
    # The tolerance splits equal answers evenly: three times 1/9 can exceed 1/3 by rounding.
    tercile[order] = np.searchsorted([1 / 3 - 1e-9, 2 / 3 - 1e-9], before, side="right")
    return tercile


def coverage(p: np.ndarray, log_q: np.ndarray) -> list[float]:
    """Return the mass of p on answers with q >= p / 10: of all answers, head, middle and tail. The share of a tercile
    is relative to its own mass, so 1 is full coverage of each; NaN for an empty tercile."""
    covered = log_q >= np.log(p) + math.log(COVERAGE_RATIO) - 1e-9  # a tie counts as covered despite rounding
    third = terciles(p)
    parts = [third >= 0, *(third == number for number in range(len(TERCILES)))]
    return [float(p[part & covered].sum() / p[part].sum()) if part.any() else math.nan for part in parts]


def truth_values(p: np.ndarray, log_q: np.ndarray, law_nll: np.ndarray, value_nll: np.ndarray) -> dict[str, float]:
    """Return every measure of one prompt by the name of its score.

    `law_nll` and `value_nll` are -log of the value stated given all that precedes it, under p and under q: the chain
    rule gives their difference to facts and the rest of the excess NLL to words. Raises ValueError for arrays that do
    not match or are no distributions.
    """
    p, log_q = np.asarray(p, dtype=float), np.asarray(log_q, dtype=float)
    if p.shape != log_q.shape or abs(p.sum() - 1) > 1e-6 or (p <= 0).any() or not np.exp(log_q).sum() < 1.001:
        raise ValueError("needs p > 0 that sums to 1 and as many log q, whose mass is at most 1")
    excess, facts = excess_nll(p, log_q), float(p @ (value_nll - law_nll))
    words = math.inf if math.isinf(excess) else excess - facts  # which part is infinite is not defined
    columns = js_divergence(p, log_q), excess, facts, words, off_support(log_q), support_kl(p, log_q)
    return dict(zip(MEASURES, (*columns, *coverage(p, log_q)), strict=True))


def truth_score(name: str, values: Sequence[float]) -> Score:
    """Return the mean over prompts, or that of differences where the name ends in `VANILLA`, with an interval over
    them. NaN values are left out and counted in the note; a coverage on its floor is NaN, and a difference with an
    infinite value."""
    difference = name.endswith(VANILLA)
    name = name.removesuffix(VANILLA)
    measure = MEASURES.get(name) or Measure(name, SHARE, None, "no answer", 0.0, 1.0)
    infinite = int(np.isinf(np.asarray(values, dtype=float)).sum())
    note = f"infinite for {infinite} of {len(values)} prompts: {INFINITE}" if infinite else ""
    if infinite and difference:
        estimate = undefined(measure, note, len(values))
    else:
        estimate = mean_of(measure, values, note=note)
    if name in COVERAGES and not difference and estimate.value < FLOOR:
        reason = f"on its floor: q has at least p/10 on {estimate.value:.1%} of p; read truth/js"
        estimate = replace(estimate, value=math.nan, reason=reason)
    score = replace(estimate, difference=difference).score()
    return score if math.isnan(score.low) else replace(score, note=join_notes(score.note, INTERVAL_SCOPE))


def dialect_scores(posteriors: Sequence[np.ndarray], dialects: Sequence[str]) -> list[Score]:
    """Return the share of each dialect and of `off` among sampled answers, averaged within each prompt first; none is
    better. `posteriors` has one (answers, dialects) array per prompt; an answer of no dialect is a row of zeros."""
    means = np.array([rows.mean(axis=0) for rows in posteriors]).reshape(-1, len(dialects))
    columns = np.column_stack([means, 1 - means.sum(axis=1)]).T
    return [truth_score(f"truth/dialect/{name}", row) for name, row in zip([*dialects, "off"], columns, strict=True)]
