"""The downstream suite: task accuracy, by exact match, by the likelihood of choices, by lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthdiv.core.fields import listed_twice
from synthdiv.core.files import read_rows, write_rows
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, ConfigError, DataError, Run, Score
from synthdiv.evaluate.harness import Harness, HarnessTasks, TaskTexts, read_harness
from synthdiv.evaluate.suite import HEADLINE, EvaluatedStudent, Suite, item, write_suite
from synthdiv.generate.generate import Split, prompt_tokens, read_samples
from synthdiv.generate.spec import Sampling
from synthdiv.measures.accuracy import choice_is_right, exact_match, guess_share, share_measure, task_scores
from synthdiv.measures.estimates import Measure
from synthdiv.models.chat import Chat
from synthdiv.models.load import Precision
from synthdiv.models.score import answer_log_likelihoods
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.questions import QuestionFile, Questions
from synthdiv.prompts.toy_questions import FactQuestions
from synthdiv.prompts.toy_world import Third

# A measure, the values of the student and of the vanilla student by question, the chance level, whether a headline
Task = tuple[Measure, dict[str, float], dict[str, float] | None, float | None, bool]

FILE = "choices.parquet"
CHOICES_PER_QUESTION = 4  # for plans
FACTS = "facts"  # of the toy world
OF_CHOICES = ("acc", "acc_norm", "acc_bytes")  # metrics of the harness whose chance level is that of its choices


@dataclass
class DownstreamSuite(Suite):
    """Task accuracy of a student beside that of the vanilla student."""

    quality = ("downstream/",)
    reading = (
        "Accuracies are means over questions; differences from the vanilla student are paired by question. A task on "
        "which the vanilla student is not above chance is not measurable: its scores are NaN with that note."
    )

    files: list[QuestionFile] = field(default_factory=list)
    """Files of questions with right answers."""
    harness: HarnessTasks | None = None
    """Tasks of lm-evaluation-harness; null: none."""
    facts: bool = False
    """Ask for the facts of the toy world, by third: those that only pre-training states (what fine-tuning makes a
    student forget), those of fine-tuning (what it learns) and those that nothing states (chance)."""

    def check(self, name: str) -> list[str]:
        names = [file.name for file in self.files]
        problems = listed_twice(f"{name}.files", names, "files")
        if not self.files and not self.harness and not self.facts:
            problems.append(f"{name}.files=[], {name}.harness=null: give at least one file or task")
        if FACTS in names and self.facts:
            problems.append(f"{name}.files: {FACTS!r} is the name of the toy world's facts; name the file otherwise")
        return problems

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node:
        questions = {file.name: Node(Questions(*arm.rendering, file.table, file.choices)) for file in self.files}
        questions |= {FACTS: fact_questions(arm)} if self.facts else {}
        inputs = {f"{name}/questions": node for name, node in questions.items()} | self.parts(arm, questions)
        if vanilla:
            inputs |= {f"vanilla/{name}": node for name, node in self.parts(vanilla, questions).items()}
        if self.harness:
            inputs["tasks"] = Node(TaskTexts(asked=self.harness))
        patterns = [*(file.pattern or "" for file in self.files), *[""] * self.facts]
        return Node(Downstream([*questions], patterns, self.harness is not None, vanilla is None), inputs)

    def parts(self, arm: EvaluatedStudent, questions: Mapping[str, Node]) -> dict[str, Node]:
        """What the suite takes of one arm, by name."""
        how = (arm.settings.precision, arm.settings.batch_tokens)
        nodes = dict[str, Node]()
        for name, node in questions.items():
            nodes[f"{name}/answers"] = Node(Choices(*how), {"prompts": node, "model": arm.model})
        for file in self.files:
            if not file.choices:
                source = arm.source(Sampling(0.0, 1.0, file.max_new_tokens))
                which: dict[str, Any] = {"split": Split.test, "rows": file.table.rows}
                nodes[f"{file.name}/answers"] = source.answers(questions[file.name], **which)
        if self.harness:
            nodes["harness"] = Node(Harness(self.harness, *how), {"prompts": arm.prompts, "model": arm.model})
        return nodes


def fact_questions(arm: EvaluatedStudent) -> Node:
    """The questions about the facts of the study's toy world."""
    study: Any = arm.prompts.stage
    if not getattr(study, "toy", None) or not study.toy.world.thirds:
        raise ConfigError(
            "evaluate.suites: downstream asks for the facts of a toy world in thirds; choose prompts=toy_suites, or "
            "set facts=false"
        )
    return Node(FactQuestions(*arm.rendering, study.toy.world))


