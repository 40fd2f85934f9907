"""Probabilities of the options of a closed question, from raw logits: at temperature 1, nothing removed.

Read from scores after temperature and top-p, the losing option has a probability of 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel
from synthdiv.models.score import answer_log_likelihoods, batches

Ids = list[int]
MIN_PREFIX = 8  # tokens that prompts share for which a cache of them pays


def option_ids(chat: Chat, prompt: str, options: list[str]) -> tuple[Ids, list[Ids]]:
    """Return the tokens with which every option begins an answer to a prompt, and the rest of each option.

    A tokenizer may split an option, or put a blank before it: what the options share is put behind the prompt. Where
    one option begins another (1 and 10), the token that ends an answer is part of both.
    """
    ends = [ids for _, ids in chat.pairs([prompt] * len(options), options)]
    lead = shared_prefix(ends)
    rest = [ids[len(lead) :] for ids in ends]
    return lead, rest if any(len(ids) == 1 for ids in rest) else [ids[:-1] for ids in rest]


def shared_prefix(rows: list[Ids]) -> Ids:
    """Return the tokens with which all rows begin."""
    first, last = min(rows), max(rows)  # what these share, all between them share
    return list(first[: next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))])


def option_probabilities(
    opened: OpenModel, prompts: list[Ids], options: list[Ids], budget: int, first_batch: int = 0
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Yield batches of (index of a prompt, probabilities (options,) of the options after it). Their sum is at most 1.

    Options of one token take one forward pass a prompt, after one of the tokens that all prompts share; the others are
    scored one after the other. `budget` is the number of tokens in a batch; batches before `first_batch` are left out.
    """
    single = max(map(len, options)) == 1
    prefix = shared_prefix(prompts) if single and len(prompts) > 1 else []
    prefix = prefix[: min(map(len, prompts), default=1) - 1]  # a row keeps a token of its own
    cache = prefix_cache(opened, prefix) if len(prefix) >= MIN_PREFIX else None
    prefix = prefix if cache else []
    for rows in batches([len(ids) for ids in prompts], budget)[first_batch:]:
        if single:
            suffixes = [prompts[row][len(prefix) :] for row in rows]
            values = last_probabilities(opened, suffixes, [ids[0] for ids in options], cache, len(prefix))
        else:
            pairs = [(prompts[row], ids) for row in rows for ids in options]
            sums = [math.exp(value.sum(dtype="float64")) for value in answer_log_likelihoods(opened, pairs, budget)]
            values = np.array(sums).reshape(len(rows), len(options))
        yield list(zip(rows, values, strict=True))


def prefix_cache(opened: OpenModel, prefix: Ids) -> Any:
    """Return the cache of a prefix, or None for a model whose cache cannot be shared by rows."""
    import torch
    from transformers import DynamicCache

    with torch.no_grad():
        ids = torch.tensor([prefix], device=opened.device)
        cache = opened.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    return cache if type(cache) is DynamicCache else None


def last_probabilities(opened: OpenModel, suffixes: list[Ids], tokens: Ids, cache: Any, prefix: int) -> np.ndarray:
    """Return the probabilities (rows, tokens) of `tokens` after each row: a cache of `prefix` tokens and a suffix."""
    import torch

    count, lengths = len(suffixes), torch.tensor([len(ids) for ids in suffixes])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in suffixes], batch_first=True)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    mask = torch.cat([torch.ones(count, prefix, dtype=torch.bool), mask], 1)
    more: dict[str, Any] = {"use_cache": False}
    if cache is not None:
        rows = copy.deepcopy(cache)  # a forward pass appends to it
        rows.batch_repeat_interleave(count)
        more = {"past_key_values": rows, "use_cache": True}
    skip = int(lengths.min()) - 1
    with torch.no_grad():
        logits = opened.model(
            input_ids=ids.to(opened.device), attention_mask=mask.long().to(opened.device),
            logits_to_keep=ids.shape[1] - skip, **more,
        ).logits  # fmt: skip
    last = logits[torch.arange(count, device=logits.device), (lengths - 1 - skip).to(logits.device)].float()
    probabilities: np.ndarray = (last[:, tokens] - last.logsumexp(1, keepdim=True)).exp().cpu().numpy()
    return probabilities
