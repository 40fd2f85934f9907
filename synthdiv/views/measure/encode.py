"""Semantic measures of groups of texts, on sentence vectors of a model in a local folder."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.core.types import ConfigError, Score

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


class Chosen(NamedTuple):
    """The texts of a group that are encoded, each with its prompt; what to note of them, or what the group lacks."""

    rows: list[tuple[Hashable, str]]
    note: str
    lacks: str = ""


def semantic_groups(
    arms: Arms, folder: Path, length: int, seed: int = 0, paired: bool = True
) -> dict[str, list[Score]]:
    """The semantic scores of each group, on as many texts in each (`equal_sets`): most grow with their number.

    Each text is cut to `length` words. Clusters are those of all groups together.
    """
    from synthdiv.measures.reference import fit_centres
    from synthdiv.measures.semantic import semantic_scores
    from synthdiv.measures.vectors import has_direction

    sets = equal_sets(arms, length, paired)
    vectors, long = encode(folder, [text for one in sets.values() for _, text in one.rows])
    centres, _ = fit_centres(vectors[has_direction(vectors)], seed=seed)
    scores, start = {}, 0
    for group, one in sets.items():
        part = slice(start, start + len(one.rows))
        found = semantic_scores(vectors[part], prompts=[prompt for prompt, _ in one.rows], seed=seed, centres=centres)
        cut = int(long[part].sum())
        notes = [one.note, f"{cut} of {len(one.rows)} texts exceed the encoder's context" if cut else ""]
        scores[group] = [
            replace(score, note=one.lacks or "; ".join(filter(None, [score.note, *notes]))) for score in found
        ]
        start = part.stop
    return scores


def equal_sets(arms: Arms, length: int, paired: bool) -> dict[str, Chosen]:
    """`paired`: the prompts that all groups have, each with as many answers as the group with the fewest has for it.

    Otherwise the first prompts of each group, as many as the group with the fewest has. Texts are cut to `length`
    words, and those without a word are left out beforehand. As in the `@texts` budget, a group with less than a tenth
    of the prompts of the largest gives none and has no say: it would leave nothing of the others.
    """
    from synthdiv.measures.texts import MAX_SIZE_RATIO

    spoken = {group: with_words(answers, length) for group, answers in arms.items()}
    most = max(map(len, spoken.values()), default=0)
    heard = {group: answers for group, answers in spoken.items() if len(answers) * MAX_SIZE_RATIO >= most}
    fewest = min(map(len, heard.values()), default=0)
    first = next(iter(heard.values()), {})
    shared = {
        prompt: min(len(answers[prompt]) for answers in heard.values())
        for prompt in first
        if all(prompt in answers for answers in heard.values())
    }
    found = {}
    for group, answers in spoken.items():
        if group not in heard:
            told = (
                f"{len(answers)} {'prompts' if paired else 'texts'} have words, less than a tenth of the most, {most}"
            )
            found[group] = Chosen([], "", told)
            continue
        taken = shared if paired else dict.fromkeys(list(answers)[:fewest])
        rows = [(prompt, text) for prompt, count in taken.items() for text in answers[prompt][:count]]
        every, have = (sum(map(len, texts.values())) for texts in (arms[group], answers))
        notes = [f"{every - have} of {every} texts without a word left out"] * (have < every)
        notes += [f"on {len(rows)} of {have} texts: as many as each group has"] * (len(rows) < have)
        found[group] = Chosen(rows, "; ".join(notes))
    return found


def with_words(answers: Mapping[Hashable, Sequence[str]], length: int) -> dict[Hashable, list[str]]:
    """The texts that have a word, cut to `length` words, and the prompts that have such a text."""
    from synthdiv.measures.words import truncate_words

    found = {
        prompt: [text for text, count in (truncate_words(text, length) for text in texts) if count]
        for prompt, texts in answers.items()
    }
    return {prompt: texts for prompt, texts in found.items() if texts}


def encode(folder: Path, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The sentence vectors (n, d) of `texts`, and which texts the encoder cut: booleans (n,)."""
    import numpy as np

    from synthdiv.models.encoder import encode_batches, exceeds_context, open_encoder

    model = open_encoder(folder, "auto")
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    vectors, long = [np.empty((0, model.get_embedding_dimension()), np.float32)], [np.empty(0, dtype=bool)]
    for chunk, part in encode_batches(model, distinct, BATCH):
        vectors.append(part)
        long.append(exceeds_context(model, chunk))
    place = {text: number for number, text in enumerate(distinct)}
    rows = np.array([place[text] for text in texts], dtype=np.int64)
    return np.concatenate(vectors)[rows], np.concatenate(long)[rows]
