"""One random stream per row, so that samples do not depend on batch, shard or device, and sampling from it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

HEAD_TOKENS = 128  # most likely tokens, among which the nucleus is searched first


def row_seed(seed: int, model: str, source: str, role: str, round_number: int, prompt: str, sample: int) -> str:
    """Return 128 bits (hexadecimal) from seed, model key, source name, role, round, prompt id and sample index. With
    the source name, two sources of one checkpoint in one study give different answers."""
    text = json.dumps([seed, model, source, role, round_number, prompt, sample])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def uniforms(seed: str, count: int) -> np.ndarray:
    """Return `count` numbers in [0, 1) of the row's stream (Philox 4x64, Salmon et al. 2011), float64."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key=int(seed, 16))).random(count)


class RowSampler:
    """Samples the tokens of a batch: row i uses one number of `streams[i]` at each of `steps` steps.

    `temperature` 0 takes the most likely token and no number. The distribution is that of TemperatureLogitsWarper
    followed by TopPLogitsWarper in transformers.
    """

    def __init__(self, streams: list[str], steps: int, device: str, temperature: float = 1.0, top_p: float = 1.0):
        import numpy as np
        import torch

        self.temperature, self.top_p = temperature, top_p
        if temperature > 0:
            table = torch.from_numpy(np.stack([uniforms(stream, steps) for stream in streams]))
            self.table = table.to(device, torch.float32 if device == "mps" else torch.float64)  # no float64 on mps

    def __call__(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """Return token ids (n,) for logits (n, vocabulary) of the rows (n,) of the batch."""
        if self.temperature == 0:
            return logits.argmax(-1)
        scores = logits.float() / self.temperature
        numbers = self.table[rows, step, None]
        if self.top_p == 1:
            return sample_by_inverse_cdf(scores, numbers)
        if scores.device.type != "cpu":  # checking whether the head suffices would block the host at each step
            return sample_by_inverse_cdf(top_p_scores(scores, self.top_p), numbers)
        return self._from_head(scores, numbers)

    def _from_head(self, scores: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return the tokens that sorting the whole vocabulary gives, in a tenth of the time."""
        head, ids = scores.topk(min(HEAD_TOKENS, scores.shape[-1]))
        mass = (head - scores.logsumexp(-1, keepdim=True)).exp()
        before = mass.cumsum(-1) - mass
        ids, order = ids.sort(-1)  # the inverse CDF runs in the order of the vocabulary
        kept = head.masked_fill(before >= self.top_p, -float("inf")).gather(-1, order)
        tokens = ids.gather(-1, sample_by_inverse_cdf(kept, numbers)[:, None])[:, 0]
        too_narrow = (before[:, -1] + mass[:, -1] < self.top_p).nonzero()[:, 0]
        if len(too_narrow) and scores.shape[-1] > HEAD_TOKENS:
            tokens[too_narrow] = sample_by_inverse_cdf(
                top_p_scores(scores[too_narrow], self.top_p), numbers[too_narrow]
            )
        return tokens


def top_p_scores(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return scores (n, vocabulary) with -inf outside the smallest set of top tokens with a mass of `top_p`."""
    import transformers

    cutting: Any = transformers.TopPLogitsWarper(top_p)
    return cutting(None, scores)


def sample_by_inverse_cdf(scores: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return ids (n,) for scores (n, tokens) at numbers (n, 1) in [0, 1], computed in the dtype of `numbers`."""
    import torch

    mass = scores.to(numbers.dtype).softmax(-1).cumsum(-1)
    # right=True: the first token whose cumulative mass exceeds the number, so a token without mass is never drawn; a
    # number that rounds to 1 draws the last token with mass
    last = torch.searchsorted(mass, mass[:, -1:].contiguous())
    return torch.searchsorted(mass, numbers * mass[:, -1:], right=True).minimum(last)[:, 0]
