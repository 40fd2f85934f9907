"""What labelled ratings say of a judge: agreement, discrimination, and what moves its ratings away from the labels'."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from synthdiv.measures.agreement import Level, discrimination, krippendorff_alpha
from synthdiv.measures.estimates import Estimate, Measure, mean_of, prompt_means, prompt_numbers, set_estimates
from synthdiv.views.judge.labelled import Labelled
from synthdiv.views.judge.pair_scores import JUDGE, LABELS, NO_VERDICT, renamed

if TYPE_CHECKING:
    import numpy as np

    from synthdiv.core.types import Score

LEVELS: tuple[Level, ...] = ("ordinal", "interval")
NO_LABEL = "no item has a verdict and a label"
EXCESS = Measure("rating_over_labels", "rating", None, NO_LABEL)
EXCESS_OF_ITSELF = Measure(
    "rating_over_labels_of_itself", "rating", None, "no prompt has labelled answers of both sides"
)
LENGTH = Measure("length_slope", "rating per tanh of a standard deviation", None, NO_LABEL)


def rating_scores(rows: Labelled, author: str | None) -> dict[str, list[Score]]:
    """The scores of the judge; without labels only the share of rows without a verdict."""
    import numpy as np

    number = prompt_numbers(rows.prompt, len(rows.prompt))
    estimates: list[Estimate] = [mean_of(NO_VERDICT, prompt_means(np.isnan(rows.verdict), number))]
    if rows.labels:
        labels = rows.panel()
        excess = rows.verdict - labels
        raters = np.array([rows.verdict, *rows.labels.values()])
        alphas = [renamed(krippendorff_alpha(raters, level, rows.prompt), f"alpha/{level}") for level in LEVELS]
        estimates += [renamed(alphas[0], "alpha"), alphas[1]]
        estimates += [discrimination(rows.verdict, labels, rows.prompt, pairs=False)]
        estimates += [mean_of(EXCESS, prompt_means(excess, number))]
        if rows.lengths is not None:
            estimates.append(length_slope(rows.lengths[:, 0], excess, number))
        if author is not None:
            by_itself = np.array([names == [author] for names in rows.authors])
            sides = (prompt_means(np.where(part, excess, math.nan), number) for part in (by_itself, ~by_itself))
            estimates.append(mean_of(EXCESS_OF_ITSELF, next(sides) - next(sides)))
    scores = {JUDGE: [each.score() for each in estimates]}
    if len(rows.labels) > 1:  # how well a judge could agree
        scores[LABELS] = [renamed(krippendorff_alpha(raters[1:], "ordinal", rows.prompt), "alpha").score()]
    return scores


def length_slope(length: np.ndarray, excess: np.ndarray, number: np.ndarray) -> Estimate:
    """How much the judge's rating exceeds the labels' for one unit of tanh(standardised length); least squares."""
    import numpy as np

    defined = ~np.isnan(excess)
    x, y = np.tanh((length - length.mean()) / (length.std() or 1.0))[defined], excess[defined]

    def slope(keep: np.ndarray) -> list[float]:
        spread = ((x[keep] - x[keep].mean()) ** 2).sum() if keep.any() else 0.0
        return [((x[keep] - x[keep].mean()) * y[keep]).sum() / spread if spread > 0 else math.nan]

    return set_estimates([LENGTH], slope, number[defined].tolist(), len(y))[0]
