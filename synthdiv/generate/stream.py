"""One random stream per row, so that samples do not depend on batch, shard or device, and sampling from it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from synthdiv.core.lazy import np

if TYPE_CHECKING:
    import torch

HEAD_TOKENS = 128  # most likely tokens, among which the nucleus is searched first


def row_seed(seed: int, model: str, source: str, role: str, round_number: int, prompt: str, sample: int) -> str:
    """Return 128 bits (hexadecimal) from seed, model key, source name, role, round, prompt id and sample index. With
    the source name, two sources of one checkpoint in one study give different answers."""
    text = json.dumps([seed, model, source, role, round_number, prompt, sample])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def uniforms(seed: str, count: int) -> np.ndarray:
    """Return `count` numbers in [0, 1) of the row's stream (Philox 4x64, Salmon et al. 2011), float64."""
    return np.random.Generator(np.random.Philox(key=int(seed, 16))).random(count)


class RowSampler:
    """Samples the tokens of a batch: row i uses one number of `streams[i]` at each of `steps` steps.

    `temperature` 0 takes the most likely token and no number. The distribution is that of transformers' logits
    processors in their order: repetition penalty, temperature, top k, top p, min p. The penalty counts the token ids of
    `prompts` and those drawn.
    """

    def __init__(
        self, streams: list[str], steps: int, device: str, sampling: Any, prompts: list[list[int]] | None = None
    ):
        import torch

        self.sampling, self.prompts = sampling, prompts
        self.occurrence_mask: torch.Tensor | None = None  # (rows, vocabulary)
        if sampling.temperature > 0:
            table = torch.from_numpy(np.stack([uniforms(stream, steps) for stream in streams]))
            self.table = table.to(device, torch.float32 if device == "mps" else torch.float64)  # no float64 on mps

    def __call__(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """Return token ids (n,) for logits (n, vocabulary) of the rows (n,) of the batch; all rows at step 0."""
        if self.sampling.repetition_penalty == 1:
            return self._draw(logits, rows, step)
        import torch

        if self.occurrence_mask is None:
            self.occurrence_mask = logits.new_zeros(logits.shape, dtype=torch.bool)
            for row, ids in enumerate(self.prompts or []):
                self.occurrence_mask[row, ids] = True
        scores, penalty = logits.float(), self.sampling.repetition_penalty
        penalised = scores.where(~self.occurrence_mask[rows], (scores * penalty).where(scores < 0, scores / penalty))
        tokens = self._draw(penalised, rows, step)
        self.occurrence_mask[rows, tokens] = True
        return tokens

    def _draw(self, logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        sampling = self.sampling
        if sampling.temperature == 0:
            return logits.argmax(-1)
        scores, numbers = logits.float() / sampling.temperature, self.table[rows, step, None]
        if sampling.top_p < 1 and not (sampling.top_k or sampling.min_p) and scores.device.type == "cpu":
            return self._from_head(scores, numbers)  # elsewhere the check whether it suffices would block the host
        return sample_by_inverse_cdf(cut_scores(scores, sampling.top_k, sampling.top_p, sampling.min_p), numbers)

    def _from_head(self, scores: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return the tokens that sorting the whole vocabulary gives, in a tenth of the time."""
        head, ids = scores.topk(min(HEAD_TOKENS, scores.shape[-1]))
        mass = (head - scores.logsumexp(-1, keepdim=True)).exp()
        before = mass.cumsum(-1) - mass
        ids, order = ids.sort(-1)  # the inverse CDF runs in the order of the vocabulary
        nucleus = head.masked_fill(before >= self.sampling.top_p, -float("inf")).gather(-1, order)
        tokens = ids.gather(-1, sample_by_inverse_cdf(nucleus, numbers)[:, None])[:, 0]
        too_narrow = (before[:, -1] + mass[:, -1] < self.sampling.top_p).nonzero()[:, 0]
        if len(too_narrow) and scores.shape[-1] > HEAD_TOKENS:
            tokens[too_narrow] = sample_by_inverse_cdf(
                cut_scores(scores[too_narrow], top_p=self.sampling.top_p), numbers[too_narrow]
            )
        return tokens


def cut_scores(scores: torch.Tensor, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> torch.Tensor:
    """Return scores (n, vocabulary) with -inf outside the `top_k` best tokens, then outside the smallest set of top
    tokens with a mass of `top_p`, then below `min_p` times the best."""
    import transformers

    cuts: list[Any] = [transformers.TopKLogitsWarper(top_k)] if top_k else []
    cuts += [transformers.TopPLogitsWarper(top_p)] if top_p < 1 else []
    cuts += [transformers.MinPLogitsWarper(min_p)] if min_p else []
    for cut in cuts:
        scores = cut(None, scores)
    return scores


def sample_by_inverse_cdf(scores: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return ids (n,) for scores (n, tokens) at numbers (n, 1) in [0, 1], computed in the dtype of `numbers`."""
    import torch

    mass = scores.to(numbers.dtype).softmax(-1).cumsum(-1)
    # right=True: the first token whose cumulative mass exceeds the number, so a token without mass is never drawn; a
    # number that rounds to 1 draws the last token with mass
    last = torch.searchsorted(mass, mass[:, -1:].contiguous())
    return torch.searchsorted(mass, numbers * mass[:, -1:], right=True).minimum(last)[:, 0]
