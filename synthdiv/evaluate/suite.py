"""The contract of a suite: one evaluation of a student, compared with the vanilla student. One file a suite.

A module of this folder (or of a user's own) with one subclass of `Suite` is an item of `evaluate.suites`, which names
the module. What else the program knows of suites is here: pipeline, plan, report and trackers name none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from synthdiv.core.fields import blocks, setting
from synthdiv.core.files import write_rows
from synthdiv.core.stage import Node
from synthdiv.core.types import ConfigError, Score
from synthdiv.evaluate.respond import Respond
from synthdiv.evaluate.rubric import Rubric, Rubrics
from synthdiv.evaluate.verdicts import JudgeModel
from synthdiv.generate.source import Source
from synthdiv.generate.spec import Backend, Sampling
from synthdiv.measures.estimates import VANILLA, join_notes
from synthdiv.models.checkpoint import Checkpoint
from synthdiv.models.load import Precision
from synthdiv.prompts.questions import WholeTable

if TYPE_CHECKING:
    from synthdiv.core.resolver import Resolver

HEADLINE, CAVEAT = "headline", "caveat"  # roles of scores


class Resolvable(Protocol):
    """What a launch resolves: a prompt set, questions, tasks."""

    def resolve(self, resolver: Resolver) -> None: ...


@dataclass
class Evaluate:
    """The evaluation of every student, tuned or vanilla."""

    respond: Respond = field(default_factory=Respond)
    """Answers to the test prompts."""
    suites: list[Any] = field(default_factory=list)
    """The suites, each `{suite: NAME, FIELD: VALUE, …}`; their fields are on their own pages."""
    backend: Backend = Backend.hf
    """What runs students: hf or vllm."""
    precision: Precision = Precision.fp32
    """The format of the weights."""
    batch_tokens: int = setting(16384, least=1)
    """Bound on rows × (prompt + answer) of a batch."""

    def check(self, name: str) -> list[str]:
        wrong = []
        if self.backend not in (Backend.hf, Backend.vllm):
            wrong.append(f"{name}.backend={self.backend.value}: a student answers by hf or vllm")
        for index, suite in enumerate(self.suites):
            if type(suite) is not suite_class(suite.suite):
                wrong.append(
                    f"{name}.suites.{index}.suite={suite.suite}: the item has the fields of another suite; "
                    f"set {name}.suites"
                )
        if not self.suites:
            wrong.append(f"{name}.suites=[]: needs at least one suite; choose {', '.join(own_suites())}")
        modules = [suite.suite for suite in self.suites]
        for module in sorted({module for module in modules if modules.count(module) > 1}):
            wrong.append(f"{name}.suites: {module} is listed twice; a cell has each suite once")
        return wrong


@dataclass(frozen=True)
class EvaluatedStudent:
    """One student under evaluation. It answers further prompts as a source."""

    prompts: Node
    model: Node
    vanilla_model: Node
    """The model of the vanilla student; the same where this is it."""
    responses: dict[str, Node]
    """Its answers to the test prompts, by decoding."""
    settings: Evaluate
    judges: tuple[JudgeModel, ...] = ()
    rubrics: Rubrics = field(default_factory=Rubrics)
    mix: Node | None = None
    sources: tuple[Source, ...] = ()
    """Those of its mix."""
    members: dict[str, list[Node]] = field(default_factory=dict)
    """The answers of each member of its population, by decoding, if it has one."""

    @property
    def rendering(self) -> tuple[str | None, str, str]:
        """How the prompts of the study are rendered: the system prompt, the date and the template."""
        study: Any = self.prompts.stage
        return (study.system, study.date, study.template)

    def source(self, sampling: Sampling, backend: Backend | None = None) -> Source:
        """The student as a generator with this decoding, or with `Backend.logits` as a judge."""
        settings = self.settings
        seed = settings.respond.seed if sampling.temperature else 0  # greedy answers are the same in every replicate
        how = (settings.precision, seed, settings.batch_tokens)
        return Source("student", backend or settings.backend, self.model, None, sampling, *how)

    def judges_of(self, rubric: Rubric) -> list[JudgeModel]:
        """The judges that can be asked this about answers to the prompts of the study."""
        toy = bool(getattr(self.prompts.stage, "toy", None))
        return [judge for judge in self.judges if judge.judges(rubric, toy)]

    def verdicts(self, name: str, rubric: Rubric, *answers: Node, **which: Any) -> dict[str, Node]:
        """What each of these judges says of the answers, or of pairs of two authors' answers, as `NAME/JUDGE`."""
        about = (self.prompts, *answers)
        return {f"{name}/{judge.name}": judge.verdicts(rubric, *about, **which) for judge in self.judges_of(rubric)}


