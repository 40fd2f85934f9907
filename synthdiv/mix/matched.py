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
        wanted, *values = nll.values()
        temperature, reached = nearest(self.temperatures, values, wanted, self.usual)
        if (gap := abs(reached - wanted) / wanted) > self.tolerance:
            raise DataError(
                f"mix=single_matched: answers of several sources have {wanted:.4g} nats a token under the vanilla "
                f"student, and those of this source come no closer than {reached:.4g}, at temperature {temperature:g} "
                f"of mix.temperatures={self.temperatures}; give other temperatures, or accept the closest with "
                f"mix.tolerance={math.ceil(100 * gap) / 100}"
            )
        (out / TEMPERATURE).write_text(json.dumps({"temperature": temperature}), encoding="utf-8")
        return {"temperature": temperature, "interpolated": reached, "nll": nll}


def nll_a_token(likelihood: Artifact) -> float:
    """The NLL of all answers by their number of tokens."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(next(likelihood.path.glob("*.parquet")), columns=["nll", "tokens"])
    return math.fsum(table["nll"].to_pylist()) / sum(table["tokens"].to_pylist())


def nearest(temperatures: Sequence[float], nll: Sequence[float], wanted: float, usual: float) -> tuple[float, float]:
    """The temperature at which the curve through these values (monotone between two of them, over the logarithm of the
    temperature) is as `wanted`, and its value there. Of several the one nearest to `usual`; of none the closest."""
    from scipy.interpolate import PchipInterpolator

    fine = np.union1d(np.geomspace(temperatures[0], temperatures[-1], 20001), temperatures)
    curve = PchipInterpolator(np.log(temperatures), nll)(np.log(fine))
    gaps = np.abs(curve - wanted)
    places = np.flatnonzero(gaps <= max(gaps.min(), EQUAL * wanted))
    at = min(places, key=lambda place: abs(fine[place] - usual))
    return round(float(fine[at]), 4), float(curve[at])
