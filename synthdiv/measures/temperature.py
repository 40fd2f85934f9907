"""Perplexity 2 split into sharpness, which one temperature repairs, and support, which no temperature repairs.

Training on text sampled at temperature 0.7 sharpens a model without loss of support. Scored at its best temperature,
such a model is as close to human answers as before; a model that lost support is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from synthdiv.core.lazy import np
from synthdiv.core.types import DataError, Score
from synthdiv.measures.estimates import Estimate, Measure, set_estimates, undefined
from synthdiv.measures.pairing import compared, shuffled_prompts

PER_OCTAVE = 4
TEMPERATURES = tuple(2.0 ** (step / PER_OCTAVE) for step in range(-8, 9))  # 1/4 to 4
INDEX_OF_ONE = TEMPERATURES.index(1.0)
MIN_ANSWERS = 4  # two to fit on and two to score
MEASURES = (
    Measure("temperature_2", "temperature", None, "no fit", 0),
    Measure("nll_2_support", "nats/token", False, "no fit", 0),
    Measure("nll_2_sharpness", "nats/token", False, "no fit"),
)


class TemperatureCurve(NamedTuple):
    """One human answer under one model at every temperature. `nll_at` (temperatures,) is -ln q in nats at each of
    `TEMPERATURES`, summed over the answer's tokens and EOS; `tokens` >= 1 counts them, EOS included."""

    nll_at: Sequence[float]
    tokens: int


