"""Whether rows of one sequence cannot attend to each other: tested on the model itself before it trains."""

from __future__ import annotations

from typing import Any

import torch

from synthdiv.core.types import DataError
from synthdiv.train.module import Tuning
from synthdiv.train.rows import Row, Rows

KINDS = ("eager", "sdpa")  # of these transformers masks the rows before by positions that start again
NEAR = {"fp32": 1e-4, "bf16": 0.1}  # how far logits may be rounded apart, as a share of the largest


def isolating(model: Any, rows: list[Row], pad: int, precision: str, tuning: Tuning | None = None) -> None:
    """Raise where one row could attend to another. `tuning` holds the model where it is spread over ranks."""
    kind = model.config.get_text_config()._attn_implementation
    if kind not in KINDS:
        raise DataError(
            f"train.packing=true: under the attention {kind} rows of one sequence would see one another; it needs "
            f"{' or '.join(KINDS)}. Set train.packing=false"
        )
    short = sorted(rows, key=lambda row: len(row.ids))[:2]
    if leak(model, [Row(row.ids[:64], 0) for row in (short * 2)[:2]], pad, precision, tuning):
        raise DataError(
            f"train.packing=true: in this {type(model).__name__} rows of one sequence see one another; set "
            "train.packing=false"
        )


def leak(model: Any, rows: list[Row], pad: int, precision: str, tuning: Tuning | None = None) -> bool:
    """Whether the logits of the second of two rows depend on the first, or on there being one: as it will train."""
    first, second = rows
    count = model.get_input_embeddings().num_embeddings
    replaced = Row(tuple((token + 1) % count for token in first.ids), 0)
    training = model.training
    device = tuning.strategy.root_device if tuning else next(model.parameters()).device
    model.eval()

    def logits(*given: Row) -> Any:
        batch = Rows(list(given), pad, 1).tensors([list(range(len(given)))], device)
        names = ("input_ids", "position_ids", "attention_mask")
        shown = {name: batch[name] for name in names if name in batch}
        every = forward(model, shown) if tuning is None else tuning.strategy.call(forward, shown)
        end = sum(len(row.ids) for row in given)  # padding follows
        return every[0, end - len(second.ids) : end].float()

    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        alone, behind, changed = logits(second), logits(first, second), logits(replaced, second)
    model.train(training)
    near = NEAR[precision] * float(alone.abs().max())
    return any(bool((behind - other).abs().max() > near) for other in (changed, alone))


def forward(model: Any, inputs: dict[str, Any]) -> Any:
    """Logits."""
    return model(**inputs, use_cache=False).logits
