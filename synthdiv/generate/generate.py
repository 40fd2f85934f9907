"""Answers of one source to one shard of prompts. A tuned student is a generator too: `respond` is this stage."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.runtime import Runtime
from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run, Sample
from synthdiv.generate.answer import LOG, ROWS, Answer, Answers, Request, Shard, append, lines, rewrite
from synthdiv.generate.endpoint import server_of
from synthdiv.generate.spec import AT_ONCE, MODELLESS, RESUMING, SERVERS, Backend, Recorded, Sampling
from synthdiv.generate.spend import OverBudget, totals
from synthdiv.generate.stream import row_seed
from synthdiv.models.chat import part_thinking
from synthdiv.models.load import Precision
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.shards import Grid

TEMPERATURE = "temperature.json"  # of an artifact that tunes a temperature
SYNC_SECONDS = 1.0  # between two syncs of rows to the disk


class Split(Enum):
    """The split of the prompt set that is answered."""

    train = "train"
    test = "test"
    target = "target"


@dataclass
class Generate(Stage):
    """Answers of one source to one shard of the train prompts, or to all prompts of another split.

    Inputs: `prompts`, and `model` but for recorded answers. Output: `rows.jsonl`, one `Sample` a line, and
    `requests.jsonl`, one line for each of these rows on how it was made: `id`, `sample`, the `thinking` that came
    before the answer, and what the backend reports.
    """

    name = "generate"
    version = 2
    kept = (ROWS, LOG)
    model_input = "model"
    shows_texts = True
    unit = "rows"
    bytes_per_unit = 1500
    less_memory = "lower generators.batch_tokens for generators, or evaluate.batch_tokens for the evaluation"

    source: str = ""
    """The name of the source; part of each row's random stream."""
    backend: Backend = Backend.hf
    """What runs the model."""
    recorded: Recorded | None = None
    """The file of recorded answers; null for other backends."""
    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are drawn."""
    precision: Precision = Precision.fp32
    """The format of the weights."""
    batch_tokens: int = 16384
    """Bound on rows × (prompt + answer) of a batch: which rows share a batch can change the last bits of logits."""
    seed: int = 0
    """Seed of the rows' random streams."""
    round: int = 0
    """The round of the study; part of each row's random stream."""
    split: Split = Split.train
    """The split that is answered."""
    rows: int = 0
    """Prompts of the split that are answered, the first in its order; 0: all, outside of the train split."""
    shard_rows: int = 0
    """The most prompts of a shard of the train split."""
    shard: int = 0
    """The number of the shard; other splits are one shard."""
    first: int = setting(0, before=0)
    """The place in the order of the train prompts of the first of `rows`."""
    samples: int = 1
    """Answers to each prompt; outside of the train split, to the first `subset` prompts."""
    subset: int = 0
    """Outside of the train split: how many prompts, in stratified order, get `samples` answers; the others get one."""
    top_logprobs: int = 0
    """Log-probabilities of that many tokens at each place go into `requests.jsonl`; 0: none."""
    tuned: bool = setting(False, before=False)
    """The temperature is that of the input `temperature`, and not that of `sampling`."""

    @property
    def kind(self) -> str:
        """Each backend but `hf` has rates and needs of its own."""
        return self.name if self.backend is Backend.hf else self.backend.value

    def input_names(self) -> tuple[str, ...]:
        return ("prompts",) if self.backend in MODELLESS else ("prompts", "model", *["temperature"] * self.tuned)

    def answers(self) -> int:
        """How many answers it writes."""
        if self.split is Split.train:
            return self.samples * len(Grid(self.rows, self.shard_rows).positions(self.shard))
        return self.rows + (self.samples - 1) * min(self.subset, self.rows)

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        if self.backend in AT_ONCE:
            return Work(self.answers())
        count, length = self.answers(), self.answer_tokens(inputs, measured)
        return Work(count, new_tokens=count * length, read_tokens=count * prompt_tokens(inputs, measured))

    def devices(self, runtime: Runtime) -> int:
        if self.backend in (Backend.api, *MODELLESS):
            return 0
        return runtime.tensor_parallel if self.backend is Backend.vllm else 1

    def answer_tokens(self, inputs: Mapping[str, Node], measured: Measured) -> float:
        """New tokens of one answer."""
        length = measured.ratio(self.kind, "tokens", "rows", inputs["model"].key)
        length = length or inputs["prompts"].stage.assumed_tokens[1]  # type: ignore[attr-defined]
        return min(self.sampling.max_new_tokens, length)

    def together(self, inputs: Mapping[str, Node], runtime: Any) -> int:
        """As many shards of a hosted source as fill its places in flight while one of them ends."""
        if self.backend is not Backend.api:
            return 1
        concurrency = server_of(inputs["model"].stage.server, runtime).concurrency  # type: ignore[attr-defined]
        return 1 + math.ceil(concurrency / max(1, self.answers()))

    def requests(self, prompts: Artifact, model: str) -> list[Request]:
        rows = read_prompts(prompts, self.split.value)
        train = self.split is Split.train
        if train:
            positions = [self.first + place for place in Grid(self.rows, self.shard_rows).positions(self.shard)]
            rows = [rows[position] for position in positions if position < len(rows)]  # judge prompts may be fewer
        elif self.rows:
            rows = rows[: self.rows]
        named = (self.seed, model, self.source, self.split.value, self.round)
        return [
            Request(row["id"], row["prompt"], sample, row_seed(*named, row["id"], sample))
            for row in rows
            for sample in range(self.samples if train or row["position"] < self.subset else 1)
        ]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        if self.tuned:
            how = json.loads((inputs["temperature"].path / TEMPERATURE).read_text("utf-8"))
            tuned = dataclasses.replace(self, sampling=dataclasses.replace(self.sampling, **how), tuned=False)
            return tuned.build(inputs, out, run)
        model = inputs["model"].key if "model" in inputs else ""
        requests = self.requests(inputs["prompts"], model)
        shard = Shard(self, requests, inputs, out, run, {})
        backend = importlib.import_module(f"synthdiv.generate.{self.backend.value}")
        chunks: Answers = backend.answers(shard)
        before = lines(out / LOG)  # a line that was cut must not swallow the next
        with (
            (out / LOG).open("a", encoding="utf-8") as log,
            (out / ROWS).open("a" if self.backend in RESUMING else "w", encoding="utf-8") as rows,
            contextlib.closing(chunks),
        ):
            synced = time.monotonic()

            def write(chunk: list[tuple[Request, Answer]]) -> None:
                """The log first: a row that is on the disk has its line. A kill of this process loses no line that was
                written, a power failure those of a second."""
                nonlocal synced
                sync, notes, samples = time.monotonic() - synced > SYNC_SECONDS, [], []
                for request, answer in chunk:
                    thinking, text = part_thinking(answer.text)
                    thinking_fields = {"thinking": thinking} if thinking else {}
                    notes.append({"id": request.id, "sample": request.sample} | thinking_fields | answer.log)
                    samples.append(vars(self._sample(request, answer, text, model)))
                append(log, notes, sync)
                append(rows, samples, sync)
                synced = time.monotonic() if sync else synced

            def keep() -> None:
                shard.stopping = True
                for chunk in chunks:
                    write(chunk)

            done, usd = 0, sum(line.get("usd", 0.0) for line in before)
            for chunk in quoting_nothing(chunks) if inputs["prompts"].confidential else chunks:
                write(chunk)
                done, usd = done + len(chunk), usd + sum(answer.log.get("usd", 0.0) for _, answer in chunk)
                paid = f" for {usd:.2f} USD" if usd else ""
                run.progress(shard.resumed_rows + done, len(requests), f"answers by {self.source}{paid}", keep)
        return shard.facts | self._settled(out, requests, inputs["prompts"].confidential)

    def _sample(self, request: Request, answer: Answer, text: str, model: str) -> Sample:
        if self.backend in MODELLESS:
            return Sample(request.id, request.prompt, text, self.source, sample=request.sample, finish=answer.finish)
        return Sample(
            request.id, request.prompt, text, self.source, model, request.sample, self.sampling.temperature,
            self.sampling.top_p, request.stream, answer.finish, answer.prompt_tokens, answer.response_tokens,
        )  # fmt: skip

    def _settled(self, out: Path, requests: list[Request], confidential: bool) -> dict[str, Any]:
        """Check that there is one row for each request, in the order of requests where they came as they could. What a
        server says of a prompt can quote it: of confidential ones the summary, which everybody reads, has the ids."""
        rows = read_samples(out, failed=True)
        order = {(item.id, item.sample): place for place, item in enumerate(requests)}
        if Counter((row.id, row.sample) for row in rows) != Counter([*order]):
            raise DataError(f"{self.source}: the rows written are not one for each of the {len(requests)} requests")
        if self.backend in SERVERS:
            rows.sort(key=lambda row: order[row.id, row.sample])
            rewrite(out / ROWS, [vars(row) for row in rows])
        last = {(line["id"], line["sample"]): line for line in read_log(out)}  # the later one of those sent twice
        log = [last.get((row.id, row.sample), {"id": row.id, "sample": row.sample}) for row in rows]
        rewrite(out / LOG, log)
        failed = {row.id: line.get("failed") for row, line in zip(rows, log, strict=True) if row.finish == "failed"}
        failed = dict.fromkeys(failed, f"see {LOG}") if confidential else failed
        return {
            **(totals(log) if self.backend in SERVERS else {}),
            **({"failed": failed} if failed else {}),
            "rows": len(rows),
            "tokens": sum(max(row.response_tokens, 0) for row in rows),
            "empty": sum(not row.response.strip() for row in rows),
            "finish": dict(Counter(row.finish for row in rows)),
        }


