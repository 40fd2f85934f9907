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

from synthdiv.core.local_run import out_of_memory
from synthdiv.core.types import Artifact, ConfigError, DataError, SynthdivError
from synthdiv.models.checkpoint import Checkpoint, folder_problem

FITS = 0.8  # share of an accelerator's memory that weights may take, so that there is room for a batch
PROBE = 64  # tokens on which an adapter must change a logit


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
    ends: tuple[int, ...] = ()  # token ids at which the checkpoint ends a text

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

    with opening(folder):
        return context_of(transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False))


@contextlib.contextmanager
def opening(folder: Path, kind: str = "a causal language model") -> Iterator[None]:
    """Raise a DataError that names the folder, or the damaged file, for whatever transformers raises on opening it."""
    try:
        yield
    except Exception as error:  # an odd config.json raises almost anything
        if isinstance(error, SynthdivError) or out_of_memory(error):
            raise
        problem = f"{type(error).__name__}: {error}"
        if damaged := [file for file in sorted(folder.glob("*.safetensors")) if not readable(file)]:
            raise DataError(f"{damaged[0]}: is truncated or corrupt; download it again ({problem})") from error
        raise DataError(f"{folder}: transformers cannot open this as {kind} ({problem})") from error


def readable(file: Path) -> bool:
    """Whether a file of safetensors has its header and all its bytes."""
    import safetensors

    try:
        with safetensors.safe_open(file, "pt"):
            return True
    except (OSError, safetensors.SafetensorError):
        return False


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


def base_of(artifact: Artifact) -> Artifact:
    """Return the model artifact that has whole weights: of an adapter, the base below it and those that it is on."""
    return base_of(artifact.inputs["student"]) if (artifact.path / "adapter").is_dir() else artifact


def stacked(artifact: Artifact) -> bool:
    """Whether a model artifact is an adapter whose student is an adapter too."""
    return (artifact.path / "adapter").is_dir() and (artifact.inputs["student"].path / "adapter").is_dir()


def weights_folder(artifact: Artifact) -> Path:
    """Return the folder with the weights and the tokenizer of a model artifact."""
    return artifact.path if artifact.stage.located else artifact.path / "model"


def load_tokenizer(folder: Path) -> Any:
    import transformers

    quiet()
    with opening(folder, "a tokenizer"):
        file = folder / "tokenizer_config.json"
        class_name = json.loads(file.read_text(encoding="utf-8")).get("tokenizer_class") if file.is_file() else None
        # for every Qwen-shaped model AutoTokenizer takes that of Qwen, which adds a token and splits text differently
        plain = class_name == "TokenizersBackend"
        tokenizer_class: Any = transformers.PreTrainedTokenizerFast if plain else transformers.AutoTokenizer
        tokenizer = tokenizer_class.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked by position, not by id
    return tokenizer


def tokenizer_of(artifact: Artifact) -> Any:
    """Return the tokenizer of a model artifact with the chat template and its variables of a `checkpoint`; for an
    adapter, that of its base."""
    artifact = base_of(artifact)
    tokenizer = load_tokenizer(weights_folder(artifact))
    if isinstance(artifact.stage, Checkpoint):
        variables = artifact.stage.variables()
        tokenizer.chat_template = artifact.stage.chat_template or tokenizer.chat_template
        if variables and not tokenizer.chat_template:
            raise DataError(
                f"checkpoint.template_kwargs={artifact.stage.template_kwargs}: the tokenizer in {artifact.path} has no "
                "chat template that could read it; give checkpoint.chat_template"
            )
        if variables:  # written into the template, so that a student that is saved keeps them
            values = "".join(f"{{% set {name} = {value!r} %}}" for name, value in sorted(variables.items()))
            tokenizer.chat_template = values + tokenizer.get_chat_template()
    return tokenizer


