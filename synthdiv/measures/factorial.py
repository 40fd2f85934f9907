"""Effects of factors and of their interactions on trained models, whatever combinations of levels there are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from synthdiv.core.lazy import np, special

NOT_ESTIMABLE = "cannot be estimated: combinations of these levels are missing"


class FactorEffect(NamedTuple):
    """An effect of one factor, or an interaction. `value`, with two levels each, is the difference of their means (of
    an interaction that of the differences), with more the root mean square of the effects of the levels; in the unit of
    the measure. `p` is of the F test on (`df`, `error_df`)."""

    name: str
    value: float
    df: int
    error_df: int
    p: float
    note: str = ""


def factorial_effects(cells: Mapping[tuple[str, ...], Sequence[float]], factors: Sequence[str]) -> list[FactorEffect]:
    """Return the effects of `factors` on `cells` (levels → a value per replicate, in one order), main effects first.
    Sums of squares are of type III, replicates are blocks, levels count equally. What the cells do not determine is
    named with a note and leaves the model."""
    rows = [(*cell, str(take), value) for cell, values in cells.items() for take, value in enumerate(values)]
    y, replicate = np.array([row[-1] for row in rows]), len(factors)
    levels = [sorted({str(row[at]) for row in rows}) for at in range(replicate + 1)]
    varied = [at for at in range(replicate) if len(levels[at]) > 1]
    coded = {at: [[(row[at] == one) - (row[at] == levels[at][-1]) for row in rows] for one in levels[at][:-1]]
             for at in (*varied, replicate)}  # fmt: skip
    terms = [term for size in range(1, len(varied) + 1) for term in itertools.combinations(varied, size)]
    columns: dict[tuple[int, ...], np.ndarray] = {(): np.array([[1] * len(rows), *coded[replicate]])}
    for term in terms:
        parts = itertools.product(*(coded[at] for at in term))
        columns[term] = np.array([np.prod(each, axis=0) for each in parts])

    def design(subset: Sequence[tuple[int, ...]]) -> np.ndarray:
        return np.concatenate([columns[term] for term in subset]).astype(float).T

    def fit(subset: Sequence[tuple[int, ...]]) -> tuple[float, np.ndarray]:
        beta = np.linalg.lstsq(design(subset), y, rcond=None)[0]
        return float(((y - design(subset) @ beta) ** 2).sum()), beta

    model_terms: list[tuple[int, ...]] = [()]
    for term in terms:
        more = design([*model_terms, term])
        model_terms += [term] * bool(np.linalg.matrix_rank(more) == more.shape[1])
    rest, beta = fit(model_terms)
    error_df, effects = len(rows) - len(beta), list[FactorEffect]()
    for term in terms:
        ends = {at: ": {} − {}".format(*levels[at]) if len(levels[at]) == 2 else "" for at in term}
        name, df, p = " × ".join(factors[at] + ends[at] for at in term), len(columns[term]), math.nan
        if term not in model_terms:
            effects.append(FactorEffect(name, math.nan, df, error_df, p, NOT_ESTIMABLE))
            continue
        first = sum(len(columns[other]) for other in model_terms[: model_terms.index(term)])
        fitted = columns[term].T @ beta[first : first + df]
        value = float(beta[first]) * 2 ** len(term) if df == 1 else float(np.sqrt((fitted**2).mean()))
        if error_df and rest > 0:
            without, _ = fit([other for other in model_terms if other != term])
            p = float(special.fdtrc(df, error_df, (without - rest) / df / (rest / error_df)))
        effects.append(FactorEffect(name, value, df, error_df, p, "" if error_df else "no replicates: no test"))
    return effects
