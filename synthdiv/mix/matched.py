"""The temperature at which answers of one source are as likely under the vanilla student as those of several."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.generate.generate import TEMPERATURE

EQUAL = 0.002  # as a share; temperatures that differ less in NLL are equally good
ERRORS = 2.0  # standard errors by which a difference has to exceed the tolerance
PROMPTS = 1000  # the first train prompts, on which it is tuned


@dataclass
class MatchedTemperature(Stage):
    """Inputs: likelihoods under the vanilla student of answers to the same train prompts, `multi` of several sources
    and the others of the one source at each temperature. Output: `temperature.json`."""

    name = "matched_temperature"

    temperatures: list[float] = field(default_factory=list)
    """Those of the source, in order."""
    usual: float = 1.0
    """The temperature of the source in other mixes."""
    tolerance: float = 0.0
    """How far the NLL a token may be from that of several sources, as a share of it."""

    def input_names(self) -> list[str]:
        return ["multi", *(f"{at:g}" for at in self.temperatures)]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        nll = {name: nll_a_token(artifact) for name, artifact in inputs.items()}
        target, *values = nll.values()
        temperature, reached = nearest(self.temperatures, values, target, self.usual)
        closest = min(self.temperatures, key=lambda at: abs(math.log(at / temperature)))
        error = math.hypot(*(standard_error(inputs[name]) for name in ("multi", f"{closest:g}")))
        gap = abs(reached - target) / target
        if gap - ERRORS * error / target > self.tolerance:
            raise DataError(
                f"mix=single_matched: answers of several sources have {target:.4g} nats a token under the vanilla "
                f"student, and those of this source come no closer than {reached:.4g} (standard error of the "
                f"difference {error:.2g}), at temperature {temperature:g} of mix.temperatures={self.temperatures}; "
                f"give other temperatures, or accept the closest with mix.tolerance={math.ceil(100 * gap) / 100}"
            )
        (out / TEMPERATURE).write_text(json.dumps({"temperature": temperature}), encoding="utf-8")
        return {"temperature": temperature, "interpolated": reached, "nll": nll, "standard_error": error}


def nll_a_token(likelihood: Artifact) -> float:
    """The NLL of all answers by their number of tokens."""
    nll, tokens = answers(likelihood)
    return math.fsum(nll) / sum(tokens)


def standard_error(likelihood: Artifact) -> float:
    """That of `nll_a_token`, over answers."""
    nll, tokens = answers(likelihood)
    mean = math.fsum(nll) / sum(tokens)
    squares = math.fsum((value - mean * count) ** 2 for value, count in zip(nll, tokens, strict=True))
    return math.sqrt(squares * len(nll) / max(1, len(nll) - 1)) / sum(tokens)


def answers(likelihood: Artifact) -> tuple[list[float], list[int]]:
    """The NLL and the number of tokens of each answer."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(next(likelihood.path.glob("*.parquet")), columns=["nll", "tokens"])
    return table["nll"].to_pylist(), table["tokens"].to_pylist()


def nearest(temperatures: Sequence[float], nll: Sequence[float], target: float, usual: float) -> tuple[float, float]:
    """The temperature at which the curve through these values (monotone between two of them, over the logarithm of the
    temperature) is as `target`, and its value there. Of several the one nearest to `usual`; of none the closest."""
    from scipy.interpolate import PchipInterpolator

    fine = np.union1d(np.geomspace(temperatures[0], temperatures[-1], 20001), temperatures)
    curve = PchipInterpolator(np.log(temperatures), nll)(np.log(fine))
    gaps = np.abs(curve - target)
    places = np.flatnonzero(gaps <= max(gaps.min(), EQUAL * target))
    at = min(places, key=lambda place: abs(fine[place] - usual))
    return round(float(fine[at]), 4), float(curve[at])
