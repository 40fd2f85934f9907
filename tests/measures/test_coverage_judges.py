"""Whether the intervals of the measures of judges hold their truth, the mean over studies, in about 95 % of studies."""

from __future__ import annotations

import numpy as np
import pytest
from measures.pairs import every_pair, sigmoid

from synthdiv.measures.agreement import agreement, discrimination, krippendorff_alpha
from synthdiv.measures.length_control import length_controlled
from synthdiv.measures.pairwise import author_scores, order_scores, strengths
from synthdiv.measures.self_preference import over_baseline, self_bias, votes_for_author

QUALITY = np.array([0.5, 0.1, -0.2])
STUDIES, PROMPTS, LEAST, WIDEST = 150, 40, 0.89, 1.5


def study(seed):
    """Hard verdicts of a judge (in both orders) and of a panel on the pairs of three authors. Prompts differ in which
    author they suit; the judge likes its own texts (author a), long texts and what is shown first."""
    rng = np.random.default_rng([seed, 1])
    suits = rng.normal(0, 0.7, PROMPTS).repeat(3)

    def law(bias, length_effect):
        def wins(first, second, length, quality):
            own = (first == 0).astype(float) - (second == 0)
            gaps = QUALITY[first] - QUALITY[second] + quality
            return sigmoid(2 * gaps + (suits + bias) * own + length_effect * length)

        return every_pair("abc", PROMPTS, wins, seed)

    pairs, panel = law(0.6, 0.8), law(0.0, 0.0).wins
    logit = np.log(pairs.wins / (1 - pairs.wins))
    forward, backward = (rng.random(len(logit)) < sigmoid(logit + shift) for shift in (0.3, -0.3))
    pairs.wins[:], pairs.panel[:] = (forward + 0.0 + backward) / 2, rng.random(len(panel)) < panel
    return pairs, forward, backward


def scores(seed):
    pairs, forward, backward = study(seed)
    ids, own, both = pairs.prompt.tolist(), pairs.of("a"), (pairs.wins, pairs.panel)
    sides = np.sign(np.concatenate([both, 1 - np.array(both)], axis=1) - 0.5)
    bias = self_bias(pairs, "a", ("length", "quality"))
    terms = strengths(pairs, ("length", "quality"))
    actual = [krippendorff_alpha(sides, prompts=ids * 2), agreement(*both, ids), discrimination(*both, ids)]
    actual += [
        *order_scores(forward, backward, ids)[:2],
        *length_controlled(own.wins, own.length, 0.5, own.prompt.tolist()),
    ]
    actual += [
        *terms.values(),
        *bias[:3],
        over_baseline(pairs, "a"),
        votes_for_author(pairs, "a")[2],
        author_scores(pairs)["a"],
    ]
    return [each.score() for each in actual]


@pytest.mark.slow
def test_intervals_of_the_measures_of_judges_cover():
    studies = [scores(seed) for seed in range(STUDIES)]
    table = np.array([[(score.value, score.low, score.high) for score in each] for each in studies])
    wrong = []
    for place, score in enumerate(studies[0]):
        value, low, high = table[:, place].T
        share = float(((low <= value.mean()) & (value.mean() <= high)).mean())
        width = float((high - low).mean() / (3.92 * value.std()))
        wrong += [f"{score.name}: {share:.2f}, {width:.2f}"] if share < LEAST or width > WIDEST else []
    assert wrong == []
