"""Tasks of lm-evaluation-harness on a student in memory, adapter and all, rendered as everywhere in a study."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import io
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from synthdiv.core.fields import locator, setting
from synthdiv.core.resolver import Resolver, pinned
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, ConfigError, DataError, Run
from synthdiv.models.chat import Chat
from synthdiv.models.load import OpenModel, Precision
from synthdiv.prompts.questions import WholeTable

FILE = "samples.jsonl"
QUESTIONS = 1000  # of a task without a limit, for plans
LONGEST = 2048  # tokens of a question that batches are sized for


@dataclass
class HarnessTasks:
    """Tasks of lm-evaluation-harness (pip install 'synthdiv[harness]')."""

    tasks: list[str] = field(default_factory=list)
    """Names of tasks, groups or tags: of the package, or of `path`."""
    path: str | None = locator()
    """A folder with task files (.yaml) and what they read; null: none."""
    sha256: str = ""
    """Content of the folder, filled in by resolving; given beforehand it pins the content."""
    release: str = ""
    """Version of the package, filled in by resolving: it decides what a task is."""
    limit: int | None = setting(None, least=1)
    """Questions of each task, the first ones; null: all."""
    shots: int | None = setting(None, least=0)
    """Solved examples before each question; null: as the task says."""
    chat: bool = True
    """Questions are turns of a user in the chat template of the student, with the system prompt of the study. False:
    bare text, for students without a template."""

    def check(self, name: str) -> list[str]:
        return [] if self.tasks else [f"{name}.tasks=[]: needs at least one task; set {name}=null for none"]

    def resolve(self, resolver: Resolver) -> None:
        try:
            release = importlib.metadata.version("lm_eval")
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError("lm-evaluation-harness is not installed; pip install 'synthdiv[harness]'") from None
        self.release = pinned("release", self.release, release)
        if self.path:
            if not Path(self.path).is_dir():
                raise ConfigError(f"path={self.path}: no such folder")
            self.sha256 = pinned("sha256", self.sha256, resolver.folder(Path(self.path)))
        unknown = resolver.remember(["lm_eval", release, self.sha256, self.tasks], self.unknown)
        if unknown:
            raise ConfigError(unknown)

    def unknown(self) -> list[str]:
        """One line for each task that does not exist, with the nearest names."""
        local = self.local()
        names = local.all_tasks if local else []
        if not {*self.tasks} <= {*names}:
            names = [*names, *packaged_tasks().all_tasks]
        near = {task: difflib.get_close_matches(task, names, 3, 0.5) for task in self.tasks if task not in names}
        text = "tasks: lm-evaluation-harness has no task {!r}; the nearest are {}"
        return [text.format(task, ", ".join(each)) for task, each in near.items()]

    def local(self) -> Any:
        """What finds the tasks in `path`; None without one."""
        if not self.path:
            return None
        if Resolver(Path(self.path)).folder(Path(self.path)) != self.sha256:
            raise DataError(f"path={self.path}: the tasks changed since this sweep was launched; launch it again")
        return task_manager(self.path, packaged=False)

    def manager(self) -> Any:
        """What finds the tasks; the thousands of the package are only read if one is wanted."""
        local = self.local()
        if local is None:
            return packaged_tasks()
        if {*self.tasks} <= {*local.all_tasks}:
            return local
        return task_manager(self.path, packaged=True)


def task_manager(path: str | None, packaged: bool) -> Any:
    """What finds the tasks of a folder, with those of the package or without."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=path, include_defaults=packaged)


@cache
def packaged_tasks() -> Any:
    """What finds the tasks of the package: reading their thousands of files takes seconds."""
    return task_manager(None, packaged=True)


@dataclass
class TaskTexts(WholeTable):
    """What tasks ask, for the overlap with fine-tuning sets: each question as it is written, and every text of its
    document (of choices and solutions too), once as a prompt and as an answer. It has no table."""

    name = "task_texts"

    asked: HarnessTasks = field(default_factory=HarnessTasks)
    """The tasks."""

    test = property(lambda self: len(self.asked.tasks) * (self.asked.limit or QUESTIONS))

    def records(self) -> list[dict[str, Any]]:
        texts: dict[str, str] = {}
        for name, task in self.asked.manager().load(list(self.asked.tasks))["tasks"].items():
            for number, document in task.doc_iterator(limit=self.asked.limit):
                texts |= dict.fromkeys(texts_in([task.doc_to_text(document), document]), f"{name}/{number}")
        return [{"id": place, "prompt": text, "response": text} for text, place in texts.items()]


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a document, at whatever depth."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts_in(inner)


