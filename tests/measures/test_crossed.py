"""Requests inside of templates: intervals over both factors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synthdiv.measures.crossed import crossed_mean
from synthdiv.measures.estimates import Measure, mean_of, prompt_means

RATE = Measure("rate", "P(answer)", False, "no answer", 0.0, 1.0)


def crossed_values(seed, requests=30, templates=10, sd=0.1):
    rng = np.random.default_rng(seed)
    effects = rng.normal(0, sd, requests)[:, None] + rng.normal(0, sd, templates)
    ids = np.indices(effects.shape).reshape(2, -1)
    return (0.5 + effects + rng.normal(0, 0.05, effects.shape)).ravel(), ids[0].tolist(), ids[1].tolist()


def test_the_interval_covers_new_templates_which_one_over_requests_does_not():
    hits = np.zeros(2)
    for seed in range(150):
        values, requests, templates = crossed_values(seed)
        alone = mean_of(RATE, prompt_means(values, np.array(requests)))
        for place, each in enumerate((crossed_mean(RATE, values, requests, templates).score(), alone.score())):
            hits[place] += each.low <= 0.5 <= each.high
    assert hits[0] / 150 > 0.9
    assert hits[1] / 150 < 0.8


def test_the_value_is_the_mean_over_requests_and_the_roles_of_rows_do_not_matter():
    values, requests, templates = crossed_values(0)
    score = crossed_mean(RATE, values, requests, templates).score()
    assert score.value == pytest.approx(values.mean())
    assert (score.n, score.note) == (30, "over 30 requests and 10 templates")
    other = crossed_mean(RATE, values[::-1], requests[::-1], templates[::-1]).score()
    assert (other.value, other.low, other.high) == pytest.approx((score.value, score.low, score.high))


def test_one_template_leaves_an_interval_over_requests_and_no_answer_a_reason():
    values, requests, _ = crossed_values(0)
    single = crossed_mean(RATE, values, requests, [0] * len(values)).score()
    alone = mean_of(RATE, prompt_means(values, np.array(requests))).score()
    assert (single.low, single.high, single.n) == (alone.low, alone.high, alone.n)
    constant = crossed_mean(RATE, np.zeros(300), *crossed_values(0)[1:]).score()
    assert 0 == constant.value < constant.high
    none = crossed_mean(RATE, np.full(300, math.nan), *crossed_values(0)[1:]).score()
    assert math.isnan(none.value)
    assert none.note
