"""Answers of one source to one shard of prompts. A tuned student is a generator too: `respond` is this stage."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.generate.hf import Request, answer_batch, plan
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.generate.stream import row_seed
from synthdiv.models.chat import Chat
from synthdiv.models.load import Precision
from synthdiv.prompts.grid import Grid
from synthdiv.prompts.stage import read_prompts
from synthdiv.prompts.table import normalise
from synthdiv.resolve import unchanged
from synthdiv.stage import Stage
from synthdiv.types import Artifact, DataError, Run, Sample

FILE = "rows.jsonl"


class Side(Enum):
    """The split that is answered."""

    train = "train"
    test = "test"


@dataclass
class Generate(Stage):
    """Inputs: prompts, and the model for backend `hf`. Output: `rows.jsonl`, one `Sample` a line.

    Side train: shard `shard` of the grid over the first `rows` train prompts. Side test: all test prompts, `samples`
    answers to the first `subset` of their stratified order and one to each other.
    """

    name = "generate"
    kept = (FILE,)

    source: str = ""
    backend: Backend = Backend.hf
    recorded: Recorded | None = None
    sampling: Sampling = field(default_factory=Sampling)
    precision: Precision = Precision.fp32
    batch_tokens: int = 16384
    seed: int = 0
    side: Side = Side.train
    rows: int = 0
    shard_rows: int = 0
    shard: int = 0
    samples: int = 1
    subset: int = 0

    def requests(self, prompts: Artifact, model: str) -> list[Request]:
        rows = read_prompts(prompts, self.side.value)
        if self.side is Side.train:
            rows = [rows[position] for position in Grid(self.rows, self.shard_rows).positions(self.shard)]
        return [
            Request(row["id"], row["prompt"], sample, self._stream(model, row["id"], sample))
            for row in rows
            for sample in range(self.samples if self.side is Side.test and row["position"] < self.subset else 1)
        ]

    def _stream(self, model: str, prompt: str, sample: int) -> str:
        return row_seed(self.seed, model, self.source, self.side.value, 0, prompt, sample)

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        prompts = inputs[0]
        model = inputs[1].key if len(inputs) > 1 else ""
        requests = self.requests(prompts, model)
        facts: dict[str, Any] = {}
        if self.backend is Backend.recorded:
            (out / FILE).unlink(missing_ok=True)
            chunks = self._recorded(requests)
        else:
            chunks = self._sampled(requests, inputs, out / FILE, run, facts)
        done = 0
        with (out / FILE).open("a", encoding="utf-8") as handle:
            for chunk in chunks:
                handle.writelines(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in chunk)
                handle.flush()
                os.fsync(handle.fileno())
                done += len(chunk)
                run.progress(done, len(requests), f"answers by {self.source}")
        rows = read_samples(out)
        if Counter((row.id, row.sample) for row in rows) != Counter((item.id, item.sample) for item in requests):
            raise DataError(f"{self.source}: the rows written are not one for each of the {len(requests)} requests")
        return facts | {
            "rows": len(rows),
            "tokens": sum(max(row.response_tokens, 0) for row in rows),
            "empty": sum(not row.response.strip() for row in rows),
            "finish": dict(Counter(row.finish for row in rows)),
        }

    def _sampled(
        self, requests: list[Request], inputs: tuple[Artifact, ...], file: Path, run: Run, facts: dict[str, Any]
    ) -> Iterator[list[Sample]]:
        """A list per batch. A resume keeps whole batches and redoes the unfinished one, so a crash changes no byte."""
        prompts, model = inputs[:2]
        opened = run.model(model, self.precision.value)
        chat = Chat.of(opened.tokenizer, prompts)
        batches = plan(chat, opened.context, requests, self.sampling, self.batch_tokens)
        facts["batches"], facts["system_folded"] = len(batches), chat.folded
        kept = keep_whole_batches(file, [len(batch) for batch in batches])
        for batch in batches[kept:]:
            chosen = [requests[index] for index in batch]
            answers = answer_batch(opened, chat, chosen, self.sampling)
            yield [
                Sample(
                    request.id,
                    request.prompt,
                    answer.text,
                    self.source,
                    model.key,
                    request.sample,
                    self.sampling.temperature,
                    self.sampling.top_p,
                    request.stream,
                    answer.finish,
                    answer.prompt_tokens,
                    answer.response_tokens,
                )
                for request, answer in zip(chosen, answers, strict=True)
            ]

    def _recorded(self, requests: list[Request]) -> Iterator[list[Sample]]:
        assert self.recorded
        unchanged(f"{self.source}: recorded.path", self.recorded.path, self.recorded.sha256)
        answers = self.recorded.answers("generators.models.recorded")
        by_id = self.recorded.id is not None
        keys = [request.id if by_id else normalise(request.prompt) for request in requests]
        missing = [key for key in keys if key not in answers]
        if missing:
            raise DataError(
                f"{self.source}: {self.recorded.path} has no answer for {len(missing)} of {len(keys)} prompts "
                f"(first {missing[0]!r}). Leave these prompts out of the set, or take another source"
            )
        yield [
            Sample(request.id, request.prompt, answers[key], self.source)
            for request, key in zip(requests, keys, strict=True)
        ]


def keep_whole_batches(file: Path, sizes: list[int]) -> int:
    """Cut a partial `rows.jsonl` after its last whole batch; return how many batches it holds."""
    if not file.exists():
        return 0
    lines = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    whole, rows = 0, 0
    for size in sizes:
        if rows + size > len(lines):
            break
        whole, rows = whole + 1, rows + size
    file.write_bytes(b"".join(lines[:rows]))
    return whole


def read_samples(path: Path) -> list[Sample]:
    """The rows of a finished shard."""
    with (path / FILE).open(encoding="utf-8") as handle:
        return [Sample(**json.loads(line)) for line in handle]
