"""Effects of factors and of their interactions on trained models, whatever combinations of levels there are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NOT_ESTIMABLE = "cannot be estimated: no cell has {}"


@dataclass(frozen=True)
class FactorEffect:
    """An effect of one factor, or an interaction of several. `value`, with two levels each, is the difference of the
    means of the levels (of an interaction the difference of the differences), with more levels the root mean square of
    the effects of the levels; in the unit of the measure. `p` is of the F test on (`df`, `error_df`)."""

    factors: tuple[str, ...]
    value: float
    df: int
    error_df: float = math.nan
    p: float = math.nan
    note: str = ""


def factorial_effects(cells: Mapping[tuple[str, ...], Sequence[float]], factors: Sequence[str]) -> list[FactorEffect]:
    """Return the effects of `factors` on `cells` (levels → a value per replicate, replicates in one order), main
    effects before interactions. Sums of squares are of type III, replicates are blocks, levels count equally. An
    interaction of which a combination of levels is missing is named with a note and not fitted."""
    import numpy as np
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    levels = [list(dict.fromkeys(cell[at] for cell in cells)) for at in range(len(factors))]
    varied = [at for at, each in enumerate(levels) if len(each) > 1]
    terms = [term for size in range(1, len(varied) + 1) for term in itertools.combinations(varied, size)]
    missing = {
        term: [combination for combination in itertools.product(*(levels[at] for at in term))
               if combination not in {tuple(cell[at] for at in term) for cell in cells}]
        for term in terms
    }  # fmt: skip
    rows = [(*cell, str(take), value) for cell, values in cells.items() for take, value in enumerate(values)]
    frame = pandas.DataFrame(rows, columns=[*(f"f{at}" for at in range(len(factors))), "replicate", "y"])
    names = {term: ":".join(f"C(f{at}, Sum)" for at in term) for term in terms}
    fit = ols(" + ".join(["y ~ C(replicate, Sum)", *(names[term] for term in terms if not missing[term])]), frame).fit()
    table = anova_lm(fit, typ=3) if fit.df_resid > 0 else None
    effects = []
    for term in terms:
        labels, df = tuple(factors[at] for at in term), math.prod(len(levels[at]) - 1 for at in term)
        if missing[term]:
            lacks = "; ".join(" with ".join(each) for each in missing[term][:3])
            effects.append(FactorEffect(labels, math.nan, df, note=NOT_ESTIMABLE.format(lacks)))
            continue
        columns = [column for column in fit.params.index if column.count("[S.") == len(term) and all(
            f"C(f{at}, Sum)" in column for at in term)]  # fmt: skip
        design = fit.model.exog[:, [list(fit.params.index).index(column) for column in columns]]
        fitted = design @ fit.params[columns].to_numpy()
        value = float(fit.params[columns].iloc[0]) * 2 ** len(term) if df == 1 else float(np.sqrt((fitted**2).mean()))
        p = float(table.loc[names[term], "PR(>F)"]) if table is not None else math.nan
        effects.append(FactorEffect(labels, value, df, float(fit.df_resid), p, "" if table is not None else "no test"))
    return effects