def end_ids(folder: Path) -> tuple[int, ...]:
    """Return the token ids at which a checkpoint ends a text: those of generation_config.json, else a list of them in
    config.json, where a single one may be a default of the architecture."""
    ends_by_file: list[list[int]] = []
    for name in ("generation_config.json", "config.json"):
        with opening(folder / name, "settings of a model"):
            text = (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else "{}"
            ends = json.loads(text).get("eos_token_id")
            single = [ends] if ends is not None and name != "config.json" else []
            ends_by_file.append([int(end) for end in (ends if isinstance(ends, list) else single)])
    return tuple(ends_by_file[0] or ends_by_file[1])


def require_4bit_support(device: str) -> None:
    """Raise ConfigError unless 4-bit weights work here: they need an NVIDIA GPU and bitsandbytes."""
    if not device.startswith("cuda"):
        raise ConfigError(
            f"train.method=qlora: 4-bit weights need an NVIDIA GPU, and runtime.device is {device}; choose "
            "train.method=lora, or run on a machine with an NVIDIA GPU"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("train.method=qlora: bitsandbytes is not installed; pip install 'synthdiv[qlora]'")


def load_whole(artifact: Artifact, precision: str, packed: bool = False) -> tuple[Any, Any]:
    """Return model and tokenizer of a model artifact. An adapter is merged into its student in fp32; that student may
    be an adapter too. With `packed`, linear layers have 4-bit weights, into which nothing can be merged."""
    import torch

    adapter = artifact.path / "adapter"
    if not adapter.is_dir():
        return load_base(artifact, precision, packed)
    if packed:
        raise ConfigError(
            f"train.method=qlora: the student {artifact.path} is an adapter, which cannot be merged into 4-bit "
            "weights; choose train.method=lora or full, or export the student merged and use it as a checkpoint"
        )
    model, tokenizer = load_whole(artifact.inputs["student"], "fp32")
    if getattr(model.config, "quantization_config", None):
        raise DataError(f"{adapter}: its base has quantised weights, into which it cannot be merged; use another base")
    model = with_saved_adapter(model, adapter).merge_and_unload(safe_merge=True)
    for weight in model.parameters():  # buffers (frequencies of positions) stay in fp32 as transformers has them
        weight.data = weight.data.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    return model, tokenizer


def with_saved_adapter(model: Any, adapter: Path) -> Any:
    import peft

    with peft_warnings_ignored():
        return peft.PeftModel.from_pretrained(model, adapter)


def load_base(artifact: Artifact, precision: str, packed: bool = False) -> tuple[Any, Any]:
    """Return model and tokenizer of an artifact with whole weights. With `packed`, linear layers have 4-bit weights as
    in QLoRA (Dettmers et al. 2023: NF4 with double quantisation)."""
    import torch
    import transformers

    quiet()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    quantization: dict[str, Any] = {}
    if packed:
        quantization["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    folder = weights_folder(artifact)
    if problem := folder_problem(folder):
        raise DataError(f"{folder}: {problem}")
    with opening(folder):
        tokenizer = tokenizer_of(artifact)
        opened: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **quantization
        )
    model, loading_info = opened
    if loading_info["missing_keys"]:  # transformers would initialise them at random
        raise DataError(
            f"{folder}: the checkpoint lacks {len(loading_info['missing_keys'])} weights of a causal language model "
            f"(first {min(loading_info['missing_keys'])})"
        )
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise DataError(
                f"{folder}: the weight {name} has values that are not finite; the checkpoint was damaged, or saved "
                "after its training had diverged. Download it again or choose another"
            )
    config = model.config.get_text_config()
    if getattr(config, "output_router_logits", False):  # a loss of their own that no training here uses
        config.output_router_logits = False
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

    adapter = artifact.path / "adapter"
    model, tokenizer = load_whole(artifact.inputs["student"] if adapter.is_dir() else artifact, precision)
    # `generate` takes unset options from here: the generation defaults of a checkpoint, such as a repetition penalty,
    # must not apply
    model.generation_config = transformers.GenerationConfig()
    if adapter.is_dir():
        model = with_saved_adapter(model, adapter)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model = placed(model, device).eval()
    if adapter.is_dir():
        require_active(model, adapter)
    return OpenModel(model, tokenizer, device, end_ids(weights_folder(base_of(artifact))))


def placed(model: Any, device: str) -> Any:
    """Put a model on its device; one that does not fit on an accelerator, layer by layer on all that this process may
    use, by accelerate."""
    import torch

    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if device != "cuda" or torch.cuda.device_count() < 2:
        return model.to(device)
    if size < FITS * torch.cuda.get_device_properties(0).total_memory:
        return model.to(device)
    import accelerate

    places = accelerate.infer_auto_device_map(model, no_split_module_classes=[*model._no_split_modules])
    return accelerate.dispatch_model(model, places)


def require_active(model: Any, adapter: Path) -> None:
    """Raise unless the adapter changes a logit: a model that answers as its base does is no result of a training."""
    import torch

    ids = torch.arange(PROBE, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    with torch.inference_mode():
        tuned = model(input_ids=ids).logits
        with model.disable_adapter():
            base = model(input_ids=ids).logits
    if torch.equal(tuned, base):
        raise DataError(
            f"{adapter}: the adapter changes no logit, so it is not active or was not trained. Look at train.lr, "
            "train.epochs and train.lora, remove the artifact and run the same command again"
        )
