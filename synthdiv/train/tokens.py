"""A mix as token ids of one student, tokenised once for every training on it; and its rows: cut or left out where they
are too long, and each of them counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthdiv.core.stage import Measured, Node, Stage, Work
from synthdiv.core.types import Artifact, DataError, Run
from synthdiv.mix.fine_tuning_set import read_mix
from synthdiv.models.chat import Chat, Pair
from synthdiv.models.load import tokenizer_of
from synthdiv.train.recipe import LossOn, Overlong, Recipe
from synthdiv.train.rows import Row
from synthdiv.train.schedule import Match

FILE = "tokens.parquet"


@dataclass
class Tokens(Stage):
    """Inputs: `student`, `mix`, `prompts`. Output: `tokens.parquet`, token ids `prompt` and `answer` of each row."""

    name = "tokens"
    unit = "rows"
    bytes_per_unit = 2000

    def input_names(self) -> tuple[str, ...]:
        return ("student", "mix", "prompts")

    def work(self, inputs: Mapping[str, Node], measured: Measured) -> Work:
        return Work(inputs["mix"].stage.rows)  # type: ignore[attr-defined]

    def build(self, inputs: Mapping[str, Artifact], out: Path, run: Run) -> dict[str, Any]:
        import pyarrow
        import pyarrow.parquet

        student, mix, prompts = inputs["student"], inputs["mix"], inputs["prompts"]
        chat = Chat.for_prompts(tokenizer_of(student), prompts)
        rows = read_mix(mix)
        pairs = rendered(chat, rows)
        lists = pyarrow.list_(pyarrow.int32())
        prompt_ids, answer_ids = (pyarrow.array(ids, lists) for ids in zip(*pairs, strict=True))
        columns = {"id": [row["id"] for row in rows], "prompt": prompt_ids, "answer": answer_ids}
        pyarrow.parquet.write_table(pyarrow.table(columns), out / FILE)
        lengths = [len(prompt) + len(answer) for prompt, answer in pairs]
        return {
            "rows": len(rows),
            "tokens": sum(lengths),
            "longest": max(lengths),
            "system_folded": chat.folded,
        }


def rendered(chat: Chat, mix: list[dict[str, Any]]) -> list[Pair]:
    """Token ids of each row of a mix."""
    prompts, answers, ids = ([row[name] for row in mix] for name in ("prompt", "response", "id"))
    return chat.pairs(prompts, answers, ids)


def read_tokens(artifact: Artifact) -> list[Pair]:
    """Token ids of each row of the mix, in its order."""
    import pyarrow.parquet

    columns = pyarrow.parquet.read_table(artifact.path / FILE).to_pydict()
    return list(zip(columns["prompt"], columns["answer"], strict=True))


def encode(stage: Recipe, mix: list[dict[str, Any]], pairs: Iterable[Pair]) -> tuple[list[Row], dict[str, int]]:
    """Rows of a mix from its token `pairs`, and how many were cut at `max_tokens`, left out for being longer, and left
    out because nothing of their answer is within it. Each row that stays has a supervised token."""
    counts = {"cut_rows": 0, "dropped_rows": 0, "unanswered_rows": 0}
    rows = []
    for item, (prompt, answer) in zip(mix, pairs, strict=True):
        ids = tuple((prompt + answer)[: stage.max_tokens])
        too_long = len(ids) < len(prompt) + len(answer)
        if len(ids) <= max(len(prompt), 1):  # nothing predicts the first token of a text
            counts["unanswered_rows"] += 1
        elif too_long and stage.overlong is Overlong.drop:
            counts["dropped_rows"] += 1
        else:
            counts["cut_rows"] += too_long
            first = len(prompt) if stage.loss_on is LossOn.answer else 0
            rows.append(Row(ids, first, item.get("source", ""), item["id"]))
    if not rows:
        raise DataError(
            f"train.max_tokens={stage.max_tokens} leaves no row of {len(mix)}: {counts['dropped_rows']} are longer and "
            f"of {counts['unanswered_rows']} the whole answer would be cut away; raise it"
        )
    declared(stage, counts["dropped_rows"], len(mix))
    return rows, counts


def declared(stage: Recipe, dropped: int, rows: int) -> None:
    """Raise where more rows were left out for being too long than is declared: they differ between arms, which then no
    longer train on the same prompts. A prompt that leaves no room for an answer is the same in every arm."""
    if stage.match is Match.rows and dropped / rows > stage.left_out:
        share = math.ceil(1000 * dropped / rows) / 1000
        raise DataError(
            f"train.overlong=drop leaves out {dropped} of {rows} rows, and of another arm it may be others: their "
            f"budgets no longer match. Raise train.max_tokens={stage.max_tokens}, cut rows (train.overlong=cut), or "
            f"declare it: train.left_out={share:g} report.unmatched=true"
        )


def cut(pairs: list[Pair], longest: int, everything: bool = False) -> list[Row]:
    """Each pair as a row of at most `longest` tokens with at least one token of the answer; no pair is left out."""
    rows = []
    for prompt, answer in pairs:
        kept = prompt[: longest - 1]
        rows.append(Row((*kept, *answer[: longest - len(kept)]), 0 if everything else len(kept)))
    return rows
