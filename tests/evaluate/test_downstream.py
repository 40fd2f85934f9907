"""Task accuracy: our own scoring, lm-evaluation-harness item by item, chance, and what is wrong with a file."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import torch

from synthdiv.core.ledger import Ledger
from synthdiv.core.resolver import Resolver
from synthdiv.core.types import ConfigError, DataError
from synthdiv.evaluate.downstream import Choices, Downstream, file_values
from synthdiv.evaluate.harness import Harness, HarnessTasks, TaskTexts, read_harness, texts_in
from synthdiv.evaluate.suite import read_scores
from synthdiv.generate.generate import Generate, Split, read_samples
from synthdiv.generate.spec import Sampling
from synthdiv.measures.accuracy import (
    choice_is_right,
    exact_match,
    guess_share,
    normal_form,
    share_measure,
    task_scores,
)
from synthdiv.mix.filters import overlap
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.questions import QuestionFile, Questions, right_choice
from synthdiv.prompts.table import Columns, Table
from synthdiv.train.recipe import Method
from synthdiv.train.train import Train
from tests.conftest import TINY, write_rows
from tests.evaluate.conftest import student_with_lead
from tests.models.small import build, cpu_run

FIELDS_SHOWN = (
    "harness.precision", "harness.batch_tokens", "harness.asked.tasks", "harness.asked.limit",
    "harness.asked.shots", "harness.asked.chat", "task_texts.asked.tasks", "task_texts.asked.limit",
    "task_texts.asked.shots", "task_texts.asked.chat", "downstream.harness",
)  # fmt: skip

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {file}}}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: right
metric_list: [{{metric: acc}}, {{metric: acc_norm}}, {{metric: acc_bytes}}]
"""


def file_of(folder, rows, choices="choices", **fields):
    write_rows(folder / "questions.jsonl", rows)
    columns = Columns("question", "right", "id")
    file = QuestionFile("toy", Table(str(folder / "questions.jsonl"), columns=columns), choices, **fields)
    file.resolve(Resolver(folder / "outputs"))
    return file


@pytest.fixture(scope="module")
def toy(arms, tmp_path_factory):
    """Questions about the toy world: which of four answers belongs to the prompt; three students on them, one with an
    adapter, by our code and by the harness."""
    folder = tmp_path_factory.mktemp("questions")
    prompts = [row for side in ("test", "train") for row in read_prompts(arms.prompts, side)]
    draw, rows = random.Random(0), []
    for prompt in prompts:
        others = draw.sample([row["response"] for row in prompts if row["response"] != prompt["response"]], 3)
        if len(rows) % 3:  # easy: the others are of unknown words
            others = [other[::-1] for other in others]
        choices = [prompt["response"], *others]
        draw.shuffle(choices)
        right = choices.index(prompt["response"])
        rows.append({"id": prompt["id"], "question": prompt["prompt"], "choices": choices, "right": right})
    file = file_of(folder, rows)
    (folder / "tasks").mkdir()
    (folder / "tasks" / "toy.yaml").write_text(TASK.format(name="toy_facts", file=folder / "questions.jsonl"))
    tasks = HarnessTasks(["toy_facts"], str(folder / "tasks"))
    tasks.resolve(Resolver(folder / "outputs"))
    study = arms.prompts.stage
    asked = build(arms.root, Questions(study.system, study.date, study.template, file.table, file.choices))
    both, lora = {}, Train(method=Method.lora, epochs=3, batch_rows=16, lr=3e-2)
    adapted = build(arms.root, lora, arms.vanilla.model, arms.tuned.model.inputs["mix"], arms.prompts)
    for name, model in (("tuned", arms.tuned.model), ("vanilla", arms.vanilla.model), ("adapted", adapted)):
        state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        harness = build(arms.root, Harness(tasks), arms.prompts, model)
        assert torch.equal(state[0], torch.get_rng_state())
        assert (state[1], state[2]) == (np.random.get_state()[1].tolist(), random.getstate()), "nothing is reseeded"
        both[name] = SimpleNamespace(choices=build(arms.root, Choices(), asked, model), harness=harness)
    texts = build(arms.root, TaskTexts(asked=tasks))
    return SimpleNamespace(file=file, asked=asked, rows=rows, folder=folder, tasks=tasks, texts=texts, **both)