@dataclass
class Harness(Stage):
    """Inputs: `prompts`, for system prompt, date and template; `model`. Output: `samples.jsonl`, one line for each
    question, filter and metric with a number: task, filter, metric, higher_is_better, id, hash (of the question),
    value, choices (how many), right (the right answer as text)."""

    name = "harness"
    model_input = "model"
    unit = "questions"
    bytes_per_unit = 300
    less_memory = "lower evaluate.batch_tokens"

    asked: HarnessTasks = field(default_factory=HarnessTasks)
    """What is asked."""
    precision: Precision = Precision.fp32
    """The format of the weights."""
    batch_tokens: int = 16384
    """Bound on rows × tokens of a batch."""

    def input_names(self) -> tuple[str, ...]:
        return ("prompts", "model")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        count = len(self.asked.tasks) * (self.asked.limit or QUESTIONS)
        return Work(count, read_tokens=count * 4 * sum(inputs["prompts"].stage.assumed_tokens))  # type: ignore[attr-defined]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        task_set, prompts = self.asked, inputs["prompts"]
        opened = run.model(inputs["model"], self.precision.value)
        manager = task_set.manager()
        import lm_eval.evaluator

        for name in ("add_env_info", "get_git_commit_hash"):  # they run commands, for results that we do not keep
            setattr(lm_eval.evaluator, name, lambda *_: "")
        chat = Chat.for_prompts(opened.tokenizer, prompts)
        student = student_lm(opened, chat, self.batch_tokens)
        run.progress(0, len(task_set.tasks), "tasks")
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            results = lm_eval.simple_evaluate(
                model=student,
                tasks=list(task_set.tasks),
                num_fewshot=task_set.shots,
                limit=task_set.limit,
                task_manager=manager,
                log_samples=True,
                bootstrap_iters=0,
                apply_chat_template=task_set.chat,
                system_instruction=chat.system if task_set.chat else None,
                random_seed=None,  # its defaults would reseed every generator of this process
                numpy_random_seed=None,
                torch_random_seed=None,
            )
        lines = [line for task, samples in results["samples"].items() for line in numbers(task, samples, results)]
        (out / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        if not lines:
            raise DataError(f"{', '.join(task_set.tasks)}: no metric of these tasks has a number for each question")
        return {
            "questions": len({(line["task"], line["id"]) for line in lines}),
            "cut": student.cut,
            "system_folded": chat.folded,
        }


def student_lm(opened: OpenModel, chat: Chat, batch_tokens: int) -> Any:
    """The student as a model of the harness, whose own rendering puts no date, drops a system role that a template does
    not know, and moves blanks at the end of a question into the answer, which changes log-likelihoods by nats."""
    from lm_eval.models.huggingface import HFLM

    class StudentLM(HFLM):  # type: ignore[misc]
        cut = 0

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return chat.conversation(chat_history, add_generation_prompt)

        def chat_template(self, chat_template: bool | str = False) -> str:
            return chat.template if chat_template else ""

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            before, after = chat.continuation(context, continuation)
            self.cut += len(before) + len(after) > self.max_length
            return before, after

    longest = min(opened.context, LONGEST)
    return StudentLM(
        pretrained=opened.model,
        tokenizer=opened.tokenizer,
        batch_size=max(1, batch_tokens // longest),
        max_length=opened.context if opened.context < 2**30 else None,
    )


def numbers(task: str, samples: list[dict[str, Any]], results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a task that are a number for each question, as lines of `samples.jsonl`."""
    better, kind = results.get("higher_is_better", {}).get(task, {}), results["configs"][task]["output_type"]
    return [
        {"task": task, "filter": sample["filter"], "metric": metric, "higher_is_better": better.get(metric)}
        | {"id": str(sample["doc_id"]), "hash": sample["doc_hash"], "value": float(sample[metric])}
        | {"choices": len(sample["arguments"]) if kind == "multiple_choice" else 0, "right": str(sample["target"])}
        for sample in samples
        for metric in sample["metrics"]
        if isinstance(sample[metric], int | float)
    ]


def read_harness(artifact: Artifact) -> dict[str, list[dict[str, Any]]]:
    """The lines of a finished `harness` artifact, by what they score: TASK/METRIC or TASK/FILTER/METRIC."""
    scores: dict[str, list[dict[str, Any]]] = {}
    for text in (artifact.path / FILE).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        middle = [] if line["filter"] == "none" else [line["filter"]]
        scores.setdefault("/".join([line["task"], *middle, line["metric"]]), []).append(line)
    return scores
