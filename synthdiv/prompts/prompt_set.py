"""The prompt set: instructions and their human answers, if any; split by group, each split in a fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthdiv.core.fields import problems, setting
from synthdiv.core.files import read_rows, write_rows
from synthdiv.core.resolver import Resolver, unchanged
from synthdiv.core.stage import ANSWER_TOKENS, PROMPT_TOKENS, Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.models.chat import DEFAULT_TEMPLATE
from synthdiv.prompts.split import groups, ordered, split
from synthdiv.prompts.table import Table, prompt_records
from synthdiv.prompts.toy import Law
from synthdiv.prompts.toy_world import Pool, ToyPrompt, World, pool_members

FILE = "prompts.parquet"


@dataclass
class ToyPrompts:
    """Prompts of a toy world, with human answers drawn from its law."""

    rows: int = 2000
    """Prompts in all, at most as many as the world has."""
    world: World = field(default_factory=World)
    """The world."""
    pool: Pool = setting(Pool.study, before=Pool.study)  # noqa: RUF009
    """Which prompts: those of a study; requests on the topic that students are trained to refuse; prompts that only
    name a word of it; or prompts about facts that students know, all or those that some learn to judge. Studies
    have the first, suites the others."""
    planted: float = setting(0.0, least=0, below=1, before=0.0)
    """Share of the rows that ask about the refused topic and are answered, not refused; all are train rows."""

    def check(self, name: str) -> list[str]:
        if problems(self.world):
            return []  # problems of the world are reported by its own check
        counts = {pool: int(pool_members(self.world, pool).sum()) for pool in (self.pool.value, "planted")}
        if not 1 <= self.rows <= counts[self.pool.value]:
            most = f"{counts[self.pool.value]}, all the {self.pool.value} prompts of this world"
            return [f"{name}.rows={self.rows}: needs 1 to {most}"]
        if self.planted_rows > counts["planted"]:
            return [f"{name}.planted={self.planted}: {self.planted_rows} rows; this world has {counts['planted']}"]
        return []

    @property
    def planted_rows(self) -> int:
        return round(self.planted * self.rows)


@dataclass
class Prompts(Stage):
    """A prompt set: instructions from a toy world, a file or the hub, split into train, test and target.

    `system`, `date` and `template` are part of every rendering of these prompts, in training and in inference.
    """

    name, version = "prompts", 2
    unit = "rows"
    bytes_per_unit = 500

    toy: ToyPrompts | None = None
    """A toy world; null: `table`."""
    table: Table | None = None
    """A file or a hub dataset; null: `toy`."""
    test: int = setting(200, least=1)
    """Rows held out for evaluation."""
    target: int = setting(0, least=0)
    """Rows held out as the target distribution that shifts are measured against."""
    seed: int = setting(42, seed=True)
    """Seed of the split, of the order of the rows and of a toy world's answers."""
    system: str | None = None
    """The system prompt; null: none."""
    date: str = "2026-01-01"
    """The date that chat templates may show, fixed so that no rendering changes from day to day."""
    template: str = DEFAULT_TEMPLATE
    """The chat template (Jinja) for tokenizers without one."""
    licence: str = setting("", locator=True)
    """The terms of the prompts and of their human answers, for data cards; in no key."""

    def check(self, name: str) -> list[str]:
        wrong = []
        if (self.toy is None) == (self.table is None):
            wrong.append(
                f"{name}.toy, {name}.table: give one of the two; choose prompts=toy, prompts=files or prompts=hub"
            )
        elif self.toy and self.toy.pool is not Pool.study:
            wrong.append(f"{name}.toy.pool={self.toy.pool.value}: a study has the prompts of pool study")
        elif self.rows and self.train_rows < 1:
            wrong.append(f"{name}.test={self.test}, {name}.target={self.target}: leave no train row of {self.rows}")
        return wrong

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        return Work(units=self.rows)

    @property
    def assumed_tokens(self) -> tuple[int, int]:
        """Tokens of a prompt and of an answer, for plans where nothing was measured: a toy world's are short."""
        return (30, 15) if self.toy else (PROMPT_TOKENS, ANSWER_TOKENS)

    @property
    def rows(self) -> int:
        """Rows of the whole set; 0 while it is not resolved."""
        return self.toy.rows if self.toy else self.table.rows if self.table else 0

    @property
    def train_rows(self) -> int:
        """The smallest possible number of train rows: a split of large groups may leave a few more."""
        return self.rows - self.test - self.target

    @property
    def human(self) -> bool:
        """Whether the prompts have human answers."""
        return bool(self.toy or (self.table and self.table.columns.response))

    def resolve(self, resolver: Resolver) -> None:
        """Fill in content hashes and row counts. This checks every row before anything runs."""
        if self.table:
            self.table.resolve("prompts.table", resolver, prompt_records)

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        if self.table:
            unchanged("prompts.table.path", self.table.path, self.table.sha256)
        records = self.records()
        if len(records) != self.rows:
            raise DataError(f"the prompt set has {len(records)} rows and had {self.rows} when it was resolved")
        self.split(records)
        write_rows(records, out / FILE)
        sizes = Counter(record["split"] for record in records)
        if not sizes["test"]:
            raise DataError(f"prompts.test={self.test}: no group of prompts is small enough to be held out")
        groups_of = {record["group"] for record in records}
        return {"rows": len(records), "groups": len(groups_of), **sizes, "test_asked": self.test}

    def records(self) -> list[dict[str, Any]]:
        """The rows, not yet split."""
        if self.toy:
            return toy_records(self.toy, self.seed)
        assert self.table, "check() requires one of the two"
        return prompt_records(self.table, "prompts.table")

    def split(self, records: list[dict[str, Any]]) -> None:
        """Give each row its group, split and position, and sort the rows by these."""
        members = groups(records)
        planted = sum(record.get("planted", False) for record in records)  # the last ones
        count = len(records) - planted
        sides = split(records[:count], members[:count], {"test": self.test, "target": self.target}, self.seed)
        for record, member, side in zip(records, members, [*sides, *["train"] * planted], strict=True):
            record.update(group=member, split=side, position=-1)
        for side in ("train", "test", "target"):
            indices = [index for index, record in enumerate(records) if record["split"] == side]
            for position, index in enumerate(ordered(records, indices, self.seed)):
                records[index]["position"] = position
        records.sort(key=lambda record: (record["split"], record["position"]))


