"""Sentence encoders: the models of sentence-transformers, from a local folder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthdiv.core.types import DataError
from synthdiv.models.load import quiet

if TYPE_CHECKING:
    import numpy as np

CHUNK = 64  # batches at a time


def open_encoder(folder: Path, device: str) -> Any:
    """The sentence-transformers model in a folder, float32. DataError where it is none."""
    import torch
    from sentence_transformers import SentenceTransformer

    quiet()
    if not (folder / "modules.json").is_file():  # the library would put mean pooling on any language model
        raise DataError(f"{folder}: no sentence encoder (modules.json is missing); choose one of sentence-transformers")
    kinds = {"dtype": torch.float32, "use_safetensors": True}
    try:
        opened = SentenceTransformer(
            str(folder),
            device=None if device == "auto" else device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs=kinds,
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: sentence-transformers cannot open this ({error})") from error
    return opened.eval()


def encoded(encoder: Any, texts: list[str], batch: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Texts, sorted by length beforehand so that little is padding, and their vectors, a few batches at a time."""
    for start in range(0, len(texts), CHUNK * batch):
        chunk = texts[start : start + CHUNK * batch]
        yield chunk, encoder.encode(chunk, batch_size=batch, show_progress_bar=False, convert_to_numpy=True)


def exceeding(encoder: Any, texts: list[str]) -> np.ndarray:
    """Which texts have more tokens than the encoder's context, which cuts them without a word: booleans (n,)."""
    import numpy as np

    found = encoder.tokenizer(texts, truncation=False, padding=False, return_attention_mask=False)
    return np.array([len(ids) for ids in found["input_ids"]]) > (encoder.max_seq_length or math.inf)
