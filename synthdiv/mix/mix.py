"""The fine-tuning set: each prompt with the answer of the source that owns it, in exact counts."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.fields import setting
from synthdiv.core.lazy import np
from synthdiv.core.types import Artifact, DataError, Run, Sample
from synthdiv.generate.generate import read_samples
from synthdiv.measures.spectrum import effective_number
from synthdiv.mix.allocate import allocate, further_rows, needed_shards, window
from synthdiv.mix.filters import FilteredSet
from synthdiv.mix.fine_tuning_set import read_mix, write_mix
from synthdiv.prompts.prompt_set import read_prompts
from synthdiv.prompts.shards import Grid

OVERLAP = "overlap:"  # what names of inputs that are evaluation sets begin with
LOGGED_EMPTY = 0.01  # a share of empty answers above this is logged


@dataclass
class Mix(FilteredSet):
    """A fine-tuning set. Inputs: `prompts`, and `SOURCE/SHARD` for every shard that a source must answer.

    Output: `mix.parquet`, one row a prompt, in order, with the columns of `Sample` and `position`.
    """

    name = "mix"

    rows: int = 0
    """Prompts of the set."""
    sources: list[str] = field(default_factory=list)
    """Names of the sources that share the generated rows."""
    weights: list[float] = field(default_factory=list)
    """The share of each source; they sum to 1."""
    real_share: float = 0.0
    """The share of rows with human answers."""
    rotation: int = 0
    """Shifts which source owns which shard."""
    train_rows: int = 0
    """Train prompts that the grid of shards covers; 0 for a human set of the first ones."""
    shard_rows: int = 0
    """The most prompts of a shard; 0 for a human set."""
    sample: int = 0
    """Which of several answers to a prompt is taken."""
    leave_out: list[str] = field(default_factory=list)
    """Ids of train prompts that the set leaves out, whoever owns them."""
    real_rows: int = setting(0, least=0, before=0)
    """The first so many rows have human answers, in place of a share; 0: `real_share` counts."""
    real_rotation: int = setting(0, before=0)
    """Shifts where the rows begin in the order of the train prompts."""
    first: int = setting(0, before=0)
    """The place in the order of the train prompts of the first row's prompt."""
    real_first: int = setting(0, before=0)
    """The same of human rows."""
    round: int = setting(0, before=0)
    """The round of the study; rows of later rounds have it as a column."""
    evaluated: list[str] = setting(make=list, before=[])  # noqa: RUF009
    """Evaluation sets of suites, each an input."""
    level: bool = setting(False, before=False)
    """The generated rows are those of the input `level`, in their order."""

    @property
    def grid(self) -> Grid:
        return Grid(self.train_rows, self.shard_rows)

    def allocation(self) -> list[int]:
        """The index of the source of each row, -1 for human."""
        how = (self.rotation, self.real_rows, self.real_rotation)
        return allocate(self.grid, self.rows, self.weights, self.real_share, *how)

    def positions(self) -> list[int]:
        """The place of each row in the order of the train prompts."""
        places = window(self.train_rows or self.rows, self.rows, self.real_rotation)
        if not self.first and not self.real_first:
            return places
        begins = [self.real_first if owner < 0 else self.first for owner in self.allocation()]
        return [place + begin for place, begin in zip(places, begins, strict=True)]

    def shards(self) -> dict[int, list[int]]:
        """The shards that each source must answer, by the index of the source."""
        if not self.sources or self.level:
            return {}
        how = (self.real_share, self.rotation, self.real_rows, self.real_rotation)
        return needed_shards(self.grid, self.rows, tuple(self.weights), *how, self.further)

    @property
    def further(self) -> int:
        """How many further prompts there are for the place of rows that filters remove."""
        return math.ceil(self.spare * self.rows)

    def spares(self) -> list[tuple[int, str]]:
        """The positions of further prompts, with the source of the shard (not where a level selects the rows, from a
        pool that is filtered), and with `human` if the mix has humans. Selected rows have no positions: further prompts
        follow the first `real_rows`, as in a mix of these alone."""
        how = (self.weights, self.rotation, self.real_rotation, self.further)
        human = ["human"] if not self.sources or self.real_share or self.real_rows else []
        rows = self.real_rows if self.level and self.real_rows else self.rows
        return [(position + (self.real_first if name == "human" else self.first), name)
                for position, source in further_rows(self.grid, rows, *how)
                for name in (*self.sources[source:source + 1] * (not self.level), *human)]  # fmt: skip

    def input_names(self) -> list[str]:
        sets = [f"{OVERLAP}{name}" for name in self.evaluated]
        sets += ["level"] if self.level else []
        return ["prompts", *sets, *(shard_input(self.sources[index], shard) for index, shards in self.shards().items()
                                    for shard in shards)]  # fmt: skip

    def owners(self) -> list[str]:
        """The source of each row."""
        return ["human" if index < 0 else self.sources[index] for index in self.allocation()]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        prompts = inputs["prompts"]
        answers = {
            (row.source, row.id): row
            for name, shard in inputs.items()
            if "/" in name
            for row in read_samples(shard.path, failed=True)
            if row.sample == self.sample
        }
        rows, selected = list[dict[str, Any]](), iter(read_mix(inputs["level"]) if self.level else ())
        failed: dict[str, list[str]] = {}
        train = read_prompts(prompts, "train")
        slots = [*zip(self.positions(), self.owners(), strict=True), *self.spares()]
        for place, (position, owner) in enumerate(slots):
            prompt = train[position]
            if prompt["id"] in self.leave_out:
                continue
            if owner != "human" and self.level:
                rows.append(next(selected) | {"position": place})
                continue
            if owner == "human":
                row = Sample(prompt["id"], prompt["prompt"], prompt["response"], "human")
            elif (owner, prompt["id"]) in answers:
                row = answers[owner, prompt["id"]]
            else:
                raise DataError(f"{owner} has no answer to prompt {prompt['id']}, which it owns")
            if row.finish == "failed" and place >= self.rows:
                continue
            if row.finish == "failed":
                failed.setdefault(owner, []).append(prompt["id"])
            in_round = {"round": self.round} if self.round else {}
            rows.append(dataclasses.asdict(row) | {"position": place} | in_round)
        further = enumerate(selected if self.spare else (), len(slots))
        rows += [row | {"position": place} for place, row in further]
        if failed:
            raise DataError(failure(failed, self.leave_out, self.owners()))
        for source in dict.fromkeys(owner for _, owner in slots if owner != "human") if self.round else ():
            if not any(row["response"].strip() for row in rows if row["source"] == source):
                raise DataError(only_empty(source, self.round))
        sets = {side: held_out for side in ("test", "target") if (held_out := read_prompts(prompts, side))}
        sets |= {name: read_prompts(inputs[f"{OVERLAP}{name}"], "test") for name in self.evaluated}
        rows, counts = self.filtered(rows, sets)
        if not rows:
            raise DataError(f"mix: its filters ({self.filters()}) leave no row; {counts['removed']}")
        write_mix(rows, out)
        sources = Counter(row["source"] for row in rows)
        return {
            "rows": len(rows),
            "left_out": self.leave_out,
            "sources": dict(sources),
            "effective_sources": effective_number(np.diag([count / len(rows) for count in sources.values()]), 1),
            "empty": sum(not row["response"].strip() for row in rows),
            "finish": finish_counts(rows, run),
            **counts,
        }


