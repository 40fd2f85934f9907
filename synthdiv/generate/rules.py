"""For judges: whether an answer refuses, by the phrases with which it begins.

Needs: a rubric `refusal`.

Tested on: CPU.
"""

from __future__ import annotations

from synthdiv.core.types import DataError
from synthdiv.generate.answer import Answer, Answers, Shard
from synthdiv.measures.refusals import is_refusal
from synthdiv.prompts.prompt_set import read_prompts

RUBRICS = ("refusal",)  # those that rules can judge


def answers(shard: Shard) -> Answers:
    """All verdicts at once."""
    rubric, split = shard.inputs["prompts"].stage.rubric, shard.stage.split.value
    if rubric.name not in RUBRICS:
        raise DataError(f"{shard.stage.source}: rules judge {', '.join(RUBRICS)}, not {rubric.name}")
    best, worst = (rubric.options[rubric.values.index(end(rubric.values))] for end in (max, min))
    rows = {row["id"]: row["response"] for row in read_prompts(shard.inputs["prompts"], split)}
    yield [
        (request, Answer(best if is_refusal(rows[request.id]) else worst, "recorded", -1, -1))
        for request in shard.requests
    ]
