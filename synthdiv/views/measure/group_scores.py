"""The scores of groups of texts on equal budgets; semantic ones on sentence vectors of a model in a local folder."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.core.types import Score

if TYPE_CHECKING:
    import numpy as np

MIN_BUDGET_WORDS = 1000  # a smaller group does not set the budget of the others
BATCH = 32
Groups = Mapping[str, Mapping[Hashable, Sequence[str]]]  # group → prompt → its texts


def shuffled_groups(texts: Sequence[str], names: Sequence[str], prompts: Sequence[Hashable], seed: int) -> Groups:
    """The texts by group and prompt. The random order of prompts is the same in all groups; texts are shuffled too."""
    from synthdiv.views.report.labels import natural

    order = random.Random(seed)
    distinct = list(dict.fromkeys(prompts))
    order.shuffle(distinct)
    position = {prompt: index for index, prompt in enumerate(distinct)}
    rows = list(range(len(texts)))
    order.shuffle(rows)
    groups: dict[str, dict[Hashable, list[str]]] = {name: {} for name in sorted(set(names), key=natural)}
    for row in sorted(rows, key=lambda row: position[prompts[row]]):
        groups[names[row]].setdefault(prompts[row], []).append(texts[row])
    return groups


def words_budget(groups: Groups) -> tuple[int, str]:
    """The words of the smallest group with MIN_BUDGET_WORDS, and a phrase that explains the choice."""
    from synthdiv.measures.words import words

    counts = {
        name: sum(len(words(text)) for texts in group.values() for text in texts) for name, group in groups.items()
    }
    nonempty = {name: count for name, count in counts.items() if count}
    if not nonempty:
        return 1, " (there is no word in any text)"
    large = {name: count for name, count in nonempty.items() if count >= MIN_BUDGET_WORDS}
    smallest = min(large or nonempty, key=nonempty.__getitem__)
    if len(groups) == 1:
        origin = ", which are all: give --words N to compare with other files"
    else:
        short = len(groups) - len(large or nonempty)
        origin = f", all that {smallest} has" + (f"; {short} smaller groups have fewer" if short > 1 else "")
        origin += "; one smaller group has fewer" if short == 1 else ""
    few = f" (no group has {MIN_BUDGET_WORDS:,}: too few for reliable scores)"
    return nonempty[smallest], origin + ("" if large else few)


def scores_of(
    groups: Groups, words: int, length: int, seed: int, paired: bool, encoder: Path | None
) -> dict[str, list[Score]]:
    """Every score of each group. `words` and `length` (words of a text) are the budgets `@words` and `@texts`."""
    from synthdiv.measures.budgets import lexical_arm_scores

    scores = lexical_arm_scores(groups, words, length, seed, paired=paired)
    if encoder is None:
        return scores
    semantic = semantic_groups(groups, encoder, length, seed, paired=paired)
    return {name: [*lexical, *semantic[name]] for name, lexical in scores.items()}


class TextSet(NamedTuple):
    """The texts of a group that are encoded, each with its prompt; a note on them, or why the group has none."""

    rows: list[tuple[Hashable, str]]
    note: str
    excluded: str = ""


def semantic_groups(
    groups: Groups, folder: Path, length: int, seed: int = 0, paired: bool = True
) -> dict[str, list[Score]]:
    """The semantic scores of each group, on the same number of texts (`equal_sets`): most grow with that number.

    Each text is cut to `length` words. Clusters are those of all groups together.
    """
    from synthdiv.measures.reference import fit_centres
    from synthdiv.measures.semantic import semantic_scores
    from synthdiv.measures.vectors import has_direction

    sets = equal_sets(groups, length, paired)
    vectors, truncated = encode(folder, [text for texts in sets.values() for _, text in texts.rows])
    centres, _ = fit_centres(vectors[has_direction(vectors)], seed=seed)
    scores, start = {}, 0
    for name, texts in sets.items():
        part = slice(start, start + len(texts.rows))
        prompts = [prompt for prompt, _ in texts.rows]
        cut = int(truncated[part].sum())
        notes = [texts.note, f"{cut} of {len(prompts)} texts exceed the encoder's context" if cut else ""]
        scores[name] = [
            replace(score, note=texts.excluded or "; ".join(filter(None, [score.note, *notes])))
            for score in semantic_scores(vectors[part], prompts=prompts, seed=seed, centres=centres)
        ]
        start = part.stop
    return scores


def equal_sets(groups: Groups, length: int, paired: bool) -> dict[str, TextSet]:
    """`paired`: the prompts that all groups have, each with as many answers as the group with the fewest has for it.

    Otherwise the first prompts of each group, as many as the group with the fewest has. Texts are cut to `length`
    words, and those without a word are left out beforehand. As in the `@texts` budget, a group with less than a tenth
    of the prompts of the largest is excluded, because it would leave almost nothing of the others.
    """
    from synthdiv.measures.texts import MAX_SIZE_RATIO

    usable = {name: with_words(answers, length) for name, answers in groups.items()}
    most = max(map(len, usable.values()), default=0)
    large = {name: answers for name, answers in usable.items() if len(answers) * MAX_SIZE_RATIO >= most}
    fewest = min(map(len, large.values()), default=0)
    first = next(iter(large.values()), {})
    shared = {
        prompt: min(len(answers[prompt]) for answers in large.values())
        for prompt in first
        if all(prompt in answers for answers in large.values())
    }
    sets = {}
    for name, answers in usable.items():
        if name not in large:
            unit = "prompts" if paired else "texts"
            sets[name] = TextSet([], "", f"{len(answers)} {unit} have words, less than a tenth of the most, {most}")
            continue
        counts = shared if paired else dict.fromkeys(list(answers)[:fewest])
        rows = [(prompt, text) for prompt, count in counts.items() for text in answers[prompt][:count]]
        total, kept = (sum(map(len, texts.values())) for texts in (groups[name], answers))
        notes = [f"{total - kept} of {total} texts without a word left out"] * (kept < total)
        notes += [f"on {len(rows)} of {kept} texts: as many as each group has"] * (len(rows) < kept)
        sets[name] = TextSet(rows, "; ".join(notes))
    return sets


def with_words(answers: Mapping[Hashable, Sequence[str]], length: int) -> dict[Hashable, list[str]]:
    """The texts that have a word, cut to `length` words, and the prompts that have such a text."""
    from synthdiv.measures.words import truncate_words

    nonempty = {
        prompt: [text for text, count in (truncate_words(text, length) for text in texts) if count]
        for prompt, texts in answers.items()
    }
    return {prompt: texts for prompt, texts in nonempty.items() if texts}


def encode(folder: Path, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The sentence vectors (n, d) of `texts`, and which texts the encoder truncated: booleans (n,)."""
    import numpy as np

    from synthdiv.models.encoder import encode_batches, exceeds_context, open_encoder

    model = open_encoder(folder, "auto")
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    vectors, truncated = [np.empty((0, model.get_embedding_dimension()), np.float32)], [np.empty(0, dtype=bool)]
    for chunk, part in encode_batches(model, distinct, BATCH):
        vectors.append(part)
        truncated.append(exceeds_context(model, chunk))
    position = {text: index for index, text in enumerate(distinct)}
    rows = np.array([position[text] for text in texts], dtype=np.int64)
    return np.concatenate(vectors)[rows], np.concatenate(truncated)[rows]
