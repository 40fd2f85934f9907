"""The split of perplexity 2: a sharpened model keeps its support, and each answer is scored at a fit without it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthdiv.core.types import DataError
from synthdiv.measures.estimates import NO_SPREAD
from synthdiv.measures.perplexity import AnswerNLL, likelihood_scores
from synthdiv.measures.temperature import (
    INDEX_OF_ONE,
    TEMPERATURES,
    TemperatureCurve,
    best_log_temperature,
    nll_after_fit,
    spline,
    temperature_scores,
)

WORDS = 12  # in the vocabulary of the made-up models


def nll(logits, tokens, temperature):
    """Of one answer, by definition: logits (tokens, WORDS), said (tokens,)."""
    scaled = logits / temperature
    return float((np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(tokens)), tokens]).sum())


def curve(logits, tokens):
    return TemperatureCurve([nll(logits, tokens, temperature) for temperature in TEMPERATURES], len(tokens))


def answers(random, count):
    """Human answers: (logits of the law they are drawn from, tokens said), of different length and certainty."""
    actual = []
    for _ in range(count):
        law = random.normal(0, 2 * np.exp(random.normal(0, 0.3)), (random.integers(2, 20), WORDS))
        mass = np.exp(law) / np.exp(law).sum(axis=1, keepdims=True)
        actual.append((law, (random.random((len(law), 1)) > mass.cumsum(axis=1)).sum(axis=1).clip(0, WORDS - 1)))
    return actual


def arm(human, scale=1.0, noise=0.0, seed=0):
    """A model whose logits are those of the law, `scale` times, with errors of `noise`."""
    random = np.random.default_rng(seed)
    return {
        f"p{number}": curve(scale * (law + random.normal(0, noise, law.shape)), result)
        for number, (law, result) in enumerate(human)
    }


def by_name(*arms, **rest):
    return {score.name: score for score in temperature_scores(*arms, **rest)}


HUMAN = answers(np.random.default_rng(0), 80)


def test_the_grid_is_even_in_the_logarithm_and_holds_one():
    assert TEMPERATURES[INDEX_OF_ONE] == 1
    assert (TEMPERATURES[0], TEMPERATURES[-1]) == (0.25, 4)
    assert np.ptp(np.diff(np.log(TEMPERATURES))) < 1e-12


def test_between_the_grid_the_spline_is_the_curve():
    for scale, noise in ((0.5, 0), (1, 0.5), (2, 1)):
        model = arm(HUMAN, scale, noise, seed=1)
        tokens = sum(len(result) for _, result in HUMAN)
        pooled = sum(np.array(answer.nll_at) for answer in model.values()) / tokens
        random = np.random.default_rng(1)
        logits = [scale * (law + random.normal(0, noise, law.shape)) for law, _ in HUMAN]
        for temperature in np.exp(np.random.default_rng(2).uniform(-1.3, 1.3, 20)):
            parts = zip(logits, HUMAN, strict=True)
            wanted = sum(nll(z, result, temperature) for z, (_, result) in parts) / tokens
            assert float(spline(pooled)(math.log(temperature))) == pytest.approx(wanted, abs=1e-4)


def test_each_answer_is_scored_at_the_temperature_of_the_other_half():
    model = arm(HUMAN, scale=1.6)
    values, scores = nll_after_fit(model), by_name(model)
    assert list(values) == list(model)
    message = scores["temperature_2"].note.removeprefix("fitted on the halves: ").split(" and ")
    fits = [float(fit) for fit in message]
    halves: list[list[str]] = [[], []]
    for (key, value), (law, result) in zip(values.items(), HUMAN, strict=True):
        direct = [nll(1.6 * law, result, fit) / len(result) for fit in fits]
        assert min(abs(value - d) for d in direct) < 2e-3  # the note has four digits
        halves[int(abs(value - direct[0]) < abs(value - direct[1]))].append(key)
    assert [len(half) for half in halves] == [40, 40]
    for half, fit in zip(halves, fits, strict=True):  # scored at the second fit: the first half, which gave the first
        mean = sum(np.array(model[key].nll_at) / model[key].tokens for key in half)
        assert math.exp(best_log_temperature(mean)) == pytest.approx(fit, rel=1e-3)
    assert scores["temperature_2"].value == pytest.approx(math.sqrt(fits[0] * fits[1]), rel=1e-3)
    assert scores["nll_2_support"].value == pytest.approx(np.mean([*values.values()]), rel=1e-12)


@given(st.integers(4, 80), st.floats(0.5, 2.5), st.floats(0, 2), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_support_and_sharpness_add_up_to_perplexity_2(count, scale, noise, seed):
    model = arm(HUMAN[:count], scale, noise)
    other = arm(HUMAN[:count], 1, 0.5)
    plain = [
        {key: AnswerNLL(c.nll_at[INDEX_OF_ONE], c.tokens, 1) for key, c in each.items()} for each in (model, other)
    ]
    whole = {score.name: score.value for score in likelihood_scores(*plain)}
    scores = by_name(model, other, seed=seed)
    for ending in ("", "-vanilla"):
        parts = scores[f"nll_2_support{ending}"].value + scores[f"nll_2_sharpness{ending}"].value
        assert parts == pytest.approx(whole[f"nll_2{ending}"], abs=1e-12)


@pytest.mark.parametrize("scale", [0.6, 1.5, 2.0])
def test_scaled_logits_are_sharpness_and_no_loss_of_support(scale):
    """Of all that was said, only this tells training on text sampled at a low temperature from collapse."""
    scores = by_name(arm(HUMAN, scale), arm(HUMAN))
    assert abs(scores["nll_2_support-vanilla"].value) < 1e-4
    assert scores["nll_2_sharpness-vanilla"].low > 0
    first, other = by_name(arm(HUMAN, scale))["temperature_2"].value, by_name(arm(HUMAN))["temperature_2"].value
    assert first / other == pytest.approx(scale, rel=2e-3)
    assert scores["temperature_2-vanilla"].value == pytest.approx(first - other)


def test_errors_are_loss_of_support_that_no_temperature_repairs():
    scores = by_name(arm(HUMAN, noise=1.5), arm(HUMAN))
    assert scores["nll_2_support-vanilla"].low > 0.1


def test_units_and_directions():
    scores = by_name(arm(HUMAN, 1.3), arm(HUMAN))
    assert {name: score.unit for name, score in scores.items() if score.unit != "nats/token"} == {
        "temperature_2": "temperature",
        "temperature_2-vanilla": "temperature",
    }
    assert all((score.higher_is_better is None) == ("temperature" in name) for name, score in scores.items())
    assert all(score.n == 80 and score.low < score.value < score.high for score in scores.values())


def test_prompt_order_does_not_matter_and_the_seed_sets_the_halves():
    model = arm(HUMAN, 1.3, 1)
    assert by_name(model) == by_name(dict(reversed(model.items())))
    assert by_name(model) != by_name(model, seed=1)


def test_against_itself_the_differences_are_zero():
    scores = by_name(arm(HUMAN, 1.3, 1), arm(HUMAN, 1.3, 1))
    gaps = [score for name, score in scores.items() if name.endswith("-vanilla")]
    assert [score.value for score in gaps] == [0, 0, 0]
    assert all(NO_SPREAD in score.note for score in gaps)


def test_a_uniform_model_has_no_temperature_to_fit():
    scores = by_name(arm([(np.zeros_like(law), result) for law, result in HUMAN]))
    assert scores["temperature_2"].value == 1
    assert scores["nll_2_support"].value == pytest.approx(math.log(WORDS))
    assert scores["nll_2_sharpness"].value == pytest.approx(0, abs=1e-12)


def test_a_fit_at_the_end_of_the_grid_is_noted():
    scores = by_name(arm(HUMAN, scale=6.0), arm(HUMAN))
    for name in ("temperature_2", "nll_2_support", "nll_2_sharpness", "nll_2_support-vanilla"):
        assert "end of the grid, T = 4" in scores[name].note
    assert scores["temperature_2"].value == pytest.approx(4)
    assert math.isnan(scores["temperature_2"].low)


def test_prompts_of_only_one_arm_are_left_out_and_counted():
    model, base = arm(HUMAN, 1.3), arm(HUMAN[:50])
    gap = by_name(model, base)["nll_2_support-vanilla"]
    assert gap.n == 50
    assert gap.note == "30 prompts of one arm alone left out"
    assert gap.value == by_name(arm(HUMAN[:50], 1.3), base)["nll_2_support-vanilla"].value


FEW, UNKNOWN = arm(HUMAN[:3]), arm(HUMAN[:9])
UNKNOWN["p4"] = TemperatureCurve([math.nan] * len(TEMPERATURES), 3)


@pytest.mark.parametrize(
    ("student", "vanilla", "undefined", "note"),
    [
        ({}, {}, 6, "0 answers: too few"),
        (FEW, FEW, 6, "3 answers: too few"),
        (UNKNOWN, arm(HUMAN[:9]), 6, "1 of 9 answers have no finite likelihood"),
        (arm(HUMAN[:9]), UNKNOWN, 3, "1 of 9 answers have no finite likelihood"),
        (arm(HUMAN), {key: c._replace(tokens=c.tokens + 1) for key, c in arm(HUMAN).items()}, 3, "80 answers differ"),
    ],
)
def test_undefined_is_nan_with_the_reason(student, vanilla, undefined, note):
    scores = temperature_scores(student, vanilla)
    assert [math.isnan(score.value) for score in scores].count(True) == undefined
    assert note in " ".join(score.note for score in scores)
    assert bool(nll_after_fit(student)) == (undefined == 3)


@pytest.mark.parametrize("wrong", [TemperatureCurve([1.0] * len(TEMPERATURES), 0), TemperatureCurve([1.0, 2.0], 3)])
def test_an_answer_that_cannot_be_is_a_mistake(wrong):
    with pytest.raises(DataError, match="needs at least one token"):
        temperature_scores(arm(HUMAN) | {"wrong": wrong})
