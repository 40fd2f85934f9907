"""Verdicts of judges as numbers: what each option's probability, or the text of a judge, says of an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.files import read_rows, write_rows
from synthdiv.core.stage import Node, Stage
from synthdiv.core.types import Artifact, Run
from synthdiv.evaluate.judge_prompts import judge_prompts
from synthdiv.evaluate.rubric import Rubric
from synthdiv.generate import exact, rules
from synthdiv.generate.generate import Split, read_log, read_samples
from synthdiv.generate.source import Source
from synthdiv.generate.spec import JUDGES_ONLY, Backend
from synthdiv.measures.refusals import is_refusal
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.shards import Grid

FILE = "verdicts.parquet"
SHARD_ROWS = 1024
READING = 3  # rises with `Rubric.parse`
MIN_MASS = 0.5  # of the options among the first tokens of a server's model
Row = dict[str, Any]


@dataclass(frozen=True)
class JudgeModel:
    """A judge: a source of verdicts. `headline` puts it into the panel whose mean is a headline."""

    source: Source
    headline: bool = True

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def free(self) -> bool:
        """Whether its verdicts cost no model."""
        return self.source.backend in (Backend.exact, Backend.rules)

    def judges(self, rubric: Rubric, toy: bool) -> bool:
        """Whether it can be asked this: rules and the truth of the toy world know few rubrics."""
        if not rubric.instruction:
            return False
        if self.source.backend is Backend.exact:
            return toy and rubric.name in exact.RUBRICS
        return self.source.backend is not Backend.rules or rubric.name in rules.RUBRICS

    def verdicts(self, rubric: Rubric, prompts: Node, *answers: Node, **which: Any) -> Node:
        """The node of its verdicts on the answers of each author, or on every pair of authors. `which` are `limit`,
        `samples`, `appended` and `compared` of `JudgePrompts`."""
        requests = judge_prompts(rubric, prompts, *answers, **which)
        rows: int = requests.stage.rows  # type: ignore[attr-defined]
        if requests.stage.split is Split.test:  # type: ignore[attr-defined]
            shards = [self.source.answers(requests, split=Split.test, rows=rows)]
        else:
            shards = [
                self.source.answers(requests, split=Split.train, rows=rows, shard_rows=SHARD_ROWS, shard=shard)
                for shard in range(Grid(rows, SHARD_ROWS).shards)
            ]
        inputs = {"prompts": requests} | {str(number): node for number, node in enumerate(shards)}
        return Node(Verdicts(len(shards), 1 if self.source.backend in JUDGES_ONLY else READING), inputs)


@dataclass
class Verdicts(Stage):
    """The verdicts of one judge. Inputs: `prompts`, its judge prompts, and by number the shards of its answers.

    Output: `verdicts.parquet`, one row a judge prompt. Columns: prompt_id, sample, order, source (the author; of a pair
    ""), option (the verdict, or ""), value (the expected number of the rubric; of a pair the probability that the first
    author wins, in either order; NaN with a `problem`), p (the probability of each option, given that one was chosen;
    one-hot for a judge that writes text), mass (the probability that the options had together; NaN for text) and
    problem: "", `failed` (the judge or the author gave no answer), `refusal` (the judge would not judge) or `parse`.
    """

    name = "verdicts"
    unit = "rows"
    bytes_per_unit = 60

    shards: int = field(default=1)
    """How many shards of answers there are."""
    reading: int = setting(1, before=1)
    """The version of `Rubric.parse`, of judges that write text; 1 for others."""

    def input_names(self) -> list[str]:
        return ["prompts", *map(str, range(self.shards))]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        prompts = inputs["prompts"]
        rubric: Rubric = prompts.stage.rubric
        answered: dict[str, Row] = {}
        for shard in range(self.shards):
            path = inputs[str(shard)].path
            for sample, log in zip(read_samples(path, failed=True), read_log(path), strict=True):
                answered[sample.id] = verdict(rubric, sample.response, sample.finish, log)
        rows = []
        for row in read_prompts(prompts, prompts.stage.split.value):
            result = dict(answered[row["id"]])
            if row["finish"] == "failed":
                result = unjudged(rubric, "failed")
            if rubric.pair and row["order"] == 1:  # the second text was that of the first author
                result["value"] = 1 - result["value"]
            place = {name: row[name] for name in ("prompt_id", "sample", "order")}
            rows.append(place | {"source": row.get("source", "")} | result)
        write_rows(rows, out / FILE)
        problems = [row["problem"] for row in rows if row["problem"]]
        return {"rows": len(rows), **{name: problems.count(name) for name in sorted({*problems})}}


def verdict(rubric: Rubric, text: str, finish: str, log: Row) -> Row:
    """What one answer of a judge says."""
    p = option_probabilities(rubric, log)
    if p and sum(p) > 0:
        option = rubric.options[p.index(max(p))]
        shares = [each / sum(p) for each in p]
        return {"option": option, "value": rubric.value(shares), "p": shares, "mass": sum(p), "problem": ""}
    if finish == "failed" or "options" in log:  # NaN, or nothing that a number can hold: no option is likelier
        return unjudged(rubric, "failed")
    option = rubric.parse(text)
    if not option:
        return unjudged(rubric, "refusal" if finish == "refusal" or is_refusal(text) else "parse")
    shares = [float(each == option) for each in rubric.options]
    return {"option": option, "value": rubric.value(shares), "p": shares, "mass": math.nan, "problem": ""}


def unjudged(rubric: Rubric, problem: str) -> Row:
    p = [math.nan] * len(rubric.options)
    return {"option": "", "value": math.nan, "p": p, "mass": math.nan, "problem": problem}


def option_probabilities(rubric: Rubric, log: Row) -> list[float]:
    """The probability of each option by a line of the log: of raw logits, or of a server's most likely first tokens,
    where an option that is not among them has 0. Empty where the log has none, or where a server's model began with
    other words: then its text counts."""
    if "options" in log:
        return [float(log["options"][option]) for option in rubric.options]
    first = first_tokens(log.get("logprobs"))
    p = [sum(share for token, share in first if token == option) for option in rubric.options]
    return p if sum(p) >= MIN_MASS else []


def first_tokens(logprobs: Any) -> list[tuple[str, float]]:
    """The tokens at the first place of an answer that a server reports, without blanks, and their probabilities: in the
    form of chat completions (a list of places) or of completions (lists by name)."""
    if isinstance(logprobs, list) and logprobs:
        return [(each["token"].strip(), math.exp(each["logprob"])) for each in logprobs[0].get("top_logprobs", [])]
    if isinstance(logprobs, dict) and logprobs.get("top_logprobs"):
        return [(token.strip(), math.exp(value)) for token, value in logprobs["top_logprobs"][0].items()]
    return []


def read_verdicts(artifact: Artifact) -> list[Row]:
    """The rows of a finished `verdicts` artifact, prompts in the order of the prompt set."""
    return read_rows(artifact.path / FILE)
