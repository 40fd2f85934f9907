"""Does a judge prefer texts of its own? Its bias against a panel, and a baseline that holds the judge fixed."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace
from typing import NamedTuple

from synthdiv.core.lazy import np
from synthdiv.measures.agreement import MIN_DISCRIMINATION, discrimination
from synthdiv.measures.estimates import Estimate, Measure, mean_of, prompt_means, prompt_numbers, set_estimates
from synthdiv.measures.length_control import length_controlled
from synthdiv.measures.pairwise import Pairs, contrast, design, logistic_terms, usable

NO_OVERLAP = "no pair has a verdict and a label"
BIAS = Measure("self_bias", "log-odds", None, NO_OVERLAP)
SCALED = Measure("self_bias_per_quality", "units of quality", None, NO_OVERLAP)
SLOPE = Measure("quality_slope", "log-odds per unit of quality", True, NO_OVERLAP)
NO_PAIR = "no pair of its own text has a verdict and a label"
VOTES = Measure("votes_for_itself", "share of votes", None, NO_PAIR, 0.0, 1.0)
OVER_PANEL = Measure("votes_for_itself_over_panel", "share of votes", None, NO_PAIR, -1.0, 1.0)
EQUAL = Measure("votes_for_itself_at_equal_quality", "share of votes", None, "no pair of equal quality", 0.0, 1.0)
EQUAL_LENGTH = EQUAL._replace(
    name="votes_for_itself_at_equal_quality_and_length",
    undefined="no pair of equal quality has a verdict and lengths",
)
BASELINE = Measure(
    "self_preference_over_baseline", "share of votes", None, "no prompt has an equally bad answer of another", -1.0, 1.0
)
CALIPER = 0.1  # in P(wins) by the panel: answers are equally good or bad within this


class SelfBias(NamedTuple):
    bias: Estimate
    scaled: Estimate
    slope: Estimate
    discrimination: Estimate


def self_bias(pairs: Pairs, author: str, covariates: tuple[str, ...] = (), seed: int = 0) -> SelfBias:
    """Return the bias of a judge toward an author, the same in units of quality, the judge's quality slope, and its
    discrimination, on the pairs with a verdict of judge and panel.

    The bias is a difference of two Bradley–Terry models, the judge's minus the panel's: the author against the mean of
    the others, with `covariates` held fixed in both. "quality" belongs to these only where it was measured apart
    from the panel's verdicts (by ratings): otherwise it explains all of the panel's model and leaves the noise of its
    verdicts to the judge. The slope is the quality term of the judge's model of authors, covariates and quality. A
    judge that hardly discriminates has small log-odds for everything, its bias included, so the bias is also divided by
    the slope. NaN, "not identifiable", if the judge's AUC against the panel is below 0.55, and for the quotient if the
    interval of the slope holds 0.
    """
    both = pairs.take(usable(pairs, (*covariates, "panel", "quality")))
    authors = both.authors
    place = authors.index(author) if author in authors else -1
    others = tuple(name for name in covariates if name != "quality")
    full = design(both, authors, (*others, "quality"))
    plain = full if "quality" in covariates else full[:, :-1]

    def fit(keep: np.ndarray) -> list[float]:
        penalised = np.ones(full.shape[1], dtype=bool)
        if place < 0 or len(authors) < 2:
            return [math.nan] * 3
        size = plain.shape[1]
        judge, panel = (logistic_terms(plain[keep], y[keep], penalised[:size]) for y in (both.wins, both.panel))
        slope = float(logistic_terms(full[keep], both.wins[keep], penalised)[-1])
        bias = contrast(judge, place, len(authors)) - contrast(panel, place, len(authors))
        return [bias, bias / slope if slope else math.nan, slope]

    prompts = both.prompt.tolist()
    bias, scaled, slope = set_estimates([BIAS, SCALED, SLOPE], fit, prompts, len(prompts), seed)
    auc = discrimination(both.wins, both.panel, prompts, seed)
    if place < 0 or len(authors) < 2:
        reason = f"no pair of {author} and another author has a verdict and a label"
        bias, scaled, slope = (replace(each, value=math.nan, reason=reason) for each in (bias, scaled, slope))
    elif not auc.value >= MIN_DISCRIMINATION:
        reason = f"not identifiable: discrimination {auc.value:.2f} is below {MIN_DISCRIMINATION}"
        bias, scaled = (replace(each, value=math.nan, reason=reason) for each in (bias, scaled))
    elif not (score := slope.score()).low > 0 and not score.high < 0:
        scaled = replace(scaled, value=math.nan, reason="not identifiable: the interval of the quality slope holds 0")
    return SelfBias(bias, scaled, slope, auc)


def votes_for_author(pairs: Pairs, author: str) -> tuple[Estimate, Estimate, Estimate]:
    """Return the share of votes for an author by the judge, by the panel, and the paired difference, on the pairs that
    have a verdict of both; means over prompts."""
    part = pairs.of(author)
    number, gaps = prompt_numbers(part.prompt.tolist(), len(part.prompt)), part.wins - part.panel
    votes = (np.where(np.isnan(gaps), math.nan, each) for each in (part.wins, part.panel))
    judge, panel = (mean_of(VOTES, prompt_means(each, number)) for each in votes)
    return judge, panel, mean_of(OVER_PANEL, prompt_means(gaps, number))


def votes_at_equal_quality(pairs: Pairs, author: str) -> Estimate:
    """Return the share of the judge's votes for `author` where the panel finds both equally good (unbiased: 0.5)."""
    part = pairs.of(author)
    votes = np.where(abs(part.panel - 0.5) <= CALIPER, part.wins, math.nan)
    return mean_of(EQUAL, prompt_means(votes, prompt_numbers(part.prompt.tolist(), len(votes))))