@dataclass
class Suite:
    """One evaluation. `headlines` are the few scores that tables, figures and dashboards show, `caveats` those that say
    how far the others can be trusted."""

    rubrics = tuple[str, ...]()
    """What it asks judges, by the names of `Rubrics`."""
    headlines = tuple[str, ...]()
    caveats = tuple[str, ...]()
    diversity = tuple[str, ...]()
    quality = tuple[str, ...]()
    """Scores that say how diverse texts and how good answers are: reports draw each against each. `NAME/` are all
    headlines that begin so."""
    reading = ""
    """What a reader of its scores must know, for reports."""
    student_judge = ""
    """What reports say of a student as a judge, which no labels check."""
    paired_answers = ""
    """The input with the answers that scores `DECODING/…@texts` measure by the fields of `TextBudget`, as `{}/answers`:
    reports compare two arms on the prompts where both answers are long. Empty: they compare scores."""
    human_likelihood = ""
    """The input with the log-likelihoods of human answers, by which reports compare an arm with a mixture of others."""

    suite: str = ""
    """The module: a file of `synthdiv/evaluate` by its name, or a module of your own like `my_package.my_suite`."""

    def models(self) -> dict[str, Checkpoint]:
        """The models it needs, by the name of the field that holds them."""
        return {place: block for place, block in blocks(self, "") if isinstance(block, Checkpoint)}

    def prompt_sets(self) -> dict[str, Resolvable]:
        """The prompt sets it needs beside those of the study, by the name of the field that holds them."""
        others = ((place, block) for place, block in blocks(self, "") if not isinstance(block, Checkpoint))
        return {place: block for place, block in others if hasattr(block, "resolve")}

    def node(self, arm: EvaluatedStudent, vanilla: EvaluatedStudent | None) -> Node | None:
        """The node whose artifact has the scores of `arm`, compared with those of the vanilla student (None: this is
        the vanilla student). None where the suite does not apply to this study."""
        raise NotImplementedError


def prompt_sets(suites: Mapping[str, Node]) -> dict[str, Node]:
    """The prompt sets that suites, given by their end nodes, ask beside those of the study, as `SUITE:INPUT KEY`."""
    sets: dict[str, tuple[str, Node]] = {}
    for suite, end in suites.items():
        for name, node in [each for item in reversed(end.ancestry().values()) for each in item.inputs.items()]:
            if isinstance(node.stage, WholeTable):
                sets.setdefault(node.key, (f"{suite}:{name.partition('/')[0]} {node.key[:4]}", node))
    return dict(sets.values())


@cache
def suite_class(module: str) -> type[Suite]:
    """The suite that a module defines. Raises ConfigError that names the choices."""
    name = module if "." in module else f"synthdiv.evaluate.{module}"
    try:
        names = vars(importlib.import_module(name))
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # a module that the suite itself needs
        choices = ", ".join(own_suites())
        raise ConfigError(
            f"evaluate.suites: no suite {module!r}; choose {choices}, or name a module that Python can import"
        ) from None
    classes = [kind for kind in names.values() if isinstance(kind, type) and issubclass(kind, Suite)]
    classes = [kind for kind in classes if kind.__module__ == name]
    if len(classes) != 1:
        raise ConfigError(f"evaluate.suites: {name} defines {len(classes)} subclasses of Suite; a suite module has one")
    return classes[0]


