"""Opening of checkpoints, only here: safetensors, no remote code, adapters on the base they were trained on."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.core.types import Artifact, ConfigError, DataError


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
        """Context length in tokens, prompt and answer together."""
        return context_of(self.model.config)


def context_of(config: Any) -> int:
    """Return the context length in tokens of a model with this configuration."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 2**30)


def load_context(folder: Path) -> int:
    """Return the context length in tokens of a checkpoint without opening its weights."""
    import transformers

    return context_of(transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False))


def quiet() -> None:
    """Turn off the progress bars and hints of transformers."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it; on a CPU it warns of missing kernels
    transformers.utils.logging.disable_progress_bar()


@contextlib.contextmanager
def peft_warnings_ignored() -> Iterator[None]:
    """Ignore a deprecation warning of transformers 5.2x that PEFT 0.21 causes and users cannot avoid."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def weights_folder(artifact: Artifact) -> Path:
    """Return the folder with the weights and the tokenizer of a model artifact."""
    return artifact.path if artifact.stage.located else artifact.path / "model"


def load_tokenizer(folder: Path) -> Any:
    import transformers

    quiet()
    file = folder / "tokenizer_config.json"
    class_name = json.loads(file.read_text(encoding="utf-8")).get("tokenizer_class") if file.is_file() else None
    # for every Qwen-shaped model AutoTokenizer takes the class of Qwen, which adds a token and splits text differently
    is_backend_tokenizer = class_name == "TokenizersBackend"
    tokenizer_class: Any = transformers.PreTrainedTokenizerFast if is_backend_tokenizer else transformers.AutoTokenizer
    tokenizer = tokenizer_class.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked by position, not by id
    return tokenizer


def tokenizer_of(artifact: Artifact) -> Any:
    """Return the tokenizer of a model artifact; for an adapter, that of its base."""
    if (artifact.path / "adapter").is_dir():
        return tokenizer_of(artifact.inputs["student"])
    return load_tokenizer(weights_folder(artifact))


def require_4bit_support(device: str) -> None:
    """Raise ConfigError unless 4-bit weights work here: they need an NVIDIA GPU and bitsandbytes."""
    if not device.startswith("cuda"):
        raise ConfigError(
            f"train.method=qlora: 4-bit weights need an NVIDIA GPU, and runtime.device is {device}; choose "
            "train.method=lora, or run on a machine with an NVIDIA GPU"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("train.method=qlora: bitsandbytes is not installed; pip install 'synthdiv[qlora]'")


def load_base(artifact: Artifact, precision: str, packed: bool = False) -> tuple[Any, Any]:
    """Return model and tokenizer of a checkpoint, pretrain or train artifact; for an adapter, those of its base. With
    `packed`, linear layers have 4-bit weights as in QLoRA (Dettmers et al. 2023: NF4 with double quantisation)."""
    import torch
    import transformers

    quiet()
    if (artifact.path / "adapter").is_dir():
        return load_base(artifact.inputs["student"], precision, packed)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    quantization: dict[str, Any] = {}
    if packed:
        quantization["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    folder = weights_folder(artifact)
    try:
        tokenizer = load_tokenizer(folder)
        opened: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **quantization
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: transformers cannot open this as a causal language model ({error})") from error
    model, loading_info = opened
    if loading_info["missing_keys"]:  # transformers would initialise them at random
        raise DataError(
            f"{folder}: the checkpoint lacks {len(loading_info['missing_keys'])} weights of a causal language model "
            f"(first {min(loading_info['missing_keys'])})"
        )
    size = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise DataError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens and the model {size}; use the tokenizer of this model"
        )
    return model, tokenizer


def open_model(artifact: Artifact, precision: str, device: str) -> OpenModel:
    """Open a model artifact for generation or scoring."""
    import torch
    import transformers

    model, tokenizer = load_base(artifact, precision)
    # `generate` takes unset options from here: the generation defaults of a checkpoint, such as a repetition penalty,
    # must not apply
    model.generation_config = transformers.GenerationConfig()
    adapter = artifact.path / "adapter"
    if adapter.is_dir():
        import peft

        with peft_warnings_ignored():
            model = peft.PeftModel.from_pretrained(model, adapter)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return OpenModel(model.to(device).eval(), tokenizer, device)