def shard_input(source: str, shard: int) -> str:
    """The name of the input that is a shard of a source."""
    return f"{source}/{shard}"


def only_empty(source: str, number: int) -> str:
    """The message that a student has collapsed to silence."""
    return (
        f"round {number}: {source} wrote only empty text, from which nothing can be learned; earlier rounds are kept. "
        "Look at its answers with `synthdiv trace`, or change rounds.sampling or the recipe"
    )


def failure(failed: dict[str, list[str]], left_out: list[str], owners: list[str]) -> str:
    """The message that sources have failed on prompts that they own, by id, with the override that leaves these out."""
    counts = [
        f"{source} has no answer to {len(ids)} of its {owners.count(source)} prompts ({', '.join(ids[:5])})"
        for source, ids in failed.items()
    ]
    all_ids = sorted({*left_out, *(name for ids in failed.values() for name in ids)})
    names = [name if re.fullmatch(r"[A-Za-z][\w-]*", name) else json.dumps(name) for name in all_ids]
    override = shlex.quote(f"mix.leave_out=[{','.join(names)}]")
    return f"{'; '.join(counts)}. Leave them out of all cells that are compared, with {override}"


def finish_counts(rows: list[dict[str, Any]], run: Run) -> dict[str, dict[str, int]]:
    """The number of answers by source and finish reason. Refusals and other empty answers are logged, because training
    on them teaches a student to answer nothing."""
    counts: dict[str, Counter[str]] = {}
    empty = Counter[str]()
    for row in rows:
        counts.setdefault(row["source"], Counter())[row["finish"]] += 1
        empty[row["source"]] += not row["response"].strip()
    for source, count in sorted(counts.items()):
        if empty[source] > LOGGED_EMPTY * count.total():
            refused = f", {count['refusal']} of them refusals" if count["refusal"] else ""
            run.log(f"mix: {empty[source]} of the {count.total()} answers of {source} are empty{refused}")
    return {source: dict(count) for source, count in sorted(counts.items())}
