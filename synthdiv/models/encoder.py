"""Sentence encoders of sentence-transformers, from a local folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import DataError
from synthdiv.models.load import quiet

if TYPE_CHECKING:
    import numpy as np

BATCHES_PER_CHUNK = 64  # batches that are encoded at once


def open_encoder(folder: Path, device: str) -> Any:
    """Open the sentence-transformers model in a folder, in float32. Raises DataError if it is not one."""
    import torch
    from sentence_transformers import SentenceTransformer

    quiet()
    if not (folder / "modules.json").is_file():  # otherwise the library adds mean pooling to any language model
        raise DataError(
            f"{folder}: not a sentence encoder (modules.json is missing); choose a model of sentence-transformers"
        )
    model_kwargs = {"dtype": torch.float32, "use_safetensors": True}
    try:
        encoder = SentenceTransformer(
            str(folder),
            device=None if device == "auto" else device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs=model_kwargs,
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: sentence-transformers cannot open this ({error})") from error
    return encoder.eval()


def encode_batches(encoder: Any, texts: list[str], batch: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield texts with their vectors, a few batches at a time; texts sorted by length need little padding."""
    for start in range(0, len(texts), BATCHES_PER_CHUNK * batch):
        chunk = texts[start : start + BATCHES_PER_CHUNK * batch]
        yield chunk, encoder.encode(chunk, batch_size=batch, show_progress_bar=False, convert_to_numpy=True)


def encode_new(encoder: Any, texts: Iterable[str], known: dict[str, np.ndarray]) -> None:
    """Add the vectors of the texts that are not `known`; each is encoded once."""
    for chunk, vectors in encode_batches(encoder, sorted({*texts} - {*known}, key=lambda text: (len(text), text)), 32):
        known.update(zip(chunk, vectors, strict=True))


def exceeds_context(encoder: Any, texts: list[str]) -> np.ndarray:
    """Return which texts are longer than the encoder's context, which truncates them silently: booleans (n,)."""
    import numpy as np

    tokens = encoder.tokenizer(texts, truncation=False, padding=False, return_attention_mask=False)
    return np.array([len(ids) for ids in tokens["input_ids"]]) > (encoder.max_seq_length or math.inf)
