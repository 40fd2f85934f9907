"""What is known of a judge before it is trusted: `outputs/judges/IDENTITY.json`, written by `synthdiv judge`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.files import write_whole
from synthdiv.core.ledger import NodeRecord
from synthdiv.core.stage import digest
from synthdiv.core.types import DataError

MIN_LABELS = 200  # labelled items from which a judge counts as validated
HOW = ("backend", "precision", "sampling", "top_logprobs")  # fields of `generate`: how a model comes to a verdict


def judge_identity(answers: NodeRecord, rubric: Mapping[str, Any]) -> str:
    """What a judge is, whatever its name: the model, how it comes to the verdicts `answers`, and the rubric."""
    return digest([answers.inputs.get("model", ""), [answers.fields[name] for name in HOW], rubric])[:12]


@dataclass(frozen=True)
class Calibration:
    """`identity` says what the judge is, `judge` and `rubric` are names for readers. `labels` are the columns of labels
    with their numbers, `items` the items with a label and a verdict; `scores` by name those of the judge, as `--json`
    prints them."""

    identity: str
    judge: str
    rubric: str
    file: str
    labels: Mapping[str, int]
    items: int
    scores: Mapping[str, Mapping[str, Any]]

    @property
    def validated(self) -> bool:
        return self.items >= MIN_LABELS

    def summary(self) -> str:
        """One line for a page: `validated on 805 items labelled by human: alpha 0.41 [0.35, 0.47], …`."""
        state = "validated" if self.validated else f"unvalidated, fewer than {MIN_LABELS} labels: compared"
        numbers = (range_text(name, self.scores[name]) for name in ("alpha", "discrimination") if name in self.scores)
        return (
            f"{state} on {self.items:,} items labelled by {', '.join(self.labels)}: {', '.join(filter(None, numbers))}"
        )


def range_text(name: str, score: Mapping[str, Any]) -> str:
    if not isinstance(score.get("value"), float | int):
        return ""
    ends = "" if score.get("low") is None else f" [{score['low']:.2f}, {score['high']:.2f}]"
    return f"{name} {score['value']:.2f}{ends}"


def calibration_file(outputs: Path, identity: str) -> Path:
    """The file of a judge with a rubric."""
    return outputs / "judges" / f"{identity}.json"


def write_calibration(outputs: Path, calibration: Calibration) -> Path:
    """Write or replace the file, whole or not at all. Returns where."""
    path = calibration_file(outputs, calibration.identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(calibration), indent=1, allow_nan=False) + "\n")
    return path


def judge_status(outputs: Path, identity: str) -> str:
    """Return the line that a page shows beside a judge's scores: the summary of what `synthdiv judge` wrote of it, or
    `unvalidated`. DataError if the file is not what it writes."""
    path = calibration_file(outputs, identity)
    if not path.exists():
        return f"unvalidated: never compared with labels (synthdiv judge FILE --identity {identity})"
    try:
        return Calibration(**json.loads(path.read_text(encoding="utf-8"))).summary()
    except (OSError, ValueError, TypeError) as error:
        advice = "run `synthdiv judge` again, or remove the file"
        raise DataError(f"{path}: is no calibration of a judge ({error}); {advice}") from error