def test_the_harness_gives_our_own_accuracies_item_by_item(toy):
    rows = {row["id"]: row for row in read_prompts(toy.asked, "test")}
    for arm in (toy.tuned, toy.vanilla, toy.adapted):
        ours = file_values(rows, arm.choices, "")
        harness_rows = read_harness(arm.harness)
        assert sorted(harness_rows) == [f"toy_facts/{metric}" for metric in sorted(ours)]
        for metric, (values, _) in ours.items():
            lines = sorted(harness_rows[f"toy_facts/{metric}"], key=lambda line: int(line["id"]))
            assert [line["value"] for line in lines] == list(values.values()), metric
        assert 0.1 < np.mean(list(ours["acc"][0].values())) < 0.9, "far from 0 and 1, or equality would show nothing"
    assert read_harness(toy.adapted.harness) != read_harness(toy.vanilla.harness), "the adapter answers"


def test_what_the_template_writes_before_an_answer_is_in_no_choice(arms, toy, tmp_path):
    summary = Choices().build({"prompts": toy.asked, "model": student_with_lead(arms)}, tmp_path, cpu_run())
    assert summary["tokens"] == toy.vanilla.choices.manifest["summary"]["tokens"]


def test_choices_and_tasks_are_scored_beside_the_vanilla_student(arms, toy):
    """Every score has n, interval and direction; differences are paired; headlines are marked."""
    stage = Downstream(["toy"], [""], True)
    asked = (toy.asked, toy.texts)
    tuned = build(arms.root, stage, *asked, *vars(toy.tuned).values(), *vars(toy.vanilla).values())
    alone = build(arms.root, Downstream(["toy"], [""], True, True), *asked, *vars(toy.vanilla).values())
    scores, vanilla = ({score.name: score for score in read_scores(each.path)} for each in (tuned, alone))
    for name in ("downstream/toy/acc", "downstream/toy_facts/acc"):
        score, gap, before = scores[name], scores[f"{name}-vanilla"], vanilla[name]
        assert score.low < score.value < score.high
        assert (score.n, score.unit, score.higher_is_better, score.role) == (60, "share of answers", True, "headline")
        assert gap.value == pytest.approx(score.value - before.value)
        assert gap.n == 60
        assert "chance 0.25" in score.note
    assert scores["downstream/toy/acc_norm"].role == ""
    values = pyarrow.parquet.read_table(tuned.path / "items.parquet").to_pylist()
    mean = np.mean([row["value"] for row in values if row["measure"] == "downstream/toy/acc"])
    assert mean == pytest.approx(scores["downstream/toy/acc"].value)


def test_other_questions_of_the_vanilla_student_are_an_error_and_no_pairs(arms, toy):
    fewer = HarnessTasks(["toy_facts"], str(toy.folder / "tasks"), limit=8)
    fewer.resolve(Resolver(toy.folder / "outputs"))
    short = build(arms.root, Harness(fewer), arms.prompts, arms.vanilla.model)
    assert short.manifest["summary"]["questions"] == 8
    with pytest.raises(DataError, match="were asked other questions"):
        build(arms.root, Downstream(harness=True), toy.texts, toy.tuned.harness, short)


def test_a_student_that_guesses_is_not_measurable():
    """60 questions of two choices: 30 right is chance, 50 right is not; the better student does not change that."""
    measure, better = share_measure("acc"), {str(i): float(i < 55) for i in range(60)}
    guess, able = ({str(i): float(i < right) for i in range(60)} for right in (30, 50))
    for score in task_scores(measure, better, guess, 0.5) + task_scores(measure, guess, None, 0.5):
        assert math.isnan(score.value)
        assert score.note.startswith(
            "not measurable: the vanilla student is not above chance (0.500, 95 % interval 0.3"
        )
        assert score.n == 60
    level, gap = task_scores(measure, better, able, 0.5)
    assert (level.value, gap.value) == (pytest.approx(55 / 60), pytest.approx(5 / 60))
    assert gap.name == "acc-vanilla"
    assert not math.isnan(task_scores(measure, better, guess, None)[1].value), "no level is known"


def test_answers_that_the_student_writes_have_to_match(arms, tmp_path):
    """The right answers are those that a greedy student gives to every second question."""
    prompts = read_prompts(arms.prompts, "test")
    study = arms.prompts.stage
    greedy = Generate("student", sampling=Sampling(0.0, 1.0, 24), split=Split.test, rows=12)

    def scored(rights):
        rows = [{"id": row["id"], "question": row["prompt"], "right": rights(row)} for row in prompts]
        file = file_of(tmp_path, rows, None)
        asked = build(arms.root, Questions(study.system, study.date, study.template, file.table))
        answers = build(arms.root, greedy, asked, arms.vanilla.model)
        return asked, answers, {row["id"]: row for row in read_prompts(asked, "test")}

    _, answers, _ = scored(lambda row: "none")
    written = {row.id: row.response for row in read_samples(answers.path)}
    half = {row["id"] for row in prompts[::2]}
    right = scored(lambda row: ["no", f"“{written[row['id']].upper()}!”"] if row["id"] in half else "no")
    values, chance = file_values(right[2], right[1], "")["exact_match"]
    assert file_values(right[2], right[1], "never")["exact_match"][1] == 0, "chance is of the pattern, too"
    assert {key for key, value in values.items() if value} == {key for key in half if normal_form(written[key])}
    assert chance == 1.0, "'no' is right everywhere, so a student that always writes it knows nothing"


