"""The toy world: prompts about made-up lands, and the human law of their answers in closed form.

A prompt is (category, entity, relation, phrasing), its entity drawn by a truncated Zipf law. Its human answers follow
p(y|x) = sum over dialects d of pi_d(category) * p_d(y|x), where p_d gives `phrasings` strings geometric weights. So p
is exact by enumeration, and an answer's end is part of its outcome. Families of generators and students are other
mixtures of the same dialects and of foreign ones, which no human speaks. docs/toy_world.md has it on one page.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from synthdiv.core.fields import problems
from synthdiv.core.lazy import np
from synthdiv.core.types import ConfigError
from synthdiv.prompts import toy_words as words
from synthdiv.prompts.toy_speech import Speech
from synthdiv.prompts.toy_world import Speaker, Third, ToyPrompt, World, pool_members, topics, value_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORD = re.compile("[A-Za-z]+")


class Law:
    """The truth of a world. Cheap to build, and the same on every machine; raises ConfigError for an impossible world.

    Dialects are numbered humans first, then foreign ones (number `dialects + f` for family f), then the students';
    weights over dialects always have the length of `dialects`.
    """

    def __init__(self, world: World) -> None:
        if wrong := problems(world, "world"):
            raise ConfigError(wrong)
        self.world, seed, humans = world, world.seed, world.dialects
        counts = {"human": humans, "foreign": humans, "student": words.STUDENT_DIALECTS}
        kinds = [(kind, number) for kind, count in counts.items() for number in range(count)]
        self.dialects = [f"{kind}{number}" for kind, number in kinds]
        self.templates = [words.templates(*kind, world.phrasings, seed) for kind in kinds]
        ranks = world.tail ** np.arange(world.phrasings)
        self.phrasing_weights = ranks / ranks.sum()  # p_d of the phrasing with each rank, equal for all dialects
        self.categories = topics(world)  # the last one is what students refuse, if there is one left
        draws = [[words.uniforms(1, seed, "weight", d, c)[0] for d in self.dialects] for c in self.categories]
        self._weights = 1 + np.floor(9 * np.array(draws))
        self._kind = np.array([kind for kind, _ in kinds])
        self._name_facts()
        self._readings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for dialect, answers in enumerate(self.templates):
            for phrasing, template in enumerate(answers):
                self._readings[template].append((dialect, phrasing))
        self._human = [self.speech(self.human(category)) for category in range(len(self.categories))]

    def _name_facts(self) -> None:
        world, seed = self.world, self.world.seed
        self.entities = words.names("entity", world.entities, seed)
        pool = iter(words.names("value", len(self.categories) * world.relations * world.values, seed))
        # the values of (category, relation), by entity: the right one first
        self._facts: dict[tuple[int, int], list[list[str]]] = {}
        self._relations: dict[str, tuple[int, int]] = {}
        self._slots = dict.fromkeys(self.entities, "e")
        for category, topic in enumerate(self.categories):
            for relation, noun in enumerate(words.RELATIONS[topic][: world.relations]):
                values = [next(pool) for _ in range(world.values)]
                places = (value_order(world, noun) % world.values).tolist()
                turned = {place: values[place:] + values[:place] for place in {*places}}
                self._facts[category, relation] = [turned[place] for place in places]
                self._relations[noun] = (category, relation)
                self._slots |= {noun: "r"} | dict.fromkeys(values, "v")
        self._entity = {name: entity for entity, name in enumerate(self.entities)}

    def words(self, suites: bool = False) -> list[str]:
        """Every word of the world's prompts and answers, sorted: the closed vocabulary of its models. With `suites`
        also those of the topic that students refuse, and of comparisons."""
        fixed = [words.question(number) for number in range(self.world.prompt_phrasings)]
        fixed += [words.REFUSAL, words.LOOKALIKE, words.COMPARISON] if suites else []
        slots = {*self._slots}
        for (category, relation), facts in self._facts.items() if not suites else ():
            if category == self.world.categories:
                slots -= {words.RELATIONS[self.categories[category]][relation], *facts[0]}
        return sorted({*WORD.findall(re.sub(r"\{\w+\}", "", " ".join([*fixed, *self._readings]))), *slots})

    # Speakers: weights over dialects, by category.

    def human(self, category: int) -> np.ndarray:
        """pi(category): small whole numbers, normalised, so that every human dialect has weight."""
        return self._share(category, self._kind == "human")

    def family(self, index: int, families: int, overlap: float, shift: float, category: int) -> np.ndarray:
        """(1 - overlap) * part + overlap * pi for family `index` of `families`; `part` is pi on the dialects d with
        d % families == index. Of that, the share shift * index / (families - 1) goes to a dialect of the family that no
        human speaks.

        So at overlap 1 and shift 0 every family is exactly the human law. The first family never has foreign speech and
        each further one has more: with a shift, several sources are further from the law than the first one alone.
        """
        if not 0 <= index < families <= self.world.dialects:
            raise ConfigError(
                f"family {index} of {families}: needs 1 to {self.world.dialects} families, numbered from 0"
            )
        part = (self._kind == "human") & (np.arange(len(self.dialects)) % families == index)
        law = (1 - overlap) * self._share(category, part) + overlap * self.human(category)
        foreign = shift * index / (families - 1) if index else 0.0
        law = (1 - foreign) * law
        law[self.world.dialects + index] += foreign
        return law

    def student(self, category: int) -> np.ndarray:
        """The law that students are pre-trained on: dialects that neither humans nor families speak."""
        return self._share(category, self._kind == "student")

    def weights(self, speaker: Speaker, category: int) -> np.ndarray:
        """Those of a family or a student."""
        if speaker.family is None:
            return self.student(category)
        return self.family(speaker.family, speaker.families, speaker.overlap or 0.0, speaker.shift or 0.0, category)

    def _share(self, category: int, members: np.ndarray) -> np.ndarray:
        weights = self._weights[category] * members
        return weights / weights.sum()

    def speech(
        self, weights: np.ndarray, wrong: float = 0.0, tail: float = 1.0, temperature: float = 1.0, top_p: float = 1.0
    ) -> Speech:
        """The answers of a speaker with these weights over dialects. `wrong` is the share of wrong values, all wrong
        ones alike, and `tail` what the last third of each dialect's phrasings keeps of its weight. `temperature` and
        `top_p` act on each token, as in a model's decoding, exactly (on the trie of the answers)."""
        ranks = self.phrasing_weights.copy()
        ranks[self.world.phrasings - self.world.phrasings // 3 :] *= tail
        mass: dict[str, float] = defaultdict(float)  # equal strings of several dialects are merged
        for dialect in weights.nonzero()[0]:
            for template, rank in zip(self.templates[dialect], ranks / ranks.sum(), strict=True):
                mass[template] += float(weights[dialect] * rank)
        others = range(1, self.world.values) if wrong else ()
        slots = {"{v}": 1 - wrong} | {f"{{w{k}}}": wrong / len(others) for k in others}
        leaves = {
            template.replace("{v}", slot): p * share
            for template, p in mass.items() for slot, share in slots.items()
        }  # fmt: skip
        p = np.array(list(leaves.values()))
        return Speech([*leaves], p / p.sum()).decoded(temperature, top_p)

    # Prompts.

    def prompts(self, count: int, pool: str, seed: int | str) -> list[ToyPrompt]:
        """`count` prompts of the pool; fewer are a prefix of more.

        `pretrain`, `known`, `compared` and `refusals` are for pre-training and drawn with replacement. The others are
        for prompt sets: distinct, drawn one after the other without replacement, so frequent entities come early: a
        split must be random and not by position. No prompt is for both. A look-alike of what is refused names the noun
        of a refused request and asks for something else, which the student knows.
        """
        index = np.argwhere(pool_members(self.world, pool))
        weight = (1.0 + index[:, 1]) ** -self.world.zipf
        if pool in ("pretrain", "known", "compared", "refusals"):
            if count and not len(index):
                raise ConfigError(f"world.categories={self.world.categories}: leaves no topic that students refuse")
            cumulative = weight.cumsum() / weight.sum()
            u = words.uniforms(count, self.world.seed, "refusals" if pool == "refusals" else "pretrain", seed)
            sample = np.minimum(np.searchsorted(cumulative, u, side="right"), len(index) - 1)
        else:
            if count > len(index):
                raise ConfigError(f"toy.rows={count}: needs at most {len(index)}, all {pool} prompts of this world")
            # Efraimidis and Spirakis (2006): the largest keys are a successive weighted sample without replacement.
            keys = np.log(words.uniforms(len(index), self.world.seed, pool, seed)) / weight
            sample = np.argsort(-keys, kind="stable")[:count]
        prompts = [self.prompt(*row) for row in index[sample].tolist()]
        if pool != "lookalike":
            return prompts
        nouns = words.RELATIONS[self.categories[-1]]
        return [replace(each, text=words.LOOKALIKE.format(r=nouns[each.relation]) + each.text) for each in prompts]

    def prompt(self, category: int, entity: int, relation: int, phrasing: int) -> ToyPrompt:
        """The prompt with these indices."""
        noun = words.RELATIONS[self.categories[category]][relation]
        text = words.question(phrasing).format(e=self.entities[entity], r=noun)
        return ToyPrompt(category, entity, relation, phrasing, text)

    def one_of_each(self, third: Third) -> list[ToyPrompt]:
        """A prompt for each fact of the study's topics in a third, in phrasings that are not for pre-training."""
        pools = {Third.pretrained: "pretrained", Third.finetuned: "study", Third.unseen: "unseen"}
        index = np.argwhere(pool_members(self.world, pools[third]))
        first = {tuple(row[:3]): row for row in index[::-1].tolist()}
        return [self.prompt(*row) for row in reversed(first.values())]

    def value(self, prompt: ToyPrompt) -> str:
        """The right fact."""
        return self.values(prompt)[0]

    def values(self, prompt: ToyPrompt) -> list[str]:
        """The values that an answer can state, the right one first."""
        return self._facts[prompt.category, prompt.relation][prompt.entity]

    def noun(self, prompt: ToyPrompt) -> str:
        """The word for what is asked."""
        return words.RELATIONS[self.categories[prompt.category]][prompt.relation]

    # Answers.

    def fill(self, prompt: ToyPrompt, template: str, value: str = "") -> str:
        """The answer to a prompt that a template of a speech gives, with the right value or this one."""
        values, noun = self.values(prompt), self.noun(prompt)
        wrong = {f"w{k}": value for k, value in enumerate(values)} if "{w" in template else {}
        return template.format(e=self.entities[prompt.entity], r=noun, v=value or values[0], **wrong)

    def support(self, prompt: ToyPrompt, speech: Speech | None = None) -> tuple[list[str], np.ndarray]:
        """All answers and their probabilities, each answer's end included, in human speech or another."""
        speech = speech or self._human[prompt.category]
        return [self.fill(prompt, template) for template in speech.templates], speech.p

    def value_nll(self, category: int) -> np.ndarray:
        """`Speech.value_nll` of human answers, in the order of `support`."""
        return self._human[category].value_nll()

    def sample(
        self, prompts: Sequence[ToyPrompt], weights_of_category: Callable[[int], np.ndarray], seed: int | str
    ) -> list[str]:
        """One answer per prompt. Speakers whose answers must be independent need different seeds."""
        speech = [self.speech(weights_of_category(category)) for category in range(len(self.categories))]
        u = words.uniforms(len(prompts), self.world.seed, "answers", seed)
        return self.draw(prompts, speech, u)

    def draw(self, prompts: Sequence[ToyPrompt], speech: Sequence[Speech], u: np.ndarray) -> list[str]:
        """The answer to each prompt at its number u in [0, 1), in the speech of its category."""
        category = np.array([prompt.category for prompt in prompts], dtype=int)
        answers = [""] * len(prompts)
        for each in range(len(speech)):
            rows, ends = np.flatnonzero(category == each), speech[each].p.cumsum()
            for row, leaf in zip(rows, np.searchsorted(ends / ends[-1], u[rows], side="right"), strict=True):
                answers[row] = self.fill(prompts[int(row)], speech[each].templates[leaf])
        return answers

    def parse(self, text: str) -> list[tuple[int, int, int, int, int, bool]]:
        """Every reading of the text, whatever the prompt: (dialect, rank of the phrasing, entity, category, relation,
        whether the value is the entity's); none means `off`."""
        slots: dict[str, list[str]] = {"e": [], "r": [], "v": []}

        def slot(match: re.Match[str]) -> str:
            kind = self._slots.get(match[0], "")
            slots.get(kind, []).append(match[0])
            return f"{{{kind}}}" if kind else match[0]

        speakers = self._readings.get(WORD.sub(slot, text), [])
        if not speakers or not all(slots.values()):  # a text with braces may have no word for a slot
            return []
        entity, (category, relation) = self._entity[slots["e"][0]], self._relations[slots["r"][0]]
        right = self._facts[category, relation][entity][0] == slots["v"][0]
        return [(dialect, phrasing, entity, category, relation, right) for dialect, phrasing in speakers]

    def likelihood(self, prompt: ToyPrompt, text: str) -> float:
        """p(y|x) of human answers, exactly; 0 for what no human says to the prompt."""
        human, fact = self.human(prompt.category), (prompt.entity, prompt.category, prompt.relation, True)
        return float(
            sum(human[d] * self.phrasing_weights[rank] for d, rank, *stated in self.parse(text) if (*stated,) == fact)
        )

    def is_right(self, question: str, text: str) -> bool:
        """Whether an answer states the fact that a question asks for."""
        question_words = {*WORD.findall(question)}
        return any(
            right and {self.entities[entity], words.RELATIONS[self.categories[category]][relation]} <= question_words
            for *_, entity, category, relation, right in self.parse(text)
        )

    def posterior(self, prompt: ToyPrompt, text: str) -> np.ndarray:
        """Probability of each dialect given the wording of the answer, right or wrong; all zeros if no dialect has it.
        The prior is pi(category) on human dialects and even on the others, which share no string with them."""
        prior = np.where(self._kind == "human", self.human(prompt.category), 1.0)
        row = np.zeros(len(self.dialects))
        for dialect, phrasing, *_ in self.parse(text):
            row[dialect] = prior[dialect] * self.phrasing_weights[phrasing]
        return row / (row.sum() or 1.0)
