"""Questions about every fact of a toy world, with the values of its relation as choices (chance is 1 / values), and
which of two answers is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from synthdiv.core.lazy import np
from synthdiv.prompts.questions import WholeSet
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_words import COMPARISON, uniforms
from synthdiv.prompts.toy_world import Third, ToyPrompt, World

SHORT, LOOKUPS = 0.3, 0.4  # shares of the rows that teach judging (docs/toy_world.md)


@dataclass
class FactQuestions(WholeSet):
    """A question for each fact of the study's topics, in a phrasing of no pre-training.

    Columns: those of a prompt set, with `choices`, `right` (the index of the right one) and `third`. The choices to a
    fact of pre-training are in the words of the student, others in those of humans: where the facts are stated.
    """

    name = "fact_questions"
    assumed_tokens = (30, 15)  # of a question and of a choice, for plans where nothing was measured

    world: World = field(default_factory=World)
    """The world, whose facts are in thirds."""

    @property
    def test(self) -> int:
        return self.world.categories * self.world.relations * self.world.entities

    def records(self) -> list[dict[str, Any]]:
        law = Law(self.world)
        return [question(law, prompt, third) for third in Third for prompt in law.one_of_each(third)]


def question(law: Law, prompt: ToyPrompt, third: Third) -> dict[str, Any]:
    """A question as a row. The choices are in order of the alphabet, so that their place says nothing."""
    speakers = law.student if third is Third.pretrained else law.human
    speech = law.speech(speakers(prompt.category))
    template = speech.templates[int(speech.p.argmax())]
    values = law.values(prompt)
    texts = {value: law.fill(prompt, template, value) for value in sorted(values)}
    return {
        "id": f"toy-{prompt.category}-{prompt.relation}-{prompt.entity}",
        "prompt": prompt.text,
        "category": str(prompt.category),
        "third": third.name,
        "choices": [*texts.values()],
        "right": [[*texts].index(values[0])],
        "answers": [values[0]],
    }


def judging(law: Law, count: int, seed: int | str) -> Iterator[tuple[str, str]]:
    """What teaches a small model which of two answers is right, A or B. The answers are in any dialect, one states the
    right value of a fact of pre-training and the other a wrong one; `SHORT` of the pairs are only values. `LOOKUPS` of
    the rows have a value where others have the question, so that it has only to be found."""
    speech = law.speech(np.ones(len(law.dialects)) / len(law.dialects))
    ends = speech.p.cumsum()
    u = uniforms(6 * count, law.world.seed, "judging", seed).reshape(count, 6)
    prompts = law.prompts(count, "compared", f"{seed}/judging")
    for prompt, (one, other, which, place, short, lookup) in zip(prompts, u.tolist(), strict=True):
        right, *wrong = law.values(prompt)
        values = [right, wrong[int(which * len(wrong))]]
        texts = [f"{value}." for value in values]
        if short >= SHORT:
            templates = [speech.templates[min(int(np.searchsorted(ends, x)), len(ends) - 1)] for x in (one, other)]
            texts = [law.fill(prompt, template, value) for template, value in zip(templates, values, strict=True)]
        letters = "AB" if place < 0.5 else "BA"
        a, b = texts if place < 0.5 else texts[::-1]
        target = int(lookup < LOOKUPS / 2)
        text = f"{values[target]}." if lookup < LOOKUPS else prompt.text
        yield COMPARISON.format(prompt=text, a=a, b=b), letters[target]
