"""What a toy world is made of and who talks in it: settings and records; `toy.Law` makes its law of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from synthdiv.prompts import toy_words as words

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from synthdiv.prompts.toy import Law


@dataclass
class World:
    """The size and the seed of a toy world. Every field changes its prompts or its law."""

    seed: int = 0  # names every word, fact and dialect; the outer replicate of a study
    entities: int = 200  # lands, most asked about first; every relation of every category applies to each
    categories: int = 4  # topics, each with its own dialect weights and relations
    relations: int = 2  # relations per category
    values: int = 20  # possible values of a relation, shared evenly by the entities: chance is 1 / values
    dialects: int = 8  # dialects that humans speak (pi > 0); there are as many foreign ones
    phrasings: int = 40  # distinct strings per dialect and prompt
    prompt_phrasings: int = 4  # ways to ask for a fact, half of them kept for pre-training
    zipf: float = 1.1  # exponent of the entities' frequency by rank; 0 is uniform
    tail: float = 0.9  # ratio of a phrasing's weight to the next more frequent one's

    def check(self) -> list[str]:
        """Every problem, each beginning with the field's dotted name."""
        ranges = {
            "seed": (0, 2**63 - 1), "entities": (2, 10_000),
            "categories": (1, len(words.RELATIONS)), "relations": (1, 4), "values": (2, 900), "dialects": (1, 64),
            "phrasings": (40, words.MOST_PHRASINGS), "prompt_phrasings": (1, len(words.QUESTIONS)),
            "zipf": (0.0, 5.0), "tail": (0.1, 1.0),
        }  # fmt: skip
        return [
            f"world.{field}={getattr(self, field)}: needs {low} to {high}"
            for field, (low, high) in ranges.items()
            if not low <= getattr(self, field) <= high
        ]


@dataclass(frozen=True)
class ToyPrompt:
    """One question, as indices into the world and as text."""

    category: int
    entity: int
    relation: int  # within its category
    phrasing: int
    text: str


class Parse(NamedTuple):
    """One way to read an answer: who may have said it in which words, and about what."""

    dialect: int
    phrasing: int  # rank within the dialect, 0 the most frequent
    entity: int
    category: int
    relation: int
    right: bool  # the value stated is the entity's


def study_pool(world: World) -> np.ndarray:
    """Which (category, entity, relation, phrasing) are study prompts; the others are for pre-training.

    Each fact's phrasings alternate between the pools, starting in either: with two phrasings or more both pools ask
    for every fact, and never in the same words.
    """
    import numpy as np

    shape = (world.categories, world.entities, world.relations)
    flip = [
        [words.uniforms(world.entities, world.seed, "pool", category, relation) < 0.5 for relation in range(shape[2])]
        for category in range(shape[0])
    ]
    start = np.array(flip).transpose(0, 2, 1)[..., None]
    return (np.arange(world.prompt_phrasings) % 2 == 0) == start


class Kind(Enum):
    """Who may talk in a toy world."""

    human = "human"
    family = "family"
    student = "student"


@dataclass
class Speaker:
    """Who talks: the human, family `index` of `families` generators, or a student before fine-tuning."""

    kind: Kind = Kind.human
    index: int = 0  # which family, from 0
    families: int = 1  # how many share the human dialects out
    overlap: float = 0.0  # share of the human law in the family's, 0 to 1; at 1 all families are the human law
    shift: float = 0.0  # share of the last family's speech that no human would say; the first has none

    def check(self, world: World) -> list[str]:
        """Every problem, each beginning with the field's dotted name."""
        ranges = {"families": (1, world.dialects), "index": (0, self.families - 1), "overlap": (0, 1), "shift": (0, 1)}
        return [
            f"speaker.{field}={getattr(self, field)}: needs {low} to {high}"
            for field, (low, high) in ranges.items()
            if not low <= getattr(self, field) <= high
        ]

    def weights(self, law: Law) -> Callable[[int], np.ndarray]:
        """Dialect weights by category, for `Law.sample`."""
        if self.kind is Kind.human:
            return law.human
        if self.kind is Kind.student:
            return law.student
        return lambda category: law.family(self.index, self.families, self.overlap, self.shift, category)
