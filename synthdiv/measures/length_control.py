"""The effect of length on verdicts, and a win rate without it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.measures.estimates import Estimate, Ids, Measure, mean_of, prompt_means, prompt_numbers, set_estimates
from synthdiv.measures.pairwise import logistic_terms

MIN_SIDE = 0.1  # share of pairs in which one answer is the longer one
CONTROLLED = Measure("length_controlled_win_rate", "share of pairs", True, "no pair with a verdict", 0.0, 1.0)
TERM = Measure("length_term", "log-odds per tanh of a standard deviation", None, "no pair with a verdict")
LONGER = Measure("votes_for_longer", "share of pairs", None, "no pair of unequal length has a verdict", 0.0, 1.0)


def standardised(difference: Any, scale: float) -> np.ndarray:
    """Return tanh(difference / scale): differences of lengths beyond about two `scale` count alike."""
    return np.tanh(np.asarray(difference, dtype=float) / scale)


def length_controlled(
    wins: Any, difference: Any, scale: float, prompts: Ids = None, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Return the win rate of the first answer at equal length, and the length term of the model (in log-odds).

    `wins` (n,) is P(first wins), NaN for no verdict; `difference` (n,) is the length of the first answer minus that of
    the second, `scale` the standard deviation of such differences, one for all arms. The minimal form of Dubois et al.
    2024 (arXiv 2404.04475): a logistic model of an intercept and tanh(difference / scale), with ridge on the latter,
    predicted at 0. It is fitted again in each resample. NaN where one side is the longer one in fewer than 10 % of
    pairs, because the model would then extrapolate.
    """
    y = np.asarray(wins, dtype=float)
    length = standardised(difference, scale)
    defined = ~np.isnan(y + length)
    ids = [prompt for prompt, use in zip(prompts or range(len(y)), defined, strict=True) if use]
    y, length = y[defined], length[defined]
    terms, penalised = np.column_stack([np.ones(len(y)), length]), np.array([False, True])

    def fit(keep: np.ndarray) -> list[float]:
        if len(np.unique(y[keep])) == 1 and y[keep][0] in (0, 1):
            return [y[keep][0], 0.0]  # one side always wins: the intercept, which has no penalty, would be infinite
        intercept, slope = logistic_terms(terms[keep], y[keep], penalised)
        return [1 / (1 + math.exp(-intercept)), slope]

    rate, term = set_estimates([CONTROLLED, TERM], fit, ids, len(y), seed)
    sides = [float((side > 0).mean()) if len(y) else math.nan for side in (length, -length)]
    if min(sides) < MIN_SIDE:
        shares = f"the first answer is longer in {sides[0]:.0%} of pairs and shorter in {sides[1]:.0%}"
        reason = f"{shares}, and length control needs {MIN_SIDE:.0%} on either side"
        rate, term = (replace(each, value=math.nan, reason=reason) for each in (rate, term))
    return rate, term


def votes_for_longer(wins: Any, difference: Any, prompts: Ids = None) -> Estimate:
    """Return the share of votes for the longer answer, with `wins` and `difference` as above; mean over prompts."""
    y, gap = np.asarray(wins, dtype=float), np.asarray(difference, dtype=float)
    votes = np.where(gap == 0, math.nan, np.where(gap > 0, y, 1 - y))
    trials = int((~np.isnan(votes)).sum())
    return mean_of(LONGER, prompt_means(votes, prompt_numbers(prompts, len(y))), trials)
