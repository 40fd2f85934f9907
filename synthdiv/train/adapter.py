"""Low-rank adapters: put on a student, probed, and saved as PEFT saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import DataError
from synthdiv.models.load import OpenModel, peft_warnings_ignored
from synthdiv.train.rows import Row

if TYPE_CHECKING:
    from synthdiv.train.train import Lora


def with_adapter(model: Any, lora: Lora, seed: int) -> Any:
    import peft
    import torch

    # GPT-2 stores its layers transposed, and PEFT wants to be told
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


def probe_adapter(opened: OpenModel, rows: list[Row]) -> None:
    """An adapter that changes no logit was not trained or is not active: an error, not a result."""
    import torch

    for row in rows:  # one by one: the logits of a large batch over a large vocabulary do not fit everywhere
        ids = torch.tensor([row.ids], device=opened.device)
        with torch.no_grad():
            tuned = opened.model(input_ids=ids).logits
            with opened.model.disable_adapter():
                base = opened.model(input_ids=ids).logits
        if not torch.equal(tuned, base):
            return
    raise DataError("the adapter changes no logit: it was not trained. Look at train.lr, train.epochs and train.lora")