@pytest.mark.parametrize(("pattern", "chance"), [("yes|no", 1.0), ("", 0.1), (r"\d+", 0.1), ("maybe", 0.0)])
def test_chance_compares_what_scoring_compares(pattern, chance):
    """Of ten answers with reasons the part that the pattern takes is the same everywhere: a constant gets it right."""
    right = [[f"so the answer {index} is yes"] for index in range(10)]
    assert guess_share(right, pattern) == chance
    constants = ["yes", right[0][0], "0", ""]
    assert max(sum(exact_match(each, one, pattern) for one in right) / 10 for each in constants) == chance


@pytest.mark.parametrize(
    ("answer", "right", "pattern", "value"),
    [
        ("  The **Answer** is: Oslo. ", ["the answer is oslo"], "", 1),
        ("Oslo", ["Bergen", "oslo"], "", 1),
        ("So 3 × 4 = 12.\n#### 1,012", ["reasons #### 1012"], r"-?[\d.,]*\d", 1),
        ("It is 12, no, 13", ["13"], r"(\d+)", 1),
        ("-5", ["5"], "", 0),
        ("3.5", ["35"], "", 0),
        ("", [""], "", 0),
        ("no number", ["none"], r"\d+", 0),
    ],
)
def test_exact_match_compares_normal_forms(answer, right, pattern, value):
    assert exact_match(answer, right, pattern) == value


def test_the_likelier_choice_by_sum_can_lose_by_length():
    nll, lengths = [4.0, 3.0], [8, 3]
    assert choice_is_right(nll, [1, 1], [1]) == 1
    assert choice_is_right(nll, lengths, [0]) == 1
    assert guess_share([["a"], ["A."], ["b"], []]) == 0.5


@pytest.mark.parametrize(
    ("label", "index"), [("two", 1), ("B", 1), (1, 1), ("0", 0), ("C", None), (2, None), (-1, None), ("", None)]
)
def test_a_right_choice_is_a_text_a_letter_or_an_index(label, index):
    assert right_choice(label, ["one", "two"]) == index
    assert right_choice("1", ["0", "1", "2"]) == 1, "the text counts before the index"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"right": "C"}, r"line 2: 'C' is none of the 2 choices; it needs the text of one, a letter A to B"),
        ({"right": None}, "line 2: column right holds no right answer"),
        ({"choices": ["one"]}, "line 2: column choices needs a list of two or more texts"),
        ({"choices": "one two"}, "line 2: column choices needs a list of two or more texts"),
        ({"question": " "}, "line 2: column question is empty"),
    ],
)
def test_a_wrong_row_of_a_file_is_named(tmp_path, row, message):
    good = {"id": "a", "question": "Which?", "choices": ["one", "two"], "right": "two"}
    with pytest.raises(DataError, match=message):
        file_of(tmp_path, [good, good | {"id": "b"} | row])


@pytest.mark.parametrize(("pattern", "right"), [(r"####\s*(\d+)", "42"), (None, "?!")])
def test_a_right_answer_that_no_answer_can_match_is_refused_before_anything_runs(tmp_path, pattern, right):
    """Else every student is wrong there, and the task reads as beyond the vanilla student."""
    rows = [{"id": id, "question": "Which?", "right": each} for id, each in (("a", "reasons #### 42"), ("b", right))]
    with pytest.raises(DataError, match=f"line 2: no answer can match '{re.escape(right)}'"):
        file_of(tmp_path, rows, None, pattern=pattern)


@pytest.mark.parametrize("local", [False, True])
def test_a_task_that_does_not_exist_is_one_line_with_the_nearest_names(local, toy, tmp_path):
    folder = str(toy.folder / "tasks") if local else None
    tasks = HarnessTasks(["helaswag", "toy_fact"], folder)
    with pytest.raises(ConfigError) as error:
        tasks.resolve(Resolver(tmp_path))
    first, second = error.value.problems
    assert first.startswith("tasks: lm-evaluation-harness has no task 'helaswag'; the nearest are hellaswag")
    assert ("toy_facts" in second) is local


