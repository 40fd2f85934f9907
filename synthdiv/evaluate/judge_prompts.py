"""Judge prompts: a rubric over every answer, or over every pair of answers in both orders. A judge answers them as a
generator answers prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.files import write_rows
from synthdiv.core.stage import ANSWER_TOKENS, PROMPT_TOKENS, Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.evaluate.rubric import Rubric
from synthdiv.generate.generate import Generate, Split, read_samples
from synthdiv.mix.fine_tuning_set import FineTuningSet, read_mix
from synthdiv.mix.mix import Mix
from synthdiv.models.chat import DEFAULT_TEMPLATE
from synthdiv.prompts.prompt_set import FILE, Prompts, read_prompts

Row = dict[str, Any]
CHARACTERS_PER_TOKEN = 4  # of a rubric, for planning
ONE_SHARD = 4096  # rows; more are judged in shards


@dataclass
class JudgePrompts(Stage):
    """A prompt set for judges. Inputs: `prompts`, and by number the answers of the authors: of one or more for ratings,
    of two or more for pairs.

    Output: `prompts.parquet`. Columns: id, prompt (the rubric with its texts), prompt_id, sample, first and second (the
    numbers of the authors; second is -1 without a pair), order (1: the texts of a pair stand in the other order),
    question, response (or a and b), source (the author of a rated answer) and finish. A pair has the first answer of
    both authors, and the request without its context, which only a rubric with {source} shows. The answers to the
    first `limit` prompts are taken, the first `samples` each.
    """

    name = "judge_prompts"
    shows_texts = True
    quotes_models = True
    unit = "rows"
    bytes_per_unit = 1500

    rubric: Rubric = field(default_factory=Rubric)
    """What is asked."""
    rows: int = setting(0, least=0)
    """The most judge prompts that there can be, by the counts of the inputs: a split may hold out fewer rows."""
    limit: int = setting(0, least=0)
    """How many prompts of the stratified order are used, or rows of each source of a mix; 0: all."""
    samples: int = setting(1, least=1)
    """The most answers to a prompt."""
    appended: str = ""
    """A text behind every answer: a probe of whether an answer can instruct a judge."""
    authors: int = setting(1, least=1)
    """How many authors there are."""
    compared: int = setting(0, least=0)
    """How many of the first authors are compared with each other elsewhere: pairs of two of them are left out."""
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
        return ("prompts", *map(str, range(self.authors)))

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        return Work(self.rows)

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        rows = list(self._pairs(inputs) if self.rubric.pair else self._ratings(inputs))
        if not 0 < len(rows) <= self.rows:
            raise DataError(
                f"{self.rubric.name}: {len(rows)} judge prompts; the inputs have 1 to {self.rows} by their fields"
            )
        table = [row | {"split": self.split.value, "position": at, "category": ""} for at, row in enumerate(rows)]
        write_rows(table, out / FILE)
        return {"rows": len(rows), "empty": sum(not row.get("response", "x").strip() for row in rows)}

    def _ratings(self, inputs: Mapping[str, Artifact]) -> Iterator[Row]:
        for author in range(self.authors):
            for row in taken_rows(inputs[str(author)], inputs["prompts"], self.limit, self.samples):
                texts = {"prompt": row["prompt"], "response": row["response"] + self.appended}
                place = {"prompt_id": row["id"], "sample": row["sample"], "first": author, "second": -1, "order": 0}
                answer = {"response": texts["response"], "source": row["source"], "finish": row["finish"]}
                request = {"id": f"{row['id']}/{author}/{row['sample']}", "prompt": self.rubric.render(texts)}
                yield request | place | {"question": row["prompt"]} | answer

    def _pairs(self, inputs: Mapping[str, Artifact]) -> Iterator[Row]:
        sides = [taken_rows(inputs[str(at)], inputs["prompts"], self.limit, 1) for at in range(self.authors)]
        by_id = {row["id"]: row for row in read_prompts(inputs["prompts"], "test")}
        for rows in zip(*sides, strict=True):
            prompt = by_id[rows[0]["id"]]
            prompt_slots = {"prompt": prompt["instruction"], "source": prompt["context"] or ""}
            for first, second in pairs_of(self.authors, self.compared):
                texts = [rows[author]["response"] + self.appended for author in (first, second)]
                failed = "failed" in (rows[first]["finish"], rows[second]["finish"])
                for order in (0, 1):
                    slots = prompt_slots | dict(zip("ab", texts if order == 0 else texts[::-1], strict=True))
                    place = {"prompt_id": prompt["id"], "sample": 0, "first": first, "second": second, "order": order}
                    answers = {"a": texts[0], "b": texts[1], "finish": "failed" if failed else rows[first]["finish"]}
                    row = {"id": f"{prompt['id']}/{first}-{second}/{order}", "prompt": self.rubric.render(slots)}
                    yield row | place | {"question": prompt["prompt"]} | answers


def pairs_of(authors: int, compared: int = 0) -> list[tuple[int, int]]:
    """Every pair of authors but those of two of the first `compared`."""
    return [(first, second) for first, second in combinations(range(authors), 2) if second >= compared]


def taken_rows(answers: Artifact, prompts: Artifact, limit: int, samples: int) -> list[Row]:
    """The first `samples` answers to each of the first `limit` prompts, prompts in their stratified order. `answers` is
    a finished `generate` or `mix`, of which the first `limit` rows of each source are taken, or the prompt set itself,
    for its human answers."""
    if isinstance(answers.stage, FineTuningSet):
        rows, counts = read_mix(answers), Counter[str]()
        for row in rows:
            counts[row["source"]] += 1
            row |= {"sample": row.get("round", 0), "number": counts[row["source"]]}  # a prompt can be in several rounds
        return [row for row in rows if not limit or row["number"] <= limit]
    if isinstance(answers.stage, Prompts):
        sides = read_prompts(answers, "test", limit or None)
        return [row | {"sample": 0, "source": "human", "finish": "recorded"} for row in sides]
    split = answers.stage.split.value
    by_id = {row["id"]: row for row in read_prompts(prompts, split, limit or None)}
    rows = [vars(row) for row in read_samples(answers.path, failed=True) if row.id in by_id and row.sample < samples]
    for row in rows:  # judges see a request without the template around it, which is meant to instruct a model
        row["prompt"] = by_id[row["id"]].get("request", row["prompt"])
    return sorted(rows, key=lambda row: (by_id[row["id"]]["position"], row["sample"]))


def count_rows(answers: Node, limit: int, samples: int) -> int:
    """The number of rows that `taken_rows` returns."""
    stage: Any = answers.stage
    if isinstance(stage, Mix):
        total = stage.rows - len(stage.leave_out)
        return min(total, sum(min(limit, count) for count in Counter(stage.owners()).values())) if limit else total
    if isinstance(stage, FineTuningSet):
        return int(stage.rows)
    rows = stage.test if isinstance(stage, Prompts) else stage.rows
    taken = min(limit or rows, rows)
    if isinstance(stage, Prompts):
        return int(taken)
    assert isinstance(stage, Generate)
    return int(taken + (min(samples, stage.samples) - 1) * min(stage.subset, taken))


def judge_prompts(rubric: Rubric, prompts: Node, *answers: Node, **which: Any) -> Node:
    """The node of judge prompts about the answers of each author, or about every pair of authors. `which` are `limit`,
    `samples`, `appended` and `compared` of `JudgePrompts`."""
    stage = JudgePrompts(rubric, **which, authors=len(answers))
    counts = [count_rows(each, stage.limit, 1 if rubric.pair else stage.samples) for each in answers]
    stage.rows = 2 * counts[0] * len(pairs_of(stage.authors, stage.compared)) if rubric.pair else sum(counts)
    return Node(stage, {"prompts": prompts} | {str(at): node for at, node in enumerate(answers)})
