"""Low-rank adapters: put on a student, probed, and saved as PEFT saves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import DataError
from synthdiv.models.load import peft_warnings_ignored
from synthdiv.train.rows import Row

if TYPE_CHECKING:
    from synthdiv.train.recipe import Lora


def with_adapter(model: Any, lora: Lora, seed: int) -> Any:
    import peft
    import torch

    # GPT-2 stores its layers transposed, which PEFT must know
    kinds = {"Linear": False, "Linear4bit": False, "Conv1D": True}
    layers = {
        name.split(".")[-1]: kinds[type(part).__name__]
        for name, part in model.named_modules()
        if type(part).__name__ in kinds and part is not model.get_output_embeddings()
    }
    unknown = [target for target in lora.targets if target not in layers]
    if unknown or not lora.targets:
        raise DataError(
            f"train.lora.targets={lora.targets}: the student has no {', '.join(unknown) or 'adapter then'}; its linear "
            f"layers are {', '.join(sorted(layers))}"
        )
    torch.manual_seed(seed)  # the adapter's random start belongs to train.seed
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a scale: PEFT only divides it by r
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        fan_in_fan_out=any(layers[target] for target in lora.targets),
        task_type="CAUSAL_LM",
    )
    with peft_warnings_ignored():
        return peft.get_peft_model(model, config)


def save_adapter(model: Any, folder: Path, hub: str | None, weights: dict[str, Any] | None = None) -> None:
    """As PEFT saves it, less what differs between equal adapters: the order of a set, and where the base lies here."""
    model.save_pretrained(folder, state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form that names the base's path
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"target_modules": sorted(config["target_modules"]), "base_model_name_or_path": hub}
    file.write_text(json.dumps(config, indent=1), encoding="utf-8")


def probe_adapter(model: Any, rows: list[Row], device: Any, call: Callable[..., Any] | None = None) -> None:
    """An adapter that changes no logit was not trained or is not active: an error, not a result. `call` runs a function
    on the model where it is spread over ranks."""
    import torch

    call = call or (lambda use, *inputs: use(model, *inputs))
    for row in rows:  # one by one: the logits of a large batch over a large vocabulary do not fit everywhere
        ids = torch.tensor([row.ids], device=device)
        with torch.no_grad():
            tuned = call(logits, ids)
            with model.disable_adapter():
                base = call(logits, ids)
        if not torch.equal(tuned, base):
            return
    raise DataError("the adapter changes no logit: it was not trained. Look at train.lr, train.epochs and train.lora")


def logits(model: Any, ids: Any) -> Any:
    return model(input_ids=ids).logits


def verify(weights: Iterable[tuple[str, Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise unless all weights are whole, finite and, of an adapter, changed: parts of sharded ones once were not."""
    import torch

    unchanged, after = [], {}
    for name, weight in weights:
        after[name] = tuple(weight.shape)
        if not torch.isfinite(weight).all():
            raise DataError(f"{name}: has values that are not finite after training; lower train.lr")
        if "lora_B" in name and not (weight != 0).any():
            unchanged.append(name)
    if after != shapes:
        wrong = sorted(name for name in {*after, *shapes} if after.get(name) != shapes.get(name))
        raise DataError(
            f"{wrong[0]}: has the shape {after.get(wrong[0])} after training and had {shapes.get(wrong[0])} before "
            f"({len(wrong)} such weights)"
        )
    if unchanged:
        raise DataError(
            f"{unchanged[0]}: is zero, as it was before training ({len(unchanged)} such parts of the adapter). Look at "
            "train.lr, train.epochs and train.lora"
        )
