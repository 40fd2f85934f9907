"""What a toy world is made of: its settings, its speakers and its prompts. `toy.Law` is the law that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synthdiv.core.fields import setting
from synthdiv.prompts import toy_words as words

if TYPE_CHECKING:
    import numpy as np


@dataclass
class World:
    """The size and the seed of a toy world. Every field changes its prompts or its law."""

    seed: int = setting(0, least=0, most=2**63 - 1)
    """Names every word, fact and dialect; the outer replicate of a study."""
    entities: int = setting(24, least=2, most=10_000)
    """Lands that questions are about, by decreasing frequency; every relation of every category applies to each."""
    categories: int = setting(4, least=1, most=len(words.RELATIONS))
    """Topics, each with its dialect weights and relations."""
    relations: int = setting(2, least=1, most=4)
    """Relations per category."""
    values: int = setting(6, least=2, most=900)
    """Possible values of a relation, shared evenly by the entities: chance is 1 / values."""
    dialects: int = setting(4, least=1, most=words.MOST_DIALECTS)
    """Dialects that humans speak (pi > 0); there are as many foreign ones."""
    phrasings: int = setting(12, least=6, most=words.MOST_PHRASINGS)
    """Distinct strings per dialect and prompt."""
    prompt_phrasings: int = setting(64, least=2, most=len(words.LEADS) * len(words.QUESTIONS))
    """Ways to ask for a fact, half of them kept for pre-training."""
    zipf: float = setting(1.1, least=0.0, most=5.0)
    """Exponent of the entities' frequency by rank; 0 is uniform."""
    tail: float = setting(0.8, least=0.1, most=1.0)
    """Ratio of a phrasing's weight to that of the next more frequent one."""


@dataclass
class Speaker:
    """Who speaks: a family of generators, or a student. What is null is filled in by the study."""

    family: int | None = None
    """Which of the families speaks, from 0; null: a student, in dialects of its own."""
    families: int = 4
    """How many families share the human dialects."""
    overlap: float | None = setting(None, least=0, most=1)
    """Share of the human law in the family's speech; null: `generators.overlap`."""
    shift: float | None = setting(None, least=0, most=1)
    """Share of the last family's speech that no human uses; null: `generators.shift`."""
    world: World | None = None
    """The world; null: `prompts.toy.world`."""

    def check(self, name: str) -> list[str]:
        if self.family is None or 0 <= self.family < self.families:
            return []
        return [f"{name}.family={self.family}: needs 0 to {self.families - 1}, or null for a student"]


@dataclass(frozen=True)
class ToyPrompt:
    """One question, as indices into the world and as text."""

    category: int
    entity: int
    relation: int  # within its category
    phrasing: int
    text: str


def study_pool(world: World) -> np.ndarray:
    """Which (category, entity, relation, phrasing) are study prompts; the others are for pre-training.

    Each fact's phrasings alternate between the pools, starting in either: with two phrasings or more both pools ask
    for every fact, and never in the same words.
    """
    import numpy as np

    flip = [
        [
            words.uniforms(world.entities, world.seed, "pool", category, relation) < 0.5
            for relation in range(world.relations)
        ]
        for category in range(world.categories)
    ]
    start = np.array(flip).transpose(0, 2, 1)[..., None]
    return (np.arange(world.prompt_phrasings) % 2 == 0) == start
