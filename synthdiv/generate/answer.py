"""Input and output of every backend: the requests of a shard, and the answers to them."""

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
    """A request for one answer: to a prompt, with a sample index, from a random stream."""

    id: str
    prompt: str
    sample: int
    stream: str


@dataclass(frozen=True)
class Answer:
    """One answer.

    `finish` is `stop`, `length`, `refusal` (the server refused) or `failed` (this prompt is never answered); without an
    answer the text is empty. Token counts are those of the model, without the end token. `log` holds what would differ
    in another run: time, duration, attempts, batch, server fingerprint, cost.
    """

    text: str
    finish: str
    prompt_tokens: int
    response_tokens: int
    log: dict[str, Any] = field(default_factory=dict)


ROWS = "rows.jsonl"  # one `Sample` per line, determined by the fields of the stage
LOG = "requests.jsonl"  # one line per row: time, duration, attempts, cost


encode = json.JSONEncoder(ensure_ascii=False).encode  # made once: `json.dumps` makes one for each call


def lines(file: Path) -> list[dict[str, Any]]:
    """Read the complete lines of one of these files; a truncated last line is removed from the file."""
    data = file.read_bytes() if file.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(file, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def append(handle: TextIO, rows: list[dict[str, Any]], sync: bool = True) -> None:
    """Write lines, and sync them to disk."""
    handle.writelines(encode(line) + "\n" for line in rows)
    handle.flush()
    if sync:
        os.fsync(handle.fileno())


def rewrite(file: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a file atomically."""
    draft = file.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as handle:
        append(handle, rows)
    draft.replace(file)


Answers = Generator[list[tuple[Request, Answer]], None, None]


@dataclass
class Shard:
    """The work of a backend.

    `stage` is the `Generate`, `out` its folder with the rows of earlier sessions, `facts` goes into the manifest, and
    `resumed_rows` is the number of rows of earlier sessions. While `stopping`, a backend yields the answers it has
    already requested, and ends.
    """

    stage: Any
    requests: list[Request]
    inputs: Mapping[str, Artifact]
    out: Path
    run: Run
    facts: dict[str, Any]
    resumed_rows: int = 0
    stopping: bool = False
