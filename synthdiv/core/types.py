"""The words every layer shares: rows, scores, artifacts, what a build may use, errors. Imports nothing of ours."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol


class SynthdivError(Exception):
    """A mistake or a state that the user can act on: shown as its message, without a traceback."""


class ConfigError(SynthdivError):
    """Every problem of a configuration at once; raised before anything runs."""

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(SynthdivError):
    """A row, a file or an artifact that is not what it should be."""


class Unavailable(DataError):
    """A hosted model does not answer, or its budget is spent: nothing is wrong here, and the same command continues
    later."""


class Superseded(SynthdivError):
    """Another process took over this build while this one was suspended; the work of this one is discarded."""


class Stopped(Exception):
    """The job received a signal and stopped after a step or a batch. Its work is kept; the message is the reason."""


@dataclass(frozen=True)
class Sample:
    """One answer and where it came from.

    `finish` is `stop` (the model ended), `length` (cut at max_new_tokens), `refusal` (a server would not answer: the
    response is empty) or `recorded`. Token counts are those of the writing model's tokenizer, -1 where not counted.
    `seed` names the row's random stream (hexadecimal).
    """

    id: str
    prompt: str
    response: str
    source: str
    model: str = ""
    sample: int = 0
    temperature: float | None = None
    top_p: float | None = None
    seed: str = ""
    finish: str = "recorded"
    prompt_tokens: int = -1
    response_tokens: int = -1


@dataclass(frozen=True)
class Score:
    """One number and what it may be taken for.

    `n` counts the independent units (usually prompts); `low` and `high` bound the 95 % interval; `higher_is_better`
    is None where no direction is better. An undefined value is NaN and `note` says why: a zero is a finding. `role` is
    `headline` or `caveat` where the suite says so.
    """

    name: str
    value: float
    n: int
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    higher_is_better: bool | None = None
    note: str = ""
    role: str = ""
    least: float = -math.inf
    most: float = math.inf
    """`least` and `most` bound what is possible."""

    def __post_init__(self) -> None:
        if math.isnan(self.value) and not self.note:
            raise ValueError(f"score {self.name!r} is undefined and does not say why")


@dataclass(frozen=True)
class Artifact:
    """The finished output of a stage: a directory named by what made it, and by name the artifacts it was made from."""

    stage: Any
    key: str
    path: Path
    inputs: Mapping[str, Artifact] = field(default_factory=dict)

    @cached_property
    def confidential(self) -> bool:
        """Whether only the owner may read its files, as of its node."""
        passed = self.stage.shows_texts and any(item.confidential for item in self.inputs.values())
        return bool(self.stage.confidential or passed)

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))


class Run(Protocol):
    """What a build may use and identity may not."""

    rank: int
    world_size: int
    micro_batch: int

    @property
    def device(self) -> str:
        """cpu, cuda, cuda:N or mps."""

    @property
    def runtime(self) -> Any:
        """Where and how fast: servers, budgets, compilation."""

    def model(self, artifact: Artifact, precision: str, kind: str = "hf") -> Any:
        """Open `artifact` as the one model of this process, or of a server of its own (`vllm`); the one before is
        closed."""

    def use_threads(self, model: Any) -> None:
        """Choose how many threads compute with this model until the stage ends."""

    def close(self) -> None:
        """Close the open model: a stage that trains opens another one."""

    def begin(self, out: Path) -> None:
        """Called before a build below `out`; other ranks receive the folder here."""

    def end(self) -> None:
        """Called after a build: every rank waits until all have written."""

    def boundary(self, keep: Callable[[], None] | None = None) -> None:
        """Between two steps or batches: raises `Stopped`, after `keep()`, if any rank received a signal to stop."""

    def progress(self, done: int, total: int, what: str, keep: Callable[[], None] | None = None) -> None:
        """Report that `done` of `total` units of `what` are finished. A `boundary`."""

    def show(self, point: dict[str, float]) -> None:
        """Report a point of the training curve."""

    def log(self, message: str) -> None:
        """Log one line."""
