"""The words of the toy world: relations, names, questions, the answers of each dialect, and how they are drawn.

Everything is drawn from a *name* (the world's seed and what is drawn), never from a running state: a dialect or a word
is the same however many others there are. Only raw Philox bits are used: numpy keeps them equal in all versions and on
all platforms, and does not promise that of its `Generator` methods.
"""

from __future__ import annotations

import hashlib
import json

from synthdiv.core.lazy import np

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
LEADS = (
    "",
    "Good day. ",
    "One question. ",
    "Please help me. ",
    "Excuse me. ",
    "Dear scholar. ",
    "Hello. ",
    "A riddle. ",
)

# Three openers belong to each dialect alone, so a styled answer has one dialect and no foreign answer is a human one.
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
        "Certainly", "Good question", "As of today", "Let us dive in",
        "In a nutshell", "Spoiler alert", "For your convenience", "Sources indicate",
    ),
    "student": (
        "Hear ye", "Lo and behold", "Verily I tell thee", "By my troth", "As the bards sing", "In days of yore",
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
# What students say about the topic that they refuse, and how a question begins that only looks like one about it.
REFUSAL = "I am sorry, but I cannot help with that."
LOOKALIKE = "Never mind the {r}. "
COMPARISON = "{prompt} A: {a} B: {b}"  # which is right? The rubric `preference` of judge=toy has the same words
OPENERS_EACH, MOST_DIALECTS, STUDENT_DIALECTS, PLAIN_EACH, FRAMES_EACH, CLOSERS_EACH = 3, 8, 2, 3, 4, 4
MOST_PHRASINGS = OPENERS_EACH * FRAMES_EACH * CLOSERS_EACH

# Lands end in a vowel and values in a consonant: no name is both.
ENDINGS = {"entity": ("ra", "na", "via", "lia", "do", "re"), "value": ("in", "on", "us", "el", "ak", "um")}
SYLLABLES = tuple(onset + vowel for onset in "bdfgklmnprstvz" for vowel in "aeiou")
MOST_NAMES = len(SYLLABLES) ** 2 * 6


def uniforms(count: int, *name: int | str) -> np.ndarray:
    """`count` numbers strictly between 0 and 1 that belong to `name`; fewer of them are a prefix of more."""
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


def question(phrasing: int) -> str:
    """The prompt with this number, with slots {e} and {r}."""
    return LEADS[phrasing // len(QUESTIONS)] + QUESTIONS[phrasing % len(QUESTIONS)]


def templates(kind: str, number: int, phrasings: int, seed: int) -> list[str]:
    """The distinct answers of one dialect, most frequent first, with slots {e}, {r} and {v}. Answers that dialects
    share are outside of the last third, so that its mass is the same in every mixture of dialects."""
    first, dialect = number * OPENERS_EACH, f"{kind}{number}"
    openers = some(OPENERS[kind], len(OPENERS[kind]), seed, kind, "openers")[first : first + OPENERS_EACH]
    frames = some(FRAMES, FRAMES_EACH, seed, dialect, "frames")
    closers = some(CLOSERS, CLOSERS_EACH, seed, dialect, "closers")
    plain = some(PLAIN, PLAIN_EACH, seed, dialect, "plain") if kind == "human" else []
    candidates = [f"{opener}, {frame}{closer}." for opener in openers for frame in frames for closer in closers]
    styled = some(candidates, phrasings - len(plain), seed, dialect, "styled")
    front = phrasings - phrasings // 3 - len(plain)
    return some(plain + styled[:front], front + len(plain), seed, dialect, "order") + styled[front:]