class SplitAnswers(NamedTuple):
    """Answers as arrays: NLL per token at every temperature (n, temperatures), and a mask of the first half (n,). The
    halves are those of one seeded shuffle, so equal sets of prompts are split equally in every arm."""

    per_token: np.ndarray
    first: np.ndarray

    def fit(self, mask: np.ndarray) -> list[float]:
        """Return ln T fitted on the first and on the second half of the answers in `mask` (n,)."""
        return [best_log_temperature(self.per_token[half].mean(axis=0)) for half in self._halves(mask)]

    def values(self, fits: Sequence[float]) -> np.ndarray:
        """Return the NLL per token of each answer (n,) at the ln T fitted on the other half."""
        curves = spline(self.per_token)
        return np.where(self.first, curves(fits[1]), curves(fits[0]))

    def estimate(self, mask: np.ndarray) -> list[float]:
        """Return the values of `MEASURES` on the answers in `mask` (n,)."""
        fits = self.fit(mask)
        # A spline is linear in its values: the spline of a sum is the sum of the splines.
        first, second = (spline(self.per_token[half].sum(axis=0)) for half in self._halves(mask))
        support = float(first(fits[1]) + second(fits[0])) / int(mask.sum())
        return [math.exp(sum(fits) / 2), support, float(self.per_token[mask, INDEX_OF_ONE].mean()) - support]

    def _halves(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return mask & self.first, mask & ~self.first


def temperature_scores(
    student: Mapping[str, TemperatureCurve], vanilla: Mapping[str, TemperatureCurve] | None = None, seed: int = 0
) -> list[Score]:
    """Return sharpness and support of `student`, and their paired differences from `vanilla`, by prompt id.

    A seeded shuffle splits the answers into two halves, the same in both arms. On each half one temperature is fitted
    (Guo et al. 2017, arXiv 1706.04599, sec. 4.2): it minimises the mean over answers of NLL per token, on a cubic
    spline in ln T through the grid. The other half is scored at this temperature, so no answer is scored at a
    temperature fitted on it.

    - `temperature_2`: geometric mean of the two fits, above 1 for a model sharper than human text; no better direction.
    - `nll_2_support`, nats/token: mean over answers of NLL per token after the fit; lower is better.
    - `nll_2_sharpness`, nats/token: `nll_2` minus `nll_2_support`, for a model that is too sharp or too flat. Lower is
      better. It is below 0 if the fits do not carry over to the other half.
    - each `-vanilla`: student minus vanilla, each at its own fits, on the common prompts.

    Intervals leave out groups of prompts and fit again. NaN with a note for fewer than four answers, a likelihood that
    is not finite, or tokens that differ between the arms. The note names a fit at the end of the grid. Raises DataError
    for an answer without a token or without one value per temperature.
    """
    return compared(lambda arm: _estimates(arm, seed), student, vanilla, lambda answer: answer.tokens)


def nll_after_fit(answers: Mapping[str, TemperatureCurve], seed: int = 0) -> dict[str, float]:
    """Return the NLL per token (nats) of each answer after the fit, by prompt id; their mean is `nll_2_support`. Empty
    if `nll_2_support` is undefined."""
    prompts = shuffled_prompts(answers, seed)
    if _undefined_reason(answers):
        return {}
    split = _split_answers(answers, prompts)
    values = split.values(split.fit(np.ones(len(prompts), dtype=bool)))
    by_prompt = dict(zip(prompts, values.tolist(), strict=True))
    return {prompt: by_prompt[prompt] for prompt in answers}


def spline(curves: np.ndarray) -> Any:
    """Return cubic splines in ln T through `curves` (..., temperatures), as a function from ln T to (...)."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.log(TEMPERATURES), curves, axis=-1)


def best_log_temperature(curve: np.ndarray) -> float:
    """Return ln T at the minimum of the spline through `curve` (temperatures,); of equal minima, that nearest 0."""
    curve_spline, grid = spline(curve), np.log(TEMPERATURES)
    extrema = curve_spline.derivative().roots(extrapolate=False)
    candidates = np.concatenate([grid, extrema[np.isfinite(extrema)]])  # the roots of a flat part include NaN
    candidates = candidates[np.argsort(np.abs(candidates), kind="stable")]
    return float(candidates[np.argmin(curve_spline(candidates))])


def _estimates(arm: Mapping[str, TemperatureCurve], seed: int) -> list[Estimate]:
    """Return MEASURES of one arm."""
    prompts = shuffled_prompts(arm, seed)
    reason = _undefined_reason(arm)
    if reason:
        return [undefined(measure, reason, len(prompts)) for measure in MEASURES]
    split = _split_answers(arm, prompts)
    temperature, *rest = set_estimates(MEASURES, split.estimate, None, len(prompts), seed)
    fits = np.exp(split.fit(np.ones(len(prompts), dtype=bool)))
    temperature = temperature.with_note(f"fitted on the halves: {fits[0]:.4g} and {fits[1]:.4g}")
    ends = [f"a fit is at the end of the grid, T = {T:g}" for T in TEMPERATURES[:: len(TEMPERATURES) - 1]
            if np.isclose(fits, T).any()]  # fmt: skip
    if ends:  # the fits of replicates cannot vary there
        temperature = replace(temperature, units=temperature.units[:0], no_interval="no interval: a fit at the end")
    return [each.with_note(*ends) for each in (temperature, *rest)]


def _split_answers(arm: Mapping[str, TemperatureCurve], prompts: list[str]) -> SplitAnswers:
    per_token = np.array([np.asarray(arm[p].nll_at, float) / arm[p].tokens for p in prompts])
    return SplitAnswers(per_token, np.arange(len(prompts)) < len(prompts) // 2)


def _undefined_reason(arm: Mapping[str, TemperatureCurve]) -> str:
    """Return why the scores of an arm are undefined, or an empty string."""
    for prompt, answer in arm.items():
        if answer.tokens < 1 or len(answer.nll_at) != len(TEMPERATURES):
            raise DataError(
                f"answer to prompt {prompt!r}: {answer.tokens} tokens and {len(answer.nll_at)} values; needs at "
                f"least one token, as EOS counts, and one value for each of {len(TEMPERATURES)} temperatures"
            )
    if len(arm) < MIN_ANSWERS:
        return f"{len(arm)} answers: too few to fit a temperature on one half and score the other"
    unknown = [prompt for prompt, answer in arm.items() if not all(map(math.isfinite, answer.nll_at))]
    if unknown:
        return f"{len(unknown)} of {len(arm)} answers have no finite likelihood, the first to prompt {unknown[0]!r}"
    return ""
