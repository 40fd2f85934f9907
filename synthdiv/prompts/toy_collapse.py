"""Known collapses of a toy world's human law: transforms of the exact distribution of its texts, by strength 0 to 1.

A text answers one question: a topic, a fact of it (entities by Zipf's law), a wording given the topic. Collapses change
the shares of topics or wordings, so their divergence from the human law is exact. Two controls leave diversity alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from synthdiv.core.lazy import np
from synthdiv.prompts import toy_words as words
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_speech import Speech
from synthdiv.prompts.toy_world import ToyPrompt

CONTROLS = ("length", "quality")


@dataclass(frozen=True, eq=False)
class TextLaw:
    """A distribution over texts: the shares of `topics`, and the wordings of each. A share `doubled` of the texts are
    answers to two questions, so that each word still follows the same law; a share `wrong` of the entities have the
    values of others, so that texts are as many, with the same shares."""

    law: Law
    topics: np.ndarray
    wordings: list[Speech]
    doubled: float = 0.0
    wrong: float = 0.0

    def draw(self, count: int, each: int, *name: int | str) -> list[Sequence[str]]:
        """`each` texts about each of `count` independent questions; `name` names the draw."""
        law, world = self.law, self.law.world
        u = words.uniforms((4 + each) * count, world.seed, "texts", *name).reshape(4 + each, count)
        zipf = (1.0 + np.arange(world.entities)) ** -world.zipf
        facts = np.array([pick(self.topics, u[0]), pick(zipf, u[1]), pick(np.ones(world.relations), u[2])]).T
        prompts = [ToyPrompt(topic, entity, relation, 0, "") for topic, entity, relation in facts.tolist()]
        wrong = (words.uniforms(world.entities, world.seed, "wrong") < self.wrong)[facts[:, 1]]
        false = [Speech([text.replace("{v}", "{w1}") for text in each.templates], each.p) for each in self.wordings]
        texts: list[Sequence[str]] = [*zip(*(
            np.where(wrong, law.draw(prompts, false, row), law.draw(prompts, self.wordings, row)).tolist()
            for row in u[4:]
        ), strict=True)]  # fmt: skip
        if not self.doubled:
            return texts
        second = replace(self, doubled=0.0).draw(count, each, *name, "second")
        pairs = zip(texts, second, u[3] < self.doubled, strict=True)
        return [[f"{a} {b}" for a, b in zip(one, two, strict=True)] if twice else one for one, two, twice in pairs]


def pick(weights: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The index at each number u in [0, 1) of a distribution with these weights."""
    return np.minimum(np.searchsorted(weights.cumsum() / weights.sum(), u, side="right"), len(weights) - 1)


def divergence(p: TextLaw, q: TextLaw) -> tuple[float, float]:
    """KL(p‖q) in nats a text, and the support loss: the mass of p on texts that q never gives, where KL is infinite."""
    pairs = [
        (share * mass, other * dict(zip(*to, strict=True)).get(text, 0.0))
        for share, other, of, to in zip(p.topics, q.topics, p.wordings, q.wordings, strict=True)
        for text, mass in zip(*of, strict=True)
    ]
    lost = float(sum(one for one, other in pairs if not other))
    return (math.inf, lost) if lost else (float(sum(one * math.log(one / other) for one, other in pairs)), 0.0)


def tail(law: Law, topic: int, strength: float) -> Speech:
    """Without the rarest wordings: those beyond the quantile 1 - strength. One wording stays."""
    human = law.speech(law.human(topic))
    order = (-human.p).argsort(kind="stable")
    human.p[order[human.p[order].cumsum() - human.p[order] >= max(1 - strength, 1e-9)]] = 0
    return Speech(human.templates, human.p / human.p.sum())


def modes(law: Law, topic: int, strength: float) -> Speech:
    """By pairs of neighbours in rank, the rarer wording gives this share of its mass to the more frequent one."""
    human = law.speech(law.human(topic))
    first, second = (-human.p).argsort(kind="stable")[: len(human.p) // 2 * 2].reshape(-1, 2).T
    human.p[first] += strength * human.p[second]
    human.p[second] *= 1 - strength
    return human


def dialect(law: Law, topic: int, strength: float) -> Speech:
    """The human dialect with the least weight in all topics loses this share of it."""
    weights, topic_weights = law.human(topic), [law.human(each) for each in range(law.world.categories)]
    weights[np.sum(topic_weights, axis=0)[: law.world.dialects].argmin()] *= 1 - strength
    return law.speech(weights / weights.sum())


def paraphrase(law: Law, topic: int, strength: float) -> Speech:
    """This share of the answers has the most frequent wording of its dialect."""
    human, weights = law.speech(law.human(topic)), law.human(topic)
    p = (1 - strength) * human.p
    for number in weights.nonzero()[0]:
        p[human.templates.index(law.templates[number][0])] += strength * weights[number]
    return Speech(human.templates, p)


def temperature(law: Law, topic: int, strength: float) -> Speech:
    """Decoded token by token at temperature 1 - strength."""
    return law.speech(law.human(topic), temperature=1 - strength)


WORDINGS: dict[str, Callable[[Law, int, float], Speech]] = {
    each.__name__: each for each in (tail, modes, dialect, paraphrase, temperature)
}
COLLAPSES = (*WORDINGS, "topics")


def text_law(law: Law, change: str = "", strength: float = 0.0) -> TextLaw:
    """The human law of texts, or what a collapse or a control makes of it; `topics`: the last one loses this share."""
    topics = np.ones(law.world.categories)
    topics[-1] -= strength if change == "topics" else 0
    wording = WORDINGS.get(change, lambda law, topic, _: law.speech(law.human(topic)))
    wordings = [wording(law, topic, strength) for topic in range(len(topics))]
    return TextLaw(law, topics / topics.sum(), wordings, *(strength * (change == name) for name in CONTROLS))
