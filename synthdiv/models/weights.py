"""What a checkpoint is by its files alone, without opening it: its linear layers and its context length."""

from __future__ import annotations

import json
from pathlib import Path

LANGUAGE = {"language_model", "text_model"}  # in paths of the language model of a multimodal checkpoint


def context_length(folder: Path) -> int | None:
    """Tokens of prompt and answer together; None where `config.json` does not say it."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        length = config.get("max_position_embeddings") or config.get("n_positions")
    except (AttributeError, OSError, RecursionError, ValueError):
        return None
    return length if isinstance(length, int) else None


def linear_paths(folder: Path) -> list[str]:
    """Paths of the matrices of the language model but its embeddings and output layer; empty where the headers of the
    weights cannot be read. transformers may put them below another prefix."""
    import safetensors

    paths: dict[str, None] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with safetensors.safe_open(file, "np") as weights:
                names = [name for name in weights.keys() if len(weights.get_slice(name).get_shape()) == 2]  # noqa: SIM118
            paths |= dict.fromkeys(name.rpartition(".")[0] for name in names)
    except (OSError, safetensors.SafetensorError):
        return []
    inner = [path for path in paths if not is_embedding(path.rpartition(".")[2])]
    return [path for path in inner if LANGUAGE.intersection(path.split("."))] or inner


def is_embedding(name: str) -> bool:
    return "embed" in name or name in ("wte", "wpe", "lm_head")
