"""The scores of groups of texts on equal budgets; semantic ones on sentence vectors of a model in a local folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from synthdiv.core.types import Score
from synthdiv.measures.budgets import TextBudget, lexical_scores
from synthdiv.measures.estimates import join_notes
from synthdiv.measures.semantic import semantic_scores
from synthdiv.measures.words import truncate_words
from synthdiv.models.encoder import encode
from synthdiv.prompts.split import rank
from synthdiv.views.report.labels import natural

Groups = Mapping[str, Mapping[Hashable, Sequence[str]]]  # group → prompt → its texts


def shuffled_groups(texts: Sequence[str], names: Sequence[str], prompts: Sequence[Hashable], seed: int) -> Groups:
    """The texts by group and prompt. The random order of prompts is the same in all groups; texts are shuffled too.
    Neither depends on other groups."""
    counts, orders = Counter[Hashable](), list[tuple[int, int]]()
    for name, prompt in zip(names, prompts, strict=True):
        orders.append((rank(seed, "prompt", prompt), rank(seed, "text", prompt, counts[name, prompt])))
        counts[name, prompt] += 1
    groups: dict[str, dict[Hashable, list[str]]] = {name: {} for name in sorted(set(names), key=natural)}
    for row in sorted(range(len(texts)), key=lambda row: orders[row]):
        groups[names[row]].setdefault(prompts[row], []).append(texts[row])
    return groups


def scores_of(groups: Groups, budget: TextBudget, seed: int, encoder: Path | None) -> dict[str, list[Score]]:
    """Every score of each group, which does not depend on the other groups."""
    scores = {name: lexical_scores(group, None, budget, seed) for name, group in groups.items()}
    if encoder is None:
        return scores
    semantic = semantic_groups(groups, encoder, budget, seed)
    return {name: [*lexical, *semantic[name]] for name, lexical in scores.items()}


def semantic_groups(groups: Groups, folder: Path, budget: TextBudget, seed: int = 0) -> dict[str, list[Score]]:
    """The semantic scores of each group, of its first `budget.texts` first texts, because most grow with their number;
    within prompts, of the first `budget.within` texts of each. Texts are cut to `budget.length` words."""
    usable = {name: with_words(answers, budget) for name, answers in groups.items()}
    vectors, truncated = encode(
        folder, [text for answers in usable.values() for texts in answers.values() for text in texts]
    )
    scores, start = {}, 0
    for name, answers in usable.items():
        prompts = [prompt for prompt, texts in answers.items() for _ in texts]
        part = slice(start, start + len(prompts))
        first = [row for row, prompt in enumerate(prompts) if row == 0 or prompts[row - 1] != prompt][: budget.texts]
        sets = (first, range(len(prompts)))
        of_first, of_all = (
            semantic_scores(vectors[part][list(rows)], prompts=[prompts[row] for row in rows], seed=seed)
            for rows in sets
        )
        few = f"{len(first)} prompts have a text with words, the budget needs {budget.texts}"
        short = len(first) < budget.texts
        scores[name] = [
            within if "within" in score.name else replace(score, value=math.nan, low=math.nan, high=math.nan, note=few)
            if short else score for score, within in zip(of_first, of_all, strict=True)
        ]  # fmt: skip
        cut = int(truncated[part].sum())
        note = f"{cut} of {len(prompts)} texts exceed the encoder's context" if cut else ""
        scores[name] = [replace(score, note=join_notes(score.note, note)) for score in scores[name]]
        start = part.stop
    return scores


def with_words(answers: Mapping[Hashable, Sequence[str]], budget: TextBudget) -> dict[Hashable, list[str]]:
    """The first `budget.within` texts of each prompt that have a word, cut, and the prompts that have such a text."""
    cut = {
        prompt: [truncate_words(text, budget.length) for text in texts[: budget.within]]
        for prompt, texts in answers.items()
    }
    worded = {prompt: [text for text, count in texts if count] for prompt, texts in cut.items()}
    return {prompt: texts for prompt, texts in worded.items() if texts}
