"""One random stream per row, so that draws never depend on batch, shard or device; and tokens drawn by it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

HEAD = 128  # likeliest tokens among which a nucleus is first looked for: it mostly holds tens


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


class Draws:
    """Draws the tokens of a batch: row i takes one number of `streams[i]` at each of `steps` steps, whoever is with it.

    `temperature` 0 takes the likeliest token and no number. The law is that of transformers' TemperatureLogitsWarper
    and TopPLogitsWarper, one after the other.
    """

    def __init__(self, streams: list[str], steps: int, device: str, temperature: float = 1.0, top_p: float = 1.0):
        import numpy as np
        import torch

        self.temperature, self.top_p = temperature, top_p
        if temperature > 0:
            table = torch.from_numpy(np.stack([uniforms(stream, steps) for stream in streams]))
            self.table = table.to(device, torch.float32 if device == "mps" else torch.float64)  # Apple has no doubles

    def __call__(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """Token ids (n,) by logits (n, vocabulary) of the rows (n,) of the batch."""
        if self.temperature == 0:
            return logits.argmax(-1)
        scores = logits.float() / self.temperature
        numbers = self.table[rows, step, None]
        if self.top_p == 1:
            return inverse(scores, numbers)
        if scores.device.type != "cpu":  # to look whether the head suffices would make the host wait at each step
            return inverse(cut(scores, self.top_p), numbers)
        return self._from_head(scores, numbers)

    def _from_head(self, scores: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """The same token as by sorting the whole vocabulary, at a tenth of the time."""
        best, ids = scores.topk(min(HEAD, scores.shape[-1]))
        mass = (best - scores.logsumexp(-1, keepdim=True)).exp()
        before = mass.cumsum(-1) - mass
        ids, order = ids.sort(-1)  # numbers are laid out in the order of the vocabulary
        kept = best.masked_fill(before >= self.top_p, -float("inf")).gather(-1, order)
        tokens = ids.gather(-1, inverse(kept, numbers)[:, None])[:, 0]
        wider = (before[:, -1] + mass[:, -1] < self.top_p).nonzero()[:, 0]
        if len(wider) and scores.shape[-1] > HEAD:
            tokens[wider] = inverse(cut(scores[wider], self.top_p), numbers[wider])
        return tokens


def cut(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Scores (n, vocabulary) with -inf outside the smallest head that has a mass of `top_p`."""
    import transformers

    cutting: Any = transformers.TopPLogitsWarper(top_p)
    return cutting(None, scores)


def inverse(scores: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Inverse CDF: ids (n,) for scores (n, tokens) at numbers (n, 1) of [0, 1]; computed in the format of numbers."""
    import torch

    mass = scores.to(numbers.dtype).softmax(-1).cumsum(-1)
    # right=True: the first token whose cumulative mass exceeds the number, so a token without mass is never drawn; a
    # number that rounds to 1 draws the last token with mass
    last = torch.searchsorted(mass, mass[:, -1:].contiguous())
    return torch.searchsorted(mass, numbers * mass[:, -1:], right=True).minimum(last)[:, 0]
