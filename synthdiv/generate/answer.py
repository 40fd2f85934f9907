"""What every backend takes and gives: the requests of a shard, and answers to them."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from synthdiv.core.types import Artifact, Run


@dataclass(frozen=True)
class Request:
    """One answer that is wanted: of a prompt, for a sample index, from a random stream."""

    id: str
    prompt: str
    sample: int
    stream: str


@dataclass(frozen=True)
class Answer:
    """What came back. `finish` is `stop`, `length` or `refusal` (the server would not answer: the text is empty);
    tokens are the model's own, the ending one not counted. `log` is what another day would have otherwise: when it was
    asked, how long it took and how often, the batch or the server's words for itself, what it cost."""

    text: str
    finish: str
    prompt_tokens: int
    response_tokens: int
    log: dict[str, Any] = field(default_factory=dict)


ROWS = "rows.jsonl"  # a `Sample` a line: what the fields of the stage determine
LOG = "requests.jsonl"  # how each row came about on the day


def lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of one of these files; a last one that was cut when its writer was killed goes from the file."""
    data = file.read_bytes() if file.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(file, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def append(handle: TextIO, rows: list[dict[str, Any]]) -> None:
    """Whole lines, on the disk when this returns."""
    handle.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in rows)
    handle.flush()
    os.fsync(handle.fileno())


def rewrite(file: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a file at once: whoever is killed here leaves the old one or the new one."""
    draft = file.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as handle:
        append(handle, rows)
    draft.replace(file)


Answers = Generator[list[tuple[Request, Answer]], None, None]


@dataclass
class Shard:
    """The work of a backend. `stage` is the `Generate`, `out` its folder with the rows of an earlier builder, `facts`
    what goes into the manifest, `kept` how many rows of that earlier builder stand. While `stopping`, a backend gives
    what it has already asked for and ends."""

    stage: Any
    requests: list[Request]
    inputs: Mapping[str, Artifact]
    out: Path
    run: Run
    facts: dict[str, Any]
    kept: int = 0
    stopping: bool = False