def toy_records(toy: ToyPrompts, seed: int) -> list[dict[str, Any]]:
    """Prompts of the toy world with one human answer each."""
    law = Law(toy.world)
    prompts = law.prompts(toy.rows - toy.planted_rows, toy.pool.value, seed)
    prompts += law.prompts(toy.planted_rows, "planted", seed)
    answers = law.sample(prompts, law.human, seed)
    return [
        {
            "id": f"toy-{prompt.category}-{prompt.relation}-{prompt.entity}-{prompt.phrasing}",
            "prompt": prompt.text,
            "instruction": prompt.text,
            "context": "",
            "response": answer,
            "category": str(prompt.category),
            "entity": prompt.entity,
            "relation": prompt.relation,
            "phrasing": prompt.phrasing,
        }
        | ({"planted": row >= toy.rows - toy.planted_rows} if toy.planted else {})
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


def read_prompts(artifact: Artifact, side: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Rows of one split in their order, the first `limit` of them: columns id, prompt, response, category, position."""
    rows = read_rows(artifact.path / FILE, filters=[("split", "=", side)])
    return sorted(rows, key=lambda row: row["position"])[:limit]


def toy_prompt(row: dict[str, Any]) -> ToyPrompt:
    """The toy world's own record of a prompt row."""
    return ToyPrompt(int(row["category"]), row["entity"], row["relation"], row["phrasing"], row["prompt"])