def quoting_nothing(chunks: Answers) -> Iterator[list[tuple[Request, Answer]]]:
    """The same; an error, whose text goes to logs, does not quote a request."""
    try:
        yield from chunks
    except OverBudget:  # it quotes nothing
        raise
    except DataError as error:
        raise type(error)(
            "a request of a confidential prompt set was not answered; the message is withheld, because it can quote "
            "the request. Answers that arrived are kept: run the same command again later. If that does not help, let "
            "the model answer a prompt set that is not confidential, whose errors are shown"
        ) from None


def prompt_tokens(inputs: Mapping[str, Node], measured: Measured) -> float:
    """Tokens of a prompt: what trainings read beside the answers."""
    read, supervised = (measured.ratio("train", name, "rows_seen") for name in ("tokens", "supervised_tokens"))
    if read and supervised and read > supervised:
        return read - supervised
    return float(inputs["prompts"].stage.assumed_tokens[0])  # type: ignore[attr-defined]


def read_samples(path: Path, failed: bool = False) -> list[Sample]:
    """The rows of a finished shard. Raises DataError if one has the outcome `failed`, unless the caller handles these:
    their empty text is no answer."""
    with (path / ROWS).open(encoding="utf-8") as handle:
        rows = [Sample(**json.loads(line)) for line in handle]
    ids = [row.id for row in rows if row.finish == "failed"]
    if ids and not failed:
        raise DataError(
            f"{rows[0].source} failed on {len(ids)} of {len(rows)} prompts ({', '.join(ids[:5])}); {path / LOG} says "
            "why. Leave these out by `where` of their table, or lower max_new_tokens if they are too long with it"
        )
    return rows


def read_log(path: Path) -> list[dict[str, Any]]:
    """How each row of a shard came about, in the order of the rows once it is finished."""
    return lines(path / LOG)
