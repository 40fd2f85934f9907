"""The toy world: prompts about made-up lands, and the human law of their answers in closed form.

A prompt is (category, entity, relation, phrasing), its entity drawn by a truncated Zipf law. Its human answers follow
p(y|x) = sum over dialects d of pi_d(category) * p_d(y|x), where p_d is a finite weighted trie: `phrasings` distinct
strings with geometric weights in an order of the dialect. Some plain strings belong to several dialects. So p is exact
by enumeration, and an answer's end is part of its outcome. Families of generators and students are other mixtures of
the same dialects and of foreign ones, which no human speaks.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from synthdiv.core.fields import problems
from synthdiv.core.types import ConfigError
from synthdiv.prompts import toy_words as words
from synthdiv.prompts.toy_world import Parse, ToyPrompt, World, study_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

STUDENT_DIALECTS = 2
WORD = re.compile("[A-Za-z]+")


class Law:
    """The truth of a world. Cheap to build, and the same on every machine; raises ConfigError for an impossible world.

    Dialects are numbered humans first, then foreign ones (number `dialects + f` for family f), then the students';
    weights over dialects always have the length of `dialects`.
    """

    def __init__(self, world: World) -> None:
        import numpy as np

        if wrong := problems(world, "world"):
            raise ConfigError(wrong)
        self.world, seed, humans = world, world.seed, world.dialects
        kinds = ["human"] * humans + ["foreign"] * humans + ["student"] * STUDENT_DIALECTS
        numbers = [*range(humans), *range(humans), *range(STUDENT_DIALECTS)]
        self.dialects = [f"{kind}{number}" for kind, number in zip(kinds, numbers, strict=True)]
        self.templates = [
            words.templates(kind, name, world.phrasings, seed) for kind, name in zip(kinds, self.dialects, strict=True)
        ]
        ranks = world.tail ** np.arange(world.phrasings)
        self.phrasing_weights = ranks / ranks.sum()  # p_d of the phrasing with each rank, equal for all dialects
        self.categories = list(words.RELATIONS)[: world.categories]
        self._weights = np.array(
            [[1 + int(9 * words.uniforms(1, seed, "weight", d, c)[0]) for d in self.dialects] for c in self.categories],
            dtype=float,
        )
        self._kind = np.array(kinds)
        self._name_facts()
        self._by_template: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for dialect, answers in enumerate(self.templates):
            for phrasing, template in enumerate(answers):
                self._by_template[template].append((dialect, phrasing))
        self._human = [self._mixture(self.human(category)) for category in range(world.categories)]

    def _name_facts(self) -> None:
        world, seed = self.world, self.world.seed
        self.entities = words.names("entity", world.entities, seed)
        pool = iter(words.names("value", world.categories * world.relations * world.values, seed))
        self._facts: dict[tuple[int, int], list[str]] = {}  # (category, relation) -> the value of each entity
        self._relations: dict[str, tuple[int, int]] = {}
        self._slots = dict.fromkeys(self.entities, "e")
        for category, topic in enumerate(self.categories):
            for relation, noun in enumerate(words.RELATIONS[topic][: world.relations]):
                values = [next(pool) for _ in range(world.values)]
                order = words.uniforms(world.entities, seed, "facts", noun).argsort(kind="stable")
                self._facts[category, relation] = [values[i % world.values] for i in order.tolist()]
                self._relations[noun] = (category, relation)
                self._slots |= {noun: "r"} | dict.fromkeys(values, "v")
        self._entity = {name: entity for entity, name in enumerate(self.entities)}

    # Speakers: weights over dialects, by category.

    def human(self, category: int) -> np.ndarray:
        """pi(category): small whole numbers, normalised, so that every human dialect has weight."""
        return self._share(category, self._kind == "human")

    def family(self, index: int, families: int, overlap: float, shift: float, category: int) -> np.ndarray:
        """(1 - overlap) * part + overlap * pi for family `index` of `families`; `part` is pi on the dialects d with
        d % families == index. Of that, the share shift * index / (families - 1) goes to a dialect of the family that no
        human speaks.

        So at overlap 1 and shift 0 every family is exactly the human law. The first family never has foreign speech and
        each further one has more: with a shift, more sources must hurt (science.md, 10.6).
        """
        import numpy as np

        bounds = {
            "families": (families, 1, self.world.dialects),
            "index": (index, 0, families - 1),
            "overlap": (overlap, 0, 1),
            "shift": (shift, 0, 1),
        }
        if wrong := [
            f"family.{name}={value}: needs {least} to {most}"
            for name, (value, least, most) in bounds.items()
            if not least <= value <= most
        ]:
            raise ConfigError(wrong)
        part = (self._kind == "human") & (np.arange(len(self.dialects)) % families == index)
        law = (1 - overlap) * self._share(category, part) + overlap * self.human(category)
        foreign = shift * index / (families - 1) if index else 0.0
        law = (1 - foreign) * law
        law[self.world.dialects + index] += foreign
        return law

    def student(self, category: int) -> np.ndarray:
        """The law that students are pre-trained on: dialects that neither humans nor families speak."""
        return self._share(category, self._kind == "student")

    def _share(self, category: int, members: np.ndarray) -> np.ndarray:
        weights = self._weights[category] * members
        return weights / weights.sum()

    # Prompts.

    def prompts(self, count: int, pool: str, seed: int | str) -> list[ToyPrompt]:
        """`count` prompts of the pool; fewer are a prefix of more.

        `study`: distinct, drawn one after the other without replacement, so frequent entities come early: a
        split must be random and not by position. `pretrain`: drawn with replacement. No prompt is in both pools.
        """
        import numpy as np

        if pool not in ("study", "pretrain"):
            raise ConfigError(f"pool={pool}: needs study or pretrain")
        study = study_pool(self.world)
        index = np.argwhere(study if pool == "study" else ~study)
        weight = (1.0 + index[:, 1]) ** -self.world.zipf
        if pool == "study":
            if count > len(index):
                raise ConfigError(f"toy.rows={count}: needs at most {len(index)}, all study prompts of this world")
            # Efraimidis and Spirakis (2006): the largest keys are a successive weighted sample without replacement.
            keys = np.log(words.uniforms(len(index), self.world.seed, "study", seed)) / weight
            sample = np.argsort(-keys, kind="stable")[:count]
        elif not len(index):
            raise ConfigError("world.prompt_phrasings=1: leaves no prompt for pre-training in this world")
        else:
            cumulative = weight.cumsum() / weight.sum()
            u = words.uniforms(count, self.world.seed, "pretrain", seed)
            sample = np.minimum(np.searchsorted(cumulative, u, side="right"), len(index) - 1)
        return [self.prompt(*row) for row in index[sample].tolist()]

    def prompt(self, category: int, entity: int, relation: int, phrasing: int) -> ToyPrompt:
        """The prompt with these indices."""
        noun = words.RELATIONS[self.categories[category]][relation]
        text = words.QUESTIONS[phrasing].format(e=self.entities[entity], r=noun)
        return ToyPrompt(category, entity, relation, phrasing, text)

    def value(self, prompt: ToyPrompt) -> str:
        """The right fact."""
        return self._facts[prompt.category, prompt.relation][prompt.entity]

    # Answers.

    def _mixture(self, weights: np.ndarray) -> dict[str, float]:
        """Template -> probability: equal strings of several dialects are merged."""
        p: dict[str, float] = defaultdict(float)
        for dialect in weights.nonzero()[0]:
            for template, weight in zip(self.templates[dialect], self.phrasing_weights, strict=True):
                p[template] += float(weights[dialect] * weight)
        return dict(p)

    def support(self, prompt: ToyPrompt, weights: np.ndarray | None = None) -> tuple[list[str], np.ndarray]:
        """All answers and their probabilities under the human law, or under other `weights` over dialects."""
        import numpy as np

        law = self._human[prompt.category] if weights is None else self._mixture(weights)
        p = np.array(list(law.values()))
        slots = self._fill(prompt)
        return [template.format(**slots) for template in law], p / p.sum()

    def _fill(self, prompt: ToyPrompt) -> dict[str, str]:
        noun = words.RELATIONS[self.categories[prompt.category]][prompt.relation]
        return {"e": self.entities[prompt.entity], "r": noun, "v": self.value(prompt)}

    def log_probability(self, prompt: ToyPrompt, text: str) -> float:
        """log p(text | prompt) of the human law in nats, the end of the answer included; -inf off the support."""
        facts = (prompt.entity, prompt.category, prompt.relation, True)
        reading = next(iter(self.parse(text)), None)
        if reading is None or reading[2:] != facts:
            return -math.inf
        p = self._human[prompt.category].get(self.templates[reading.dialect][reading.phrasing], 0.0)
        return math.log(p) if p else -math.inf

    def entropy(self, prompt: ToyPrompt) -> float:
        """Entropy of the human answers to the prompt, in nats."""
        return -sum(p * math.log(p) for p in self._human[prompt.category].values())

    def sample(
        self, prompts: Sequence[ToyPrompt], weights_of_category: Callable[[int], np.ndarray], seed: int | str
    ) -> list[str]:
        """One answer per prompt. Speakers whose answers must be independent need different seeds."""
        drawn = zip(*(part.tolist() for part in self.draw(prompts, weights_of_category, seed)), strict=True)
        return [
            self.templates[dialect][phrasing].format(**self._fill(prompt))
            for prompt, (dialect, phrasing) in zip(prompts, drawn, strict=True)
        ]

    def draw(
        self, prompts: Sequence[ToyPrompt], weights_of_category: Callable[[int], np.ndarray], seed: int | str
    ) -> tuple[np.ndarray, np.ndarray]:
        """The dialect and the phrasing of each answer that `sample` gives for the same arguments."""
        import numpy as np

        cumulative = np.cumsum([weights_of_category(c) for c in range(self.world.categories)], axis=1)
        cumulative /= cumulative[:, -1:]  # the last is exactly 1, so that no dialect without weight is ever drawn
        u = words.uniforms(2 * len(prompts), self.world.seed, "answers", seed).reshape(-1, 2)
        rows = cumulative[np.array([prompt.category for prompt in prompts], dtype=int)]
        dialect = (rows <= u[:, :1]).sum(axis=1)
        ranks = self.phrasing_weights.cumsum()
        return dialect, np.searchsorted(ranks / ranks[-1], u[:, 1], side="right")

    def parse(self, text: str) -> list[Parse]:
        """Every reading of the text over all dialects and entities, whatever the prompt; none means `off`."""
        slots: dict[str, list[str]] = {"e": [], "r": [], "v": []}

        def slot(match: re.Match[str]) -> str:
            kind = self._slots.get(match[0])
            if kind is None:
                return match[0]
            slots[kind].append(match[0])
            return f"{{{kind}}}"

        speakers = self._by_template.get(WORD.sub(slot, text), [])
        if not speakers or not all(slots.values()):  # a text with braces may have no word for a slot
            return []
        entity, (category, relation) = self._entity[slots["e"][0]], self._relations[slots["r"][0]]
        right = self._facts[category, relation][entity] == slots["v"][0]
        return [Parse(dialect, phrasing, entity, category, relation, right) for dialect, phrasing in speakers]

    def posterior(self, prompt: ToyPrompt, text: str) -> np.ndarray:
        """Probability of each dialect given the wording of the answer; all zeros if no dialect has it.

        It does not depend on whether the facts are right. The prior is pi(category) on human dialects and
        even on the others; their ratio does not matter, because no foreign string is a human one.
        """
        import numpy as np

        prior = np.where(self._kind == "human", self.human(prompt.category), 1.0)
        row = np.zeros(len(self.dialects))
        for reading in self.parse(text):
            row[reading.dialect] = prior[reading.dialect] * self.phrasing_weights[reading.phrasing]
        return row / (row.sum() or 1.0)
