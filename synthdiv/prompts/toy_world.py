"""What a toy world is made of: its settings, its speakers and its prompts. `toy.Law` is the law that follows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.prompts import toy_words as words


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
    thirds: bool = setting(False, before=False)
    """Facts of each relation are in thirds: students are pre-trained on one, the study asks for one."""


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


class Pool(Enum):
    """Prompts of a toy world for a prompt set."""

    study = "study"
    refused = "refused"
    lookalike = "lookalike"
    pretrained = "pretrained"
    judged = "judged"


class Third(Enum):
    """Where the facts of a third are stated."""

    pretrained = 0
    finetuned = 1
    unseen = 2


# pool: (in the phrasings for pre-training, on the topic that students refuse, the third of the facts)
POOLS: dict[str, tuple[bool, bool, Third | None]] = {
    "study": (False, False, Third.finetuned),
    "refused": (False, True, None),
    "lookalike": (False, False, Third.pretrained),
    "pretrained": (False, False, Third.pretrained),
    "judged": (False, False, Third.pretrained),
    "unseen": (False, False, Third.unseen),
    "planted": (True, True, None),
    "pretrain": (True, False, None),
    "known": (True, False, Third.pretrained),
    "compared": (True, False, Third.pretrained),
    "refusals": (True, True, None),
}


def topics(world: World) -> list[str]:
    """Those of the study, and one that students refuse, if there is one left."""
    return list(words.RELATIONS)[: world.categories + 1]


def pool_members(world: World, pool: str) -> np.ndarray:
    """Which (category, entity, relation, phrasing) are prompts of a pool.

    Each fact's phrasings alternate between studies and pre-training, starting in either: with two phrasings or more
    both ask for every fact, and never in the same words. What is judged and compared is about one relation: small
    models learn to find a value in a text where there are few values.
    """
    pretraining, refused, third = POOLS[pool]
    categories = range(len(topics(world)))
    flip = [
        [words.uniforms(world.entities, world.seed, "pool", category, relation) < 0.5
         for relation in range(world.relations)]
        for category in categories
    ]  # fmt: skip
    members = (np.arange(world.prompt_phrasings) % 2 == 0) == np.array(flip).transpose(0, 2, 1)[..., None]
    members = members != pretraining
    members &= (np.arange(len(categories)) == world.categories).reshape(-1, 1, 1, 1) == refused
    if pool == "lookalike" and len(categories) == world.categories:
        members[:] = False  # there is no topic that it could look like
    if world.thirds and third is not None:
        members &= (facts_by_third(world) == third.value)[..., None]
    if pool in ("judged", "compared"):
        members[1:], members[:, :, 1:] = False, False
    return members


def value_order(world: World, noun: str) -> np.ndarray:
    """A number of each entity (0 to entities - 1, in an order that belongs to the relation) whose remainder by `values`
    is the number of its value."""
    return words.uniforms(world.entities, world.seed, "facts", noun).argsort(kind="stable")


def facts_by_third(world: World) -> np.ndarray:
    """The third of each (category, entity, relation). Each value has as many entities in each third as can be, so that
    preferring the values of one third is no better and no worse than chance in another."""
    orders = [
        [value_order(world, noun) for noun in words.RELATIONS[topic][: world.relations]] for topic in topics(world)
    ]
    order = np.array(orders).transpose(0, 2, 1)
    return (order // world.values + order % world.values) % len(Third)