@dataclass
class Choices(Stage):
    """Log-likelihood of every choice as the answer to its question. Inputs: `prompts` (questions) and `model`.

    Output: `choices.parquet`, one row a question: id, and of each choice nll (nats, T = 1, its tokens without an end
    token), bytes and characters.
    """

    name = "choices"
    model_input = "model"
    unit = "questions"
    bytes_per_unit = 200
    less_memory = "lower evaluate.batch_tokens"

    precision: Precision = Precision.fp32
    """The format of the weights."""
    batch_tokens: int = 16384
    """Bound on rows × tokens of a batch."""

    def input_names(self) -> tuple[str, ...]:
        return ("prompts", "model")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        count: int = inputs["prompts"].stage.test  # type: ignore[attr-defined]
        return Work(count, read_tokens=count * CHOICES_PER_QUESTION * prompt_tokens(inputs, measured))

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        rows = read_prompts(inputs["prompts"], "test")
        opened = run.model(inputs["model"], self.precision.value)
        chat = Chat.for_prompts(opened.tokenizer, inputs["prompts"])
        row_choices = [(row, choice) for row in rows for choice in row["choices"]]
        pairs = chat.scored_pairs([row["prompt"] for row, _ in row_choices], [choice for _, choice in row_choices])
        scored = [(prompt, ids[:-1]) for prompt, ids in pairs]
        values = iter(answer_log_likelihoods(opened, scored, self.batch_tokens, run.progress))
        table = [
            {"id": row["id"], "nll": [-float(next(values).sum(dtype="float64")) for _ in row["choices"]]}
            | {"bytes": [len(choice.encode()) for choice in row["choices"]], "characters": [*map(len, row["choices"])]}
            for row in rows
        ]
        write_rows(table, out / FILE)
        tokens = sum(len(ids) for _, ids in scored)
        return {"questions": len(rows), "tokens": tokens, "system_folded": chat.folded}


@dataclass
class Downstream(Stage):
    """Inputs: of each file F `F/questions` and `F/answers`, with `harness` the student's `harness` and the texts of its
    `tasks`, with which mixes are compared; and answers and `harness` of the vanilla student, with `vanilla/` before
    each name, unless the student is the vanilla one.

    Output: `scores.json` and `items.parquet`.
    """

    name = "downstream"

    files: list[str] = field(default_factory=list)
    """Names of the files."""
    patterns: list[str] = field(default_factory=list)
    """What is compared of the answers to each file; empty: the whole text."""
    harness: bool = False
    """There are tasks of lm-evaluation-harness."""
    vanilla: bool = False
    """This is the vanilla student itself."""

    def input_names(self) -> list[str]:
        arm = [f"{name}/answers" for name in self.files] + ["harness"] * self.harness
        vanilla = [] if self.vanilla else [f"vanilla/{name}" for name in arm]
        return [*(f"{name}/questions" for name in self.files), *["tasks"] * self.harness, *arm, *vanilla]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        scores: list[Score] = []
        items: list[dict[str, Any]] = []
        for measure, values, vanilla, chance, headline in self.tasks(inputs):
            if vanilla is not None and values.keys() != vanilla.keys():
                raise DataError(
                    f"{measure.name}: student and vanilla student were asked other questions; the data of the task "
                    "changed in between. Remove the older artifact and run the same command again"
                )
            measure = measure._replace(name=f"downstream/{measure.name}")
            for score in task_scores(measure, values, vanilla, chance):
                scores.append(replace(score, role=HEADLINE) if headline else score)
            items += [item(key, measure.name, value) for key, value in values.items()]
        return write_suite(out, scores, items, DownstreamSuite)

    def tasks(self, inputs: Mapping[str, Artifact]) -> Iterator[Task]:
        """Of each measure of each task: the values of the student and of the vanilla student by question, the chance
        level, and whether it is a headline."""
        for name, pattern in zip(self.files, self.patterns, strict=True):
            rows = {row["id"]: row for row in read_prompts(inputs[f"{name}/questions"], "test")}
            arms = [inputs.get(f"{prefix}{name}/answers") for prefix in ("", "vanilla/")]
            student, vanilla = (file_values(rows, arm, pattern) if arm else None for arm in arms)
            assert student
            if isinstance(inputs[f"{name}/questions"].stage, FactQuestions):
                yield from fact_tasks(rows, *student["acc"], vanilla["acc"][0] if vanilla else None)
                continue
            for place, (metric, (values, chance)) in enumerate(student.items()):
                base = vanilla[metric][0] if vanilla else None
                yield share_measure(f"{name}/{metric}"), values, base, chance, place == 0
        tasks = read_harness(inputs["harness"]) if self.harness else {}
        before = read_harness(inputs["vanilla/harness"]) if self.harness and not self.vanilla else {}
        visited = set[str]()
        for name, lines in tasks.items():
            share = all(line["value"] in (0, 1) for line in (*lines, *before.get(name, [])))
            measure = share_measure(name) if share else Measure(name, lines[0]["metric"], None, "no question")
            base = by_question(before[name]) if before else None
            first = lines[0]["task"] not in visited
            visited.add(lines[0]["task"])
            measure = measure._replace(higher_is_better=lines[0]["higher_is_better"])
            yield measure, by_question(lines), base, harness_chance(lines), first


