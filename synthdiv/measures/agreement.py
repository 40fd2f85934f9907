"""How far a judge agrees with labels: Krippendorff's α, the share of equal verdicts, and discrimination (AUC)."""

from __future__ import annotations

import math
from typing import Any, Literal

from synthdiv.core.lazy import np
from synthdiv.measures.estimates import Estimate, Ids, Measure, mean_of, prompt_means, prompt_numbers, set_estimates

Level = Literal["nominal", "ordinal", "interval"]

MIN_DISCRIMINATION = 0.55  # below this a judge cannot tell better from worse
MOST_VALUES = 200  # distinct ratings; the cost of α grows with their square
ALPHA = Measure("alpha", "Krippendorff's α", True, "no item has two ratings, or all ratings are equal", high=1.0)
AGREEMENT = Measure(
    "agreement", "share of items", True, "no item has a label and a verdict that takes a side", 0.0, 1.0
)
DISCRIMINATION = Measure(
    "discrimination", "AUC", True, "no two items with different labels", 0.0, 1.0, "0.5: the judge cannot discriminate"
)


def krippendorff_alpha(ratings: Any, level: Level = "nominal", prompts: Ids = None, seed: int = 0) -> Estimate:
    """Return α of `ratings` (raters, items), NaN where a rater gave none; `level` is nominal, ordinal or interval.

    Computed by evalica (Krippendorff 2018, Content Analysis, ch. 12). 1 is full agreement, 0 that of chance, below 0
    systematic disagreement. Undefined where all ratings are equal, because then no agreement by chance is known. More
    than 200 distinct ratings are rounded to 200 steps of their range. The interval leaves out groups of `prompts`.
    """
    x = np.asarray(ratings, dtype=float)
    if level != "nominal" and len(np.unique(x[~np.isnan(x)])) > MOST_VALUES:
        step = float(np.nanmax(x) - np.nanmin(x)) / MOST_VALUES
        x = np.round(x / step) * step
    paired = (~np.isnan(x)).sum(axis=0) > 1
    ids = [prompt for prompt, both in zip(prompts or range(x.shape[1]), paired, strict=True) if both]
    x = x[:, paired]
    return set_estimates([ALPHA], lambda keep: [alpha(x[:, keep], level)], ids, x.shape[1], seed)[0]


def alpha(ratings: np.ndarray, level: Level) -> float:
    import evalica
    import pandas as pd

    values = ratings[~np.isnan(ratings)]
    if not len(values) or (values == values[0]).all():
        return math.nan
    return float(evalica.alpha(pd.DataFrame(ratings), distance=level).alpha)


def agreement(judge: Any, label: Any, prompts: Ids = None) -> Estimate:
    """Return the share of pairs in which judge and label take the same side; both are P(first wins) (n,). Ties of
    either (0.5) and NaN are left out and counted in the note."""
    a, b = np.asarray(judge, dtype=float), np.asarray(label, dtype=float)
    sides = ~np.isnan(a + b) & (a != 0.5) & (b != 0.5)
    same = np.where(sides, (a > 0.5) == (b > 0.5), math.nan)
    ties = int((~np.isnan(a + b)).sum() - sides.sum())
    note = f"{ties} pairs with a tie left out" if ties else ""
    return mean_of(AGREEMENT, prompt_means(same, prompt_numbers(prompts, len(a))), int(sides.sum()), note=note)


def discrimination(judge: Any, label: Any, prompts: Ids = None, seed: int = 0, pairs: bool = True) -> Estimate:
    """Return the AUC of `judge` (n,) against `label` (n,): P(judge ranks higher what the label ranks higher), ties one
    half, over all two items whose labels differ. For `pairs` both are P(first wins), only the side of a label counts,
    and each pair enters in both orders, so that which author is called the first does not matter."""
    a, b = np.asarray(judge, dtype=float), np.asarray(label, dtype=float)
    number = prompt_numbers(prompts, len(a))
    if pairs:
        a = np.round(np.concatenate([a, 1 - a]), 12)  # 1 - (1 - 0.2) is not 0.2
        b = np.sign(np.concatenate([b, 1 - b]) - 0.5)
        b, number = np.where(b == 0, math.nan, b), np.concatenate([number, number])
    defined = ~np.isnan(a + b)
    a, b, ids = a[defined], b[defined], number[defined].tolist()
    return set_estimates([DISCRIMINATION], lambda keep: [concordance(a[keep], b[keep])], ids, len(a), seed)[0]


def concordance(value: np.ndarray, label: np.ndarray) -> float:
    """Return P(value higher | label higher) + P(equal value | label higher) / 2 over all two items of different labels;
    for labels of two levels it is the area under the ROC curve. NaN for labels of one level."""
    levels = [np.sort(value[label == level]) for level in np.unique(label)]
    lower, won, total = np.empty(0), 0.0, 0
    for values in levels:
        won += (np.searchsorted(lower, values, "left") + np.searchsorted(lower, values, "right")).sum() / 2
        total += len(lower) * len(values)
        lower = np.sort(np.concatenate([lower, values]))
    return won / total if total else math.nan
