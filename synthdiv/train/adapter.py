"""Low-rank adapters: put on a student, checked, and saved as PEFT saves them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from synthdiv.core.types import DataError
from synthdiv.models.load import peft_warnings_ignored
from synthdiv.train.recipe import Lora

ALL_LINEAR = "all-linear"  # as PEFT calls it


def with_adapter(model: Any, lora: Lora, seed: int) -> Any:
    """The model with an adapter of these settings, which alone is trained, in fp32."""
    import peft
    import torch

    layers = linear_layers(model)
    if problem := unknown_targets(lora.targets, layers):
        raise DataError(problem)
    every = ALL_LINEAR in lora.targets
    paths = [path for path in layers if every or any(is_at(path, target) for target in lora.targets)]
    names = sorted({path.rpartition(".")[2] for path in paths})
    namesakes = [path for path, _ in model.named_modules() if any(is_at(path, name) for name in names)]
    torch.manual_seed(seed)  # the adapter's random start belongs to train.seed
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a scale: PEFT only divides by it
        lora_dropout=lora.dropout,
        target_modules=names if sorted(namesakes) == sorted(paths) else sorted(paths),
        fan_in_fan_out=any(layers[path] for path in paths),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        modules_to_save=[*lora.modules_to_save] or None,  # PEFT adds the name of what is tied to it
        ensure_weight_tying=bool(lora.modules_to_save and model.config.get_text_config().tie_word_embeddings),
        task_type="CAUSAL_LM",
    )
    try:
        with peft_warnings_ignored():
            model = peft.get_peft_model(model, config)
    except ValueError as error:
        raise DataError(f"train.lora: PEFT refuses it for this student: {error}") from error
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return model


def unknown_targets(targets: list[str], paths: Collection[str], exact: bool = True) -> str | None:
    """The problem of targets that no linear layer at `paths` has. With `exact` false prefixes of paths may differ."""
    names = sorted({path.rpartition(".")[2] for path in paths})

    def known(target: str) -> bool:
        return any(is_at(path, target) for path in paths) if exact else target.rpartition(".")[2] in names

    unknown = [target for target in targets if target != ALL_LINEAR and not known(target)]
    if targets and not unknown:
        return None
    return (
        f"train.lora.targets={targets}: the student has no {', '.join(unknown) or 'adapter then'}; its linear "
        f"layers are {', '.join(names)}; {ALL_LINEAR} takes them all, a path like {min(paths)} takes one"
    )


def linear_layers(model: Any) -> dict[str, bool]:
    """Paths of the linear layers of the language model but its output layer; whether each is stored transposed, as
    those of GPT-2 are, which PEFT must know. A tower for pictures or sound has no gradient of a loss on text."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    inside = {*model.get_decoder().modules()} - {model.get_output_embeddings()}
    layers = {path: part for path, part in model.named_modules() if part in inside}
    return {path: isinstance(part, Conv1D) for path, part in layers.items() if isinstance(part, Conv1D | Linear)}


def is_at(path: str, target: str) -> bool:
    """Whether a target, a name or a path, names the module at `path`: as PEFT matches them."""
    return path == target or path.endswith(f".{target}")


def freeze_other_towers(model: Any) -> None:
    """Train the language model alone: other parts of a multimodal model have no gradient of a loss on text."""
    parts = [part for part in (model.get_decoder(), model.get_output_embeddings()) if part is not None]
    trained = {weight for part in parts for weight in part.parameters()}
    for weight in model.parameters():
        weight.requires_grad_(weight in trained)


def save_adapter(model: Any, folder: Path, hub: str | None, weights: dict[str, Any] | None) -> None:
    """As PEFT saves it, less what differs between equal adapters: the order of a set, and where the base lies here.
    `weights` are what a strategy has made whole, if it cuts them."""
    model.save_pretrained(folder, state_dict=weights)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form that names the base's path
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"target_modules": sorted(config["target_modules"]), "base_model_name_or_path": hub}
    file.write_text(json.dumps(config, indent=1), encoding="utf-8")


def verify(weights: Iterable[tuple[str, Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise unless all weights are finite and whole, as a strategy must give them, and an adapter's are changed."""
    import torch

    after = {}
    for name, weight in weights:
        after[name] = tuple(weight.shape)
        if not torch.isfinite(weight).all():
            raise DataError(f"{name}: has values that are not finite after training; lower train.lr")
        if "lora_B" in name and weight.numel() and not (weight != 0).any():
            raise DataError(f"{name}: is zero, as before training. Look at train.lr, train.epochs and train.lora")
    if wrong := sorted(name for name in {*after, *shapes} if after.get(name) != shapes.get(name)):
        raise DataError(
            f"{wrong[0]}: has the shape {after.get(wrong[0])} after training and had {shapes.get(wrong[0])} before "
            f"({len(wrong)} such weights)"
        )
