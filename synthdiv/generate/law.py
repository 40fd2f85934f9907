"""The exact law of a toy family, drawn without a model.

Needs: `law`, as in `generators=toy`.

Tested on: CPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.stage import Stage
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.generate.answer import Answer, Answers, Shard
from synthdiv.prompts.prompt_set import read_prompts, toy_prompt
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_speech import Speech, pieces
from synthdiv.prompts.toy_words import REFUSAL
from synthdiv.prompts.toy_world import Speaker, World, pool_members


@dataclass
class Grade:
    """How much worse than its family a source answers, with an effect on the likelihood of human answers that is the
    same for every mix of sources (docs/toy_world.md)."""

    wrong: float = setting(0.0, least=0, below=1)
    """Share of answers with a wrong value."""
    tail: float = setting(1.0, above=0, most=1)
    """What the last third of the phrasings of each dialect keeps of its weight."""


@dataclass
class Family(Speaker, Stage):
    """A family of the toy world whose answers are drawn from its law. Output: `law.json`, its fields."""

    name = "family"

    grade: Grade | None = None
    """Its grade; null: `generators.grade`."""

    def check(self, name: str) -> list[str]:
        return [f"{name}.family=null: needs the number of a family"] if self.family is None else super().check(name)

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        (out / "law.json").write_text(json.dumps(asdict(self)), encoding="utf-8")
        return {}


def mistaken(world: World) -> Family:
    """Who writes as humans do and always states a wrong value, which no grade of a study's source is."""
    return Family(0, families=1, overlap=1.0, shift=0.0, world=world, grade=Grade(wrong=1.0))


def answers(shard: Shard) -> Answers:
    """All rows at once: each answer by the one number that its random stream gives. Requests on the topic that students
    refuse are refused, unless answers to them are planted in the prompts of the study."""
    stage, family, prompt_set = shard.stage, shard.inputs["model"].stage, shard.inputs["prompts"]
    prompts = prompt_set.inputs.get("prompts", prompt_set)  # those of the study
    if not prompts.stage.toy or prompts.stage.toy.world != family.world:
        raise DataError(f"{stage.source}: backend law answers the prompts of its own toy world; choose prompts=toy")
    law, sampling = Law(family.world), stage.sampling
    if sampling.top_k or sampling.min_p or sampling.repetition_penalty != 1 or sampling.stop:
        raise DataError(f"{stage.source}: backend law has temperature, top_p and max_new_tokens only; set "
                        "min_p=0 where a level of sampling has it (mix.diversity.low, mix.diversity.high)")  # fmt: skip
    graded = (family.grade.wrong, family.grade.tail, sampling.temperature, sampling.top_p)
    speech = [law.speech(law.weights(family, category), *graded) for category in range(len(law.categories))]
    if not prompts.stage.toy.planted:
        speech[family.world.categories :] = [Speech([REFUSAL], np.ones(1))] * (len(speech) > family.world.categories)
    rows = {row["id"]: row for row in read_prompts(prompt_set, stage.split.value)}
    u, v = (np.array([int(each.stream[at : at + 13], 16) for each in shard.requests]) / 16.0**13 for at in (0, 13))
    if prompts is prompt_set:
        texts = law.draw([toy_prompt(rows[request.id]) for request in shard.requests], speech, u)
    else:
        index = np.argwhere(pool_members(law.world, "study"))
        draws = zip(shard.requests, u, v, strict=True)
        texts = [pair(law, speech, index, rows[request.id], *numbers) for request, *numbers in draws]
    yield [
        (request, cut(request.prompt, text, sampling.max_new_tokens))
        for request, text in zip(shard.requests, texts, strict=True)
    ]


def pair(law: Law, speech: list[Speech], index: np.ndarray, row: dict[str, Any], u: float, v: float) -> str:
    """A question of the study (its numbers are the rows of `index`) and an answer: on a topic, which is a category or
    an entity of the world, or for the same fact and in the same dialect as the answer of the row."""
    readings = law.parse(row.get("response", ""))
    if "topic" in row:
        named = [row["topic"] in (law.categories[category], law.entities[entity]) for category, entity, *_ in index]
    elif readings:
        named = (index[:, :3] == (readings[0][3], readings[0][2], readings[0][4])).all(axis=1)
    else:
        return ""  # nothing that the world can say again
    if not any(named):
        raise DataError(f"mix.diversity.topics: {row['topic']} is no category and no entity of the toy world's prompts")
    places = index[named]
    prompt = law.prompt(*places[int(u * len(places))].tolist())
    if "topic" in row:
        (answer,) = law.draw([prompt], speech, np.array([v]))
    else:
        value = next(each for each in law.values(prompt) if each in row["response"])
        rank = int((law.phrasing_weights.cumsum() < v).sum())
        answer = law.fill(prompt, law.templates[readings[0][0]][rank], value)
    return f"Question: {prompt.text}\nAnswer: {answer}"


def cut(prompt: str, text: str, limit: int) -> Answer:
    """An answer of at most `limit` tokens of the law."""
    tokens = pieces(text)
    head = tokens[:limit]
    return Answer("".join(head), "stop" if len(head) == len(tokens) else "length", len(pieces(prompt)), len(head))
