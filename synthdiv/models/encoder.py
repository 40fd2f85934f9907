"""Sentence encoders of sentence-transformers, from a local folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.core.types import DataError
from synthdiv.models.load import opening, quiet

Progress = Callable[[int, int, str], None]
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
    with opening(folder, "a sentence encoder"):
        encoder = SentenceTransformer(
            str(folder),
            device=None if device == "auto" else device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    return encoder.eval()


def encode_batches(
    encoder: Any, texts: Iterable[str], batch: int = 32, progress: Progress = lambda *_: None
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield different texts with their vectors, a few batches at a time; sorted by length they need little padding."""
    distinct = sorted({*texts}, key=lambda text: (len(text), text))
    for start in range(0, len(distinct), BATCHES_PER_CHUNK * batch):
        chunk = distinct[start : start + BATCHES_PER_CHUNK * batch]
        yield chunk, encoder.encode(chunk, batch_size=batch, show_progress_bar=False, convert_to_numpy=True)
        progress(start + len(chunk), len(distinct), "texts encoded")


def encode(folder: Path, texts: Sequence[str], device: str = "auto", *how: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors (n, d) of texts by the encoder in a folder, and which texts it truncated: booleans (n,). `how`
    is that of `encode_batches`."""
    encoder = open_encoder(folder, device)
    vectors, truncated = [np.empty((0, encoder.get_embedding_dimension()), np.float32)], [np.empty(0, dtype=bool)]
    places = dict[str, int]()
    for chunk, part in encode_batches(encoder, texts, *how):
        places |= zip(chunk, range(len(places), len(places) + len(chunk)), strict=True)
        vectors.append(part)
        truncated.append(exceeds_context(encoder, chunk))
    rows = np.array([places[text] for text in texts], dtype=np.int64)
    return np.concatenate(vectors)[rows], np.concatenate(truncated)[rows]


def exceeds_context(encoder: Any, texts: list[str]) -> np.ndarray:
    """Return which texts are longer than the encoder's context, which truncates them silently: booleans (n,)."""
    tokens = encoder.tokenizer(texts, truncation=False, padding=False, return_attention_mask=False)
    return np.array([len(ids) for ids in tokens["input_ids"]]) > (encoder.max_seq_length or math.inf)
