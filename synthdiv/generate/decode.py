"""Batched decoding that drops finished rows, for models that keep all keys and values.

It gives the tokens of the loop of transformers' `generate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SPARE_COLUMNS = 32  # columns by which the cache grows; growing by one would copy all of it at each step
MIN_FINISHED_SHARE = 1 / 8  # rows are dropped once this share has finished; dropping costs about one step
CHECK_INTERVAL = {"cpu": 1}  # steps between checks for finished rows, on which the host of an accelerator waits
ACCELERATOR_CHECK_INTERVAL = 16


@cache
def _row_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class PreallocatedLayer(DynamicLayer):
        """Keys and values (rows, heads, columns, width), held in wider tensors. They are not also stored as `keys` and
        `values`, because torch.compile accepts no two views of a tensor that it writes."""

        columns = 0

        def update(self, key_states: Any, value_states: Any, *_args: Any, **_kwargs: Any) -> tuple[Any, Any]:
            if not self.is_initialized:
                self.wide = [key_states[:, :, :0], value_states[:, :, :0]]
                self.is_initialized = True
            new, columns = [key_states, value_states], self.columns
            self.wide = [append_columns(wide, columns, states) for wide, states in zip(self.wide, new, strict=True)]
            self.columns = columns + key_states.shape[-2]
            return self.wide[0][:, :, : self.columns], self.wide[1][:, :, : self.columns]

        def get_seq_length(self) -> int:
            return self.columns

        def keep_rows(self, rows: torch.Tensor, padding_columns: int) -> None:
            """Keep these rows, without the first `padding_columns` columns."""
            self.wide = [wide[:, :, padding_columns : self.columns].index_select(0, rows) for wide in self.wide]
            self.columns -= padding_columns

    return PreallocatedLayer


def append_columns(wide: torch.Tensor, columns: int, states: torch.Tensor) -> torch.Tensor:
    """Write `states` behind the first `columns` of `wide`; return `wide`, or a wider copy if they do not fit."""
    needed = columns + states.shape[-2]
    if needed > wide.shape[-2]:
        wider = states.new_empty((*states.shape[:2], needed + SPARE_COLUMNS, states.shape[-1]))
        wider[:, :, :columns] = wide[:, :, :columns]
        wide = wider
    wide[:, :, columns:needed] = states
    return wide


def row_cache(model: Any) -> Any:
    """Return an empty cache whose layers can drop rows, or None if the model is not supported. Unsupported are models
    with another cache (sliding windows, states) or a `forward` without the needed arguments."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    needed = {"past_key_values", "position_ids", "logits_to_keep"}
    if model.config.is_encoder_decoder or not needed <= inspect.signature(model.forward).parameters.keys():
        return None
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [_row_layer()() for _ in cache.layers]
    return cache


def left_padded(prompts: list[list[int]], limit: int, device: str) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Return ids (rows, width), the mask (rows, width + limit) of what is no padding, and the padding of each row."""
    import torch

    width = max(map(len, prompts))
    padding = [width - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * pad + prompt for pad, prompt in zip(padding, prompts, strict=True)], device=device)
    mask = torch.ones((len(prompts), width + limit), dtype=torch.long, device=device)
    mask[:, :width] = torch.arange(width, device=device) >= torch.tensor(padding, device=device)[:, None]
    return ids, mask, padding


def decode(
    model: Any,
    cache: Any,
    prompts: list[list[int]],
    ends: list[int],
    limit: int,
    choose: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
    device: str,
) -> list[list[int]]:
    """Return the new token ids of each prompt, at most `limit`; ids after an end token are undefined.

    `choose(logits (n, vocabulary), rows (n,), step)` returns the tokens (n,) of those rows of the batch. `cache` is an
    empty `row_cache`. Prompts are padded on the left.
    """
    import torch

    ids, mask, padding = left_padded(prompts, limit, device)
    width = ids.shape[1]
    positions = (mask[:, :width].cumsum(-1) - 1).clamp(min=0)
    stops = torch.tensor(ends, device=device)
    rows = torch.arange(len(prompts), device=device)
    tokens = torch.full((len(prompts), limit), ends[0], device=device)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    check_interval = CHECK_INTERVAL.get(torch.device(device).type, ACCELERATOR_CHECK_INTERVAL)
    for step in range(limit):
        attention_mask = mask[:, :width] if any(padding) else None  # None saves the model a check for padding
        logits = model(
            input_ids=ids, attention_mask=attention_mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        ids = choose(logits, rows, step)[:, None]
        tokens[rows, step] = ids[:, 0]
        finished |= torch.isin(ids[:, 0], stops)
        width, positions = width + 1, positions[:, -1:] + 1
        if (step + 1) % check_interval:
            continue
        active = (~finished).nonzero()[:, 0]
        if not len(active):
            break
        if len(active) <= (1 - MIN_FINISHED_SHARE) * len(rows):
            padding = [padding[row] for row in active.tolist()]
            padding_columns = min(padding)  # leading columns that are padding in all rows
            padding, width = [pad - padding_columns for pad in padding], width - padding_columns
            mask = mask[active, padding_columns:]
            ids, positions, rows, finished = (each[active] for each in (ids, positions, rows, finished))
            for layer in cache.layers:
                layer.keep_rows(active, padding_columns)
    return tokens.tolist()
