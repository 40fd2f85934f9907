"""The only place that opens checkpoints: safetensors, no remote code, adapters on the base they were trained on."""

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
        """Tokens that fit, prompt and answer together."""
        return context_of(self.model.config)


def context_of(config: Any) -> int:
    """Tokens that fit a model of this configuration."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 2**30)


def load_context(folder: Path) -> int:
    """The same of a checkpoint that is not opened here."""
    import transformers

    return context_of(transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False))


def quiet() -> None:
    """transformers' own bars and hints do not belong between ours."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it, and on a processor it misses kernels
    transformers.utils.logging.disable_progress_bar()


@contextlib.contextmanager
def adapting() -> Iterator[None]:
    """PEFT 0.21 asks a model by a name that transformers 5.2x calls deprecated: nothing that a user could change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def weights_folder(artifact: Artifact) -> Path:
    """Where the weights and the tokenizer of a model artifact lie."""
    return artifact.path if artifact.stage.located else artifact.path / "model"


def load_tokenizer(folder: Path) -> Any:
    import transformers

    quiet()
    file = folder / "tokenizer_config.json"
    named = json.loads(file.read_text(encoding="utf-8")).get("tokenizer_class") if file.is_file() else None
    # AutoTokenizer takes Qwen's own class for every Qwen-shaped model, which adds a token and changes how text is split
    own = named == "TokenizersBackend"
    kind: Any = transformers.PreTrainedTokenizerFast if own else transformers.AutoTokenizer
    tokenizer = kind.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only a filler: padding is masked by position, never by id
    return tokenizer


def tokenizer_of(artifact: Artifact) -> Any:
    """The tokenizer of any model artifact; for an adapter that of its base."""
    if (artifact.path / "adapter").is_dir():
        return tokenizer_of(artifact.inputs["student"])
    return load_tokenizer(weights_folder(artifact))


def four_bits(device: str) -> None:
    """A frozen model in 4 bits needs an accelerator, and the library that packs it."""
    if not device.startswith("cuda"):
        raise ConfigError(
            f"train.method=qlora: weights in 4 bits need an NVIDIA GPU, and runtime.device is {device} here; choose "
            "train.method=lora, or run it where there is one"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("train.method=qlora: needs bitsandbytes; pip install 'synthdiv[qlora]'")


def load_base(artifact: Artifact, precision: str, packed: bool = False) -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint, pretrain or fully tuned artifact; for an adapter those of its base. `packed`
    holds its linear layers in 4 bits, as QLoRA does (Dettmers et al. 2023: NF4, constants quantised too)."""
    import torch
    import transformers

    quiet()
    if (artifact.path / "adapter").is_dir():
        return load_base(artifact.inputs["student"], precision, packed)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    how: dict[str, Any] = {}
    if packed:
        how["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    folder = weights_folder(artifact)
    try:
        tokenizer = load_tokenizer(folder)
        opened: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **how,
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: transformers cannot open this as a causal language model ({error})") from error
    model, told = opened
    if told["missing_keys"]:  # transformers would fill them with noise and go on
        raise DataError(
            f"{folder}: the checkpoint lacks {len(told['missing_keys'])} weights of a causal language model "
            f"(first {min(told['missing_keys'])})"
        )
    size = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise DataError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens and the model {size}; they do not belong together"
        )
    return model, tokenizer


def open_model(artifact: Artifact, precision: str, device: str) -> OpenModel:
    """Open any model artifact for generation or scoring."""
    import torch
    import transformers

    model, tokenizer = load_base(artifact, precision)
    # `generate` takes from here whatever its caller leaves open: a repetition penalty that a checkpoint ships is no
    # part of the recipe
    model.generation_config = transformers.GenerationConfig()
    adapter = artifact.path / "adapter"
    if adapter.is_dir():
        import peft

        with adapting():
            model = peft.PeftModel.from_pretrained(model, adapter)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return OpenModel(model.to(device).eval(), tokenizer, device)
