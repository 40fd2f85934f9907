"""What labelled verdicts say of a judge. Of pairs: scores of the judge, of the labels on the same pairs, and their
differences. Of ratings: agreement, discrimination, and what moves the judge's ratings away from the labels'."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

from synthdiv.core.lazy import np
from synthdiv.core.types import Score
from synthdiv.measures.agreement import agreement, discrimination, krippendorff_alpha
from synthdiv.measures.estimates import Estimate, Measure, mean_of, prompt_means, prompt_numbers, set_estimates
from synthdiv.measures.length_control import length_controlled, standardised, votes_for_longer
from synthdiv.measures.pairwise import Pairs, order_scores, strengths
from synthdiv.measures.self_preference import (
    VOTES,
    over_baseline,
    self_bias,
    votes_at_equal_quality,
    votes_at_equal_quality_and_length,
    votes_for_author,
)
from synthdiv.views.judge.labelled import Labelled, pairs_of

JUDGE, LABELS, GAP = "judge", "labels", "judge - labels"
NO_VERDICT = Measure("no_verdict", "share of rows", False, "no rows", 0.0, 1.0)
LONGER = Measure("votes_for_longer", "share of pairs", None, "no pair of unequal length has both", -1.0, 1.0)
NO_LABEL = "no item has a verdict and a label"
EXCESS = Measure("rating_over_labels", "rating", None, NO_LABEL)
EXCESS_OF_ITSELF = Measure(
    "rating_over_labels_of_itself", "rating", None, "no prompt has labelled answers of both sides"
)
LENGTH = Measure("length_slope", "rating per tanh of a standard deviation", None, NO_LABEL)


def pair_scores(rows: Labelled, author: str | None) -> dict[str, list[Score]]:
    """The scores by group; only those that the columns of the file allow."""
    raw, forward, backward = pairs_of(rows)
    scale = float(np.sqrt(np.mean(raw.length**2))) if rows.lengths is not None else 0.0
    pairs = replace(raw, length=standardised(raw.length, scale or 1.0))
    prompts = pairs.prompt.tolist()
    missing = prompt_means(np.isnan(rows.verdict), prompt_numbers(rows.prompt, len(rows.prompt)))
    estimates: dict[str, list[Estimate]] = {JUDGE: [mean_of(NO_VERDICT, missing)], LABELS: [], GAP: []}
    if rows.shown_first is not None:
        estimates[JUDGE] += order_scores(forward, backward, prompts, [*zip(pairs.first, pairs.second, strict=True)])
    if rows.labels:
        estimates[JUDGE] += [each(pairs.wins, pairs.panel, prompts) for each in (agreement, discrimination)]
        estimates[JUDGE].append(pair_alpha([rows.verdict, *rows.labels.values()], rows.prompt))
    if len(rows.labels) > 1:
        estimates[LABELS].append(pair_alpha([*rows.labels.values()], rows.prompt))
    if scale > 0:
        add_length(estimates, pairs, bool(rows.labels))
    estimates[JUDGE] += [each for name, each in strengths(pairs).items() if name in pairs.authors]
    if author is not None:
        add_self_preference(estimates, pairs, author, scale > 0)
    if author is not None and scale > 0:
        part = raw.of(author)
        rate, _ = length_controlled(part.wins, part.length, scale, part.prompt.tolist())
        estimates[JUDGE].append(renamed(rate, "votes_for_itself_at_equal_length"))
        if rows.labels:
            estimates[JUDGE].append(votes_at_equal_quality_and_length(raw, author, scale))
    return {group: [each.score() for each in members] for group, members in estimates.items() if members}


def pair_alpha(raters: Sequence[np.ndarray], prompts: Sequence[Hashable]) -> Estimate:
    """α of the sides that raters take, or none. Each pair counts in both orders: α would otherwise depend on which
    author is called the first."""
    shares = np.array(raters)
    sides = np.sign(np.concatenate([shares, 1 - shares], axis=1) - 0.5)
    return krippendorff_alpha(sides, prompts=[*prompts, *prompts])


def add_length(estimates: dict[str, list[Estimate]], pairs: Pairs, labelled: bool) -> None:
    """Votes for the longer text and the length term of the judge's Bradley–Terry model, over all pairs; with labels
    also the votes of judge and labels on the pairs that have both, and the length term at equal labels."""
    prompts = pairs.prompt.tolist()
    votes = votes_for_longer(pairs.wins, pairs.length, prompts)
    estimates[JUDGE] += [renamed(votes, "votes_for_longer_in_all_pairs"), strengths(pairs, ("length",))["length"]]
    if not labelled:
        return
    gaps = pairs.wins - pairs.panel
    for group, wins in ((JUDGE, pairs.wins), (LABELS, pairs.panel)):
        both = np.where(np.isnan(gaps), math.nan, wins)
        estimates[group].append(votes_for_longer(both, pairs.length, prompts))
    oriented = np.where(pairs.length == 0, math.nan, np.sign(pairs.length) * gaps)
    estimates[GAP].append(mean_of(LONGER, prompt_means(oriented, prompt_numbers(prompts, len(gaps)))))
    terms = strengths(pairs, ("length", "quality"))
    estimates[JUDGE] += [
        renamed(terms["length"], "term/length_at_equal_labels"),
        renamed(terms["quality"], "term/labels"),
    ]


def add_self_preference(estimates: dict[str, list[Estimate]], pairs: Pairs, author: str, lengths: bool) -> None:
    """Votes for the judge's own texts against the labels' on the same pairs, and what else is known of them."""
    part = pairs.of(author)
    votes = mean_of(VOTES, prompt_means(part.wins, prompt_numbers(part.prompt.tolist(), len(part.prompt))))
    estimates[JUDGE].append(renamed(votes, "votes_for_itself_in_all_pairs"))
    if not np.isnan(pairs.panel).all():
        for group, each in zip(estimates, votes_for_author(pairs, author), strict=True):
            estimates[group].append(renamed(each, "votes_for_itself"))
        estimates[JUDGE] += [votes_at_equal_quality(pairs, author), over_baseline(pairs, author)]
        bias = self_bias(pairs, author, ("length",) if lengths else ())
        estimates[JUDGE] += [bias.bias, bias.scaled, bias.slope]


def renamed(estimate: Estimate, name: str) -> Estimate:
    return replace(estimate, measure=estimate.measure._replace(name=name))


def rating_scores(rows: Labelled, author: str | None) -> dict[str, list[Score]]:
    """The scores of the judge; without labels only the share of rows without a verdict."""
    number = prompt_numbers(rows.prompt, len(rows.prompt))
    estimates: list[Estimate] = [mean_of(NO_VERDICT, prompt_means(np.isnan(rows.verdict), number))]
    if rows.labels:
        labels = rows.panel()
        excess = rows.verdict - labels
        raters = np.array([rows.verdict, *rows.labels.values()])
        estimates += [renamed(krippendorff_alpha(raters, "ordinal", rows.prompt), "alpha")]
        estimates += [renamed(krippendorff_alpha(raters, "interval", rows.prompt), "alpha/interval")]
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
    defined = ~np.isnan(excess)
    x, y = np.tanh((length - length.mean()) / (length.std() or 1.0))[defined], excess[defined]

    def slope(keep: np.ndarray) -> list[float]:
        spread = ((x[keep] - x[keep].mean()) ** 2).sum() if keep.any() else 0.0
        return [((x[keep] - x[keep].mean()) * y[keep]).sum() / spread if spread > 0 else math.nan]

    return set_estimates([LENGTH], slope, number[defined].tolist(), len(y))[0]
