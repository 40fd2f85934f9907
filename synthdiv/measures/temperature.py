"""Perplexity 2 split in two: what one temperature repairs (sharpness), and what is left after it (support).

Training on text sampled at temperature 0.7 sharpens a model without losing support; scored again at a temperature of
its own, such a model is as near to human answers as before, and one that lost support is not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from synthdiv.core.types import DataError, Score
from synthdiv.measures.intervals import Measure, jackknife_scores
from synthdiv.measures.perplexity import in_both, shuffled

if TYPE_CHECKING:
    import numpy as np

PER_OCTAVE = 4
TEMPERATURES = tuple(2.0 ** (step / PER_OCTAVE) for step in range(-8, 9))  # 1/4 to 4
ONE = TEMPERATURES.index(1.0)
LEAST = 4  # answers: two to fit on and two to score
MEASURES = (
    Measure("temperature_2", "temperature", None, "no fit"),
    Measure("nll_2_support", "nats/token", False, "no fit"),
    Measure("nll_2_sharpness", "nats/token", False, "no fit"),
)


class Curve(NamedTuple):
    """One human answer under one model at every temperature.

    `nll_at` (temperatures,) is -ln q in nats at each of `TEMPERATURES`, summed over the answer's tokens and one EOS;
    `tokens` >= 1 counts them, EOS included.
    """

    nll_at: Sequence[float]
    tokens: int


class Halves(NamedTuple):
    """Answers as arrays: NLL at every temperature (n, temperatures), tokens (n,), and which are in the first half (n,).

    The halves are the two ends of one seeded shuffle, so equal sets of prompts are cut alike in every arm.
    """

    nll: np.ndarray
    tokens: np.ndarray
    first: np.ndarray

    def fit(self, kept: np.ndarray) -> list[float]:
        """ln T fitted on the first half and on the second, among the answers `kept` (n,)."""
        return [lowest((self.nll / self.tokens[:, None])[side].mean(axis=0)) for side in self._sides(kept)]

    def values(self, fits: Sequence[float]) -> np.ndarray:
        """NLL per token of each answer (n,) at the ln T fitted on the half that it is not in."""
        import numpy as np

        curves = spline(self.nll / self.tokens[:, None])
        return np.where(self.first, curves(fits[1]), curves(fits[0]))

    def estimate(self, kept: np.ndarray) -> list[float]:
        """The values of `MEASURES` on the answers `kept` (n,)."""
        fits, each = self.fit(kept), self.nll / self.tokens[:, None]
        # A spline is linear in its values: that of a sum is the sum of the answers' own.
        first, second = (spline(each[side].sum(axis=0)) for side in self._sides(kept))
        after = float(first(fits[1]) + second(fits[0])) / int(kept.sum())
        return [math.exp(sum(fits) / 2), after, float(each[kept, ONE].mean()) - after]

    def _sides(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return kept & self.first, kept & ~self.first


def fitted_scores(
    student: Mapping[str, Curve], vanilla: Mapping[str, Curve] | None = None, seed: int = 0
) -> list[Score]:
    """Sharpness and support of `student`, and their paired differences to `vanilla`, by prompt id.

    A seeded shuffle cuts the answers into two halves, the same in both arms. On each half one temperature is fitted
    (Guo et al. 2017, arXiv 1706.04599, sec. 4.2): the lowest mean over answers of NLL per token, on a cubic spline in
    ln T through the grid; the other half is scored at it. So no answer is scored at a temperature it helped to choose.

    - `temperature_2`: geometric mean of the two fits, above 1 for a model sharper than human text; no better direction.
    - `nll_2_support`, nats/token: mean over answers of NLL per token after the fit; lower is better.
    - `nll_2_sharpness`, nats/token: `nll_2` less `nll_2_support`, what the temperature alone explains; a model too flat
      has it too. Lower is better. It can be below 0, by as much as a fit does not carry over to the other half.
    - each `-vanilla`: student minus vanilla, each at its own fit, on the prompts that both have.

    Intervals leave out groups of prompts and fit again. Undefined is NaN with a note: fewer than four answers, a
    likelihood that is not finite, tokens that differ between the arms. A fit at the end of the grid is said. Raises
    DataError for an answer with no token or not one value per temperature.
    """
    scores = _scores([student], list(student), seed)
    if vanilla is None:
        return scores
    common, note = in_both(student, vanilla)
    return scores + _scores([student, vanilla], common, seed, note)


def fitted_values(answers: Mapping[str, Curve], seed: int = 0) -> dict[str, float]:
    """NLL per token (nats) of each answer after the fit, by prompt id; their mean is `nll_2_support`.

    Empty where that is undefined.
    """
    import numpy as np

    prompts = shuffled(answers, seed)
    if _problem([answers], prompts):
        return {}
    cut = _halves(answers, prompts)
    values = cut.values(cut.fit(np.ones(len(prompts), dtype=bool)))
    found = dict(zip(prompts, values.tolist(), strict=True))
    return {prompt: found[prompt] for prompt in answers}


def spline(curves: np.ndarray) -> Any:
    """Cubic splines in ln T through `curves` (..., temperatures): a function of ln T that gives (...)."""
    import numpy as np
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.log(TEMPERATURES), curves, axis=-1)


def lowest(curve: np.ndarray) -> float:
    """ln T at the minimum of the spline through `curve` (temperatures,); of equal minima the nearest to T = 1."""
    import numpy as np

    through, grid = spline(curve), np.log(TEMPERATURES)
    turns = through.derivative().roots(extrapolate=False)
    places = np.concatenate([grid, turns[np.isfinite(turns)]])  # a flat stretch has NaN among its roots
    places = places[np.argsort(np.abs(places), kind="stable")]
    return float(places[np.argmin(through(places))])


def _scores(arms: list[Mapping[str, Curve]], common: list[str], seed: int, note: str = "") -> list[Score]:
    """Of one arm its scores; of two the differences, first less second."""
    import numpy as np

    prompts, ending = shuffled(common, seed), "-vanilla" if len(arms) == 2 else ""
    measures = [measure._replace(name=measure.name + ending) for measure in MEASURES]
    problem = _problem(arms, prompts)
    if problem:
        return [Score(m.name, math.nan, len(prompts), unit=m.unit, higher_is_better=m.higher_is_better, note=problem)
                for m in measures]  # fmt: skip
    cuts = [_halves(arm, prompts) for arm in arms]

    def statistic(kept: np.ndarray) -> list[float]:
        mine, *theirs = [cut.estimate(kept) for cut in cuts]
        return [a - b for a, b in zip(mine, theirs[0], strict=True)] if theirs else mine

    temperature, *rest = jackknife_scores(measures, statistic, len(prompts), seed)
    fits = [np.exp(cut.fit(np.ones(len(prompts), dtype=bool))) for cut in cuts]
    told = "fitted on the halves: " + " against ".join(f"{first:.4g} and {second:.4g}" for first, second in fits)
    edge = next((f"a fit is at the end of the grid, T = {T:g}: beyond it nothing was tried"
                 for T in (TEMPERATURES[0], TEMPERATURES[-1]) if np.isclose(fits, T).any()), "")  # fmt: skip
    if edge:  # there the fits cannot vary
        temperature = dataclasses.replace(temperature, low=math.nan, high=math.nan)
    return [_noted(temperature, note, told, edge), *(_noted(score, note, edge) for score in rest)]


def _noted(score: Score, *notes: str) -> Score:
    return dataclasses.replace(score, note="; ".join(part for part in (score.note, *notes) if part))


def _halves(arm: Mapping[str, Curve], prompts: list[str]) -> Halves:
    import numpy as np

    nll, tokens = np.array([arm[p].nll_at for p in prompts], float), np.array([arm[p].tokens for p in prompts], float)
    return Halves(nll, tokens, np.arange(len(prompts)) < len(prompts) // 2)


def _problem(arms: list[Mapping[str, Curve]], prompts: list[str]) -> str:
    """Why nothing can be said about these answers; empty when something can."""
    for arm in arms:
        for prompt, answer in arm.items():
            if answer.tokens < 1 or len(answer.nll_at) != len(TEMPERATURES):
                raise DataError(
                    f"answer to prompt {prompt!r}: {answer.tokens} tokens and {len(answer.nll_at)} values; needs one "
                    f"token at least, its EOS, and a value for each of {len(TEMPERATURES)} temperatures"
                )
    if len(prompts) < LEAST:
        return f"{len(prompts)} answers: too few to fit a temperature on one half and score the other"
    unknown = [p for p in prompts if not all(math.isfinite(x) for arm in arms for x in arm[p].nll_at)]
    if unknown:
        return f"{len(unknown)} of {len(prompts)} answers have no finite likelihood, the first to prompt {unknown[0]!r}"
    unlike = [p for p in prompts if arms[0][p].tokens != arms[-1][p].tokens]
    if unlike:
        return f"{len(unlike)} answers differ in tokens between the arms, the first to prompt {unlike[0]!r}"
    return ""
