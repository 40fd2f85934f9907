"""Decoding that finished rows leave: the loop of transformers' `generate` for models that keep all keys and values."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ROOM = 32  # columns by which the cache grows at once; appending one by one would copy all of it at each step
LEAVE = 1 / 8  # share of the rows that must have finished before the others close ranks: it costs about a step
LOOK = {"cpu": 1}  # steps from one look at what has finished to the next; elsewhere `SELDOM`: the host waits for each
SELDOM = 16


@cache
def _roomy() -> Any:
    from transformers.cache_utils import DynamicLayer

    class Roomy(DynamicLayer):
        """Keys and values (rows, heads, columns, width) are the first `columns` of tensors with room for more.

        They are not kept as `keys` and `values` beside `wide`: torch.compile takes no two views of what it writes.
        """

        columns = 0

        def update(self, key_states: Any, value_states: Any, *_args: Any, **_kwargs: Any) -> tuple[Any, Any]:
            if not self.is_initialized:
                self.wide = [key_states[:, :, :0], value_states[:, :, :0]]
                self.is_initialized = True
            new, have = [key_states, value_states], self.columns
            self.wide = [appended(wide, have, states) for wide, states in zip(self.wide, new, strict=True)]
            self.columns = have + key_states.shape[-2]
            return self.wide[0][:, :, : self.columns], self.wide[1][:, :, : self.columns]

        def get_seq_length(self) -> int:
            return self.columns

        def leave(self, rows: torch.Tensor, spare: int) -> None:
            """Keep these rows, without the first `spare` columns."""
            self.wide = [wide[:, :, spare : self.columns].index_select(0, rows) for wide in self.wide]
            self.columns -= spare

    return Roomy


def appended(wide: torch.Tensor, have: int, states: torch.Tensor) -> torch.Tensor:
    """`wide` with `states` behind its first `have` columns; a wider copy where they do not fit."""
    need = have + states.shape[-2]
    if need > wide.shape[-2]:
        wider = states.new_empty((*states.shape[:2], need + ROOM, states.shape[-1]))
        wider[:, :, :have] = wide[:, :, :have]
        wide = wider
    wide[:, :, have:need] = states
    return wide


def roomy_cache(model: Any) -> Any:
    """An empty cache of layers that rows can leave, or None where the model's own is of another kind (sliding windows,
    states) or its forward does not take what the loop gives."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    taken = inspect.signature(model.forward).parameters
    if model.config.is_encoder_decoder or not {"past_key_values", "position_ids", "logits_to_keep"} <= taken.keys():
        return None
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [_roomy()() for _ in cache.layers]
    return cache


def decode(
    model: Any,
    cache: Any,
    prompts: list[list[int]],
    ends: list[int],
    limit: int,
    choose: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
    device: str,
) -> list[list[int]]:
    """New token ids of each prompt, at most `limit`; behind an end there may be more, which mean nothing.

    `choose(logits (n, vocabulary), rows (n,), step)` gives the tokens (n,) of those rows of the batch. `cache` is an
    empty one of `roomy_cache`. Prompts are padded on the left.
    """
    import torch

    width = max(map(len, prompts))
    padding = [width - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * pad + prompt for pad, prompt in zip(padding, prompts, strict=True)], device=device)
    mask = torch.ones((len(prompts), width + limit), dtype=torch.long, device=device)
    mask[:, :width] = torch.arange(width, device=device) >= torch.tensor(padding, device=device)[:, None]
    places = (mask[:, :width].cumsum(-1) - 1).clamp(min=0)
    stops = torch.tensor(ends, device=device)
    rows = torch.arange(len(prompts), device=device)
    said = torch.full((len(prompts), limit), ends[0], device=device)
    over = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    look = LOOK.get(torch.device(device).type, SELDOM)
    for step in range(limit):
        seen = mask[:, :width] if any(padding) else None  # without one the model need not look for padding
        logits = model(
            input_ids=ids, attention_mask=seen, position_ids=places, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        ids = choose(logits, rows, step)[:, None]
        said[rows, step] = ids[:, 0]
        over |= torch.isin(ids[:, 0], stops)
        width, places = width + 1, places[:, -1:] + 1
        if (step + 1) % look:
            continue
        left = (~over).nonzero()[:, 0]
        if not len(left):
            break
        if len(left) <= (1 - LEAVE) * len(rows):
            padding = [padding[row] for row in left.tolist()]
            spare = min(padding)  # columns in front that are padding to everybody
            padding, width = [pad - spare for pad in padding], width - spare
            mask, ids, places, rows, over = mask[left, spare:], ids[left], places[left], rows[left], over[left]
            for layer in cache.layers:
                layer.leave(left, spare)
    return said.tolist()