def test_tasks_that_changed_since_the_launch_are_refused(arms, toy, tmp_path):
    (tmp_path / "toy.yaml").write_text(TASK.format(name="toy_facts", file=toy.folder / "questions.jsonl"))
    tasks = HarnessTasks(["toy_facts"], str(tmp_path), limit=9)
    tasks.resolve(Resolver(tmp_path / "outputs"))
    (tmp_path / "toy.yaml").write_text(TASK.format(name="toy_facts", file="other.jsonl"))
    with pytest.raises(DataError, match="the tasks changed since this sweep was launched"):
        build(arms.root, Harness(tasks), arms.prompts, arms.vanilla.model)


def test_a_study_asks_files_and_tasks_of_every_student(toy, typed, tmp_path):
    """From the command line, vanilla beside tuned; the questions are rendered with the system prompt of the study."""
    write_rows(tmp_path / "mine.jsonl", [{"prompt": f"Say {n}", "response": "It is"} for n in range(4)])
    choices = f"{{name: many, choices: choices, table: {{path: {toy.file.table.path}, columns: {{prompt: question, "
    choices += "response: right, id: id}}}"
    harness = f"{{tasks: [toy_facts], path: {toy.folder}/tasks, limit: 4}}"
    mine = "{name: mine, max_new_tokens: 24, table: {path: mine.jsonl}}"
    suite = f"{{suite: downstream, files: [{mine}, {choices}], harness: {harness}}}"
    tiny = [*(word for word in TINY if "evaluate.suites" not in word and "models" not in word), "mix=human"]
    done = typed(*tiny, f"evaluate.suites=[{suite}]", "sweep=tasks", "prompts.system=Be brief.")
    assert done.code == 0, done.err
    (cell,) = Ledger(tmp_path / "outputs", "tasks").unique_cells()
    made = tmp_path / "outputs" / "artifacts" / "downstream" / cell.suites["downstream"]
    names = [score.name for score in read_scores(made)]
    assert names[:2] == ["downstream/mine/exact_match", "downstream/mine/exact_match-vanilla"]
    assert {"downstream/many/acc", "downstream/toy_facts/acc_norm-vanilla"} < {*names}
    assert typed("report", "tasks").code == 0
    (card,) = (tmp_path / "outputs" / "reports" / "tasks" / "cards").iterdir()
    columns = next(line for line in card.read_text().splitlines() if line.startswith("| source"))
    assert re.search(r"task_texts \w{4} prompts \| task_texts \w{4} answers", columns)


def test_texts_of_a_task_are_a_set_that_a_mix_is_compared_with(toy):
    """Questions, choices and solutions, of as many questions as are asked; a graph without prompts of the study."""
    texts = read_prompts(toy.texts, "test")
    assert {row["prompt"] for row in texts} >= {text for row in toy.rows for text in (row["question"], *row["choices"])}
    limited = replace(toy.tasks, limit=2)
    assert {row["id"] for row in TaskTexts(asked=limited).records()} == {"toy_facts/0", "toy_facts/1"}
    row = toy.rows[0]
    rows = [
        {"prompt": row["question"].upper(), "response": "It is not known."},
        {"prompt": "Something else?", "response": row["choices"][row["right"]]},
    ]
    assert overlap(rows, {"tasks": texts})["tasks"] == {"prompts": [True, False], "answers": [False, True]}
    assert [*texts_in({"a": ["x", {"b": "y"}], "n": 1, "none": None})] == ["x", "y"]


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("{suite: downstream}", "evaluate.suites.0.files=[], evaluate.suites.0.harness=null: give at least one"),
        ("{suite: downstream, harness: {tasks: []}}", "evaluate.suites.0.harness.tasks=[]: needs at least one task"),
        ("{suite: downstream, harness: {tasks: [x], path: no}}", "evaluate.suites.0.harness: path=no: no such folder"),
        ("{suite: downstream, files: [{name: a, table: {path: no.csv}}]}", "table.path=no.csv: no such file"),
        ("{suite: downstream, files: [{name: a/b, table: {path: no.csv}}]}", "files.0.name='a/b': needs a name"),
        ("{suite: downstream, files: [{name: a, pattern: '(', table: {path: no.csv}}]}", "is no regular expression"),
        (
            "{suite: downstream, files: [{name: a, table: {path: x.csv}}, {name: a, table: {path: y.csv}}]}",
            "evaluate.suites.0.files: 'a' is listed twice",
        ),
    ],
)
def test_a_mistake_in_the_suite_is_one_line_at_plan(suite, message, typed):
    done = typed("plan", "mix=human", f"evaluate.suites=[{suite}]")
    assert done.code == 2
    assert message in done.err
    assert all(line.startswith("error: ") for line in done.err.splitlines())
