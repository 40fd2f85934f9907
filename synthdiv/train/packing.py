"""Whether several rows in one sequence stay strangers to one another: asked of the model itself before it trains."""

from __future__ import annotations

from typing import Any

from synthdiv.train.rows import Row, Rows
from synthdiv.types import DataError

# transformers masks the rows before by positions that start again; the others take their lengths from them, in one line
MASKED, FLAT = ("eager", "sdpa"), ("flash_attention_2", "flash_attention_3")
NEAR = {"float32": 1e-4, "bfloat16": 0.1}  # how far logits may be rounded apart, as a share of the largest


def isolating(model: Any, rows: list[Row], pad: int) -> bool:
    """Whether sequences must lie in one line; an error where one row could see another."""
    kind = model.config.get_text_config()._attn_implementation
    if kind not in MASKED + FLAT:
        raise DataError(
            f"train.packing=true: under the attention {kind} rows of one sequence would see one another; choose one of "
            f"{', '.join(MASKED + FLAT)}, or train.packing=false"
        )
    short = sorted(rows, key=lambda row: len(row.ids))[:2]
    if leak(model, [Row(row.ids[:64], 0) for row in (short * 2)[:2]], pad, kind in FLAT):
        raise DataError(
            f"train.packing=true: in this {type(model).__name__} rows of one sequence see one another; set "
            "train.packing=false"
        )
    return kind in FLAT


def leak(model: Any, rows: list[Row], pad: int, flat: bool) -> bool:
    """Whether the logits of the second of two rows depend on the first, or on there being one."""
    import torch

    first, second = rows
    count = model.get_input_embeddings().num_embeddings
    other = Row(tuple((token + 1) % count for token in first.ids), 0)
    training, device = model.training, next(model.parameters()).device
    model.eval()

    def logits(*given: Row) -> Any:
        batch = Rows(list(given), pad, 1, flat).tensors([list(range(len(given)))], device)
        names = ("input_ids", "position_ids", "attention_mask")
        shown = {name: batch[name] for name in names if name in batch}
        return model(**shown, use_cache=False).logits.flatten(0, 1)[-len(second.ids) :].float()

    with torch.no_grad():
        alone, behind, changed = logits(second), logits(first, second), logits(other, second)
    model.train(training)
    near = NEAR[str(model.dtype).removeprefix("torch.")] * float(alone.abs().max())
    return bool((behind - changed).abs().max() > near) or bool((behind - alone).abs().max() > near)