def declared(modules: Iterable[str], attribute: str) -> list[Any]:
    """The values of this attribute of the suites, without empty ones and those of modules that are gone."""
    values = []
    for module in modules:
        with contextlib.suppress(ImportError, ConfigError):
            values.append(getattr(suite_class(module), attribute))
    return [value for value in values if value]


def own_suites() -> list[str]:
    """The names of the suites in this folder."""
    files = [file for file in sorted(Path(__file__).parent.glob("*.py")) if file.stem != "suite"]
    return [file.stem for file in files if "(Suite" in file.read_text(encoding="utf-8")]


def typed_items(config: Any) -> None:
    """Give each item of `evaluate.suites` in a composed configuration all fields of its suite, with their types, so
    that overrides of them are checked as those of any other block."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    suites = config.evaluate.suites
    for index, item in enumerate(suites):
        name = f"evaluate.suites.{index}"
        kind = OmegaConf.get_type(item) if OmegaConf.is_config(item) else type(item)
        if isinstance(kind, type) and issubclass(kind, Suite):
            continue  # it has them
        if not OmegaConf.is_dict(item) or not item.get("suite"):
            raise ConfigError(
                f"{name}: needs the form {{suite: NAME, FIELD: VALUE, …}}; choose {', '.join(own_suites())}"
            )
        schema = OmegaConf.structured(suite_class(item.suite))
        try:
            suites[index] = OmegaConf.merge(schema, item)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{name}: {str(error).splitlines()[0]}; {field_names(item.suite)}") from None


def field_names(module: str) -> str:
    """The fields of a suite, for messages."""
    return f"{module} has {', '.join(field.name for field in dataclasses.fields(suite_class(module)))}"


def item(prompt: str, measure: str, value: float, **rest: Any) -> dict[str, Any]:
    """One measured value of one answer. `bytes` is -1 and `order` 0 where they mean nothing."""
    which = {"prompt": prompt, "sample": 0, "order": 0, "decoding": ""}
    return which | {"measure": measure, "value": float(value), "bytes": -1, "finish": ""} | rest


def write_suite(
    out: Path, scores: list[Score], items: list[dict[str, Any]], suite: type[Suite] = Suite
) -> dict[str, Any]:
    """Write `scores.json`, and `items.parquet` beside it, because scores alone cannot be paired; return how many scores
    there are. `suite` says which are headlines and caveats, unless they do themselves. JSON has no NaN and no infinity:
    they are written as null and as text."""
    roles = dict.fromkeys(suite.headlines, HEADLINE) | dict.fromkeys(suite.caveats, CAVEAT)
    fields = [dataclasses.asdict(score) | {"role": roles.get(score.name, score.role)} for score in scores]
    records = [{key: json_number(x) if isinstance(x, float) else x for key, x in each.items()} for each in fields]
    (out / "scores.json").write_text(json.dumps(records, indent=1, allow_nan=False), encoding="utf-8")
    write_rows(items, out / "items.parquet")
    return {"scores": len(scores), "undefined": sum(math.isnan(score.value) for score in scores)}


def with_notes(score: Score, of_student: str, of_vanilla: str) -> Score:
    """The score with a note on the answers of the student, and if it is a difference one on the vanilla student's."""
    return replace(score, note=join_notes(score.note, of_student, of_vanilla * score.name.endswith(VANILLA)))


def json_number(value: float) -> float | str | None:
    """A number as JSON can hold it."""
    return value if math.isfinite(value) else None if math.isnan(value) else str(value)


def read_scores(path: Path) -> list[Score]:
    """The scores of a finished suite."""
    scores = []
    for record in json.loads((path / "scores.json").read_text(encoding="utf-8")):
        names = [name for name in ("value", "low", "high", "least", "most") if name in record]
        numbers = {name: math.nan if record[name] is None else float(record[name]) for name in names}
        scores.append(Score(**record | numbers))
    return scores
