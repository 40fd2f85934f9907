"""The only place that opens checkpoints: safetensors, no remote code, adapters on the base they were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.types import Artifact, DataError


class Precision(Enum):
    """Number format of weights and activations."""

    fp32 = "fp32"
    bf16 = "bf16"


@dataclass
class OpenModel:
    """A model in evaluation mode on its device, and its tokenizer."""

    model: Any
    tokenizer: Any
    device: str

    @property
    def context(self) -> int:
        """Tokens that fit, prompt and answer together."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 2**30)


def quiet() -> None:
    """transformers' own bars and hints do not belong between ours."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def weights_folder(artifact: Artifact) -> Path:
    """Where the weights and the tokenizer of a model artifact lie."""
    return artifact.path if artifact.stage.located else artifact.path / "model"


def load_tokenizer(folder: Path) -> Any:
    import transformers

    quiet()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only a filler: padding is masked by position, never by id
    return tokenizer


def load_base(artifact: Artifact, precision: str) -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint, pretrain or fully tuned artifact; for an adapter those of its base."""
    import torch
    import transformers

    quiet()
    if (artifact.path / "adapter").is_dir():
        return load_base(artifact.inputs[0], precision)
    folder = weights_folder(artifact)
    tokenizer = load_tokenizer(folder)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: transformers cannot open this as a causal language model ({error})") from error
    size = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > size:
        raise DataError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens and the model {size}; they do not belong together"
        )
    return model, tokenizer


def open_model(artifact: Artifact, precision: str, device: str) -> OpenModel:
    """Open any model artifact for generation or scoring."""
    import torch

    model, tokenizer = load_base(artifact, precision)
    adapter = artifact.path / "adapter"
    if adapter.is_dir():
        import peft

        model = peft.PeftModel.from_pretrained(model, adapter)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return OpenModel(model.to(device).eval(), tokenizer, device)
