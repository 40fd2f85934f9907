"""Judge prompts: a rubric over every answer, or over every pair of answers in both orders. A judge answers them as a
generator answers prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.stage import ANSWER_TOKENS, PROMPT_TOKENS, Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.evaluate.rubric import Rubric
from synthdiv.generate.generate import Generate, Split, read_samples
from synthdiv.mix.mix import Mix, read_mix
from synthdiv.models.chat import DEFAULT_TEMPLATE
from synthdiv.prompts.prompt_set import FILE, Prompts, read_prompts

Row = dict[str, Any]
CHARACTERS_PER_TOKEN = 4  # of a rubric, for planning
ONE_SHARD = 4096  # rows; more are judged in shards


@dataclass
class JudgePrompts(Stage):
    """A prompt set for judges. Inputs: `prompts`, and `answers` of one author, or `a` and `b` of two.

    Output: `prompts.parquet`. Columns: id, prompt (the rubric with its texts), prompt_id,
    sample, order (1: the texts of a pair stand in the other order), question, response (or a and b) and finish. A pair
    has the first answer of both authors. The answers to the first `limit` prompts are taken, the first `samples` each.
    """

    name = "judge_prompts"
    unit = "rows"
    bytes_per_unit = 1500

    rubric: Rubric = field(default_factory=Rubric)
    """What is asked."""
    rows: int = setting(0, least=0)
    """The most judge prompts that there can be, by the counts of the inputs: a split may hold out fewer rows."""
    limit: int = setting(0, least=0)
    """How many prompts of the stratified order are used; 0: all."""
    samples: int = setting(1, least=1)
    """The most answers to a prompt."""
    appended: str = ""
    """A text behind every answer: a probe of whether an answer can instruct a judge."""
    # What generation reads of a prompt set.
    test, human, toy, table = 0, False, None, None
    date, template = "2026-01-01", DEFAULT_TEMPLATE

    @property
    def split(self) -> Split:
        """Many rows are in the split train, which is answered in shards; few are one shard, as other splits are."""
        return Split.train if self.rows > ONE_SHARD else Split.test

    @property
    def system(self) -> str | None:
        return self.rubric.system

    @property
    def train_rows(self) -> int:
        return self.rows

    @property
    def assumed_tokens(self) -> tuple[int, int]:
        """Tokens of a judge prompt and of a verdict, for plans where nothing was measured."""
        texts = PROMPT_TOKENS + ANSWER_TOKENS * (2 if self.rubric.pair else 1)
        return (texts + len(self.rubric.instruction) // CHARACTERS_PER_TOKEN, 1)

    def input_names(self) -> tuple[str, ...]:
        return ("prompts", "a", "b") if self.rubric.pair else ("prompts", "answers")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        return Work(self.rows)

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        rows = list(self._pairs(inputs) if self.rubric.pair else self._ratings(inputs["answers"], inputs["prompts"]))
        if not 0 < len(rows) <= self.rows:
            raise DataError(
                f"{self.rubric.name}: {len(rows)} judge prompts; the inputs have 1 to {self.rows} by their fields"
            )
        table = [row | {"split": self.split.value, "position": at, "category": ""} for at, row in enumerate(rows)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), out / FILE)
        return {"rows": len(rows), "empty": sum(not row.get("response", "x").strip() for row in rows)}

    def _ratings(self, answers: Artifact, prompts: Artifact) -> Iterator[Row]:
        for row in taken_rows(answers, prompts, self.limit, self.samples):
            texts = {"prompt": row["prompt"], "response": row["response"] + self.appended}
            yield {
                "id": f"{row['id']}/{row['sample']}",
                "prompt": self.rubric.render(texts),
                "prompt_id": row["id"],
                "sample": row["sample"],
                "order": 0,
                "question": row["prompt"],
                "response": texts["response"],
                "source": row["source"],
                "finish": row["finish"],
            }

    def _pairs(self, inputs: Mapping[str, Artifact]) -> Iterator[Row]:
        sides = [taken_rows(inputs[name], inputs["prompts"], self.limit, 1) for name in ("a", "b")]
        contexts = source_texts(inputs["prompts"]) if self.rubric.sourced else {}
        for one, other in zip(*sides, strict=True):
            texts = [one["response"] + self.appended, other["response"] + self.appended]
            for order in (0, 1):
                a, b = texts if order == 0 else reversed(texts)
                slots = {"prompt": one["prompt"], "a": a, "b": b, "source": contexts.get(one["id"], "")}
                yield {
                    "id": f"{one['id']}/{order}",
                    "prompt": self.rubric.render(slots),
                    "prompt_id": one["id"],
                    "sample": 0,
                    "order": order,
                    "question": one["prompt"],
                    "a": texts[0],
                    "b": texts[1],
                    "finish": one["finish"] if one["finish"] == "failed" else other["finish"],
                }


def taken_rows(answers: Artifact, prompts: Artifact, limit: int, samples: int) -> list[Row]:
    """The first `samples` answers to each of the first `limit` prompts, prompts in their stratified order. `answers` is
    a finished `generate` or `mix`, or the prompt set itself, for its human answers."""
    if isinstance(answers.stage, Mix):
        return [row | {"sample": 0} for row in read_mix(answers)][: limit or None]
    if isinstance(answers.stage, Prompts):
        sides = read_prompts(answers, "test", limit or None)
        return [row | {"sample": 0, "source": "human", "finish": "recorded"} for row in sides]
    split = answers.stage.split.value
    order = {row["id"]: row["position"] for row in read_prompts(prompts, split, limit or None)}
    rows = [vars(row) for row in read_samples(answers.path, failed=True) if row.id in order and row.sample < samples]
    return sorted(rows, key=lambda row: (order[row["id"]], row["sample"]))


def count_rows(answers: Node, limit: int, samples: int) -> int:
    """The number of rows that `taken_rows` returns."""
    stage: Any = answers.stage
    if isinstance(stage, Mix):
        return min(limit or stage.rows, stage.rows - len(stage.leave_out))
    rows = stage.test if isinstance(stage, Prompts) else stage.rows
    taken = min(limit or rows, rows)
    if isinstance(stage, Prompts):
        return int(taken)
    assert isinstance(stage, Generate)
    return int(taken + (min(samples, stage.samples) - 1) * min(stage.subset, taken))


def judge_prompts(rubric: Rubric, prompts: Node, *answers: Node, limit: int = 0, samples: int = 1, **more: Any) -> Node:
    """The node of judge prompts about the answers of one author, or of two for a pair."""
    names = ("a", "b") if rubric.pair else ("answers",)
    rows = count_rows(answers[0], limit, samples) * (2 if rubric.pair else 1)
    stage = JudgePrompts(rubric, rows, limit, samples, **more)
    return Node(stage, {"prompts": prompts} | dict(zip(names, answers, strict=True)))


def source_texts(prompts: Artifact) -> dict[str, str]:
    """The text that each test prompt is about: its context."""
    return {row["id"]: row.get("context") or "" for row in read_prompts(prompts, "test")}