def file_values(
    rows: Mapping[str, dict[str, Any]], answers: Artifact, pattern: str
) -> dict[str, tuple[dict[str, float], float]]:
    """By metric: 1 or 0 for each question, and the chance level."""
    if not isinstance(answers.stage, Choices):
        right = {key: row["answers"] for key, row in rows.items()}
        values = {row.id: exact_match(row.response, right[row.id], pattern) for row in read_samples(answers.path)}
        return {"exact_match": (values, guess_share(list(right.values()), pattern))}
    likelihoods = read_rows(answers.path / FILE)
    chance = sum(len(row["right"]) / len(row["choices"]) for row in rows.values()) / len(rows)
    scored = dict[str, tuple[dict[str, float], float]]()
    for metric, lengths in (("acc", None), ("acc_norm", "characters"), ("acc_bytes", "bytes")):
        by = {row["id"]: row[lengths] if lengths else [1] * len(row["nll"]) for row in likelihoods}
        right = {row["id"]: choice_is_right(row["nll"], by[row["id"]], rows[row["id"]]["right"]) for row in likelihoods}
        scored[metric] = (right, chance)
    return scored


def fact_tasks(
    rows: Mapping[str, dict[str, Any]], values: dict[str, float], chance: float, vanilla: dict[str, float] | None
) -> Iterator[Task]:
    """The facts of the toy world by third. The vanilla student has to know those of pre-training, and cannot know any
    other, so that only the first can be not measurable."""
    for third in Third:
        of_third = [key for key, row in rows.items() if row["third"] == third.name]
        measure = share_measure(f"{FACTS}/{third.name}")
        if third is not Third.pretrained:
            measure = measure._replace(caution=f"chance {chance:.3f}, also for the vanilla student")
        base = {key: vanilla[key] for key in of_third} if vanilla is not None else None
        level = chance if third is Third.pretrained else None
        yield measure, {key: values[key] for key in of_third}, base, level, third is not Third.unseen


def by_question(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Values by the id and the content of each question."""
    return {f"{line['task']}/{line['id']}/{line['hash'][:8]}": line["value"] for line in lines}


def harness_chance(lines: list[dict[str, Any]]) -> float | None:
    """The chance level of a metric of the harness; None where none is known."""
    if lines[0]["metric"] in OF_CHOICES and all(line["choices"] for line in lines):
        return sum(1 / line["choices"] for line in lines) / len(lines)
    return guess_share([[line["right"]] for line in lines]) if lines[0]["metric"] == "exact_match" else None
