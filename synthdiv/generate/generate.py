"""Answers of one source to one shard of prompts. A tuned student is a generator too: `respond` is this stage."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Stage, added
from synthdiv.core.types import Artifact, DataError, Run, Sample
from synthdiv.generate.answer import LOG, ROWS, Answer, Answers, Request, Shard, append, lines, rewrite
from synthdiv.generate.spec import Backend, Recorded, Sampling
from synthdiv.generate.stream import row_seed
from synthdiv.models.load import Precision
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.shards import Grid


class Side(Enum):
    """The split that is answered."""

    train = "train"
    test = "test"


@dataclass
class Generate(Stage):
    """Inputs: prompts, and the model but for recorded answers. Output: `rows.jsonl`, one `Sample` a line, and
    `requests.jsonl`, a line for each of these rows on how it came about: `id`, `sample` and the backend's own words.

    Side train: shard `shard` of the grid over the first `rows` train prompts, `samples` answers to each. Side test: all
    test prompts, `samples` answers to the first `subset` of their stratified order and one to each other.
    `top_logprobs` (0: none) asks for the log-probabilities of that many tokens at each place, into `requests.jsonl`.
    """

    name = "generate"
    version = 2
    kept = (ROWS, LOG)

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
    top_logprobs: int = added(0, 0)

    @property
    def kind(self) -> str:
        """Each backend but `hf` has rates and needs of its own."""
        return self.name if self.backend is Backend.hf else self.backend.value

    def requests(self, prompts: Artifact, model: str) -> list[Request]:
        rows = read_prompts(prompts, self.side.value)
        if self.side is Side.train:
            rows = [rows[position] for position in Grid(self.rows, self.shard_rows).positions(self.shard)]
        return [
            Request(row["id"], row["prompt"], sample, self._stream(model, row["id"], sample))
            for row in rows
            for sample in range(self.samples if self.side is Side.train or row["position"] < self.subset else 1)
        ]

    def _stream(self, model: str, prompt: str, sample: int) -> str:
        return row_seed(self.seed, model, self.source, self.side.value, 0, prompt, sample)

    def build(self, inputs: tuple[Artifact, ...], out: Path, run: Run) -> dict[str, Any]:
        requests = self.requests(inputs[0], inputs[1].key if len(inputs) > 1 else "")
        shard = Shard(self, requests, inputs, out, run, {})
        chunks = self._answers(shard)
        lines(out / LOG)  # a line that was cut must not swallow the next
        with (
            (out / LOG).open("a", encoding="utf-8") as log,
            (out / ROWS).open("a", encoding="utf-8") as rows,
            contextlib.closing(chunks),
        ):

            def write(chunk: list[tuple[Request, Answer]]) -> int:
                """The log first: a row that is there has its line."""
                said = [{"id": request.id, "sample": request.sample} | answer.log for request, answer in chunk]
                append(log, said)
                append(rows, [dataclasses.asdict(self._sample(request, answer, inputs)) for request, answer in chunk])
                return len(chunk)

            def wind_up() -> None:
                shard.stopping = True
                for chunk in chunks:
                    write(chunk)

            done = 0
            for chunk in chunks:
                done += write(chunk)
                paid = f" for {shard.facts['usd']:.2f} USD" if "usd" in shard.facts else ""
                run.progress(shard.kept + done, len(requests), f"answers by {self.source}{paid}", wind_up)
        return shard.facts | self._settled(out, requests)

    def _answers(self, shard: Shard) -> Answers:
        from synthdiv.generate import api, hf, recorded, vllm

        backends = {Backend.hf: hf, Backend.vllm: vllm, Backend.api: api, Backend.recorded: recorded}
        return backends[self.backend].answers(shard)

    def _sample(self, request: Request, answer: Answer, inputs: tuple[Artifact, ...]) -> Sample:
        if self.backend is Backend.recorded:
            return Sample(request.id, request.prompt, answer.text, self.source)
        return Sample(
            request.id,
            request.prompt,
            answer.text,
            self.source,
            inputs[1].key,
            request.sample,
            self.sampling.temperature,
            self.sampling.top_p,
            request.stream,
            answer.finish,
            answer.prompt_tokens,
            answer.response_tokens,
        )

    def _settled(self, out: Path, requests: list[Request]) -> dict[str, Any]:
        """Check that there is one row for each request, in the order of requests where they came as they could."""
        rows = read_samples(out)
        order = {(item.id, item.sample): place for place, item in enumerate(requests)}
        if Counter((row.id, row.sample) for row in rows) != Counter((item.id, item.sample) for item in requests):
            raise DataError(f"{self.source}: the rows written are not one for each of the {len(requests)} requests")
        if self.backend in (Backend.api, Backend.vllm):
            rows.sort(key=lambda row: order[row.id, row.sample])
            rewrite(out / ROWS, [dataclasses.asdict(row) for row in rows])
        last = {(line["id"], line["sample"]): line for line in read_log(out)}  # of what was asked twice the later
        plain = [{"id": row.id, "sample": row.sample} for row in rows]  # all there is of a row of an older version
        rewrite(out / LOG, [last.get((line["id"], line["sample"]), line) for line in plain])
        return {
            "rows": len(rows),
            "tokens": sum(max(row.response_tokens, 0) for row in rows),
            "empty": sum(not row.response.strip() for row in rows),
            "finish": dict(Counter(row.finish for row in rows)),
        }


def read_samples(path: Path) -> list[Sample]:
    """The rows of a finished shard."""
    with (path / ROWS).open(encoding="utf-8") as handle:
        return [Sample(**json.loads(line)) for line in handle]


def read_log(path: Path) -> list[dict[str, Any]]:
    """How each row of a shard came about, in the order of the rows once it is finished."""
    return lines(path / LOG)