def votes_at_equal_quality_and_length(pairs: Pairs, author: str, scale: float, seed: int = 0) -> Estimate:
    """Return the same predicted at equal length: `length_controlled` on these pairs, with `scale` as there. Where no
    two texts differ in length it is the share of votes."""
    part = pairs.of(author)
    part = part.take(abs(part.panel - 0.5) <= CALIPER)
    known = ~np.isnan(part.wins + part.length)
    if known.any() and not part.length[known].any():
        return replace(votes_at_equal_quality(pairs, author), measure=EQUAL_LENGTH)
    rate, _ = length_controlled(part.wins, part.length, scale, part.prompt.tolist(), seed)
    note = f"{known.sum()} of {len(known)} pairs of equal quality have a verdict and lengths" * (not known.all())
    rate = replace(rate, measure=EQUAL_LENGTH).with_note(note)
    return rate if len(known) else replace(rate, value=math.nan, reason=EQUAL.undefined)


def over_baseline(pairs: Pairs, author: str) -> Estimate:
    """Return how much more often the judge votes for its own worse answer than for another author's equally bad one.

    A judge that errs on hard prompts votes for bad answers whoever wrote them; this holds judge and prompt fixed. For
    each pair in which the panel finds `author` worse, the comparison is the judge's mean vote for the worse answer over
    the pairs of two other authors, same prompt, whose worse answer has the panel's P(wins) within 0.1. The value is the
    mean over prompts; pairs without such a comparison are left out and counted.
    """
    worse = pairs.of(author)
    worse = worse.take((worse.panel < 0.5) & ~np.isnan(worse.wins))
    others = pairs.take((pairs.first != author) & (pairs.second != author) & (pairs.first != pairs.second))
    others = others.take((others.panel != 0.5) & ~np.isnan(others.wins + others.panel))
    worse_first = others.panel < 0.5
    vote, badness = (np.where(worse_first, x, 1 - x) for x in (others.wins, others.panel))
    rows: dict[Hashable, list[int]] = {}
    for row, prompt in enumerate(others.prompt.tolist()):
        rows.setdefault(prompt, []).append(row)
    gaps = np.full(len(worse.wins), math.nan)
    for row, prompt in enumerate(worse.prompt.tolist()):
        equal = [other for other in rows.get(prompt, []) if abs(badness[other] - worse.panel[row]) <= CALIPER]
        gaps[row] = worse.wins[row] - vote[equal].mean() if equal else math.nan
    unmatched = int(np.isnan(gaps).sum())
    note = f"{unmatched} of {len(gaps)} pairs have no equally bad answer of another" if unmatched else ""
    return mean_of(BASELINE, prompt_means(gaps, prompt_numbers(worse.prompt.tolist(), len(gaps))), note=note)
