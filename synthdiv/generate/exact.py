"""The backend of exact judges: the truth of the toy world about an answer."""

from __future__ import annotations

from synthdiv.core.types import DataError
from synthdiv.generate.answer import ROWS, Answer, Answers, Shard
from synthdiv.prompts.prompt_set import read_prompts, toy_prompt
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import ToyPrompt

RUBRICS = ("quality", "preference")  # those that it can judge


def answers(shard: Shard) -> Answers:
    """All verdicts at once."""
    judge_prompts = shard.inputs["prompts"]
    rubric, prompts = judge_prompts.stage.rubric, judge_prompts.inputs["prompts"]
    if rubric.name not in RUBRICS or not prompts.stage.toy:
        raise DataError(f"{shard.stage.source}: the toy world's truth judges {', '.join(RUBRICS)} of its own prompts")
    law = Law(prompts.stage.toy.world)
    asked = {row["id"]: toy_prompt(row) for side in ("train", "test") for row in read_prompts(prompts, side)}
    rows = {row["id"]: row for row in read_prompts(judge_prompts, shard.stage.split.value)}
    (shard.out / ROWS).write_bytes(b"")  # an earlier builder may have left an incomplete file
    verdicts = []
    for request in shard.requests:
        row = rows[request.id]
        names = ("a", "b") if rubric.pair else ("response",)
        grades = [quality(law, asked[row["prompt_id"]], row[name]) for name in names]
        if rubric.pair:
            share = 0.5 + 0.5 * ((grades[0] > grades[1]) - (grades[0] < grades[1]))
            p = [share, 1 - share] if row["order"] == 0 else [1 - share, share]
        else:
            p = [float(value == grades[0]) for value in rubric.values]
        log = {"options": dict(zip(rubric.options, p, strict=True)), "mass": 1.0}
        verdicts.append((request, Answer(rubric.options[p.index(max(p))], "recorded", -1, -1, log)))
    yield verdicts


def quality(law: Law, prompt: ToyPrompt, text: str) -> float:
    """5: an answer of the prompt's topic, entity and relation with the right value; 3: with a wrong value; 2: an answer
    to another prompt; 1: no answer of any dialect."""
    readings = law.parse(text)
    asked = (prompt.entity, prompt.category, prompt.relation)
    about = [right for *_, entity, category, relation, right in readings if (entity, category, relation) == asked]
    return 5.0 if any(about) else 3.0 if about else 2.0 if readings else 1.0
