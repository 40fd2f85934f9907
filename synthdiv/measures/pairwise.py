"""Pairwise verdicts: the effect of order, scores of authors, and Bradley–Terry strengths. A verdict is P(first wins):
the probability that the text of the first author is preferred, in whichever order the two were shown. Bradley–Terry
strengths and length control are fitted with one logistic model that has a ridge penalty."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, fields, replace
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.measures.estimates import (
    Estimate,
    Ids,
    Measure,
    mean_of,
    prompt_means,
    prompt_numbers,
    set_estimates,
    undefined,
)

POSITION = Measure("position_bias", "P(shown first wins) - 0.5", None, "no two authors in both orders", -0.5, 0.5)
FLIPS = Measure("flips", "share of pairs", False, "no pair has a verdict in both orders", 0.0, 1.0)
TIES = Measure("ties", "share of verdicts", None, "no verdict", 0.0, 1.0)
WINS = Measure("wins", "share of votes", None, "no prompt has a verdict on all pairs of authors", 0.0, 1.0)
NO_PAIR = "no pair of two authors has a verdict"
COVARIATES = ("length", "quality")
RIDGE = 1.0  # as if each penalised term were known beforehand to be 0 ± 1
MOST_STEPS = 100  # of Newton's method, which needs about 6


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of answers to the same prompts, one row each (n,), in orders that were averaged.

    `wins` is P(first wins) by the judge, `panel` by a panel or labels, NaN for none. `length` (standardised) and
    `quality` (in the panel's units) are differences, the first author's minus the second's; NaN where unknown.
    """

    prompt: np.ndarray
    first: np.ndarray
    second: np.ndarray
    wins: np.ndarray
    panel: np.ndarray
    length: np.ndarray
    quality: np.ndarray

    @property
    def authors(self) -> list[str]:
        return sorted({*self.first.tolist(), *self.second.tolist()})

    def take(self, rows: np.ndarray) -> Pairs:
        return Pairs(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def of(self, author: str) -> Pairs:
        """The pairs of `author` with another one, with `author` as the first."""
        part = self.take((self.first == author) != (self.second == author))
        turn = part.second == author
        first, second = np.where(turn, part.second, part.first), np.where(turn, part.first, part.second)
        shares = {name: np.where(turn, 1 - getattr(part, name), getattr(part, name)) for name in ("wins", "panel")}
        gaps = {name: np.where(turn, -getattr(part, name), getattr(part, name)) for name in COVARIATES}
        return replace(part, first=first, second=second, **shares, **gaps)


def order_scores(forward: Any, backward: Any, prompts: Ids = None, authors: Ids = None) -> list[Estimate]:
    """Return position bias, flips and ties of pairs with the verdict P(first wins) `forward` (n,) where the first
    author's text was shown first, and `backward` (n,) where it was shown second; NaN for no verdict.

    A flip is a pair whose winner changes with the order; a tie a verdict of 0.5. Pairs with a verdict in one order show
    a position bias if orders were drawn at random: it is then estimated among pairs of the same `authors` (n,), so that
    it is free of who wins.
    """
    a, b = np.asarray(forward, dtype=float), np.asarray(backward, dtype=float)
    prompt = prompt_numbers(prompts, len(a))
    flips = np.where(np.isnan(a + b), math.nan, (a - 0.5) * (b - 0.5) < 0)
    verdicts = np.concatenate([a, b])
    ties = np.where(np.isnan(verdicts), math.nan, verdicts == 0.5)
    position = mean_of(POSITION, prompt_means((a - b) / 2, prompt))
    if single := int((np.isnan(a) != np.isnan(b)).sum()):
        strata = np.zeros(len(a), dtype=int) if authors is None else prompt_numbers(authors, len(a))
        ids = prompt.tolist()
        position = set_estimates([POSITION], lambda keep: [position_bias(a, b, strata, keep)], ids, len(a))[0]
        position = position.with_note(f"{single} of {len(a)} pairs have a verdict in one order only")
    return [
        position,
        mean_of(FLIPS, prompt_means(flips, prompt), int((~np.isnan(flips)).sum())),
        mean_of(TIES, prompt_means(ties, np.concatenate([prompt, prompt])), int((~np.isnan(ties)).sum())),
    ]


def position_bias(forward: np.ndarray, backward: np.ndarray, strata: np.ndarray, keep: np.ndarray) -> float:
    """Return half the difference of P(first wins) between the two orders, the mean over strata by their pairs; strata
    that lack an order are left out."""
    a, b = (prompt_means(np.where(keep, each, math.nan), strata) for each in (forward, backward))
    size = np.bincount(strata[keep], minlength=len(a)) * ~np.isnan(a + b)
    return float((np.nan_to_num(a - b) / 2 * size).sum() / size.sum()) if size.sum() else math.nan


def missing_pairs(pairs: Pairs) -> list[tuple[Hashable, str, str]]:
    """Return the prompt and the authors of each pair without a verdict, of all pairs of authors for each prompt."""
    authors = pairs.authors
    judged = {
        (prompt, *sorted((first, second)))
        for prompt, first, second, wins in zip(pairs.prompt, pairs.first, pairs.second, pairs.wins, strict=True)
        if wins == wins
    }
    author_pairs = [(one, other) for index, one in enumerate(authors) for other in authors[index + 1 :]]
    prompts = dict.fromkeys(pairs.prompt.tolist())
    return [(prompt, *pair) for prompt in prompts for pair in author_pairs if (prompt, *pair) not in judged]


def author_scores(pairs: Pairs) -> dict[str, Estimate]:
    """Return each author's mean P(wins) over its pairs, on the prompts that have a verdict on all pairs of authors.

    There the mean over authors is 0.5 (asserted). Other prompts are left out, because an author would otherwise be
    compared with easier opponents; the note counts them and `missing_pairs` lists them.
    """
    missing = missing_pairs(pairs)
    partial = {prompt for prompt, *_ in missing}
    number = prompt_numbers(pairs.prompt.tolist(), len(pairs.prompt))
    prompts = dict.fromkeys(pairs.prompt.tolist())
    whole = np.array([prompt not in partial for prompt in pairs.prompt.tolist()], dtype=bool)
    note = f"{len(partial)} of {len(prompts)} prompts left out: {len(missing)} pairs without a verdict" * bool(missing)
    scores = {}
    for author in pairs.authors:
        part = [(pairs.first == author, pairs.wins), (pairs.second == author, 1 - pairs.wins)]
        wins = np.concatenate([value[whole & rows] for rows, value in part])
        of = np.concatenate([number[whole & rows] for rows, _ in part])
        values = prompt_means(wins, of, len(prompts))
        defined = values[~np.isnan(values)]
        scores[author] = mean_of(WINS, defined, note=note) if len(defined) else undefined(WINS, note or WINS.undefined)
    mean = sum(each.value for each in scores.values()) / max(len(scores), 1)
    assert math.isnan(mean) or not scores or abs(mean - 0.5) < 1e-9, f"the scores of all authors average {mean}"
    return scores


def strengths(pairs: Pairs, covariates: tuple[str, ...] = (), seed: int = 0) -> dict[str, Estimate]:
    """Return the Bradley–Terry strength of each author, in log-odds around a mean of 0, and the `covariates` (length,
    quality) of the same model: the log-odds for one unit of difference.

    Verdicts are P(first wins), not votes, and may be incomplete as long as pairs connect the authors. A row that lacks
    a covariate is left out. The interval leaves out groups of prompts.
    """
    names = [*pairs.authors, *covariates]
    rows = pairs.take(usable(pairs, covariates))
    terms = design(rows, pairs.authors, covariates)
    titles = [*(f"strength/{name}" for name in pairs.authors), *(f"term/{name}" for name in covariates)]
    measures = [Measure(title, "log-odds", None, NO_PAIR) for title in titles]

    def fit(keep: np.ndarray) -> np.ndarray:
        return logistic_terms(terms[keep], rows.wins[keep], np.ones(len(names), dtype=bool))

    left_out = len(pairs.wins) - len(rows.wins)
    note = f"{left_out} of {len(pairs.wins)} pairs left out: no verdict or no {' or '.join(covariates)}" * bool(
        left_out
    )
    estimates = set_estimates(measures, fit, rows.prompt.tolist(), len(rows.wins), seed)
    return {name: each.with_note(note) for name, each in zip(names, estimates, strict=True)}


def usable(pairs: Pairs, covariates: tuple[str, ...] = ()) -> np.ndarray:
    """Return which rows (n,) compare two authors and have a verdict and all covariates."""
    known = np.isfinite(pairs.wins) & (pairs.first != pairs.second)
    return np.logical_and.reduce([known, *(np.isfinite(getattr(pairs, name)) for name in covariates)])


def design(pairs: Pairs, authors: list[str], covariates: tuple[str, ...] = ()) -> np.ndarray:
    """Return the terms (n, k) of the model: 1 for the first author, -1 for the second, and the covariates."""
    sides = [(pairs.first == author).astype(float) - (pairs.second == author) for author in authors]
    return np.column_stack([*sides, *(getattr(pairs, name) for name in covariates)])


def contrast(strength: np.ndarray, author: int, authors: int) -> float:
    """Return an author's strength minus the mean of the others': it does not depend on how many these are."""
    others = [strength[index] for index in range(authors) if index != author]
    return float(strength[author] - sum(others) / len(others)) if others else math.nan


def logistic_terms(terms: np.ndarray, wins: np.ndarray, penalised: np.ndarray) -> np.ndarray:
    """Return the coefficients (k,), in log-odds, of a logistic model of `wins` (n,), each between 0 and 1.

    `terms` is (n, k); `penalised` (k,) says which coefficients the ridge penalty shrinks. NaN for no rows. With the
    penalty the coefficients are finite even if one side always wins, and those of authors sum to 0.

    Newton's method on the likelihood of statsmodels' GLM (binomial). Its `fit_regularized` descends by coordinates and
    stops about 3e-5 from the optimum, which the jackknife would multiply by 19.
    """
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    if not len(wins):
        return np.full(terms.shape[1], np.nan)
    model, ridge = GLM(wins, terms, family=Binomial()), np.where(penalised, RIDGE, 0.0)
    fitted = np.zeros(terms.shape[1])
    for _ in range(MOST_STEPS):
        slope = model.score(fitted, scale=1.0) - ridge * fitted
        step = np.linalg.solve(np.diag(ridge) - model.hessian(fitted, scale=1.0), slope)
        fitted += step
        if abs(step).max() < 1e-9:
            return fitted
    return np.full(terms.shape[1], np.nan)
