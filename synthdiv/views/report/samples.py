"""Answers to the same prompts by every arm, side by side. Confidential answers are in no page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from synthdiv.core.files import read_rows
from synthdiv.core.ledger import CellRecord, Ledger, NodeRecord
from synthdiv.views.report.arms import Arm
from synthdiv.views.report.collect import finished, manifest, read_or, vanilla_key
from synthdiv.views.report.labels import Labels

MOST = 40  # prompts in the page
PAGE_CHARACTERS = 4_000_000  # of answers in the page; answers are cut to keep it
Rows = list[dict[str, Any]]
LONGEST = 1500  # characters of an answer in the page


@dataclass
class Samples:
    """`prompts` have `id`, `category`, `prompt` and the `human` answer; `answers` are by arm, then by prompt."""

    decoding: str = ""
    prompts: list[dict[str, str]] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    answers: list[list[str | None]] = field(default_factory=list)
    answer_rows: list[dict[str, Any]] = field(default_factory=list)
    """The first answers of these cells to all prompts, as the file beside the page has them."""

    def page(self) -> dict[str, Any]:
        cells = max(1, len(self.arms) * len(self.prompts))
        most = max(80, min(LONGEST, PAGE_CHARACTERS // cells))
        answers = [[cut(answer, most) for answer in row] for row in self.answers]
        prompts = [{name: cut(words, LONGEST) for name, words in prompt.items()} for prompt in self.prompts]
        return {"decoding": self.decoding, "prompts": prompts, "arms": self.arms, "answers": answers}


def cut(words: str | None, most: int) -> str | None:
    return words if words is None or len(words) <= most else f"{words[:most]} … ({len(words):,} characters)"


def samples_of(ledger: Ledger, arms: Sequence[Arm], labels: Labels) -> Samples:
    """The first answers of one cell of each arm to the first prompts of the stratified order of its prompt set: prompts
    of two sets can have the same id."""
    root, samples, answers = ledger.root, Samples(), list[tuple[str, dict[str, str]]]()
    nodes = {node.key: node for node in ledger.nodes()}
    records = {cell.key: cell for cell in ledger.unique_cells()}
    vanilla = {vanilla_key(cell.vanilla): cell for cell in records.values() if cell.vanilla}
    for arm in sorted(arms, key=labels.order):
        for row in arm.rows:
            cell = records.get(row.key) or vanilla[row.key]
            samples.decoding = "published" if "published" in cell.responses else next(iter(cell.responses), "")
            key = cell.responses.get(samples.decoding, "")
            key = key if row.key in records else vanilla_response(nodes, cell, key)
            if rows := read_or(Rows(), finished(root, key), first_answers):
                answers.append((cell.prompts, {row["id"]: row["response"] for row in rows}))
                samples.arms.append(labels.name(arm))
                samples.answer_rows += [{"arm": labels.name(arm), "cell": row.key} | answer for answer in rows]
                break
    sets = list(dict.fromkeys(key for key, _ in answers))[:MOST]
    of = {key: read_or(Rows(), finished(root, key), partial(first_prompts, most=MOST // len(sets))) for key in sets}
    samples.prompts = [prompt for prompts in of.values() for prompt in prompts]
    samples.answers = [
        [texts.get(prompt["id"]) if key == prompt_set else None for key, prompts in of.items() for prompt in prompts]
        for prompt_set, texts in answers
    ]
    return samples


def vanilla_response(nodes: dict[str, NodeRecord], cell: CellRecord, key: str) -> str:
    """The vanilla student's answers to the same prompts with the same sampling, empty where no suite has them."""

    def asks(node: NodeRecord | None) -> Any:
        return node and (node.stage, node.inputs.get("prompts"), node.fields.get("sampling"))

    signature = asks(nodes.get(key))
    inputs = (inner for suite in cell.vanilla.values() if suite in nodes for inner in nodes[suite].inputs.values())
    return next((inner for inner in inputs if signature and asks(nodes.get(inner)) == signature), "")


def first_prompts(path: Path, most: int) -> Rows:
    """The first test prompts of the stratified order. A confidential set has none."""
    if manifest(path).get("confidential", True):
        return []
    columns = ["id", "category", "prompt", "response", "split", "position"]
    rows = read_rows(path / "prompts.parquet", columns=columns)
    test = sorted((row for row in rows if row["split"] == "test"), key=lambda row: row["position"])[:most]
    return [{name: row[name] or "" for name in columns[:3]} | {"human": row["response"] or ""} for row in test]


def first_answers(path: Path) -> Rows:
    """The first answer to each prompt; none of a confidential artifact."""
    if manifest(path).get("confidential", True):
        return []
    with (path / "rows.jsonl").open(encoding="utf-8") as handle:
        rows = [row for row in map(json.loads, handle) if row["sample"] == 0]
    return [{name: row[name] for name in ("id", "response", "finish")} for row in rows]
