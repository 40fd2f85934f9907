"""Next-token loss: logits where a token is supervised and nowhere else, a part of them at a time."""

from __future__ import annotations

import weakref
from typing import Any

import torch

SPLITS: Any = weakref.WeakKeyDictionary()  # model: its body and its output layer, or None
LOGITS = {"cpu": 2**21}  # kept in memory at once
LOGITS_ELSEWHERE = 2**27


class Fused(torch.autograd.Function):
    """Summed cross entropy of `hidden @ weight.T + bias`, and that of each token, which has no gradient.

    Gradients are computed with the loss, a part of the logits at a time: no logit is computed twice or kept.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Any, targets: Any, weight: Any, bias: Any) -> Any:
        wanted = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:])
        by_hidden, by_weight, by_bias = (
            torch.zeros_like(value) if needed else None
            for value, needed in zip((hidden, weight, bias), wanted, strict=True)
        )
        device = hidden.device.type
        mixed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        used, shift = weight.to(mixed), None if bias is None else bias.to(mixed)
        each = hidden.new_empty(len(targets), dtype=torch.float32)
        step = max(1, LOGITS.get(device, LOGITS_ELSEWHERE) // len(weight))
        for start in range(0, len(targets), step):
            place = slice(start, start + step)
            part, target = hidden[place].to(mixed), targets[place, None]
            logits = torch.nn.functional.linear(part, used, shift).float()
            whole = logits.logsumexp(1, keepdim=True)
            each[place] = (whole - logits.gather(1, target))[:, 0]
            if not any(wanted):
                continue
            slope = logits.sub_(whole).exp_()
            slope.scatter_add_(1, target, slope.new_full((), -1.0).expand_as(target))
            if by_bias is not None:
                by_bias += slope.sum(0)
            slope = slope.to(mixed)
            if by_hidden is not None:
                by_hidden[place] = slope @ used
            if by_weight is not None and mixed == weight.dtype:
                by_weight.addmm_(slope.T, part)
            elif by_weight is not None:
                by_weight += slope.T @ part
        ctx.save_for_backward(by_hidden, by_weight, by_bias)
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        by_hidden, *others = [each if each is None else each * given[0].to(each.dtype) for each in ctx.saved_tensors]
        return by_hidden, None, *others


def parted(model: Any) -> tuple[Any, Any] | None:
    """The body of a causal model and its output layer, where the one behind the other is what the model computes.

    None where it is not: logits that are scaled or capped (Cohere, Gemma 2), an output layer with an adapter, or one
    that others watch. The hooks by which ZeRO 3 gathers its weight are welcome: they run around our part of the work.
    """
    if model not in SPLITS:
        SPLITS[model] = _parted(model)
    return SPLITS[model]


def _parted(model: Any) -> tuple[Any, Any] | None:
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    body: Any = getattr(whole, getattr(whole, "base_model_prefix", ""), None)
    head: Any = whole.get_output_embeddings() if body is not None else None
    if type(head) is not torch.nn.Linear:
        return None
    if (head._forward_hooks or head._forward_pre_hooks) and not hasattr(head.weight, "ds_id"):
        return None
    if getattr(whole.config.get_text_config(), "final_logit_softcapping", None):  # small logits would not show it
        return None
    training, ids = model.training, torch.arange(4, device=head.weight.device)[None]
    model.eval()
    try:
        with torch.no_grad():
            logits = head(body(input_ids=ids, use_cache=False).last_hidden_state)
            same = torch.equal(logits, model(input_ids=ids, use_cache=False).logits)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # a body that takes or gives something else
        return None
    finally:
        model.train(training)
    return (body, head) if same else None


def fused(head: Any, hidden: Any, targets: Any) -> Any:
    """`Fused`, computed inside of a call of the output layer: its weight may be there only then (ZeRO 3)."""
    head.forward = lambda hidden: Fused.apply(hidden, targets, head.weight, head.bias)
    try:
        return head(hidden)
    finally:
        del head.forward


def loss_sum(model: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """Natural negative log-likelihood of the supervised tokens: summed, and of each (without a gradient)."""
    shown = {name: batch[name] for name in ("position_ids", "attention_mask") if name in batch}
    ids, places, targets = batch["input_ids"], batch["places"], batch["targets"]
    if (split := parted(model)) is None:
        columns, column = (places % ids.shape[1]).unique(return_inverse=True)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=columns, **shown).logits
        if logits.shape[1] > len(columns):  # a model that does not know the word (xLSTM)
            logits = logits[:, columns]
        kept = logits[places // ids.shape[1], column].float()
        each = torch.nn.functional.cross_entropy(kept, targets, reduction="none")
        return each.sum(), each.detach()
    body, head = split
    shown.pop("attention_mask", None)  # padding is on the right: no token sees it, and without a mask it is faster
    hidden = body(input_ids=ids, use_cache=False, **shown).last_hidden_state
    return fused(head, hidden.flatten(0, 1)[places], targets)
