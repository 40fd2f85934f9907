"""What labelled pairs say of a judge: scores of the judge, of the labels on the same pairs, and their differences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from synthdiv.measures.agreement import agreement, discrimination, krippendorff_alpha
from synthdiv.measures.estimates import Estimate, Measure, mean_of, prompt_means, prompt_numbers
from synthdiv.measures.length_control import length_controlled, standardised, votes_for_longer
from synthdiv.measures.pairwise import Pairs, order_scores, strengths
from synthdiv.measures.self_preference import VOTES, over_baseline, self_bias, votes_at_equal_quality, votes_for_author
from synthdiv.views.judge.labelled import Labelled, pairs_of

if TYPE_CHECKING:
    import numpy as np

    from synthdiv.core.types import Score

JUDGE, LABELS, GAP = "judge", "labels", "judge - labels"
NO_VERDICT = Measure("no_verdict", "share of rows", False, "no rows", 0.0, 1.0)
LONGER = Measure("votes_for_longer", "share of pairs", None, "no pair of unequal length has both", -1.0, 1.0)


def pair_scores(rows: Labelled, author: str | None) -> dict[str, list[Score]]:
    """The scores by group; only those that the columns of the file allow."""
    import numpy as np

    raw, forward, backward = pairs_of(rows)
    scale = float(np.sqrt(np.mean(raw.length**2))) if rows.lengths is not None else 0.0
    pairs = replace(raw, length=standardised(raw.length, scale or 1.0))
    prompts = pairs.prompt.tolist()
    missing = prompt_means(np.isnan(rows.verdict), prompt_numbers(rows.prompt, len(rows.prompt)))
    estimates: dict[str, list[Estimate]] = {JUDGE: [mean_of(NO_VERDICT, missing)], LABELS: [], GAP: []}
    if rows.shown_first is not None:
        estimates[JUDGE] += order_scores(forward, backward, prompts, [*zip(pairs.first, pairs.second, strict=True)])
    if rows.labels:
        estimates[JUDGE] += agreement_scores(rows, pairs)
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
    return {group: [each.score() for each in members] for group, members in estimates.items() if members}


def agreement_scores(rows: Labelled, pairs: Pairs) -> list[Estimate]:
    """Agreement with the mean label of each pair, and α of judge and all labels."""
    return [
        agreement(pairs.wins, pairs.panel, pairs.prompt.tolist()),
        discrimination(pairs.wins, pairs.panel, pairs.prompt.tolist()),
        pair_alpha([rows.verdict, *rows.labels.values()], rows.prompt),
    ]


def pair_alpha(raters: Sequence[np.ndarray], prompts: Sequence[Hashable]) -> Estimate:
    """α of the sides that raters take, or none. Each pair counts in both orders: α would otherwise depend on which
    author is called the first."""
    import numpy as np

    shares = np.array(raters)
    sides = np.sign(np.concatenate([shares, 1 - shares], axis=1) - 0.5)
    return krippendorff_alpha(sides, prompts=[*prompts, *prompts])


def add_length(estimates: dict[str, list[Estimate]], pairs: Pairs, labelled: bool) -> None:
    """Votes for the longer text and the length term of the judge's Bradley–Terry model, over all pairs; with labels
    also the votes of judge and labels on the pairs that have both, and the length term at equal labels."""
    import numpy as np

    prompts = pairs.prompt.tolist()
    every = votes_for_longer(pairs.wins, pairs.length, prompts)
    estimates[JUDGE] += [renamed(every, "votes_for_longer_in_all_pairs"), strengths(pairs, ("length",))["length"]]
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
    import numpy as np

    part = pairs.of(author)
    every = mean_of(VOTES, prompt_means(part.wins, prompt_numbers(part.prompt.tolist(), len(part.prompt))))
    estimates[JUDGE].append(renamed(every, "votes_for_itself_in_all_pairs"))
    if not np.isnan(pairs.panel).all():
        for group, each in zip(estimates, votes_for_author(pairs, author), strict=True):
            estimates[group].append(renamed(each, "votes_for_itself"))
        estimates[JUDGE] += [votes_at_equal_quality(pairs, author), over_baseline(pairs, author)]
        bias = self_bias(pairs, author, ("length",) if lengths else ())
        estimates[JUDGE] += [bias.bias, bias.scaled, bias.slope]


def renamed(estimate: Estimate, name: str) -> Estimate:
    return replace(estimate, measure=estimate.measure._replace(name=name))
