"""Semantic measures of groups of texts, on sentence vectors of a model in a local folder."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synthdiv.types import ConfigError, Score

if TYPE_CHECKING:
    import numpy as np

BATCH = 32
Arms = Mapping[str, Mapping[Hashable, Sequence[str]]]


def require_encoder(folder: Path) -> None:
    """ConfigError where `folder` holds no model: said before a large file is read."""
    if not folder.is_dir():
        raise ConfigError(f"--encoder {folder}: no such folder; it needs a local copy of a sentence-transformers model")
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"--encoder {folder}: config.json is missing; it is no folder of a sentence-transformers model"
        )


def semantic_groups(
    arms: Arms, folder: Path, length: int, seed: int = 0, paired: bool = True
) -> dict[str, list[Score]]:
    """The semantic scores of each group, on as many texts in each (`equal_sets`): most grow with their number.

    Each text is cut to `length` words. Clusters are those of all groups together.
    """
    from synthdiv.measures.reference import cluster_entropy
    from synthdiv.measures.semantic import semantic_scores
    from synthdiv.measures.vectors import usable

    sets = {
        group: [(prompt, text) for prompt, texts in answers.items() for text in texts]
        for group, answers in equal_sets(arms, paired).items()
    }
    vectors = encode(folder, [text for rows in sets.values() for _, text in rows], length)
    scores, start = {}, 0
    for group, rows in sets.items():
        own = vectors[start : start + len(rows)]
        prompts = [prompt for prompt, _ in rows]
        shared = cluster_entropy(own, vectors[usable(vectors)], prompts, seed=seed)
        found = semantic_scores(own, prompts=prompts, seed=seed)
        scores[group] = [shared if score.name == shared.name else score for score in found]
        start += len(rows)
    return scores


def equal_sets(arms: Arms, paired: bool) -> Arms:
    """`paired`: the prompts that all groups have, each with as many answers as the group with the fewest has for it.

    Otherwise the first prompts of each group, as many as the group with the fewest has.
    """
    if not paired:
        fewest = min(map(len, arms.values()))
        return {group: dict(list(answers.items())[:fewest]) for group, answers in arms.items()}
    shared = [prompt for prompt in next(iter(arms.values())) if all(prompt in answers for answers in arms.values())]
    fewest_of = {prompt: min(len(answers[prompt]) for answers in arms.values()) for prompt in shared}
    return {
        group: {prompt: answers[prompt][: fewest_of[prompt]] for prompt in shared} for group, answers in arms.items()
    }


def encode(folder: Path, texts: Sequence[str], length: int) -> np.ndarray:
    """The sentence vectors (n, d) of `texts`, each cut to `length` words; NaN for a text without words."""
    import numpy as np

    from synthdiv.measures.words import cut
    from synthdiv.models.encoder import encoded, open_encoder

    model = open_encoder(folder, "auto")
    cuts = [text if words else "" for text, words in (cut(text, length) for text in texts)]
    distinct = sorted({text for text in cuts if text}, key=lambda text: (len(text), text))
    missing = np.full((1, model.get_embedding_dimension()), np.nan, np.float32)
    vectors = np.concatenate([*(part for _, part in encoded(model, distinct, BATCH)), missing])
    place = {text: number for number, text in enumerate([*distinct, ""])}
    return vectors[[place[text] for text in cuts]]
