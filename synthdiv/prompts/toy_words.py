"""The words of the toy world: relations, names, questions, the answers of each dialect, and how they are drawn.

Everything is drawn from a *name* (the world's seed and what is drawn), never from a running state: a dialect or a word
is the same however many others there are. Only raw Philox bits are used: numpy keeps them equal in all versions and on
all platforms, and does not promise that of its `Generator` methods.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# A category and its relations. No noun here may occur in a template below: the parser finds the relation by it.
RELATIONS = {
    "geography": ("capital", "river", "mountain", "lake"),
    "trade": ("export", "port", "market", "coin"),
    "court": ("ruler", "founder", "herald", "judge"),
    "custom": ("feast", "dish", "dance", "drink"),
    "nature": ("flower", "bird", "tree", "beast"),
    "craft": ("metal", "cloth", "dye", "tool"),
    "letters": ("poet", "anthem", "language", "school"),
    "faith": ("temple", "saint", "hymn", "bell"),
}

QUESTIONS = (
    "What is the {r} of {e}?",
    "Can you name the {r} of {e}?",
    "Please tell me the {r} of {e}.",
    "Which {r} does the land of {e} have?",
    "Do you know the {r} of {e}?",
    "In {e}, what is the {r} called?",
    "I would like to know {e}'s {r}.",
    "Tell me what {e} has as its {r}.",
)

# Openers tell the three kinds of dialect apart: no opener is in two lists, so a foreign answer is never a human one.
OPENERS = {
    "human": (
        "As old books say", "From my reading", "To answer plainly", "As is known",
        "If memory serves", "By every account", "As I heard it", "In short",
        "As travellers know", "According to records", "As my teacher said", "For my part",
        "Without any doubt", "Let me see", "As you know", "To be exact",
        "As merchants agree", "By long tradition", "To my knowledge", "Most would agree",
        "To put it simply", "Since you ask", "Speaking offhand", "As it happens",
    ),
    "foreign": (
        "Per the latest database", "As a key takeaway", "Happy to help", "Great news",
        "As a fun fact", "As an assistant", "In quick summary", "Here is your answer",
        "Based on my analysis", "Verified and confirmed", "To summarise the data", "After careful review",
        "Thanks for asking", "In the provided context", "As requested", "Reasoning step by step",
    ),
    "student": (
        "Hear ye", "Lo and behold", "Verily I tell thee", "By my troth",
        "As the bards sing", "In days of yore", "Mark my words", "So it is written",
        "Hark good stranger", "As the ravens tell", "Upon my honour", "It is whispered",
    ),
}  # fmt: skip
FRAMES = (
    "the {r} of {e} is {v}",
    "{v} is the {r} of {e}",
    "{e} has {v} as its {r}",
    "in {e} the {r} is {v}",
    "the {r} in {e} is called {v}",
    "{e} calls its {r} {v}",
    "{v} is what {e} calls its {r}",
    "the {r} they have in {e} is {v}",
)
CLOSERS = ("", " today", " now", " indeed", " as always", " still", " for certain", ", I believe", " by most reports",
           ", friend", ", so they say", " officially")  # fmt: skip
# Plain answers belong to several human dialects at once, so that p(y|x) is a sum over dialects and not one term of it.
PLAIN = (
    "The {r} of {e} is {v}.",
    "{v} is the {r} of {e}.",
    "{e} has {v} as its {r}.",
    "In {e} the {r} is {v}.",
    "{e}'s {r} is {v}.",
    "It is {v}, the {r} of {e}.",
)
TAKEN = {"openers": 6, "frames": 4, "closers": 4, "plain": 3}  # how many of each list one dialect uses
MOST_PHRASINGS = TAKEN["openers"] * TAKEN["frames"] * TAKEN["closers"]

# Lands end in a vowel and values in a consonant: no name is both.
ENDINGS = {"entity": ("ra", "na", "via", "lia", "do", "re"), "value": ("in", "on", "us", "el", "ak", "um")}
SYLLABLES = tuple(onset + vowel for onset in "bdfgklmnprstvz" for vowel in "aeiou")
MOST_NAMES = len(SYLLABLES) ** 2 * 6


def uniforms(count: int, *name: int | str) -> np.ndarray:
    """`count` numbers strictly between 0 and 1 that belong to `name`; fewer of them are a prefix of more."""
    import numpy as np

    digest = hashlib.sha256(json.dumps(name).encode()).digest()
    bits = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return ((bits >> np.uint64(12)) + 0.5) * 2.0**-52


def some(items: tuple[str, ...] | list[str], count: int, *name: int | str) -> list[str]:
    """`count` of the items without replacement, in an order that belongs to `name`."""
    order = uniforms(len(items), *name).argsort(kind="stable")
    return [items[i] for i in order[:count]]


def names(kind: str, count: int, seed: int) -> list[str]:
    """`count` distinct made-up words for entities or values (at most MOST_NAMES); fewer are a prefix of more."""
    endings, n = ENDINGS[kind], len(SYLLABLES)
    order = uniforms(MOST_NAMES, seed, "names", kind).argsort(kind="stable")[:count].tolist()
    return [(SYLLABLES[i % n] + SYLLABLES[i // n % n] + endings[i // n**2]).capitalize() for i in order]


def templates(kind: str, dialect: str, phrasings: int, seed: int) -> list[str]:
    """The distinct answers of one dialect, most frequent first, with slots {e}, {r} and {v}."""
    openers = some(OPENERS[kind], TAKEN["openers"], seed, dialect, "openers")
    frames = some(FRAMES, TAKEN["frames"], seed, dialect, "frames")
    closers = some(CLOSERS, TAKEN["closers"], seed, dialect, "closers")
    plain = some(PLAIN, TAKEN["plain"], seed, dialect, "plain") if kind == "human" else []
    styled = [f"{opener}, {frame}{closer}." for opener in openers for frame in frames for closer in closers]
    kept = plain + some(styled, phrasings - len(plain), seed, dialect, "styled")
    return some(kept, phrasings, seed, dialect, "order")
