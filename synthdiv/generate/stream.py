"""One random stream per row, so that draws never depend on batch, shard or device."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def row_seed(seed: int, model: str, source: str, role: str, turn: int, prompt: str, sample: int) -> str:
    """128 bits, hexadecimal, from (generate.seed, model key, source name, role, round, prompt id, sample index).

    The source name is in it so that two copies of one checkpoint in one study do not speak in unison.
    """
    text = json.dumps([seed, model, source, role, turn, prompt, sample])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def uniforms(seed: str, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) of the row's stream (Philox 4x64, Salmon et al. 2011), float64."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key=int(seed, 16))).random(count)
